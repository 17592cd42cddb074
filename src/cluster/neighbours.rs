//! The exact nearest neighbours of every point among the others, by blocked matrix products.

use tch::{Device, Kind, Tensor};

use super::points::LARGEST;
use super::{CHUNK_BYTES, ClusterError, check_finite, chunks, matrix_size, rows_per_chunk};
use crate::tensors::{from_labels, l2_rows, to_f64};

/// More candidates than are asked for, so that single precision seldom leaves anything open.
const SPARE: i64 = 4;

/// For each of n points its m nearest others, the nearest first, ties by index.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// m
    pub count: usize,
    /// `[n, m]`
    pub index: Vec<u32>,
    /// `[n, m]`: squared Euclidean distances.
    pub squared: Vec<f64>,
}

impl Neighbours {
    /// The `count` nearest others of each of `points` `[n, d]`, fewer where there are not so many.
    /// Single-precision products choose a few candidates more, distances in f64 decide; where the
    /// products cannot rule the rest out, the row is searched in f64. Memory: some 200 MiB
    /// beside the points.
    ///
    /// # Errors
    /// Not a matrix, a row with NaN or infinity, or with squares beyond single precision.
    pub fn find(points: &Tensor, count: usize) -> Result<Self, ClusterError> {
        let (n, d) = matrix_size(points)?;
        check_finite(points)?;
        let count = count.min(n.saturating_sub(1));
        let mut found = Self {
            count,
            index: Vec::with_capacity(n * count),
            squared: Vec::with_capacity(n * count),
        };
        if count == 0 {
            return Ok(found);
        }
        tch::no_grad(|| {
            let points = points.to_kind(Kind::Float).contiguous();
            let squares: Vec<Tensor> = chunks(&points, CHUNK_BYTES)
                .map(|(_, rows)| {
                    let rows = rows.to_kind(Kind::Double);
                    rows.square().sum_dim_intlist(1, false, Kind::Double)
                })
                .collect();
            let squares = Tensor::cat(&squares, 0);
            let half = (&squares * -0.5).to_kind(Kind::Float);
            let longest = squares.max().double_value(&[]).sqrt();
            if longest > LARGEST {
                let row = squares.argmax(0, false).int64_value(&[]) as usize;
                return Err(ClusterError::TooLarge { row });
            }
            let transposed = points.transpose(0, 1);
            let candidates = (count as i64 + SPARE).min(n as i64 - 1);
            let rows = rows_per_chunk(n.max(d * candidates as usize), CHUNK_BYTES) as i64;
            for start in (0..n as i64).step_by(rows as usize) {
                let block = points.narrow(0, start, rows.min(n as i64 - start));
                // x·y − ‖y‖²/2 is the largest for the nearest y.
                let scores = half.addmm(&block, &transposed);
                let _ = scores.diagonal(start, 0, 1).fill_(f64::NEG_INFINITY);
                let (best, index) = scores.topk(candidates, 1, true, true);
                let others = points
                    .index_select(0, &index.flatten(0, -1))
                    .view([-1, candidates, d as i64]);
                let squared = squared_distances(&block, &others);
                let lengths = to_f64(&squares.narrow(0, start, block.size()[0]));
                let last = to_f64(&best.select(1, candidates - 1));
                let index: Vec<i64> =
                    Vec::try_from(&index.flatten(0, -1).to_device(Device::Cpu)).unwrap_or_default();
                let each = to_f64(&squared);
                let each = index.into_iter().zip(each).collect::<Vec<_>>();
                for (row, near) in each.chunks_exact(candidates as usize).enumerate() {
                    let mut near = near.to_vec();
                    sort(&mut near);
                    let norm = lengths[row].sqrt();
                    // Of a sum of d rounded products (Higham, section 3.1), with room.
                    let error =
                        (d as f64 + 8.0) * f64::from(f32::EPSILON) * longest * (norm + longest);
                    let rest = lengths[row] - 2.0 * (last[row] + error);
                    if candidates as usize + 1 < n && rest <= near[count - 1].1 {
                        near = search(&points, start + row as i64);
                    }
                    found
                        .index
                        .extend(near[..count].iter().map(|&(j, _)| j as u32));
                    found
                        .squared
                        .extend(near[..count].iter().map(|&(_, squared)| squared));
                }
            }
            Ok(found)
        })
    }

    /// The neighbours of point `i` with their squared distances.
    pub fn of(&self, i: usize) -> impl Iterator<Item = (u32, f64)> + '_ {
        let range = i * self.count..(i + 1) * self.count;
        let pairs = self.index[range.clone()].iter().zip(&self.squared[range]);
        pairs.map(|(&j, &squared)| (j, squared))
    }
}

/// Neighbours that a point is moved to at most, and how far.
const SMOOTHED_BY: i64 = 3;
const SMOOTHED_SHARE: f64 = 0.5;

/// Points up to which what neighbours tell is worth their search, whose time grows with the square of the points.
pub const MOST_SEARCHED: usize = 100_000;

/// `points` `[n, d] f32` of unit length, each moved half of the way to its three nearest of those `found`, which
/// count by the cubes of their cosines, and brought back to unit length: what few images have in common stands out
/// from what each has alone. (Measured on ten folders of 190 to 2,920 pictures with MobileNetV2's features: clusters
/// agree with the folders at an NMI of 0.557 in the mean where they agreed at 0.537 without; two to four neighbours
/// do as well, ten do not.)
pub fn smoothed(points: &Tensor, found: &Neighbours) -> Tensor {
    let shape = [points.size()[0], found.count as i64];
    let count = shape[1].min(SMOOTHED_BY);
    if count == 0 {
        return points.shallow_clone();
    }
    let device = points.device();
    let index = from_labels(&found.index).to_device(device);
    let cosines = Tensor::from_slice(&found.squared) * -0.5 + 1.0;
    let weights = cosines.clamp_min(0.0).pow_tensor_scalar(3).view(shape);
    let weights = weights.narrow(1, 0, count);
    let sums = weights.sum_dim_intlist(1, true, Kind::Double);
    let weights = (weights / sums.clamp_min(f64::MIN_POSITIVE))
        .to_kind(Kind::Float)
        .to_device(device);
    let mut near = Tensor::zeros_like(points);
    for number in 0..count {
        let rows = index.view(shape).select(1, number).contiguous();
        near += points.index_select(0, &rows) * weights.narrow(1, number, 1);
    }
    let near = l2_rows(&near);
    l2_rows(&(points * (1.0 - SMOOTHED_SHARE) + near * SMOOTHED_SHARE))
}

/// All others of point `i` by distance, in f64.
fn search(points: &Tensor, i: i64) -> Vec<(i64, f64)> {
    let point = points.narrow(0, i, 1);
    let mut all = Vec::new();
    for (start, rows) in chunks(points, CHUNK_BYTES) {
        let squared = to_f64(&squared_distances(&point, &rows.unsqueeze(0)));
        all.extend((start as i64..).zip(squared));
    }
    all.retain(|&(j, _)| j != i);
    sort(&mut all);
    all
}

/// Squared distances `[r, c] f64` of `points` `[r, d]` to `others` `[r, c, d]`.
fn squared_distances(points: &Tensor, others: &Tensor) -> Tensor {
    let differences = others.to_kind(Kind::Double) - points.to_kind(Kind::Double).unsqueeze(1);
    differences.square().sum_dim_intlist(2, false, Kind::Double)
}

fn sort(near: &mut [(i64, f64)]) {
    near.sort_unstable_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
}
