//! Which images there are: directories, single files, and lists of files.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

/// File name extensions that are taken for images in a directory. Content, not the name, decides
/// how a file is decoded.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// Names are text in every file that we write.
const NOT_UTF8: &str = "its name is not UTF-8: rename it";

/// One image, before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Relative to the root, with `/`; as given for a list.
    pub name: String,
    /// Index into [`ImageSet::classes`].
    pub class: Option<u32>,
}

/// An input that could not be used, as written to `skipped.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub path: String,
    pub reason: String,
}

/// The images of an input, in natural order of their names (`2.png` before `10.png`).
#[derive(Debug, Clone, Default)]
pub struct ImageSet {
    /// Names are relative to this; empty, or where a list is read from, for lists.
    pub root: PathBuf,
    pub files: Vec<ImageFile>,
    /// Names of the parent folders, in natural order; empty unless there are at least two.
    pub classes: Vec<String>,
    pub skipped: Vec<Skipped>,
    /// Files in the directory whose names are not those of images.
    pub others: usize,
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
        "'{}' is neither an image ({}) nor a list of images: its first line, '{first}', is no file",
        path.display(), EXTENSIONS.join(", ")
    )]
    NoList { path: PathBuf, first: String },
}

impl ImageSet {
    /// Where to open image `row`.
    pub fn path(&self, row: usize) -> PathBuf {
        self.root.join(&self.files[row].name)
    }

    /// The images of `input`: a directory (recursively; hidden files are left out and symbolic
    /// links followed, loops reported), an image, or a text file with one path a line.
    pub fn find(input: &Path) -> Result<Self, SourceError> {
        Self::find_from(input, Path::new(""))
    }

    /// The same, with the paths of a list relative to `directory`.
    pub fn find_from(input: &Path, directory: &Path) -> Result<Self, SourceError> {
        let metadata = std::fs::metadata(input).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SourceError::Missing(input.into()),
            _ => SourceError::Unreadable {
                path: input.into(),
                error,
            },
        })?;
        if metadata.is_dir() {
            return Ok(Self::from_directory(input));
        }
        if is_image_name(input) {
            let name = input.to_string_lossy().into_owned();
            return Ok(Self::from_names([name], Vec::new()));
        }
        let mut set = std::fs::File::open(input)
            .and_then(Self::from_list)
            .map_err(|error| SourceError::Unreadable {
                path: input.into(),
                error,
            })?;
        set.root = directory.into();
        match set.files.first() {
            Some(first) if !(0..set.files.len()).any(|row| set.path(row).is_file()) => {
                Err(SourceError::NoList {
                    path: input.into(),
                    first: first.name.chars().take(80).collect(),
                })
            }
            _ => Ok(set),
        }
    }

    /// The images named in `list`, one path a line or, as `find -print0` writes them, between zero
    /// bytes; empty lines are left out. Order is kept.
    pub fn from_list(mut list: impl Read) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        list.read_to_end(&mut bytes)?;
        let zeros = bytes.contains(&0);
        let (mut names, mut skipped) = (Vec::new(), Vec::new());
        for line in bytes.split(|&byte| byte == if zeros { 0 } else { b'\n' }) {
            match std::str::from_utf8(line) {
                Ok(name) if zeros => names.push(name.to_string()),
                Ok(name) => names.push(name.strip_suffix('\r').unwrap_or(name).to_string()),
                Err(_) => skipped.push(Skipped {
                    path: String::from_utf8_lossy(line).into_owned(),
                    reason: NOT_UTF8.into(),
                }),
            }
        }
        names.retain(|name| !name.trim().is_empty());
        Ok(Self::from_names(names, skipped))
    }

    fn from_names(names: impl IntoIterator<Item = String>, skipped: Vec<Skipped>) -> Self {
        let files = names
            .into_iter()
            .map(|name| ImageFile { name, class: None })
            .collect();
        let mut set = Self {
            files,
            skipped,
            ..Self::default()
        };
        set.name_classes();
        set
    }

    fn from_directory(root: &Path) -> Self {
        let mut set = Self {
            root: root.into(),
            ..Self::default()
        };
        let visible = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
        };
        for entry in WalkDir::new(root)
            .follow_links(true)
            .into_iter()
            .filter_entry(visible)
        {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) if is_image_name(entry.path()) => {
                    let name = relative_name(root, entry.path());
                    match entry.path().to_str() {
                        Some(_) => set.files.push(ImageFile { name, class: None }),
                        None => set.skipped.push(Skipped {
                            path: name,
                            reason: NOT_UTF8.into(),
                        }),
                    }
                }
                Ok(_) => set.others += 1,
                Err(error) => set.skipped.push(Skipped {
                    path: error
                        .path()
                        .map(|path| relative_name(root, path))
                        .unwrap_or_default(),
                    reason: match error.loop_ancestor() {
                        Some(ancestor) => format!("link back to '{}'", ancestor.display()),
                        None => error
                            .io_error()
                            .map_or_else(|| error.to_string(), ToString::to_string),
                    },
                }),
            }
        }
        set.files.sort_by(|a, b| natural_order(&a.name, &b.name));
        set.name_classes();
        set
    }

    fn name_classes(&mut self) {
        let parent = |file: &ImageFile| {
            let parent = Path::new(&file.name).parent()?.file_name()?;
            Some(parent.to_string_lossy().into_owned())
        };
        let parents: Vec<Option<String>> = self.files.iter().map(parent).collect();
        let distinct: BTreeSet<&String> = parents.iter().flatten().collect();
        if distinct.len() < 2 || parents.iter().any(Option::is_none) {
            return;
        }
        let mut classes: Vec<String> = distinct.into_iter().cloned().collect();
        classes.sort_by(|a, b| natural_order(a, b));
        let index: std::collections::HashMap<&str, u32> = classes
            .iter()
            .zip(0..)
            .map(|(name, index)| (name.as_str(), index))
            .collect();
        for (file, parent) in self.files.iter_mut().zip(&parents) {
            file.class = parent.as_deref().and_then(|name| index.get(name).copied());
        }
        self.classes = classes;
    }
}

fn is_image_name(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| {
            EXTENSIONS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(extension))
        })
}

fn relative_name(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = relative
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    parts.join("/")
}

/// Text order with runs of digits compared as numbers; plain order breaks ties (`01` and `1`).
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(&x), Some(&y)) = (left.first(), right.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number_x, rest_x) = take_number(left);
            let (number_y, rest_y) = take_number(right);
            (left, right) = (rest_x, rest_y);
            number_x
                .len()
                .cmp(&number_y.len())
                .then_with(|| number_x.cmp(number_y))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            x.cmp(&y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// The digits at the start, without leading zeros, and the rest.
fn take_number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    let zeros = text[..end].iter().take_while(|&&byte| byte == b'0').count();
    (&text[zeros..end], &text[end..])
}
