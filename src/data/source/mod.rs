//! Which images there are: directories, single files, lists of files, and shards (`.tar`), in any mix.

mod order;
mod shard;
mod walk;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::decode::{self, DecodeError};
use super::items::Items;
use crate::config::Interpolation;
pub use order::natural_order;
use shard::Shard;

/// File name extensions that are taken for images in a directory or shard. Content, not the name,
/// decides how a file is decoded.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// Names are text in every file that we write.
const NOT_UTF8: &str = "its name is not UTF-8: rename it";

/// One image, before it is opened. A set of 1.28 million takes about 130 MB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Relative to the root, with `/`; as given for a list. Of an image in a shard the shard's name
    /// and its own there.
    pub name: Box<str>,
    /// Index into [`ImageSet::classes`].
    pub class: Option<u32>,
    location: Location,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Location {
    /// A file of that name.
    File,
    /// Bytes of a shard.
    Shard {
        shard: u32,
        offset: u64,
        length: u64,
    },
}

/// An input that could not be used, as written to `skipped.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub path: String,
    pub reason: String,
}

/// The images of one or several inputs. Those of a directory or shard come in natural order of their
/// names (`2.png` before `10.png`), those of a list in its order.
#[derive(Debug, Default)]
pub struct ImageSet {
    /// Names of files are relative to this; empty, or where a list is read from, for lists.
    root: PathBuf,
    pub files: Vec<ImageFile>,
    shards: Vec<Shard>,
    /// Names of the classes, in natural order; empty unless there are at least two.
    pub classes: Vec<String>,
    pub skipped: Vec<Skipped>,
    /// Files in directories and shards whose names are not those of images.
    pub others: usize,
    /// How they are resized.
    pub interpolation: Interpolation,
}

/// An input that cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("'{}' does not exist", .0.display())]
    Missing(PathBuf),
    #[error("cannot read '{}': {error}", path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "'{}' is compressed: images are read from where they lie in a .tar; decompress it first",
        .0.display()
    )]
    Compressed(PathBuf),
    #[error(
        "'{}' is neither an image ({}) nor a .tar nor a list of images: its first line, '{first}', \
         is no file",
        path.display(), EXTENSIONS.join(", ")
    )]
    NoList { path: PathBuf, first: String },
    #[error(
        "'{}' is neither an image ({}) nor a list of images: it is not text (a shard's name ends in \
         .tar)",
        .0.display(), EXTENSIONS.join(", ")
    )]
    NotText(PathBuf),
}

impl ImageSet {
    /// The bytes of image `row`'s file.
    ///
    /// # Errors
    /// A file that is gone, empty or enormous.
    pub fn bytes(&self, row: usize) -> Result<Vec<u8>, DecodeError> {
        match self.files[row].location {
            Location::File => decode::read(&self.path(row)),
            Location::Shard {
                shard,
                offset,
                length,
            } => self.shards[shard as usize].read(offset, length),
        }
    }

    /// The file that image `row` is, or a name for its place in a shard.
    pub fn path(&self, row: usize) -> PathBuf {
        self.root.join(&*self.files[row].name)
    }

    /// The images of `input`: a directory (recursively; hidden files are left out, symbolic links
    /// followed and loops reported, shards opened), an image, a shard, or a text file with one of
    /// these on each line.
    pub fn find(input: &Path) -> Result<Self, SourceError> {
        Self::find_from(&[input], Path::new(""))
    }

    /// The images of all `inputs`, which, like what lists name, are relative to `directory`; names do not
    /// depend on it. The names of a directory's images are relative to it where it is the only input,
    /// and begin with it, as it is given, otherwise.
    pub fn find_from(inputs: &[impl AsRef<Path>], directory: &Path) -> Result<Self, SourceError> {
        let mut finder = Finder::default();
        if let [only] = inputs
            && directory.join(only).is_dir()
        {
            finder.set.root = directory.join(only);
            finder.directory("");
            return Ok(finder.finish());
        }
        finder.set.root = directory.into();
        for input in inputs {
            finder.input(input.as_ref())?;
        }
        Ok(finder.finish())
    }

    /// The images named in `list`, one path a line or, as `find -print0` writes them, between zero
    /// bytes; empty lines are left out.
    ///
    /// # Errors
    /// A list that cannot be read, or is no text.
    pub fn from_list(list: impl Read) -> Result<Self, SourceError> {
        let mut finder = Finder::default();
        finder.list(list, Path::new("-"))?;
        Ok(finder.finish())
    }
}

impl Items for ImageSet {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn name(&self, item: usize) -> &str {
        &self.files[item].name
    }

    fn origin(&self, item: usize) -> String {
        self.path(item).display().to_string()
    }

    fn identity(&self, item: usize) -> Option<PathBuf> {
        match self.files[item].location {
            Location::File => self.path(item).canonicalize().ok(),
            Location::Shard { shard, offset, .. } => {
                let shard = self.shards[shard as usize].path.canonicalize().ok()?;
                Some(shard.join(offset.to_string()))
            }
        }
    }

    fn class(&self, item: usize) -> Option<u32> {
        self.files[item].class
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn read(&self, item: usize, side: usize, out: &mut [u8]) -> Result<(), DecodeError> {
        let bytes = self.bytes(item)?;
        decode::square_into(&bytes, side as u32, self.interpolation, out)
    }

    fn kind(&self) -> &str {
        match self.interpolation {
            Interpolation::Bilinear => "",
            Interpolation::Bicubic => "bicubic",
        }
    }

    /// Path, size and time of change.
    fn stamp(&self, item: usize) -> Option<String> {
        let path = self.path(item);
        let metadata = match self.files[item].location {
            Location::File => std::fs::metadata(&path),
            Location::Shard { shard, .. } => std::fs::metadata(&self.shards[shard as usize].path),
        };
        let metadata = metadata.ok()?;
        let (length, changed) = (metadata.len(), metadata.modified().ok()?);
        let path = std::path::absolute(&path).unwrap_or(path);
        Some(format!("{path:?} {length} {changed:?}"))
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

/// A set while it is put together.
#[derive(Default)]
struct Finder {
    set: ImageSet,
    /// Numbers of the classes, in the order in which they were met.
    numbers: HashMap<String, u32>,
}

impl Finder {
    /// One of the inputs that the user named, which must be there.
    fn input(&mut self, input: &Path) -> Result<(), SourceError> {
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => SourceError::Missing(input.into()),
            _ => SourceError::Unreadable {
                path: input.into(),
                error,
            },
        };
        let name = input.to_string_lossy();
        let path = self.set.root.join(input);
        let metadata = std::fs::metadata(&path).map_err(unreadable)?;
        if metadata.is_dir() {
            self.directory(&name);
        } else if shard::is_compressed(&name) {
            return Err(SourceError::Compressed(input.into()));
        } else if shard::is_shard(&name) {
            self.shard(&name, path)?;
        } else if is_image_name(&name) {
            self.file(&name);
        } else {
            let before = self.set.files.len();
            self.list(File::open(path).map_err(unreadable)?, input)?;
            let mut listed = before..self.set.files.len();
            let exists = |row: usize| match self.set.files[row].location {
                Location::File => self.set.path(row).is_file(),
                Location::Shard { .. } => true,
            };
            if !listed.is_empty() && !listed.clone().any(exists) {
                let first = listed.next().map(|row| &self.set.files[row].name);
                return Err(SourceError::NoList {
                    path: input.into(),
                    first: first.map_or_else(String::new, |name| name.chars().take(80).collect()),
                });
            }
        }
        Ok(())
    }

    fn list(&mut self, mut list: impl Read, path: &Path) -> Result<(), SourceError> {
        let unreadable = |error| SourceError::Unreadable {
            path: path.into(),
            error,
        };
        let mut bytes = Vec::new();
        let beginning = list.by_ref().take(BEGINNING).read_to_end(&mut bytes);
        beginning.map_err(unreadable)?;
        // Some piece of a film or an archive is always the name of a directory, such as `/`.
        if !is_text(&bytes) {
            return Err(SourceError::NotText(path.into()));
        }
        list.read_to_end(&mut bytes).map_err(unreadable)?;
        let zeros = bytes.contains(&0);
        for line in bytes.split(|&byte| byte == if zeros { 0 } else { b'\n' }) {
            match std::str::from_utf8(line) {
                Ok(line) => {
                    let ended = if zeros { None } else { line.strip_suffix('\r') };
                    self.line(ended.unwrap_or(line));
                }
                Err(_) => self.skip(String::from_utf8_lossy(line), NOT_UTF8),
            }
        }
        Ok(())
    }

    /// What a line of a list names. A file that does not exist is found out when it is opened.
    fn line(&mut self, name: &str) {
        if name.trim().is_empty() {
        } else if is_image_name(name) {
            self.file(name);
        } else if shard::is_compressed(name) || shard::is_shard(name) {
            self.shard_or_skip(name);
        } else if self.set.root.join(name).is_dir() {
            self.directory(name);
        } else {
            self.file(name);
        }
    }

    fn file(&mut self, name: &str) {
        let class = class_of(name).map(|class| self.number(class));
        self.set.files.push(ImageFile {
            name: name.into(),
            class,
            location: Location::File,
        });
    }

    /// All that lies in the directory `name`, in natural order.
    fn directory(&mut self, name: &str) {
        let found = walk::walk(&self.set.root, name);
        let first = self.set.files.len();
        for name in found.images {
            self.file(&name);
        }
        self.set.files[first..].par_sort_by(|a, b| natural_order(&a.name, &b.name));
        for name in found.shards {
            self.shard_or_skip(&name);
        }
        self.set.skipped.extend(found.skipped);
        self.set.others += found.others;
    }

    fn shard_or_skip(&mut self, name: &str) {
        let path = self.set.root.join(name);
        let result = match shard::is_compressed(name) {
            true => Err(SourceError::Compressed(path)),
            false => self.shard(name, path),
        };
        if let Err(error) = result {
            self.skip(name, &error.to_string());
        }
    }

    /// The images in the shard `name`, in natural order.
    fn shard(&mut self, name: &str, path: PathBuf) -> Result<(), SourceError> {
        let (shard, content) = Shard::open(path)?;
        let number = self.set.shards.len() as u32;
        self.set.shards.push(shard);
        let first = self.set.files.len();
        for member in content.members {
            let class = member.class.as_deref().map(|class| self.number(class));
            self.set.files.push(ImageFile {
                name: format!("{name}/{}", member.name).into(),
                class,
                location: Location::Shard {
                    shard: number,
                    offset: member.offset,
                    length: member.length,
                },
            });
        }
        self.set.files[first..].par_sort_by(|a, b| natural_order(&a.name, &b.name));
        for (member, reason) in content.skipped {
            self.skip(format!("{name}/{member}"), &reason);
        }
        self.set.others += content.others;
        Ok(())
    }

    fn skip(&mut self, path: impl Into<String>, reason: &str) {
        self.set.skipped.push(Skipped {
            path: path.into(),
            reason: reason.into(),
        });
    }

    fn number(&mut self, class: &str) -> u32 {
        if let Some(&number) = self.numbers.get(class) {
            return number;
        }
        let next = self.numbers.len() as u32;
        self.numbers.insert(class.into(), next);
        next
    }

    /// The set, with classes in natural order, where every image has one and there are several.
    fn finish(self) -> ImageSet {
        let Self { mut set, numbers } = self;
        let classless = set.files.iter().any(|file| file.class.is_none());
        if classless || numbers.len() < 2 {
            set.files.iter_mut().for_each(|file| file.class = None);
            return set;
        }
        let mut classes: Vec<(String, u32)> = numbers.into_iter().collect();
        classes.sort_by(|a, b| natural_order(&a.0, &b.0));
        let mut places = vec![0; classes.len()];
        for ((_, number), place) in classes.iter().zip(0..) {
            places[*number as usize] = place;
        }
        for file in &mut set.files {
            file.class = file.class.map(|number| places[number as usize]);
        }
        set.classes = classes.into_iter().map(|(name, _)| name).collect();
        set
    }
}

/// Bytes that are looked at to tell a list from anything else.
const BEGINNING: u64 = 4096;

/// Whether the beginning of a file is that of a list of names: without control characters but those
/// that end lines, or names. (A name may not be UTF-8: that is told later.)
fn is_text(beginning: &[u8]) -> bool {
    let ends = |byte: u8| matches!(byte, 0 | b'\n' | b'\r' | b'\t');
    beginning
        .iter()
        .all(|&byte| !byte.is_ascii_control() || ends(byte))
}

/// The folder that a file lies in.
fn class_of(name: &str) -> Option<&str> {
    Path::new(name).parent()?.file_name()?.to_str()
}

fn is_image_name(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str());
    extension.is_some_and(|extension| {
        EXTENSIONS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(extension))
    })
}
