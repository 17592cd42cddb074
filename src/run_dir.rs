//! The layout of a run directory, and the only place where files are replaced.

use std::fs::{File, Permissions, TryLockError};
use std::io::{BufRead, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::config::{Config, Keep};
use crate::data::source::Skipped;
use crate::error::Error;
use crate::labels::{LabelRecord, to_json_lines};
use crate::record::Record;

const LOCK: &str = ".lock";

/// A run on disk.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Held by whoever trains.
    _lock: Option<File>,
}

impl RunDir {
    /// # Errors
    /// [`Error::RunExists`] where a run lies at `path`, [`Error::Occupied`] where anything else does.
    pub fn check_free(path: &Path) -> Result<()> {
        let path = PathBuf::from(path);
        if path.join("config.toml").is_file() {
            return Err(Error::RunExists { path }.into());
        }
        // A run that was killed before its first file leaves nothing but its lock.
        let occupied = path.read_dir().is_ok_and(|entries| {
            let mut names = entries.flatten().map(|entry| entry.file_name());
            names.any(|name| name != LOCK)
        });
        if occupied || (path.exists() && !path.is_dir()) {
            return Err(Error::Occupied { path }.into());
        }
        Ok(())
    }

    /// Makes a new run and locks it.
    ///
    /// # Errors
    /// As [`Self::check_free`], and where no directory can be made.
    pub fn create(path: &Path) -> Result<Self> {
        Self::check_free(path)?;
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the run directory '{}'", path.display()))?;
        Self {
            path: path.into(),
            _lock: None,
        }
        .locked()
    }

    /// Opens a run to read it.
    ///
    /// # Errors
    /// [`Error::NotARun`] where there is none, or one that this version cannot read.
    pub fn open(path: &Path) -> Result<Self> {
        let not_a_run = |reason: &str| Error::NotARun {
            path: path.into(),
            reason: reason.into(),
        };
        if !path.exists() {
            return Err(not_a_run("it does not exist").into());
        }
        if !path.is_dir() {
            return Err(not_a_run("it is a file, a run is a directory").into());
        }
        if !path.join("config.toml").is_file() {
            return Err(not_a_run("it has no config.toml").into());
        }
        Ok(Self {
            path: path.into(),
            _lock: None,
        })
    }

    /// Takes the lock, so that no second process trains this run.
    pub fn locked(self) -> Result<Self> {
        let place = self.path.join(LOCK);
        let lock = File::create(&place)
            .with_context(|| format!("cannot write into '{}'", self.path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                _lock: Some(lock),
                ..self
            }),
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("another process is training '{}'", self.path.display())
            }
            // Some network file systems have no locks; training there is better than not at all.
            Err(TryLockError::Error(_)) => Ok(self),
        }
    }

    /// Removes a run in which nothing has been written yet.
    pub fn discard(self) {
        // Whatever else lies there is not ours to remove, and then the directory stays.
        let _ = std::fs::remove_file(self.path.join(LOCK));
        let _ = std::fs::remove_dir(&self.path);
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn model(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    pub fn clustering(&self) -> PathBuf {
        self.path.join("clustering.safetensors")
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint").join("state.safetensors")
    }

    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    pub fn labels(&self) -> PathBuf {
        self.path.join("labels.jsonl")
    }

    pub fn config(&self) -> Result<Config> {
        let place = self.path.join("config.toml");
        let text = std::fs::read_to_string(&place)
            .with_context(|| format!("cannot read '{}'", place.display()))?;
        toml::from_str(&text).map_err(|error| {
            Error::NotARun {
                path: self.path.clone(),
                reason: format!("config.toml: {error}"),
            }
            .into()
        })
    }

    pub fn write_config(&self, config: &Config) -> Result<()> {
        replace(&self.path.join("config.toml"), config.to_toml()?.as_bytes())
    }

    pub fn write_metrics(&self, records: &[Record]) -> Result<()> {
        replace(&self.path.join("metrics.jsonl"), &to_json_lines(records))
    }

    pub fn read_metrics(&self) -> Result<Vec<Record>> {
        read_json_lines(&self.path.join("metrics.jsonl"))
    }

    pub fn write_skipped(&self, skipped: &[Skipped]) -> Result<()> {
        replace(&self.path.join("skipped.jsonl"), &to_json_lines(skipped))
    }

    pub fn read_skipped(&self) -> Result<Vec<Skipped>> {
        read_json_lines(&self.path.join("skipped.jsonl"))
    }

    pub fn read_labels(&self) -> Result<Vec<LabelRecord>> {
        read_json_lines(&self.labels())
    }

    /// Writes the newest labels.
    pub fn write_labels(&self, records: &[LabelRecord]) -> Result<()> {
        replace(&self.labels(), &to_json_lines(records))
    }

    /// Writes the labels of a step at `epoch` and removes those that `keep` does not want.
    pub fn keep_step_labels(&self, records: &[LabelRecord], epoch: f64, keep: Keep) -> Result<()> {
        if keep == Keep::Newest(0) {
            return Ok(());
        }
        let directory = self.path.join("labels");
        let hundredths = (epoch * 100.0).round() as u64;
        let name = match hundredths % 100 {
            0 => format!("epoch-{:04}.jsonl", hundredths / 100),
            part => format!("epoch-{:04}.{part:02}.jsonl", hundredths / 100),
        };
        replace(&directory.join(name), &to_json_lines(records))?;
        if let Keep::Newest(count) = keep {
            let ours = |path: &PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("epoch-") && name.ends_with(".jsonl")
            };
            let mut files: Vec<PathBuf> = directory
                .read_dir()?
                .flatten()
                .map(|entry| entry.path())
                .filter(ours)
                .collect();
            // `epoch-0007.50.jsonl` follows `epoch-0007.jsonl`: compare without the extension.
            files.sort_by_key(|file| file.file_stem().map(|stem| stem.to_os_string()));
            for old in files.iter().rev().skip(count) {
                std::fs::remove_file(old)?;
            }
        }
        Ok(())
    }
}

/// Puts `bytes` at `path` so that a reader at any moment, and after a crash, sees the old file or
/// the new one. Folders on the way are made. Devices and pipes are written to.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(directory_of(path))?;
        let mut replacement = Replacement::open(path)?;
        replacement.file().write_all(bytes)?;
        replacement.commit()
    };
    write().with_context(|| format!("cannot write '{}'", path.display()))
}

/// The same for what is written piece by piece.
pub fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>,
) -> Result<()> {
    let work = || -> Result<()> {
        std::fs::create_dir_all(directory_of(path))?;
        let mut replacement = Replacement::open(path)?;
        let mut buffer = BufWriter::new(replacement.file());
        write(&mut buffer)?;
        buffer.flush()?;
        drop(buffer);
        Ok(replacement.commit()?)
    };
    work().with_context(|| format!("cannot write '{}'", path.display()))
}

/// A file that appears at its place when it is complete, or a device or pipe, which must not be
/// replaced by a file and is written directly.
#[derive(Debug)]
pub enum Replacement {
    File {
        path: PathBuf,
        temporary: NamedTempFile,
    },
    Special(File),
}

impl Replacement {
    /// For `path`, whose folder must exist.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let special = |found: std::fs::Metadata| !found.is_file() && !found.is_dir();
        if path.metadata().is_ok_and(special) {
            return Ok(Self::Special(File::options().write(true).open(path)?));
        }
        // tempfile's files are private; ours get the mode that the user's umask gives.
        let temporary = tempfile::Builder::new()
            .prefix(".ssl-cluster-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory_of(path))?;
        Ok(Self::File {
            path: path.into(),
            temporary,
        })
    }

    /// Where the bytes go.
    pub fn file(&mut self) -> &mut File {
        match self {
            Self::File { temporary, .. } => temporary.as_file_mut(),
            Self::Special(file) => file,
        }
    }

    /// Everything was written: on disk before its name is.
    pub fn commit(self) -> std::io::Result<()> {
        let Self::File { path, temporary } = self else {
            return Ok(());
        };
        temporary.as_file().sync_all()?;
        temporary.persist(&path).map_err(|error| error.error)?;
        File::open(directory_of(&path))?.sync_all()
    }
}

/// The directory that holds `path`.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn read_json_lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read '{}'", path.display()));
        }
    };
    let mut records = Vec::new();
    for (number, line) in std::io::BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read '{}'", path.display()))?;
        records.push(
            serde_json::from_str(&line)
                .with_context(|| format!("'{}', line {}", path.display(), number + 1))?,
        );
    }
    Ok(records)
}
