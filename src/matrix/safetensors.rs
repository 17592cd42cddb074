//! `.safetensors` with one matrix in it.

use std::path::Path;

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use crate::model::weights;

/// The one matrix in the file at `path`, as f32.
pub(super) fn read(path: &Path) -> Result<Tensor> {
    let file = weights::read(path)?;
    let mut matrices = file
        .tensors
        .into_iter()
        .filter(|(_, tensor)| tensor.dim() == 2 && tensor.is_floating_point());
    match (matrices.next(), matrices.next()) {
        (Some((_, matrix)), None) => Ok(matrix.to_kind(Kind::Float)),
        (None, _) => bail!(
            "'{}' holds no matrix of floating-point numbers",
            path.display()
        ),
        (Some((first, _)), Some((second, _))) => bail!(
            "'{}' holds several matrices ('{first}', '{second}', ...): save the one alone",
            path.display()
        ),
    }
}
