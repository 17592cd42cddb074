//! Directories of the user, as the environment has them.

use std::path::{Path, PathBuf};

/// What a variable of the environment names; one that is set to nothing names nothing.
pub fn named(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}

/// A place in the user's cache directory: `$XDG_CACHE_HOME`, or `~/.cache`.
pub fn in_cache(below: impl AsRef<Path>) -> Option<PathBuf> {
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    Some(cache?.join(below))
}
