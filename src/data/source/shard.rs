//! Shards: `.tar` files of images, as WebDataset makes them, read where they lie.
//!
//! Format of the names: <https://github.com/webdataset/webdataset>: members of one sample share what
//! comes before the first dot of their names, and `.cls` holds its class.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::{DecodeError, NOT_UTF8, SourceError, class_of, is_image_name};

/// A `.cls` longer than this holds no class.
const LONGEST_CLASS: u64 = 1024;

/// A shard. It is opened for each image: a data set may have more of them than files may be open.
#[derive(Debug)]
pub(super) struct Shard {
    pub path: PathBuf,
}

/// An image in a shard.
pub(super) struct Member {
    pub name: String,
    /// What its `.cls` says, or the folder that it lies in.
    pub class: Option<String>,
    pub offset: u64,
    pub length: u64,
}

/// What a shard holds.
#[derive(Default)]
pub(super) struct Content {
    pub members: Vec<Member>,
    /// Members that cannot be used, and why.
    pub skipped: Vec<(String, String)>,
    /// Members whose names are not those of images.
    pub others: usize,
}

/// Whether the name is that of a shard.
pub(super) fn is_shard(name: &str) -> bool {
    ends_with(name, &[".tar"])
}

/// Whether the name is that of a compressed shard, in which nothing can be found without unpacking
/// all that comes before.
pub(super) fn is_compressed(name: &str) -> bool {
    ends_with(
        name,
        &[".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"],
    )
}

fn ends_with(name: &str, ends: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    ends.iter().any(|end| name.ends_with(end))
}

impl Shard {
    /// Opens the shard at `path` and lists its members; only their headers are read.
    ///
    /// # Errors
    /// A file that cannot be opened, or is no tar from its first byte on.
    pub fn open(path: PathBuf) -> Result<(Self, Content), SourceError> {
        match File::open(&path).and_then(|file| list(&file)) {
            Ok(content) => Ok((Self { path }, content)),
            Err(error) => Err(SourceError::Unreadable { path, error }),
        }
    }

    /// The bytes of a member.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, DecodeError> {
        let mut bytes = vec![0; super::decode::checked_length(length)?];
        File::open(&self.path)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

fn list(file: &File) -> std::io::Result<Content> {
    let size = file.metadata()?.len();
    let mut content = Content::default();
    let mut classes = HashMap::new();
    let mut archive = tar::Archive::new(BufReader::new(file));
    for (number, entry) in archive.entries_with_seek()?.enumerate() {
        let mut entry = match entry {
            Ok(entry) => entry,
            // What came before it can be used.
            Err(error) if number > 0 => {
                let reason = format!("the rest of the shard cannot be read: {error}");
                content.skipped.push((String::new(), reason));
                break;
            }
            Err(error) => {
                let kind = error.kind();
                let reason = "it is no tar archive, or cut within its first header";
                return Err(std::io::Error::new(kind, reason));
            }
        };
        let kind = entry.header().entry_type();
        let name = match std::str::from_utf8(&entry.path_bytes()) {
            Ok(name) => name.to_string(),
            Err(_) if kind.is_dir() => continue,
            Err(_) => {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                content.skipped.push((name, NOT_UTF8.into()));
                continue;
            }
        };
        let (offset, length) = (entry.raw_file_position(), entry.size());
        if kind.is_dir() || is_hidden(&name) {
            continue;
        }
        if let Some(sample) = name
            .strip_suffix(".cls")
            .filter(|_| length <= LONGEST_CLASS)
        {
            let mut class = String::new();
            if entry.read_to_string(&mut class).is_ok() {
                classes.insert(sample.to_string(), class.trim().to_string());
            }
        } else if !is_image_name(&name) {
            content.others += 1;
        } else if !kind.is_file() {
            let reason = "a link or another member without pixels of its own".into();
            content.skipped.push((name, reason));
        } else if offset + length > size {
            let reason = "the shard ends before it does: truncated".into();
            content.skipped.push((name, reason));
        } else {
            content.members.push(Member {
                class: None,
                name,
                offset,
                length,
            });
        }
    }
    for member in &mut content.members {
        let class = classes.get(sample_of(&member.name)).map(String::as_str);
        member.class = class.or_else(|| class_of(&member.name)).map(String::from);
    }
    Ok(content)
}

fn is_hidden(name: &str) -> bool {
    let dots = |part: &str| part == "." || part == "..";
    name.split('/')
        .any(|part| part.starts_with('.') && !dots(part))
}

/// A member's name up to the first dot behind its folders.
fn sample_of(name: &str) -> &str {
    let folders = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[folders..]
        .find('.')
        .map_or(name.len(), |dot| folders + dot);
    &name[..dot]
}
