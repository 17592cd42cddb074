//! Named tensors to the bytes of a safetensors file.

use std::collections::{BTreeMap, HashMap};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::{Device, Kind, Tensor};

use super::WeightsError;

const RUNNING_MEAN: &str = ".running_mean";
const BATCHES_TRACKED: &str = ".num_batches_tracked";

/// One tensor as the file holds it: row-major, little-endian.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A safetensors file of `named` tensors (any device and memory layout; the file holds
/// row-major copies, so this takes about twice the weights' memory).
///
/// `format = pt` is added to `metadata`, because `transformers` insists on it, and an
/// i64 scalar 0 `X.num_batches_tracked` beside each `X.running_mean`, because strict
/// readers of batch norm do.
///
/// # Errors
/// [`WeightsError::Unsaved`] for a name that occurs twice and for sparse, complex or
/// quantised tensors; [`WeightsError::Serialize`] when the header would be too large.
pub fn save_bytes(
    named: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightsError> {
    let mut entries = BTreeMap::new();
    for (name, tensor) in named {
        if entries.insert(name.clone(), entry(name, tensor)?).is_some() {
            return Err(unsaved(name, "the name occurs twice"));
        }
    }
    for (name, _) in named {
        if let Some(layer) = name.strip_suffix(RUNNING_MEAN) {
            entries
                .entry(format!("{layer}{BATCHES_TRACKED}"))
                .or_insert_with(|| Entry {
                    dtype: Dtype::I64,
                    shape: Vec::new(),
                    bytes: 0i64.to_le_bytes().to_vec(),
                });
        }
    }
    let mut metadata: HashMap<String, String> = metadata.clone().into_iter().collect();
    metadata.insert("format".into(), "pt".into());
    let views = entries
        .iter()
        .map(|(name, entry)| {
            TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes)
                .map(|view| (name, view))
                .map_err(WeightsError::Serialize)
        })
        .collect::<Result<Vec<_>, _>>()?;
    safetensors::serialize(views, Some(metadata)).map_err(WeightsError::Serialize)
}

fn entry(name: &str, tensor: &Tensor) -> Result<Entry, WeightsError> {
    if tensor.is_sparse() {
        return Err(unsaved(name, "it is sparse"));
    }
    let dtype = match tensor.kind() {
        Kind::Bool => Dtype::BOOL,
        Kind::Uint8 => Dtype::U8,
        Kind::Int8 => Dtype::I8,
        Kind::Int16 => Dtype::I16,
        Kind::Int => Dtype::I32,
        Kind::Int64 => Dtype::I64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        other => return Err(unsaved(name, &format!("its type is {other:?}"))),
    };
    let failed = |error: tch::TchError| unsaved(name, &error.to_string());
    let tensor = tensor
        .f_detach()
        .and_then(|t| t.f_to_device(Device::Cpu))
        .and_then(|t| t.f_contiguous())
        .map_err(failed)?;
    let mut bytes = vec![0; tensor.numel() * dtype.bitsize() / 8];
    tensor
        .f_copy_data_u8(&mut bytes, tensor.numel())
        .map_err(failed)?;
    let shape = tensor.size().iter().map(|&side| side as usize).collect();
    Ok(Entry {
        dtype,
        shape,
        bytes,
    })
}

fn unsaved(name: &str, reason: &str) -> WeightsError {
    WeightsError::Unsaved {
        name: name.into(),
        reason: reason.into(),
    }
}
