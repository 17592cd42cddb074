//! Files of decoded pixels in the user's cache directory, each for the items of one data set at one size,
//! found again by their stamps (of files: paths, sizes and times).
//!
//! A file holds the planes of one item after the other, then JSON that says which rows they are, then the
//! JSON's length (8 bytes, little-endian). It appears under its name when it is complete, so that
//! several processes may write and read the same one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::decoding::by_groups;
use super::resident::Resident;
use super::{Backing, Pixels, Read, Watch};
use crate::data::DataError;
use crate::data::items::{Items, Layout, Plane};
use crate::data::source::Skipped;
use crate::directories::{in_cache, named};
use crate::monitor::Monitor;

/// Digits of the key in a file's name.
const KEY: usize = 32;
/// Names of the files end so, and of unfinished ones begin so.
const EXTENSION: &str = "pixels";
const UNFINISHED: &str = ".unfinished-";
/// Changes with whatever changes the pixels of an image: decoder, resizing, this format.
const VERSION: &str = "2";

/// The place of one set's pixels.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    layout: Layout,
}

/// What stands behind the pixels.
#[derive(Debug, Serialize, Deserialize)]
struct Trailer {
    /// Items, those that could not be read among them.
    images: usize,
    skipped: Vec<(u32, Skipped)>,
}

/// The directory of these files: `$SSL_CLUSTER_CACHE`, or `ssl-cluster/pixels` in the user's cache
/// directory.
pub fn directory() -> Option<PathBuf> {
    named("SSL_CLUSTER_CACHE").or_else(|| in_cache("ssl-cluster/pixels"))
}

/// The files in `directory` with their sizes, unfinished ones (whose makers may be at work or dead)
/// included.
pub fn files(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_finished(&path) || name.starts_with(UNFINISHED) {
            let length = path.metadata().map_or(0, |metadata| metadata.len());
            files.push((path, length));
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file of the directory is complete.
pub fn is_finished(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let key = stem.len() == KEY && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    key && path.extension().is_some_and(|found| found == EXTENSION)
}

impl Store {
    /// The place of the pixels of `items`.
    ///
    /// # Errors
    /// No `directory`.
    pub fn new(
        items: &dyn Items,
        layout: Layout,
        directory: Option<&Path>,
    ) -> Result<Self, DataError> {
        let directory = directory.ok_or_else(|| DataError::Cache {
            path: "$SSL_CLUSTER_CACHE".into(),
            error: io::Error::other("neither it nor XDG_CACHE_HOME nor HOME is set"),
        })?;
        let mut key = blake3::Hasher::new();
        key.update(format!("{VERSION} {} {}", layout.side, items.len()).as_bytes());
        // Image files have neither, so that what earlier versions kept of them is found.
        if layout.planes != [Plane::RGB] || !items.kind().is_empty() {
            key.update(format!("\n{} {:?}\n", items.kind(), layout.planes).as_bytes());
        }
        for item in 0..items.len() {
            match items.stamp(item) {
                Some(stamp) => {
                    key.update(stamp.as_bytes());
                    key.update(b"\n");
                }
                None => {
                    key.update(b"gone\n");
                }
            }
        }
        let name = key.finalize().to_hex();
        Ok(Self {
            path: directory.join(format!("{}.{EXTENSION}", &name[..KEY])),
            layout,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pixels, where they are there and whole.
    pub(super) fn read(&self) -> Option<Read> {
        read(File::open(&self.path).ok()?, &self.layout)
    }

    /// Decodes `items` into the file.
    pub(super) fn fill(
        &self,
        items: &dyn Items,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Read, DataError> {
        let failed = |error: io::Error| DataError::Cache {
            path: self.path.clone(),
            error,
        };
        let directory = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(directory)
            .map_err(failed)?;
        let images = items.len();
        let (mut skipped, mut lasting) = (Vec::new(), true);
        by_groups(items, &self.layout, watch, monitor, &mut |group, read| {
            lasting &= read.lasting;
            for pixels in read.pixels.in_memory() {
                file.write_all(pixels).map_err(failed)?;
            }
            let mut kept = read.kept.iter().copied().peekable();
            let failures = group.filter(|&row| kept.next_if_eq(&(row as u32)).is_none());
            let reasons = read.skipped.iter().cloned();
            skipped.extend(failures.map(|row| row as u32).zip(reasons));
            Ok(())
        })?;
        finish(&mut file, &Trailer { images, skipped }).map_err(failed)?;
        let file = match lasting {
            true => file
                .persist(&self.path)
                .map_err(|error| failed(error.error))?,
            // What could not be read this time may be readable the next: nobody shall find this file.
            false => file.into_file(),
        };
        read(file, &self.layout)
            .ok_or_else(|| failed(io::Error::other("what was written cannot be read back")))
    }
}

fn read(file: File, layout: &Layout) -> Option<Read> {
    let size = file.metadata().ok()?.len();
    let mut length = [0; 8];
    file.read_exact_at(&mut length, size.checked_sub(8)?).ok()?;
    let start = size
        .checked_sub(8)?
        .checked_sub(u64::from_le_bytes(length))?;
    let mut json = vec![0; (size - 8 - start) as usize];
    file.read_exact_at(&mut json, start).ok()?;
    let Trailer { images, skipped } = serde_json::from_slice(&json).ok()?;
    let count = images.checked_sub(skipped.len())?;
    if start != (count * layout.bytes()) as u64 {
        return None;
    }
    let mut left_out = skipped.iter().map(|(row, _)| *row).peekable();
    let kept = (0..images as u32).filter(|row| left_out.next_if_eq(row).is_none());
    Some(Read {
        kept: kept.collect(),
        pixels: Pixels {
            layout: layout.clone(),
            count,
            backing: Backing::File(file),
            resident: Resident::default(),
        },
        skipped: skipped.into_iter().map(|(_, skipped)| skipped).collect(),
        lasting: true,
    })
}

fn finish(file: &mut NamedTempFile, trailer: &Trailer) -> io::Result<()> {
    let json = serde_json::to_vec(trailer)?;
    file.write_all(&json)?;
    file.write_all(&(json.len() as u64).to_le_bytes())?;
    file.as_file().sync_all()
}
