//! A file of weights to named tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use tch::{Kind, Tensor};

use super::WeightsError;
use super::torch_file::{self, TorchFileError};

/// What a file of weights holds.
#[derive(Debug)]
pub struct Weights {
    /// Tensors on the CPU, by the file's names, in the file's dtypes.
    pub tensors: BTreeMap<String, Tensor>,
    /// The safetensors `__metadata__`; empty for a PyTorch file.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a safetensors file, or one that PyTorch's `torch.save` wrote ([`torch_file`]): the content tells
/// which. Takes about twice the file's size in memory.
///
/// # Errors
/// [`WeightsError::Io`], [`WeightsError::Damaged`], [`WeightsError::Tensor`], [`WeightsError::TorchFile`].
pub fn read(path: &Path) -> Result<Weights, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| io(path, source))?;
    match is_torch_file(&bytes) {
        true => read_torch_file(path, &bytes),
        false => read_safetensors(path, &bytes),
    }
}

/// The shapes of a file's tensors by name, without their numbers: quick for files of gigabytes.
///
/// # Errors
/// As [`read`].
pub fn shapes(path: &Path) -> Result<BTreeMap<String, Vec<usize>>, WeightsError> {
    let failed = |source| io(path, source);
    let mut file = File::open(path).map_err(failed)?;
    let mut start = Vec::new();
    file.by_ref()
        .take(SIGNATURE as u64)
        .read_to_end(&mut start)
        .map_err(failed)?;
    file.rewind().map_err(failed)?;
    if is_torch_file(&start) {
        let names =
            torch_file::names(BufReader::new(file)).map_err(|source| refused(path, source))?;
        return Ok(names
            .into_iter()
            .map(|(name, (_, shape))| (name, shape))
            .collect());
    }
    let header = safetensors_header(&mut file).map_err(failed)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| damaged(path, SafeTensorError::InvalidHeaderDeserialization(error)))?;
    let tensors = metadata.tensors().into_iter();
    Ok(tensors
        .map(|(name, info)| (name, info.shape.clone()))
        .collect())
}

/// Bytes from which a file's kind is told.
const SIGNATURE: usize = 9;
/// A longer header is refused by the format's own reader.
const MOST_HEADER: u64 = 100_000_000;

/// A safetensors file begins with the length of its header, whose first byte follows; all others are
/// PyTorch's where they look like it.
fn is_torch_file(start: &[u8]) -> bool {
    let safetensors = start.get(SIGNATURE - 1) == Some(&b'{');
    !safetensors && torch_file::looks_like(start)
}

/// The header's JSON, or as much of it as there is.
fn safetensors_header(file: &mut File) -> std::io::Result<Vec<u8>> {
    let (mut length, mut header) = ([0; 8], Vec::new());
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length).min(MOST_HEADER);
    file.take(length).read_to_end(&mut header)?;
    Ok(header)
}

fn read_torch_file(path: &Path, bytes: &[u8]) -> Result<Weights, WeightsError> {
    let file = torch_file::read(bytes).map_err(|source| refused(path, source))?;
    let tensors = file.tensors.into_iter().map(|(name, raw)| {
        let kind = match raw.dtype {
            torch_file::Dtype::Bool => Kind::Bool,
            torch_file::Dtype::U8 => Kind::Uint8,
            torch_file::Dtype::I8 => Kind::Int8,
            torch_file::Dtype::I16 => Kind::Int16,
            torch_file::Dtype::I32 => Kind::Int,
            torch_file::Dtype::I64 => Kind::Int64,
            torch_file::Dtype::F16 => Kind::Half,
            torch_file::Dtype::BF16 => Kind::BFloat16,
            torch_file::Dtype::F32 => Kind::Float,
            torch_file::Dtype::F64 => Kind::Double,
        };
        let tensor =
            filled(&raw.bytes, &raw.shape, kind).map_err(|reason| WeightsError::Tensor {
                path: path.into(),
                name: name.clone(),
                dtype: format!("{:?}", raw.dtype),
                shape: raw.shape.clone(),
                reason,
            })?;
        Ok((name, tensor))
    });
    Ok(Weights {
        tensors: tensors.collect::<Result<_, WeightsError>>()?,
        metadata: BTreeMap::new(),
    })
}

fn read_safetensors(path: &Path, bytes: &[u8]) -> Result<Weights, WeightsError> {
    let damaged = |source| damaged(path, source);
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let metadata = header.metadata().iter().flatten();
    let metadata = metadata.map(|(k, v)| (k.clone(), v.clone())).collect();
    let tensors = SafeTensors::deserialize(bytes)
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
    filled(view.data(), view.shape(), kind)
}

/// A tensor of these bytes, or the reason why there is none.
fn filled(bytes: &[u8], shape: &[usize], kind: Kind) -> Result<Tensor, String> {
    let shape = sides(shape).ok_or("its shape is too large")?;
    Tensor::f_from_data_size(bytes, &shape, kind).map_err(|error| error.to_string())
}

/// The shape as libtorch wants it. A shape such as `[0, 2^62, 2^62]` holds no numbers,
/// so that the file format allows it, but its strides would overflow.
fn sides(shape: &[usize]) -> Option<Vec<i64>> {
    shape.iter().try_fold(1i64, |stride, &side| {
        stride.checked_mul(i64::try_from(side.max(1)).ok()?)
    })?;
    shape.iter().map(|&side| i64::try_from(side).ok()).collect()
}

fn refused(path: &Path, source: TorchFileError) -> WeightsError {
    WeightsError::TorchFile {
        path: path.into(),
        source: Box::new(source),
    }
}

fn damaged(path: &Path, source: SafeTensorError) -> WeightsError {
    WeightsError::Damaged {
        path: path.into(),
        source,
    }
}

fn io(path: &Path, source: std::io::Error) -> WeightsError {
    WeightsError::Io {
        path: path.into(),
        source,
    }
}
