//! Points in the memory of the processor, by the exact search of [`nearest`](crate::cluster::nearest).

use rayon::prelude::*;
use tch::Tensor;

use super::{Found, LARGEST, Points, Sums};
use crate::cluster::kernel::{self, Isa, Products, Work};
use crate::cluster::nearest::Search;
use crate::cluster::{Assignment, ClusterError};
use crate::tensors::from_labels;

pub(super) struct OnCpu<'a> {
    search: Search<'a>,
    values: &'a [f32],
    d: usize,
    weights: Option<Vec<f32>>,
    /// Σ w ‖x‖²
    energy: f64,
    /// Whether some points are so much longer than most that a sum does not forget them.
    spread: bool,
    /// Points in each cluster, their weight, and their sums `[k, d]` by weight; empty before the first
    /// assignment.
    sizes: Vec<usize>,
    masses: Vec<f64>,
    sums: Vec<f64>,
}

/// What a point this many times longer than the typical one leaves behind in a sum that it has come
/// to and left is still far below what single precision shows.
const SPREAD: f64 = 1e3;

impl<'a> OnCpu<'a> {
    /// `values` `[n, d]` with their `weights` `[n]`, for `k` clusters.
    ///
    /// # Errors
    /// Rows whose squares leave the range of single precision.
    pub fn new(
        values: &'a [f32],
        d: usize,
        weights: Option<Vec<f32>>,
        k: usize,
    ) -> Result<Self, ClusterError> {
        let search = Search::new(Isa::best(), values, d, k);
        let norms = search.norms();
        if let Some(row) = norms.iter().position(|norm| *norm > LARGEST) {
            return Err(ClusterError::TooLarge { row });
        }
        let squares = norms.iter().map(|norm| norm * norm);
        let energy: f64 = match &weights {
            None => squares.sum(),
            Some(weights) => squares.zip(weights).map(|(s, &w)| s * f64::from(w)).sum(),
        };
        let mut order = norms.to_vec();
        let middle = order.len() / 2;
        let (_, &mut typical, _) = order.select_nth_unstable_by(middle, f64::total_cmp);
        Ok(Self {
            values,
            d,
            energy,
            // A heavy point leaves as much behind as a long one.
            spread: weights.is_some() || norms.iter().any(|&norm| norm > SPREAD * typical),
            weights,
            search,
            sizes: vec![0; k],
            masses: vec![0.0; k],
            sums: Vec::new(),
        })
    }

    /// Renews sums and sizes after labels have changed from those `before`. A cluster in which much
    /// has changed is summed anew, another one takes points in and gives points away; both in the
    /// order of rows, so that threads change nothing.
    fn sum(&mut self, before: &[u32]) {
        let first = self.sums.is_empty();
        self.sums.resize(self.sizes.len() * self.d, 0.0);
        let labels = self.search.labels();
        // (cluster, row, whether it came), by cluster and row.
        let mut moves: Vec<(u32, u32, bool)> = Vec::new();
        if !first {
            for (row, (&from, &to)) in (0..).zip(before.iter().zip(labels)) {
                if from != to {
                    moves.extend([(from, row, false), (to, row, true)]);
                }
            }
            moves.par_sort_unstable();
        }
        let mut starts = vec![0; self.sizes.len() + 1];
        for (label, start) in starts.iter_mut().enumerate() {
            *start = moves.partition_point(|moved| (moved.0 as usize) < label);
        }
        let anew: Vec<bool> = (0..self.sizes.len())
            .map(|label| {
                let moved = starts[label + 1] - starts[label];
                first || (moved > 0 && (self.spread || 2 * moved > self.sizes[label]))
            })
            .collect();
        let rows = by_label(labels, &anew);
        let (d, values) = (self.d, self.values);
        let weights = self.weights.as_deref();
        self.sums
            .par_chunks_exact_mut(d)
            .zip(&mut self.sizes)
            .zip(&mut self.masses)
            .enumerate()
            .for_each(|(label, ((sum, size), mass))| {
                let changes: Vec<(u32, f64)> = if anew[label] {
                    (*size, *mass) = (0, 0.0);
                    sum.fill(0.0);
                    rows[label].iter().map(|&row| (row, 1.0)).collect()
                } else {
                    let moves = &moves[starts[label]..starts[label + 1]];
                    let signed = |&(_, row, came)| (row, if came { 1.0 } else { -1.0 });
                    moves.iter().map(signed).collect()
                };
                let came = changes.iter().filter(|(_, sign)| *sign > 0.0).count();
                *size = *size + came - (changes.len() - came);
                *mass += Isa::best().run(Add {
                    sum,
                    values,
                    weights,
                    changes: &changes,
                });
            });
    }

    /// Σ w ‖x − c‖² = Σ w ‖x‖² − 2 Σ_j c_j·S_j + Σ_j m_j ‖c_j‖², with S_j the sums of the clusters and
    /// m_j their weights.
    fn objective(&self, centroids: &[f32]) -> f64 {
        let clusters = centroids
            .chunks_exact(self.d)
            .zip(self.sums.chunks_exact(self.d));
        let rest: f64 = clusters
            .zip(&self.masses)
            .map(|((centroid, sum), &mass)| {
                let terms = centroid.iter().zip(sum).map(|(&c, s)| {
                    let c = f64::from(c);
                    c * (mass * c - 2.0 * s)
                });
                terms.sum::<f64>()
            })
            .sum();
        (self.energy + rest).max(0.0)
    }
}

/// Rows that come to a cluster (with 1) or leave it (with −1).
struct Add<'a> {
    /// `[d]`
    sum: &'a mut [f64],
    /// `[n, d]`
    values: &'a [f32],
    weights: Option<&'a [f32]>,
    changes: &'a [(u32, f64)],
}

impl Work for Add<'_> {
    /// By how much the cluster's weight has grown.
    type Output = f64;

    #[inline(always)]
    fn run<P: Products>(self) -> f64 {
        /// Rows between the one that is added and the one that is asked for.
        const AHEAD: usize = 2;
        let d = self.sum.len();
        let row = |row: u32| &self.values[row as usize * d..][..d];
        let mut mass = 0.0;
        for (at, &(index, sign)) in self.changes.iter().enumerate() {
            if let Some(&(next, _)) = self.changes.get(at + AHEAD) {
                P::prefetch(row(next));
            }
            let weight = self
                .weights
                .map_or(1.0, |all| f64::from(all[index as usize]))
                * sign;
            for (sum, &x) in self.sum.iter_mut().zip(row(index)) {
                *sum += weight * f64::from(x);
            }
            mass += weight;
        }
        mass
    }
}

/// The rows of each label for which `wanted` holds.
fn by_label(labels: &[u32], wanted: &[bool]) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::new(); wanted.len()];
    if wanted.contains(&true) {
        for (row, &label) in (0..).zip(labels) {
            if wanted[label as usize] {
                rows[label as usize].push(row);
            }
        }
    }
    rows
}

impl Points for OnCpu<'_> {
    fn assign(&mut self, centroids: &Tensor) -> Found {
        let centroids = centroids.contiguous();
        let values = kernel::values(&centroids).unwrap_or_default();
        let before = self.search.labels().to_vec();
        let changed = self.search.assign(values);
        // A first label is a change as well.
        let moved = if self.sums.is_empty() {
            before.len()
        } else {
            changed
        };
        if moved > 0 {
            self.sum(&before);
        }
        Found {
            assignment: Assignment {
                moved,
                objective: self.objective(values),
                ..Assignment::default()
            },
            empty: self.sizes.iter().filter(|&&size| size == 0).count(),
        }
    }

    fn sums(&self) -> Sums {
        let shape = [self.sizes.len() as i64, self.d as i64];
        Sums {
            sums: Tensor::from_slice(&self.sums).view(shape),
            masses: Tensor::from_slice(&self.masses).unsqueeze(1),
            origin: None,
        }
    }

    fn sizes(&self) -> Vec<usize> {
        self.sizes.clone()
    }

    fn labels(&self) -> Tensor {
        from_labels(self.search.labels())
    }

    fn squared_distances(&self) -> (Vec<f64>, Vec<u32>) {
        (
            self.search.squared_distances(),
            self.search.labels().to_vec(),
        )
    }
}
