//! Directories searched by several threads.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ignore::{DirEntry, Error, WalkBuilder, WalkState};

use super::{NOT_UTF8, Skipped, is_image_name, shard};

/// What lies in a directory; names begin with the directory's, with `/`.
#[derive(Default)]
pub(super) struct Found {
    pub images: Vec<String>,
    /// In natural order.
    pub shards: Vec<String>,
    pub skipped: Vec<Skipped>,
    pub others: usize,
}

/// The directory that is searched: how it is named, and where it is.
struct Root<'a> {
    name: &'a str,
    start: PathBuf,
}

impl Found {
    fn add(&mut self, root: &Root, entry: Result<DirEntry, Error>) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return self.skip_failed(root, &error),
        };
        if entry.file_type().is_none_or(|kind| kind.is_dir()) {
            return;
        }
        let name = name_of(root, entry.path());
        if entry.path().to_str().is_none() {
            if is_image_name(&name) {
                self.skip(name, NOT_UTF8.into());
            } else {
                self.others += 1;
            }
        } else if is_image_name(&name) {
            self.images.push(name);
        } else if shard::is_shard(&name) || shard::is_compressed(&name) {
            self.shards.push(name);
        } else {
            self.others += 1;
        }
    }

    fn skip(&mut self, path: String, reason: String) {
        self.skipped.push(Skipped { path, reason });
    }

    fn skip_failed(&mut self, root: &Root, error: &Error) {
        match error {
            Error::WithPath { path, err } => {
                let reason = err
                    .io_error()
                    .map_or_else(|| err.to_string(), ToString::to_string);
                self.skip(name_of(root, path), reason);
            }
            Error::WithDepth { err, .. } | Error::WithLineNumber { err, .. } => {
                self.skip_failed(root, err);
            }
            Error::Loop { ancestor, child } => {
                let reason = format!("link back to '{}'", ancestor.display());
                self.skip(name_of(root, child), reason);
            }
            other => self.skip(String::new(), other.to_string()),
        }
    }
}

/// Searches the directory `name` of `root` recursively. Hidden files are left out and symbolic links
/// followed; loops, and what cannot be read, are reported.
pub(super) fn walk(root: &Path, name: &str) -> Found {
    let found = Mutex::new(Found::default());
    let root = Root {
        name,
        start: root.join(name),
    };
    // Not the ignore files after which the crate is named: folders of images often stand in them.
    WalkBuilder::new(&root.start)
        .standard_filters(false)
        .hidden(true)
        .follow_links(true)
        .build_parallel()
        .run(|| {
            Box::new(|entry| {
                let mut found = found
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                found.add(&root, entry);
                WalkState::Continue
            })
        });
    let mut found = found
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    found.shards.sort_by(|a, b| super::natural_order(a, b));
    found
        .skipped
        .sort_by(|a, b| super::natural_order(&a.path, &b.path));
    found
}

/// The name of `path` in the directory that is searched.
fn name_of(root: &Root, path: &Path) -> String {
    let relative = path.strip_prefix(&root.start).unwrap_or(path);
    let parts: Vec<_> = relative
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    let relative = parts.join("/");
    match root.name {
        "" => relative,
        name => format!("{}/{relative}", name.trim_end_matches('/')),
    }
}
