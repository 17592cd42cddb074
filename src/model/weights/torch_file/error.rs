//! Why a file of weights is refused.

use std::io::ErrorKind;

use zip::result::ZipError;

/// Why a PyTorch file cannot be read. The messages call the file "it".
#[derive(Debug, thiserror::Error)]
pub enum TorchFileError {
    /// The file cannot be read from its disk.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A file of another kind.
    #[error(
        "{0}, so that torch.save did not write it; give a file of weights that torch.save wrote"
    )]
    Foreign(&'static str),
    /// The format of 2016.
    #[error(
        "it is a tar file of PyTorch before 0.1.10; save it anew with a later one: \
         torch.save(torch.load(\"OLD.pth\", weights_only=False), \"NEW.pth\")"
    )]
    Tar,
    /// Compiled code with weights inside.
    #[error(
        "it is a TorchScript program; save its weights alone in Python: \
         torch.save(torch.jit.load(\"OLD.pt\").state_dict(), \"NEW.pt\")"
    )]
    TorchScript,
    /// Written on a machine of the other byte order.
    #[error(
        "its numbers are big-endian; save it anew on a little-endian machine (x86, ARM): \
         torch.save(torch.load(\"OLD.pth\"), \"NEW.pth\")"
    )]
    BigEndian,
    /// A zip archive that was compressed or encrypted by another program.
    #[error(
        "the entry {entry:?} of its zip archive is compressed or encrypted, which torch.save \
         never does; unpack the archive and pack it again with zip -0"
    )]
    Packed { entry: String },
    /// A zip archive without a whole directory.
    #[error("its zip archive is damaged ({0}), or was cut short: copy or download the file again")]
    Zip(#[source] ZipError),
    /// The file ends before what it announces.
    #[error("it was cut short: copy or download the file again")]
    Cut,
    /// Something that `torch.save` never writes.
    #[error("it is damaged: {0}; copy or download the file again")]
    Damaged(String),
    /// A tensor whose numbers are not where it says.
    #[error("its tensor {name:?} is damaged: {reason}; copy or download the file again")]
    Tensor { name: String, reason: &'static str },
    /// More than a file of weights needs.
    #[error(
        "it has more than {most} {what}, as no file of weights does; if you trust it, save its \
         weights alone in Python: torch.save(model.state_dict(), \"NEW.pth\")"
    )]
    TooMany { what: &'static str, most: usize },
    /// Tensors that repeat the file's numbers too often.
    #[error(
        "its tensors take more than {most} bytes, many times the file's own size; if you trust \
         it, save them anew in Python, each as its own copy (tensor.clone())"
    )]
    TooLarge { most: u64 },
    /// No tensor at all, or only complex, quantised and sparse ones.
    #[error(
        "it holds no readable tensors{}; save the weights in Python: \
         torch.save(model.state_dict(), \"NEW.pth\")",
        but(found)
    )]
    NoTensors {
        /// Some of the Python classes and functions that it names instead.
        found: Vec<String>,
    },
    /// A tensor that is not in a dictionary.
    #[error(
        "it holds one tensor without a name; save a dictionary in Python: \
         torch.save({{\"NAME\": tensor}}, \"NEW.pth\")"
    )]
    Nameless,
}

impl From<ZipError> for TorchFileError {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(error) if error.kind() != ErrorKind::UnexpectedEof => Self::Io(error),
            error => Self::Zip(error),
        }
    }
}

impl TorchFileError {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

fn but(found: &[String]) -> String {
    if found.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = found.iter().map(|name| format!("{name:?}")).collect();
    format!(
        ", but {} (Python's classes and functions are not run)",
        quoted.join(", ")
    )
}
