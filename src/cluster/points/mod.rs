//! What k-means asks of the points: the nearest centroids, and the means of those that chose each.

mod on_cpu;
mod on_device;

use tch::{Device, Kind, Tensor};

use super::{Assignment, ClusterError, kernel};
use crate::comm::Comm;
use on_cpu::OnCpu;
use on_device::OnDevice;

/// Points with their present labels.
pub trait Points {
    /// Gives every point the label of its nearest centroid (`[k, d] f32`), ties to the smaller index, as
    /// f64 tells them apart.
    fn assign(&mut self, centroids: &Tensor) -> Found;

    /// The sums of the points of each cluster.
    fn sums(&self) -> Sums;

    /// Of the points here those in each cluster.
    fn sizes(&self) -> Vec<usize>;

    /// `[n] i64` on the device of the points.
    fn labels(&self) -> Tensor;

    /// Squared distance of each point to the centroid that it chose, and its label.
    fn squared_distances(&self) -> (Vec<f64>, Vec<u32>);
}

/// The points of each cluster here, added up by weight.
#[derive(Debug)]
pub struct Sums {
    /// `[k, d] f64`, of what they are off the origin.
    pub sums: Tensor,
    /// `[k, 1] f64`
    pub masses: Tensor,
    /// `[1, d] f32`, the same in every process; that of the coordinates where there is none.
    pub origin: Option<Tensor>,
}

/// What an assignment came to for the points here.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub assignment: Assignment,
    /// Clusters without points.
    pub empty: usize,
}

/// Norms beyond this have no square in f32.
pub(super) const LARGEST: f64 = 1e15;

/// `points` `[n, d] f32`, contiguous, with their `weights` `[n] f32` (each 1 where there are none),
/// about to be divided among `k` clusters by work on `device`. `products` takes matrix products on a CPU
/// too.
///
/// # Errors
/// Rows whose squares leave the range of single precision.
pub fn points<'a>(
    points: &'a Tensor,
    weights: Option<&Tensor>,
    k: usize,
    device: Device,
    products: bool,
    comm: &dyn Comm,
) -> Result<Box<dyn Points + 'a>, ClusterError> {
    // All processes take the same way.
    let values = kernel::values(points).filter(|_| device == Device::Cpu && !products);
    let elsewhere = comm.any(values.is_none());
    Ok(match values {
        Some(values) if !elsewhere => {
            let weights = weights.map(|weights| {
                let here = weights.to_device(Device::Cpu).to_kind(Kind::Float);
                Vec::try_from(&here).unwrap_or_default()
            });
            Box::new(OnCpu::new(values, points.size()[1] as usize, weights, k)?)
        }
        _ => Box::new(OnDevice::new(points, weights, k, device, comm)?),
    })
}
