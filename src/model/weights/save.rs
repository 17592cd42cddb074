//! Named tensors to a safetensors file.

use std::collections::BTreeMap;
use std::io::Write;

use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

use super::WeightsError;

const RUNNING_MEAN: &str = ".running_mean";
const BATCHES_TRACKED: &str = ".num_batches_tracked";

/// A safetensors file of `named` tensors (any device and memory layout; the file holds row-major copies) into
/// `out`, one tensor after the other, so that it takes little memory. The same tensors give the same
/// bytes: names and metadata are sorted (the crate's own writer takes a hash map's order).
///
/// `format = pt` is added to `metadata`, because `transformers` insists on it, and an
/// i64 scalar 0 `X.num_batches_tracked` beside each `X.running_mean`, because strict
/// readers of batch norm do.
///
/// # Errors
/// [`WeightsError::Unsaved`] for a name that occurs twice and for sparse, complex or
/// quantised tensors; [`WeightsError::Write`] where `out` takes no more.
pub fn save(
    named: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
    out: &mut impl Write,
) -> Result<(), WeightsError> {
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in named {
        if tensors
            .insert(name.clone(), tensor.shallow_clone())
            .is_some()
        {
            return Err(unsaved(name, "the name occurs twice"));
        }
    }
    for (name, _) in named {
        if let Some(layer) = name.strip_suffix(RUNNING_MEAN) {
            tensors
                .entry(format!("{layer}{BATCHES_TRACKED}"))
                .or_insert_with(|| Tensor::from(0_i64));
        }
    }
    let mut entries = Vec::new();
    for (name, tensor) in &tensors {
        entries.push((dtype(name, tensor)?, name, tensor));
    }
    // As the format wants it: what needs the widest alignment first.
    entries.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let mut metadata = metadata.clone();
    metadata.insert("format".into(), "pt".into());
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut end = 0;
    for (dtype, name, tensor) in &entries {
        let start = end;
        end += tensor.numel() * dtype.bitsize() / 8;
        header.insert(
            name.to_string(),
            serde_json::json!({
                "dtype": dtype,
                "shape": tensor.size(),
                "data_offsets": [start, end],
            }),
        );
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for (dtype, name, tensor) in entries {
        out.write_all(&bytes(name, tensor, dtype)?)?;
    }
    Ok(())
}

/// The same in memory.
///
/// # Errors
/// As of [`save`].
pub fn save_bytes(
    named: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightsError> {
    let mut bytes = Vec::new();
    save(named, metadata, &mut bytes)?;
    Ok(bytes)
}

fn dtype(name: &str, tensor: &Tensor) -> Result<Dtype, WeightsError> {
    if tensor.is_sparse() {
        return Err(unsaved(name, "it is sparse"));
    }
    Ok(match tensor.kind() {
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
    })
}

/// A tensor's numbers, row-major and little-endian.
fn bytes(name: &str, tensor: &Tensor, dtype: Dtype) -> Result<Vec<u8>, WeightsError> {
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
    Ok(bytes)
}

fn unsaved(name: &str, reason: &str) -> WeightsError {
    WeightsError::Unsaved {
        name: name.into(),
        reason: reason.into(),
    }
}
