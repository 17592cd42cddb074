//! The failures that a caller tells apart; everything else travels as `anyhow::Error`.

use std::path::PathBuf;

/// A failure with a meaning of its own for the exit code or for the advice that is printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options do not fit together or name something unknown: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// `--strict` was given and inputs were skipped: exit code 3.
    #[error("{count} of {total} inputs could not be read and were skipped (--strict)")]
    Skipped { count: usize, total: usize },
    #[error("'{}' is no run of ssl-cluster: {reason}", path.display())]
    NotARun { path: PathBuf, reason: String },
    #[error(
        "'{}' exists already: choose another --out, go on with `--resume {}`, or remove it",
        path.display(), path.display()
    )]
    RunExists { path: PathBuf },
    #[error("'{}' is there already and is no run: choose another --out", path.display())]
    Occupied { path: PathBuf },
    #[error("no images in '{}': {reason}", path.display())]
    NoImages { path: PathBuf, reason: String },
}

/// Shorthand for a usage error.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    Error::Usage(text.into()).into()
}

/// The usage error for a name that no entry of a table has, with those that there are.
pub fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> anyhow::Error {
    let known: Vec<&str> = known.into_iter().collect();
    usage(format!(
        "there is no {what} '{name}': use {}",
        known.join(", ")
    ))
}
