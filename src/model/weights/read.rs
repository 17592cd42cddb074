//! A file of weights to named tensors.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::WeightsError;

/// What a file of weights holds.
#[derive(Debug)]
pub struct Weights {
    /// Tensors on the CPU, by the file's names, in the file's dtypes.
    pub tensors: BTreeMap<String, Tensor>,
    /// The safetensors `__metadata__`; empty for a PyTorch file.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a safetensors file, or a PyTorch file when the name ends in `.pt` or `.pth`.
/// Takes about twice the file's size in memory.
///
/// Of PyTorch files libtorch reads a plain `dict` of tensors only,
/// `torch.save(dict(model.state_dict()), "weights.pt")`: neither an `OrderedDict`, which
/// `state_dict()` itself is, nor a nested checkpoint. Their error says how to convert.
///
/// # Errors
/// [`WeightsError::Io`], [`WeightsError::Damaged`], [`WeightsError::Tensor`], and
/// [`WeightsError::StateDict`] for PyTorch files that are no plain `dict` of tensors.
pub fn read(path: &Path) -> Result<Weights, WeightsError> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    if ["pt", "pth"]
        .iter()
        .any(|e| extension.eq_ignore_ascii_case(e))
    {
        read_state_dict(path)
    } else {
        read_safetensors(path)
    }
}

fn read_safetensors(path: &Path) -> Result<Weights, WeightsError> {
    let damaged = |source| WeightsError::Damaged {
        path: path.into(),
        source,
    };
    let file = std::fs::read(path).map_err(|source| io(path, source))?;
    let (_, header) = SafeTensors::read_metadata(&file).map_err(damaged)?;
    let metadata = header.metadata().iter().flatten();
    let metadata = metadata.map(|(k, v)| (k.clone(), v.clone())).collect();
    let tensors = SafeTensors::deserialize(&file)
        .map_err(damaged)?
        .iter()
        .map(|(name, view)| {
            let tensor = tensor(&view).map_err(|reason| WeightsError::Tensor {
                path: path.into(),
                name: name.into(),
                dtype: view.dtype().to_string(),
                shape: view.shape().to_vec(),
                reason,
            })?;
            Ok((name.to_owned(), tensor))
        })
        .collect::<Result<_, WeightsError>>()?;
    Ok(Weights { tensors, metadata })
}

/// The tensor, or the reason why there is none.
fn tensor(view: &TensorView) -> Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        _ => return Err("its type is not supported".into()),
    };
    let shape = sides(view.shape()).ok_or("its shape is too large")?;
    Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|error| error.to_string())
}

/// The shape as libtorch wants it. A shape such as `[0, 2^62, 2^62]` holds no numbers,
/// so that the file format allows it, but its strides would overflow.
fn sides(shape: &[usize]) -> Option<Vec<i64>> {
    shape.iter().try_fold(1i64, |stride, &side| {
        stride.checked_mul(i64::try_from(side.max(1)).ok()?)
    })?;
    shape.iter().map(|&side| i64::try_from(side).ok()).collect()
}

fn read_state_dict(path: &Path) -> Result<Weights, WeightsError> {
    // libtorch reports a missing file like a damaged one.
    std::fs::File::open(path).map_err(|source| io(path, source))?;
    let tensors = Tensor::loadz_multi(path)
        .map_err(|error| WeightsError::StateDict {
            path: path.into(),
            reason: reason(&error.to_string()),
        })?
        .into_iter()
        .collect();
    Ok(Weights {
        tensors,
        metadata: BTreeMap::new(),
    })
}

/// libtorch's message without the C++ stack trace that follows it. A failed assertion
/// of its reader asks to report a bug in PyTorch, but the file is what differs.
fn reason(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    if first.contains("ASSERT FAILED") {
        "it holds something else, such as an OrderedDict or a whole checkpoint".into()
    } else {
        first.into()
    }
}

fn io(path: &Path, source: std::io::Error) -> WeightsError {
    WeightsError::Io {
        path: path.into(),
        source,
    }
}
