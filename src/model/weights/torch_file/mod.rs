//! PyTorch's own files of weights, `torch.save`'s `.pt` and `.pth`, without Python.
//!
//! Such a file is a pickle, which is a program, beside the raw numbers. Here the program
//! is followed only as far as it lays out containers and tensors: a function or class that
//! is not on the list of [`rebuild`] is never looked up, let alone called, and stands in
//! the result as something to ignore. Both of `torch.save`'s formats are read: the zip
//! archive (PyTorch 1.6 and later) and the chain of pickles before it, in which most of
//! torchvision's published weights still are.
//!
//! Formats: `torch/serialization.py` and `torch/_utils.py` of PyTorch 2.11; opcodes:
//! `pickletools.py` of Python 3.13.

mod archive;
mod dtype;
mod error;
mod flatten;
mod input;
mod limits;
mod old;
mod opcode;
mod pickle;
mod rebuild;
mod stack;
mod value;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;

pub use dtype::Dtype;
pub use error::TorchFileError;
use input::Input;
use value::{Heap, Value};
use view::View;

/// What a file of weights holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchFile {
    /// By name: the keys and list positions on the way to a tensor, joined by dots, such as
    /// `state_dict.module.conv1.weight` and `params.0`.
    pub tensors: BTreeMap<String, RawTensor>,
}

/// One tensor, laid out anew if it was a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTensor {
    pub dtype: Dtype,
    /// No side for a scalar.
    pub shape: Vec<usize>,
    /// Row-major and little-endian, without gaps.
    pub bytes: Vec<u8>,
}

/// Reads every tensor of a file that `torch.save` wrote; what else it holds is ignored.
/// Takes the memory of the tensors beside that of `bytes`.
///
/// # Errors
/// [`TorchFileError`] for files that are damaged, hostile, of another kind, or without a
/// tensor that has a name.
pub fn read(bytes: &[u8]) -> Result<TorchFile, TorchFileError> {
    let tensors = views(Cursor::new(bytes))?
        .into_iter()
        .map(|(name, view)| Ok((name, view.gather(bytes)?)))
        .collect::<Result<_, TorchFileError>>()?;
    Ok(TorchFile { tensors })
}

/// The types and shapes of the tensors that [`read`] finds, by name. The numbers are
/// skipped, so that this is quick for files of gigabytes.
///
/// # Errors
/// As [`read`].
pub fn names(
    reader: impl Read + Seek,
) -> Result<BTreeMap<String, (Dtype, Vec<usize>)>, TorchFileError> {
    let views = views(reader)?.into_iter();
    Ok(views
        .map(|(name, view)| (name, (view.dtype, view.shape)))
        .collect())
}

/// Whether a file that begins so may be one.
pub fn looks_like(start: &[u8]) -> bool {
    start.starts_with(ARCHIVE) || start.starts_with(&[opcode::PROTO])
}

/// What a zip archive begins with.
const ARCHIVE: &[u8] = b"PK\x03\x04";

/// What both formats come down to.
struct Contents {
    heap: Heap,
    root: Value,
    /// Where the bytes of each storage lie in the file.
    storages: HashMap<String, Range<u64>>,
}

fn views(mut reader: impl Read + Seek) -> Result<BTreeMap<String, View>, TorchFileError> {
    let length = reader.seek(SeekFrom::End(0))?;
    reader.seek(SeekFrom::Start(0))?;
    let mut start = Vec::new();
    reader.by_ref().take(512).read_to_end(&mut start)?;
    let contents = if start.starts_with(ARCHIVE) {
        archive::open(reader)?
    } else if start.starts_with(&[opcode::PROTO]) {
        reader.seek(SeekFrom::Start(0))?;
        old::open(Input::new(reader, length))?
    } else if start.get(257..262) == Some(b"ustar") {
        return Err(TorchFileError::Tar);
    } else {
        return Err(TorchFileError::Foreign(
            "it is neither a zip archive nor a pickle",
        ));
    };
    let named = flatten::tensors(&contents.heap, contents.root)?;
    view::locate(named, &contents, length)
}
