//! Where a command's data goes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::run_dir::{directory_of, is_special, persist, temporary_in};

/// stdout, a file that appears when it is complete, or a device or pipe that is written directly.
/// Opened before the long work, so that a wrong path is told at once.
pub enum Output {
    Stdout,
    File {
        path: PathBuf,
        temporary: NamedTempFile,
    },
    Special {
        path: PathBuf,
        file: File,
    },
}

impl Output {
    /// Opens `path`; none, and `-`, are stdout.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        match path.filter(|path| *path != Path::new("-")) {
            None => Ok(Self::Stdout),
            Some(path) => Self::file(path),
        }
    }

    /// Opens `path`, whose folder must exist.
    pub fn file(path: &Path) -> Result<Self> {
        let open = || -> std::io::Result<Self> {
            if path.is_dir() {
                return Err(std::io::ErrorKind::IsADirectory.into());
            }
            if is_special(path) {
                let file = File::options().write(true).open(path)?;
                return Ok(Self::Special {
                    path: path.into(),
                    file,
                });
            }
            Ok(Self::File {
                path: path.into(),
                temporary: temporary_in(directory_of(path))?,
            })
        };
        open().with_context(|| format!("cannot write '{}'", path.display()))
    }

    /// Where the data goes; what is written appears at its place with [`Self::close`].
    pub fn writer(&mut self) -> Box<dyn Write + '_> {
        match self {
            Self::Stdout => Box::new(BufWriter::new(std::io::stdout().lock())),
            Self::File { temporary, .. } => Box::new(BufWriter::new(temporary.as_file_mut())),
            Self::Special { file, .. } => Box::new(BufWriter::new(file)),
        }
    }

    /// Everything was written.
    pub fn close(self) -> Result<()> {
        match self {
            Self::Stdout | Self::Special { .. } => Ok(()),
            Self::File { path, temporary } => persist(temporary, &path)
                .with_context(|| format!("cannot write '{}'", path.display())),
        }
    }

    /// Writes `bytes` as the whole of it.
    pub fn finish(mut self, bytes: &[u8]) -> Result<()> {
        {
            let place = self.place();
            let mut writer = self.writer();
            writer
                .write_all(bytes)
                .and_then(|()| writer.flush())
                .with_context(|| format!("cannot write {place}"))?;
        }
        self.close()
    }

    fn place(&self) -> String {
        match self {
            Self::Stdout => "to stdout".into(),
            Self::File { path, .. } | Self::Special { path, .. } => {
                format!("'{}'", path.display())
            }
        }
    }
}
