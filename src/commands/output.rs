//! Where a command's data goes.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::error::usage;
use crate::run_dir::Replacement;

/// stdout, or a file. Opened before the long work, so that a wrong path is told at once.
pub enum Output {
    Stdout,
    File(PathBuf, Replacement),
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
        let open = || match path.is_dir() {
            true => Err(std::io::ErrorKind::IsADirectory.into()),
            false => Replacement::open(path),
        };
        let file = open().with_context(|| format!("cannot write '{}'", path.display()))?;
        Ok(Self::File(path.into(), file))
    }

    /// Where the data goes; what is written appears at its place with [`Self::close`].
    pub fn writer(&mut self) -> Box<dyn Write + '_> {
        match self {
            Self::Stdout => Box::new(BufWriter::new(std::io::stdout().lock())),
            Self::File(_, file) => Box::new(BufWriter::new(file.file())),
        }
    }

    /// Everything was written.
    pub fn close(self) -> Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(path, file) => file
                .commit()
                .with_context(|| format!("cannot write '{}'", path.display())),
        }
    }

    /// Writes `bytes` as the whole of it.
    pub fn finish(mut self, bytes: &[u8]) -> Result<()> {
        let place = match &self {
            Self::Stdout => "to stdout".into(),
            Self::File(path, _) => format!("'{}'", path.display()),
        };
        let write = |mut writer: Box<dyn Write + '_>| {
            writer.write_all(bytes)?;
            writer.flush()
        };
        write(self.writer()).with_context(|| format!("cannot write {place}"))?;
        self.close()
    }
}

/// Refuses a file whose name does not end as what is written there: `writes` says what that is.
pub fn ends_in(path: &Path, ending: &str, writes: &str) -> Result<()> {
    if path.extension().is_some_and(|found| found == ending) {
        return Ok(());
    }
    Err(usage(format!(
        "{writes}: name the file '{}'",
        path.with_extension(ending).display()
    )))
}
