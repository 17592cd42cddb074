//! What k-means asks of the points: the nearest centroids, and the means of those that chose each.

mod on_cpu;
mod on_device;

use tch::{Device, Kind, Tensor};

use super::{Assignment, ClusterError, kernel};
use on_cpu::OnCpu;
use on_device::OnDevice;

/// Points with their present labels.
pub trait Points {
    /// Gives every point the label of its nearest centroid (`[k, d] f32`) in f64, ties to the smaller
    /// index; on a device among the few that f32 finds nearest.
    fn assign(&mut self, centroids: &Tensor) -> Tally;

    /// The mean of the points of each cluster `[k, d] f32`, by weight; a cluster that is empty, or
    /// weighs nothing, keeps its centroid.
    fn means(&self, centroids: &Tensor) -> Tensor;

    /// Points in each cluster.
    fn sizes(&self) -> Vec<usize>;

    /// `[n] i64` on the device of the points.
    fn labels(&self) -> Tensor;

    /// Squared distance of each point to the centroid that it chose, and its label.
    fn squared_distances(&self) -> (Vec<f64>, Vec<u32>);

    /// How many iterations may be begun before the first of them is looked at.
    fn ahead(&self) -> usize {
        1
    }
}

/// What an assignment came to, which a device may still be working on.
#[derive(Debug)]
pub enum Tally {
    Known {
        assignment: Assignment,
        /// Clusters without points.
        empty: usize,
    },
    /// `[3] f64` on the device: labels that changed, the objective, clusters without points.
    OnDevice(Tensor),
}

impl Tally {
    /// Waits for all of them, once.
    pub fn read(tallies: &[Self]) -> Vec<(Assignment, usize)> {
        let pending: Vec<&Tensor> = tallies
            .iter()
            .filter_map(|tally| match tally {
                Self::Known { .. } => None,
                Self::OnDevice(numbers) => Some(numbers),
            })
            .collect();
        let numbers: Vec<f64> = if pending.is_empty() {
            Vec::new()
        } else {
            let all = Tensor::cat(&pending, 0).to_device(Device::Cpu);
            Vec::try_from(&all).expect("f64 on the CPU")
        };
        let mut arrived = numbers.as_chunks::<3>().0.iter();
        let read = |tally: &Self| match tally {
            Self::Known { assignment, empty } => (*assignment, *empty),
            Self::OnDevice(_) => {
                let &[moved, objective, empty] = arrived.next().expect("three numbers of each");
                let assignment = Assignment {
                    moved: moved as usize,
                    objective,
                    ..Assignment::default()
                };
                (assignment, empty as usize)
            }
        };
        tallies.iter().map(read).collect()
    }
}

/// Norms beyond this have no square in f32.
pub(super) const LARGEST: f64 = 1e15;

/// `points` `[n, d] f32`, contiguous, with their `weights` `[n] f32` (each 1 where there are none),
/// about to be divided among `k` clusters. `products` takes matrix products on a CPU too.
///
/// # Errors
/// Rows whose squares leave the range of single precision.
pub fn points<'a>(
    points: &'a Tensor,
    weights: Option<&Tensor>,
    k: usize,
    products: bool,
) -> Result<Box<dyn Points + 'a>, ClusterError> {
    Ok(match kernel::values(points) {
        Some(values) if !products => {
            let weights = weights.map(|weights| {
                let here = weights.to_device(Device::Cpu).to_kind(Kind::Float);
                Vec::try_from(&here).unwrap_or_default()
            });
            Box::new(OnCpu::new(values, points.size()[1] as usize, weights, k)?)
        }
        _ => Box::new(OnDevice::new(points, weights, k)?),
    })
}
