//! Inner products in f32, tile by tile: the larger part of the work where points have many dimensions.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Points of a tile, in either direction.
pub const TILE: usize = 96;
/// Points whose sums are held in registers at once; with [`VECTORS`] they fit into the 16 registers of
/// AVX2.
const ROWS: usize = 6;
const VECTORS: usize = 2;
/// Dimensions that are added up before the tile is touched: what is read for them stays in the nearest
/// cache.
const DEPTH: usize = 256;

/// A bound on the error of a product of points of `d` dimensions, as a share of the product of their
/// norms: in any order of additions (Higham: Accuracy and Stability of Numerical Algorithms, section 3.1).
pub fn error(d: usize) -> f64 {
    let additions = d.min(DEPTH) + d.div_ceil(DEPTH);
    (additions + 8) as f64 * f64::from(f32::EPSILON) / 2.0
}

/// Points in the order in which the products read them: in groups of some points, in which the
/// values of one dimension lie side by side, padded with zeros to full tiles.
pub struct Operands {
    d: usize,
    /// In groups of [`ROWS`].
    left: Vec<f32>,
    /// In groups as wide as [`VECTORS`] vectors.
    right: Vec<f32>,
}

impl Operands {
    /// Of points `[n, d]`, from the centre `[d]` on: the nearer they lie, the less is lost.
    pub fn new(values: &[f64], centre: &[f64]) -> Self {
        Self {
            d: centre.len(),
            left: packed(values, centre, ROWS),
            right: packed(values, centre, Arch::new().dispatch(Width)),
        }
    }

    /// The inner products of the points of two tiles.
    pub fn products(&self, left: usize, right: usize, products: &mut [f32; TILE * TILE]) {
        let size = TILE * self.d;
        Arch::new().dispatch(Products {
            d: self.d,
            left: &self.left[left * size..][..size],
            right: &self.right[right * size..][..size],
            products,
        });
    }
}

fn packed(values: &[f64], centre: &[f64], width: usize) -> Vec<f32> {
    let d = centre.len();
    let tiles = (values.len() / d).div_ceil(TILE);
    let mut groups = vec![0.0; tiles * TILE * d];
    let pairs = groups.par_chunks_exact_mut(width * d);
    let pairs = pairs.zip(values.par_chunks(width * d));
    pairs.for_each(|(group, points)| {
        for (lane, point) in points.chunks_exact(d).enumerate() {
            let places = group[lane..].iter_mut().step_by(width);
            let values = point.iter().zip(centre);
            places
                .zip(values)
                .for_each(|(place, (x, centre))| *place = (x - centre) as f32);
        }
    });
    groups
}

/// The number of points in a group on the right.
struct Width;

impl WithSimd for Width {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        VECTORS * S::F32_LANES
    }
}

struct Products<'a> {
    d: usize,
    left: &'a [f32],
    right: &'a [f32],
    products: &'a mut [f32; TILE * TILE],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = VECTORS * S::F32_LANES;
        self.products.fill(0.0);
        for start in (0..self.d).step_by(DEPTH) {
            let depths = start..self.d.min(start + DEPTH);
            for (column, right) in self.right.chunks_exact(width * self.d).enumerate() {
                let right = &right[depths.start * width..depths.end * width];
                let right = S::as_simd_f32s(right).0.as_chunks::<VECTORS>().0;
                let groups = self.left.chunks_exact(ROWS * self.d);
                let targets = self.products.chunks_exact_mut(ROWS * TILE);
                for (left, target) in groups.zip(targets) {
                    let left = &left[depths.start * ROWS..depths.end * ROWS];
                    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
                    for (a, b) in left.as_chunks::<ROWS>().0.iter().zip(right) {
                        for (sums, &a) in sums.iter_mut().zip(a) {
                            let a = simd.splat_f32s(a);
                            for (sum, &b) in sums.iter_mut().zip(b) {
                                *sum = simd.mul_add_e_f32s(a, b, *sum);
                            }
                        }
                    }
                    for (row, sums) in target.chunks_exact_mut(TILE).zip(&sums) {
                        let row = &mut row[column * width..][..width];
                        let row = S::as_mut_simd_f32s(row).0;
                        for (value, &sum) in row.iter_mut().zip(sums) {
                            *value = simd.add_f32s(*value, sum);
                        }
                    }
                }
            }
        }
    }
}
