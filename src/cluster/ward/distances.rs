//! Ward's distances between points, 2ab/(a + b) times the squared distance of points of weight a and b,
//! in f32.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::product::{self, Operands, TILE};
use super::{Points, row};
use crate::cluster::ClusterError;

/// Squared distances below this share of the squared norms are computed from differences, because
/// little is left of them where a product is taken off.
const NEAR: f32 = 1.0 / 64.0;

/// A symmetric matrix.
pub struct Distances {
    /// Row by row, infinity on the diagonal and in the columns that pad it.
    pub rows: Vec<Vec<f32>>,
    /// A bound on the error of each, as a share of it.
    pub error: f64,
}

/// Between all points.
///
/// # Errors
/// [`ClusterError::Interrupted`]
pub fn between(points: &Points, stop: &dyn Fn() -> bool) -> Result<Distances, ClusterError> {
    let n = points.weights.len();
    let operands = Operands::new(&points.values, &points.centre);
    let rows = points.values.par_chunks_exact(points.d);
    let norms = rows.map(|row| row::squared_distance(row, &points.centre) as f32);
    let norms: Vec<f32> = norms.collect();
    let weights: Vec<f32> = points.weights.iter().map(|&weight| weight as f32).collect();
    let blank = |_| vec![f32::INFINITY; row::padded(n)];
    let mut rows: Vec<Vec<f32>> = (0..n).into_par_iter().map(blank).collect();
    let mut tiles: Vec<&mut [Vec<f32>]> = rows.chunks_mut(TILE).collect();
    for left in 0..tiles.len() {
        if stop() {
            return Err(ClusterError::Interrupted);
        }
        let (before, own) = tiles.split_at_mut(left);
        // The rows of this tile, in pieces that belong to the tiles above.
        let mut pieces: Vec<Vec<&mut [f32]>> = Vec::new();
        pieces.resize_with(left + 1, || Vec::with_capacity(TILE));
        for row in own[0].iter_mut() {
            let parts = row[..n].chunks_mut(TILE);
            pieces
                .iter_mut()
                .zip(parts)
                .for_each(|(piece, part)| piece.push(part));
        }
        let above = before
            .par_iter_mut()
            .map(Some)
            .chain(rayon::iter::once(None));
        let work = pieces.into_par_iter().zip(above).enumerate();
        work.for_each(|(right, (mut piece, above))| {
            let mut tile = [0.0; TILE * TILE];
            operands.products(left, right, &mut tile);
            let columns = right * TILE..n.min((right + 1) * TILE);
            for (row, part) in piece.iter_mut().enumerate() {
                let i = left * TILE + row;
                let tile = &mut tile[row * TILE..][..columns.len()];
                let near = Arch::new().dispatch(FromProducts {
                    values: tile,
                    norm: norms[i],
                    norms: &norms[columns.clone()],
                    weight: weights[i],
                    weights: &weights[columns.clone()],
                });
                if near {
                    refine(points, i, columns.start, tile);
                }
                part.copy_from_slice(tile);
            }
            match above {
                Some(above) => {
                    for (column, row) in above.iter_mut().enumerate() {
                        let values = tile[column..].iter().step_by(TILE);
                        let places = row[left * TILE..n].iter_mut();
                        places
                            .zip(values)
                            .for_each(|(place, &value)| *place = value);
                    }
                }
                None => {
                    for (row, part) in piece.iter_mut().enumerate() {
                        part[row] = f32::INFINITY;
                    }
                }
            }
        });
    }
    Ok(Distances {
        rows,
        // Twice the product, and the norms; rounding to f32 before and after.
        error: (product::error(points.d) + 16.0 * f64::from(f32::EPSILON)) / f64::from(NEAR),
    })
}

/// Inner products of a point with others, turned into their distances; those that are too near are
/// made negative. Returns whether there are any.
struct FromProducts<'a> {
    values: &'a mut [f32],
    norm: f32,
    norms: &'a [f32],
    weight: f32,
    weights: &'a [f32],
}

impl WithSimd for FromProducts<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> bool {
        let mut near = false;
        let others = self.norms.iter().zip(self.weights);
        for (value, (&norm, &weight)) in self.values.iter_mut().zip(others) {
            let norms = self.norm + norm;
            let squared = norms - 2.0 * *value;
            let is_near = squared <= NEAR * norms;
            near |= is_near;
            let factor = 2.0 * self.weight * weight / (self.weight + weight);
            *value = if is_near { -1.0 } else { factor * squared };
        }
        near
    }
}

/// Computes the negative distances of point `i` to those from `start` on in f64.
fn refine(points: &Points, i: usize, start: usize, values: &mut [f32]) {
    for (j, value) in (start..).zip(values) {
        if *value < 0.0 {
            let [a, b] = [i, j].map(|point| points.weights[point]);
            let squared = row::squared_distance(points.row(i), points.row(j));
            *value = (2.0 * a * b / (a + b) * squared) as f32;
        }
    }
}
