//! Labels and numbers as tensors, and back.

use tch::{Device, Kind, Tensor};

/// Labels, or numbers of images, as `[n] i64` on the CPU.
pub fn from_labels(labels: &[u32]) -> Tensor {
    let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
    Tensor::from_slice(&labels)
}

/// Labels `[n]` of any kind and device; none may be negative.
pub fn to_labels(labels: &Tensor) -> Vec<u32> {
    let labels = labels.to_device(Device::Cpu).to_kind(Kind::Int64);
    let labels: Vec<i64> = Vec::try_from(&labels.contiguous()).unwrap_or_default();
    labels.into_iter().map(|label| label as u32).collect()
}

/// All numbers of a tensor of any kind and device, row by row, as f64.
pub fn to_f64(values: &Tensor) -> Vec<f64> {
    let here = values.to_device(Device::Cpu).to_kind(Kind::Double);
    Vec::try_from(here.contiguous().flatten(0, -1)).unwrap_or_default()
}

/// The same as f32.
pub fn to_f32(values: &Tensor) -> Vec<f32> {
    let here = values.to_device(Device::Cpu).to_kind(Kind::Float);
    Vec::try_from(here.contiguous().flatten(0, -1)).unwrap_or_default()
}

/// How often the largest of scores `[.., k]` stands at `targets` `[..]`: a scalar on their device.
pub fn correct(scores: &Tensor, targets: &Tensor) -> Tensor {
    let predicted = scores.argmax(-1, false);
    predicted.eq_tensor(targets).sum(Kind::Int64)
}

/// Rows of unit length, in the kind of the input; a zero row stays zero.
pub fn l2_rows(features: &Tensor) -> Tensor {
    let norms = features
        .square()
        .sum_dim_intlist(1, true, features.kind())
        .sqrt();
    features / norms.clamp_min(1e-12)
}
