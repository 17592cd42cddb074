//! Matrices of `tch` as those of `ndarray`, which linfa takes, and back.

use ndarray::Array2;
use tch::{Kind, Tensor};

use super::ClusterError;

/// A matrix as an array, copied to the CPU.
///
/// # Errors
/// What is no matrix.
pub(super) fn to_array(matrix: &Tensor) -> Result<Array2<f32>, ClusterError> {
    let (rows, columns) = super::matrix_size(matrix)?;
    let flat = matrix
        .to_device(tch::Device::Cpu)
        .to_kind(Kind::Float)
        .contiguous()
        .flatten(0, -1);
    Vec::<f32>::try_from(&flat)
        .ok()
        .and_then(|values| Array2::from_shape_vec((rows, columns), values).ok())
        .ok_or_else(|| ClusterError::Shape {
            expected: "a matrix [n, d]".into(),
            got: matrix.size(),
        })
}

/// An array as a tensor `[n, d] f32` on the CPU.
pub(super) fn to_tensor(matrix: &Array2<f32>) -> Tensor {
    let flat: Vec<f32> = matrix.iter().copied().collect();
    Tensor::from_slice(&flat).reshape([matrix.nrows() as i64, matrix.ncols() as i64])
}
