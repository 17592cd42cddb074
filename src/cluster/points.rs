//! What k-means asks of the points: the nearest centroids, and the means of those that chose each.
//!
//! On the CPU by the exact search of [`nearest`](super::nearest), on other devices by products of
//! tensors.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::kernel::{self, Path};
use super::nearest::{self, Centroids};
use super::{CHUNK_BYTES, ClusterError, chunks, rows_per_chunk, sizes};

/// Points with their present labels.
pub trait Points {
    /// Gives every point the label of its nearest centroid (`[k, d] f32`), ties to the smaller
    /// index.
    fn assign(&mut self, centroids: &Tensor) -> Assigned;

    /// The mean of the points of each cluster `[k, d] f32`; an empty cluster keeps its centroid.
    fn means(&self, centroids: &Tensor) -> Tensor;

    /// Points in each cluster.
    fn sizes(&self) -> Vec<usize>;

    /// `[n] i64` on the device of the points.
    fn labels(&self) -> Tensor;
}

/// What an assignment came to.
pub struct Assigned {
    /// Whether any label changed.
    pub moved: bool,
    /// Sum of squared distances to the nearest centroid.
    pub objective: f64,
}

/// `points` `[n, d] f32`, contiguous, about to be divided among `k` clusters.
///
/// # Errors
/// Rows whose squares leave the range of single precision.
pub fn points(points: &Tensor, k: usize) -> Result<Box<dyn Points + '_>, ClusterError> {
    Ok(match kernel::values(points) {
        Some(values) => Box::new(OnCpu::new(values, points.size()[1] as usize, k)?),
        None => Box::new(OnDevice {
            points,
            labels: Tensor::zeros([points.size()[0]], (Kind::Int64, points.device())) - 1,
            k,
        }),
    })
}

struct OnCpu<'a> {
    path: Path,
    values: &'a [f32],
    d: usize,
    norms: Vec<f64>,
    /// Σ‖x‖²
    energy: f64,
    labels: Vec<u32>,
    /// Points in each cluster, and their sums `[k, d]`.
    sizes: Vec<usize>,
    sums: Vec<f64>,
}

/// Norms beyond this have no square in f32.
const LARGEST: f64 = 1e15;

impl<'a> OnCpu<'a> {
    fn new(values: &'a [f32], d: usize, k: usize) -> Result<Self, ClusterError> {
        let norms = nearest::norms(values, d);
        if let Some(row) = norms.iter().position(|norm| *norm > LARGEST) {
            return Err(ClusterError::TooLarge { row });
        }
        Ok(Self {
            path: Path::best(),
            values,
            d,
            energy: norms.iter().map(|norm| norm * norm).sum(),
            labels: vec![0; norms.len()],
            norms,
            sizes: vec![0; k],
            sums: Vec::new(),
        })
    }

    /// Rows in the order of their labels, and where each label begins.
    fn by_label(&self) -> (Vec<u32>, Vec<usize>) {
        let mut starts = vec![0; self.sizes.len() + 1];
        for &label in &self.labels {
            starts[label as usize + 1] += 1;
        }
        for label in 0..self.sizes.len() {
            starts[label + 1] += starts[label];
        }
        let mut next = starts.clone();
        let mut order = vec![0; self.labels.len()];
        for (row, &label) in self.labels.iter().enumerate() {
            order[next[label as usize]] = row as u32;
            next[label as usize] += 1;
        }
        (order, starts)
    }

    /// Sums each cluster in the order of its rows, so that threads change nothing.
    fn sum(&mut self) {
        let (order, starts) = self.by_label();
        let (d, values) = (self.d, self.values);
        let mut sums = std::mem::take(&mut self.sums);
        sums.resize(self.sizes.len() * d, 0.0);
        sums.par_chunks_exact_mut(d)
            .enumerate()
            .for_each(|(label, sum)| {
                sum.fill(0.0);
                for &row in &order[starts[label]..starts[label + 1]] {
                    let point = &values[row as usize * d..][..d];
                    for (sum, &x) in sum.iter_mut().zip(point) {
                        *sum += f64::from(x);
                    }
                }
            });
        for (label, size) in self.sizes.iter_mut().enumerate() {
            *size = starts[label + 1] - starts[label];
        }
        self.sums = sums;
    }

    /// Σ‖x − c‖² = Σ‖x‖² − 2 Σ_j c_j·S_j + Σ_j n_j ‖c_j‖², with S_j the sums of the clusters.
    fn objective(&self, centroids: &[f32]) -> f64 {
        let clusters = centroids
            .chunks_exact(self.d)
            .zip(self.sums.chunks_exact(self.d));
        let rest: f64 = clusters
            .zip(&self.sizes)
            .map(|((centroid, sum), &size)| {
                let terms = centroid.iter().zip(sum).map(|(&c, s)| {
                    let c = f64::from(c);
                    c * (size as f64 * c - 2.0 * s)
                });
                terms.sum::<f64>()
            })
            .sum();
        (self.energy + rest).max(0.0)
    }
}

impl Points for OnCpu<'_> {
    fn assign(&mut self, centroids: &Tensor) -> Assigned {
        let centroids = centroids.contiguous();
        let values = kernel::values(&centroids).unwrap_or_default();
        let prepared = Centroids::new(values, self.d);
        let moved = nearest::search(
            self.path,
            self.values,
            &self.norms,
            &prepared,
            &mut self.labels,
        );
        if moved > 0 || self.sums.is_empty() {
            self.sum();
        }
        Assigned {
            moved: moved > 0,
            objective: self.objective(values),
        }
    }

    fn means(&self, centroids: &Tensor) -> Tensor {
        let kept = centroids.contiguous();
        let mut means = kernel::values(&kept).unwrap_or_default().to_vec();
        let sums = self.sums.chunks_exact(self.d);
        for ((mean, sum), &size) in means.chunks_exact_mut(self.d).zip(sums).zip(&self.sizes) {
            if size > 0 {
                for (mean, sum) in mean.iter_mut().zip(sum) {
                    *mean = (sum / size as f64) as f32;
                }
            }
        }
        Tensor::from_slice(&means).view_as(centroids)
    }

    fn sizes(&self) -> Vec<usize> {
        self.sizes.clone()
    }

    fn labels(&self) -> Tensor {
        let labels: Vec<i64> = self.labels.iter().map(|&label| i64::from(label)).collect();
        Tensor::from_slice(&labels)
    }
}

/// Squared distances as `‖x‖² − 2 x·c + ‖c‖²` by one matrix product for each block of rows
/// (memory: 64 MiB beside the points, independent of n and k).
struct OnDevice<'a> {
    points: &'a Tensor,
    labels: Tensor,
    k: usize,
}

impl OnDevice<'_> {
    /// Rows for which a block's scores, and the block itself, stay within bounds.
    fn bytes(&self) -> usize {
        let d = self.points.size()[1] as usize;
        CHUNK_BYTES.min(rows_per_chunk(self.k, CHUNK_BYTES) * 8 * d)
    }
}

impl Points for OnDevice<'_> {
    fn assign(&mut self, centroids: &Tensor) -> Assigned {
        let half_norms = centroids.square().sum_dim_intlist(1, false, Kind::Float) * -0.5;
        let transposed = centroids.transpose(0, 1);
        let mut labels = Vec::new();
        let mut objective = Tensor::zeros(1, (Kind::Double, self.points.device()));
        for (_, rows) in chunks(self.points, self.bytes()) {
            // argmin ‖x − c‖² = argmax (x·c − ‖c‖²/2)
            let (score, label) = half_norms.addmm(&rows, &transposed).max_dim(1, false);
            let squared = rows.square().sum_dim_intlist(1, false, Kind::Float) - score * 2.0;
            objective += squared.clamp_min(0.0).sum(Kind::Double);
            labels.push(label);
        }
        let labels = Tensor::cat(&labels, 0);
        let moved = !labels.equal(&self.labels);
        self.labels = labels;
        Assigned {
            moved,
            objective: objective.double_value(&[0]),
        }
    }

    fn means(&self, centroids: &Tensor) -> Tensor {
        let sums = match self.points.device() {
            Device::Cpu => centroids
                .zeros_like()
                .index_add(0, &self.labels, self.points),
            // CUDA's index_add adds in whatever order the threads arrive; products repeat exactly.
            _ => self.sums_by_products(centroids),
        };
        let counts = self
            .labels
            .bincount(None::<Tensor>, self.k as i64)
            .to_kind(Kind::Float)
            .unsqueeze(1);
        (sums / counts.clamp_min(1.0)).where_self(&counts.gt(0.0), centroids)
    }

    fn sizes(&self) -> Vec<usize> {
        sizes(&self.labels, self.k)
    }

    fn labels(&self) -> Tensor {
        self.labels.shallow_clone()
    }
}

impl OnDevice<'_> {
    fn sums_by_products(&self, centroids: &Tensor) -> Tensor {
        let mut sums = centroids.zeros_like();
        for (start, rows) in chunks(self.points, self.bytes()) {
            let chosen = self.labels.narrow(0, start as i64, rows.size()[0]);
            sums += chosen
                .one_hot(self.k as i64)
                .to_kind(Kind::Float)
                .transpose(0, 1)
                .matmul(&rows);
        }
        sums
    }
}
