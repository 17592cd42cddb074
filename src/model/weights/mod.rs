//! Weights on disk: safetensors in and out, PyTorch's own files in.
//!
//! Format: <https://github.com/huggingface/safetensors>. Reading never runs code and
//! never trusts a header; loading compares names and shapes before the first number is
//! copied, since tch's own loader broadcasts a `[1]` tensor over a `[64]` one in silence.

mod load;
mod read;
mod save;
pub mod torch_file;

use std::path::PathBuf;

pub use load::{
    LoadReport, PREFIXES, Problem, all_finite, canonical_name, load_adapted, load_into,
    named_variables, prefixed,
};
pub use read::{Weights, read, shapes};
pub use save::{save, save_bytes};

/// Why weights could not be read, written or loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Not safetensors, or damaged.
    #[error(
        "{} is not a whole safetensors file ({source}); it may have been cut short: \
         copy or download it again", path.display()
    )]
    Damaged {
        path: PathBuf,
        source: safetensors::SafeTensorError,
    },
    /// A tensor of the file that libtorch has no place for.
    #[error(
        "cannot use tensor {name} of {} ({dtype}, shape {shape:?}): {reason}; \
         save it as f32", path.display()
    )]
    Tensor {
        path: PathBuf,
        name: String,
        dtype: String,
        shape: Vec<usize>,
        reason: String,
    },
    /// A file of PyTorch's that is damaged, or holds something else.
    #[error("cannot use {}: {source}", path.display())]
    TorchFile {
        path: PathBuf,
        source: Box<torch_file::TorchFileError>,
    },
    /// The file does not fit the network. Nothing was copied.
    #[error("{}", load::describe_misfit(path, problems, unexpected))]
    Misfit {
        path: PathBuf,
        problems: Vec<Problem>,
        /// Tensors of the file that no variable asked for.
        unexpected: Vec<String>,
    },
    /// A tensor that cannot be written.
    #[error("cannot save tensor {name}: {reason}")]
    Unsaved { name: String, reason: String },
    /// The file cannot be written.
    #[error("cannot save weights: {0}")]
    Write(#[from] std::io::Error),
    /// libtorch failed in the middle of a copy, for instance for want of memory.
    #[error("cannot copy tensor {name} of {} into the network: {source}", path.display())]
    Copy {
        path: PathBuf,
        name: String,
        source: tch::TchError,
    },
}
