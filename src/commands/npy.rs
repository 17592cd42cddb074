//! `.npy` files in and out.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ndarray::{Array2, ArrayView2};
use ndarray_npy::{ReadNpyError, ReadNpyExt, WriteNpyExt};
use tch::{Device, Kind, Tensor};

/// A matrix `[n, d]` of f32 or f64, as f32.
///
/// # Errors
/// The file's name, and what is wrong with it.
pub fn read(path: &Path) -> Result<Tensor> {
    let open = || File::open(path).with_context(|| format!("cannot read '{}'", path.display()));
    let matrix = match Array2::<f32>::read_npy(open()?) {
        Err(ReadNpyError::WrongDescriptor(_)) => {
            Array2::<f64>::read_npy(open()?).map(|matrix| matrix.mapv(|value| value as f32))
        }
        other => other,
    };
    let matrix = match matrix {
        Ok(matrix) => matrix,
        Err(ReadNpyError::WrongDescriptor(descriptor)) => {
            bail!(
                "'{}' holds {descriptor}, neither f32 nor f64: save it with .astype('float32')",
                path.display()
            )
        }
        Err(ReadNpyError::WrongNdim(..)) => {
            bail!("'{}' is no matrix [n, d]", path.display())
        }
        Err(error) => {
            // Its causes repeat what it says.
            bail!("'{}' is no good .npy file: {error}", path.display())
        }
    };
    let (rows, columns) = matrix.dim();
    let flat: Vec<f32> = matrix.iter().copied().collect();
    Ok(Tensor::from_slice(&flat).view([rows as i64, columns as i64]))
}

/// The bytes of a matrix `[n, d]` as f32.
pub fn to_bytes(matrix: &Tensor) -> Result<Vec<u8>> {
    let size = matrix.size();
    let flat = matrix
        .to_device(Device::Cpu)
        .to_kind(Kind::Float)
        .contiguous()
        .view(-1);
    let values: Vec<f32> = Vec::try_from(&flat)?;
    let view = ArrayView2::from_shape((size[0] as usize, size[1] as usize), &values)?;
    let mut bytes = Vec::new();
    view.write_npy(&mut bytes)?;
    Ok(bytes)
}
