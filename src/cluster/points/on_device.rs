//! Points on any device, by products of tensors.
//!
//! A block of rows is multiplied with all centroids in f32, of which the [`CANDIDATES`] best go on to
//! distances in f64, and its part of the clusters' sums is one more product (CUDA's `index_add` adds in
//! whatever order its threads arrive; products repeat exactly). Nothing is read back: what an assignment
//! came to stays on the device, so that several iterations are under way at a time.
//!
//! Memory beside the points: [`BYTES`] and half as much again, 16 bytes for each point, and the centroids
//! some ten times over.

use tch::{Device, Kind, Tensor};

use super::{LARGEST, Points, Tally};
use crate::cluster::{ClusterError, chunks, rows_per_chunk, sizes};

/// For the scores of a block and the matrix of what it chose.
const BYTES: usize = 256 << 20;
/// Centroids of which f32 cannot say which is the nearest, at most.
const CANDIDATES: i64 = 4;
/// Iterations under way at a time.
const AHEAD: usize = 8;

pub(super) struct OnDevice<'a> {
    points: &'a Tensor,
    /// `[1, d] f32`: what all points have in common is taken off before f32 multiplies them.
    centre: Tensor,
    /// `[n] f32`, where there are some.
    weights: Option<Tensor>,
    labels: Tensor,
    /// `[n] f64`
    squared: Tensor,
    /// Of each cluster the weight `[k, 1] f64`, and the sum of what its points are off the centre
    /// `[k, d] f64`.
    masses: Tensor,
    sums: Tensor,
    k: usize,
}

impl<'a> OnDevice<'a> {
    /// `points` `[n, d] f32` with their `weights` `[n]`, for `k` clusters.
    ///
    /// # Errors
    /// Rows whose squares leave the range of single precision.
    pub fn new(
        points: &'a Tensor,
        weights: Option<&Tensor>,
        k: usize,
    ) -> Result<Self, ClusterError> {
        let (n, device) = (points.size()[0], points.device());
        for (start, rows) in chunks(points, BYTES) {
            let long = rows
                .to_kind(Kind::Double)
                .square()
                .sum_dim_intlist(1, false, Kind::Double)
                .gt(LARGEST * LARGEST);
            if long.any().int64_value(&[]) != 0 {
                let row = long.to_kind(Kind::Int).argmax(0, false).int64_value(&[]);
                return Err(ClusterError::TooLarge {
                    row: start + row as usize,
                });
            }
        }
        Ok(Self {
            centre: points.mean_dim(0, true, Kind::Float),
            points,
            weights: weights.map(|weights| weights.to_kind(Kind::Float).to_device(device)),
            labels: Tensor::full([n], -1, (Kind::Int64, device)),
            squared: Tensor::zeros([n], (Kind::Double, device)),
            masses: Tensor::new(),
            sums: Tensor::new(),
            k,
        })
    }

    /// Rows of which scores for all centroids, and candidates in f64, stay within bounds.
    fn rows(&self) -> i64 {
        let d = self.points.size()[1] as usize;
        rows_per_chunk(self.k.max(CANDIDATES as usize * d), BYTES) as i64
    }
}

/// For each of `rows` `[b, d] f32` the nearest of its candidates `[b, c]` among `centroids` `[k, d] f64`,
/// ties to the smaller index: squared distances `[b] f64` and indices `[b] i64`.
fn nearest(rows: &Tensor, candidates: &Tensor, centroids: &Tensor) -> (Tensor, Tensor) {
    let rows = rows.to_kind(Kind::Double);
    let distances: Vec<Tensor> = (0..candidates.size()[1])
        .map(|at| {
            let those = centroids.index_select(0, &candidates.select(1, at));
            (&rows - those)
                .square_()
                .sum_dim_intlist(1, false, Kind::Double)
        })
        .collect();
    let squared = Tensor::stack(&distances, 1);
    let best = squared.amin(1, true);
    let beyond = candidates.full_like(i64::MAX);
    let label = candidates
        .where_self(&squared.le_tensor(&best), &beyond)
        .amin(1, false);
    (best.squeeze_dim(1), label)
}

impl Points for OnDevice<'_> {
    fn assign(&mut self, centroids: &Tensor) -> Tally {
        let (n, d, k) = (self.points.size()[0], self.points.size()[1], self.k as i64);
        let device = self.points.device();
        let shifted = centroids - &self.centre;
        let half_norms = shifted.square().sum_dim_intlist(1, false, Kind::Float) * -0.5;
        let transposed = shifted.transpose(0, 1);
        let precise = centroids.to_kind(Kind::Double);
        let columns = Tensor::arange(k, (Kind::Int64, device));
        let sum = |of: &Tensor| of.sum_dim_intlist(0, false, Kind::Double).unsqueeze(1);
        let double = (Kind::Double, device);
        let mut sums = Tensor::zeros([k, d], double);
        let (mut masses, mut counts) =
            (Tensor::zeros([k, 1], double), Tensor::zeros([k, 1], double));
        let mut moved = Tensor::zeros([1], (Kind::Int64, device));
        let mut objective = Tensor::zeros([1], double);
        let step = self.rows();
        for start in (0..n).step_by(step as usize) {
            let part = |all: &Tensor| all.narrow(0, start, step.min(n - start));
            let (rows, mut before) = (part(self.points), part(&self.labels));
            let centred = &rows - &self.centre;
            // argmin ‖x − c‖² = argmax (x·c − ‖c‖²/2)
            let scores = half_norms.addmm(&centred, &transposed);
            let (_, candidates) = scores.topk(CANDIDATES.min(k), 1, true, false);
            let (mut squared, label) = nearest(&rows, &candidates, &precise);
            drop(scores);
            let chosen = label.unsqueeze(1).eq_tensor(&columns).to_kind(Kind::Float);
            counts += sum(&chosen);
            part(&self.squared).copy_(&squared);
            let chosen = match &self.weights {
                None => chosen,
                Some(weights) => {
                    let weights = part(weights);
                    squared *= &weights;
                    chosen * weights.unsqueeze(1)
                }
            };
            masses += sum(&chosen);
            sums += chosen.transpose(0, 1).matmul(&centred);
            objective += squared.sum(Kind::Double);
            moved += label.not_equal_tensor(&before).sum(Kind::Int64);
            before.copy_(&label);
        }
        (self.sums, self.masses) = (sums, masses);
        let empty = counts.eq(0.0).sum(Kind::Double).view([1]);
        Tally::OnDevice(Tensor::cat(
            &[moved.to_kind(Kind::Double), objective, empty],
            0,
        ))
    }

    fn means(&self, centroids: &Tensor) -> Tensor {
        let some = self.masses.gt(0.0);
        let masses = self.masses.where_self(&some, &self.masses.ones_like());
        let means = &self.sums / masses + &self.centre;
        means.to_kind(Kind::Float).where_self(&some, centroids)
    }

    fn sizes(&self) -> Vec<usize> {
        sizes(&self.labels, self.k)
    }

    fn labels(&self) -> Tensor {
        self.labels.shallow_clone()
    }

    fn squared_distances(&self) -> (Vec<f64>, Vec<u32>) {
        let labels: Vec<i64> =
            Vec::try_from(&self.labels.to_device(Device::Cpu)).unwrap_or_default();
        (
            Vec::try_from(&self.squared.to_device(Device::Cpu)).unwrap_or_default(),
            labels.into_iter().map(|label| label as u32).collect(),
        )
    }

    fn ahead(&self) -> usize {
        AHEAD
    }
}
