//! Where the scores of a problem come from: a matrix, or a layer that is multiplied out again whenever
//! its scores are asked for.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use super::BLOCK;
use super::lanes::exp;
use crate::cluster::ClusterError;
use crate::cluster::kernel::{Isa, Products, Work};

/// Scores `[n, k]`: log-probabilities, or anything else of which more is better.
#[derive(Debug, Clone, Copy)]
pub enum Scores<'a> {
    /// Row-major, in `k` columns.
    Stored { values: &'a [f32], k: usize },
    /// Computed by blocks of rows, in every pass.
    Linear(Linear<'a>),
}

/// The log-softmax of `features · weightsᵀ + biases`.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// `[n, d]`
    pub features: &'a [f32],
    /// `[k, d]`
    pub weights: &'a [f32],
    /// `[k]`
    pub biases: &'a [f32],
}

impl Scores<'_> {
    /// k.
    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Stored { k, .. } => *k,
            Self::Linear(linear) => linear.biases.len(),
        }
    }

    /// n, of a problem that [`Self::check`] has let pass.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Stored { values, k } => values.len() / k,
            Self::Linear(linear) => linear.features.len() / linear.width(),
        }
    }

    /// n · k.
    pub(super) fn count(&self) -> usize {
        self.rows() * self.columns()
    }

    /// # Errors
    /// A matrix that does not divide into rows, or is empty; NaN or +∞; a row with nothing but −∞.
    pub(super) fn check(&self) -> Result<(), ClusterError> {
        let k = self.columns();
        let fits = match self {
            Self::Stored { values, .. } => {
                k > 0 && !values.is_empty() && values.len().is_multiple_of(k)
            }
            Self::Linear(Linear {
                features, weights, ..
            }) => {
                let d = weights.len() / k.max(1);
                let whole = d > 0 && weights.len() == k * d && features.len().is_multiple_of(d);
                whole && !features.is_empty()
            }
        };
        if !fits {
            let got = match self {
                Self::Stored { values, .. } => vec![values.len() as i64],
                Self::Linear(linear) => {
                    vec![linear.features.len() as i64, linear.weights.len() as i64]
                }
            };
            return Err(ClusterError::Shape {
                expected: format!("a matrix with {k} columns"),
                got,
            });
        }
        let (rows, width) = match self {
            Self::Stored { values, k } => (*values, *k),
            Self::Linear(linear) => {
                let mut layer = linear.weights.iter().chain(linear.biases);
                if !layer.all(|value| value.is_finite()) {
                    return Err(ClusterError::Options("weights are not finite".into()));
                }
                (linear.features, linear.width())
            }
        };
        let forbids = matches!(self, Self::Stored { .. });
        let bad = |row: &[f32]| {
            let wrong = |p: &f32| !(p.is_finite() || (forbids && *p == f32::NEG_INFINITY));
            row.iter().any(wrong) || row.iter().all(|p| *p == f32::NEG_INFINITY)
        };
        match rows.par_chunks_exact(width).position_first(bad) {
            Some(row) => Err(ClusterError::NotFinite { row }),
            None => Ok(()),
        }
    }

    /// `count` rows from `first` on, in `space` where they must be computed.
    pub(super) fn block<'b>(
        &'b self,
        first: usize,
        count: usize,
        space: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        match self {
            Self::Stored { values, k } => &values[first * k..][..count * k],
            Self::Linear(linear) => {
                let d = linear.width();
                linear.multiply(&linear.features[first * d..][..count * d], space);
                space
            }
        }
    }

    /// `of` a block of [`BLOCK`] rows, for each of them in their order.
    pub(super) fn for_each_block<T: Send>(&self, of: impl Fn(usize, &[f32]) -> T + Sync) -> Vec<T> {
        let n = self.rows();
        (0..n.div_ceil(BLOCK))
            .into_par_iter()
            .map_init(Vec::new, |space, index| {
                let first = index * BLOCK;
                of(index, self.block(first, BLOCK.min(n - first), space))
            })
            .collect()
    }

    /// What [`Self::every`] takes for so many rows.
    pub(super) fn bytes_of(&self, count: usize) -> usize {
        let width = match self {
            Self::Stored { .. } => 0,
            Self::Linear(linear) => linear.width(),
        };
        4 * count * (self.columns() + width)
    }

    /// Every `step`-th of the first `count · step` rows, one after the other.
    pub(super) fn every(&self, step: usize, count: usize) -> Vec<f32> {
        let few = |values: &[f32], width: usize| -> Vec<f32> {
            (0..count)
                .flat_map(|row| &values[row * step * width..][..width])
                .copied()
                .collect()
        };
        match self {
            Self::Stored { values, k } => few(values, *k),
            Self::Linear(linear) => {
                let features = few(linear.features, linear.width());
                let k = self.columns();
                let mut scores = vec![0.0; count * k];
                let blocks = features.par_chunks(BLOCK * linear.width());
                scores.par_chunks_mut(BLOCK * k).zip(blocks).for_each_init(
                    Vec::new,
                    |space, (scores, features)| {
                        linear.multiply(features, space);
                        scores.copy_from_slice(space);
                    },
                );
                scores
            }
        }
    }
}

impl Linear<'_> {
    /// d.
    fn width(&self) -> usize {
        self.weights.len() / self.biases.len()
    }

    /// The scores of `features` `[b, d]` into `scores`.
    fn multiply(&self, features: &[f32], scores: &mut Vec<f32>) {
        let (d, k) = (self.width(), self.biases.len());
        let rows = features.len() / d;
        scores.clear();
        (0..rows).for_each(|_| scores.extend_from_slice(self.biases));
        // Shapes of a problem that `check` has let pass.
        let x = ArrayView2::from_shape((rows, d), features).expect("[b, d]");
        let w = ArrayView2::from_shape((k, d), self.weights).expect("[k, d]");
        let mut products =
            ArrayViewMut2::from_shape((rows, k), scores.as_mut_slice()).expect("[b, k]");
        general_mat_mul(1.0, &x, &w.t(), 1.0, &mut products);
        Isa::best().run(LogSoftmax { scores, k });
    }
}

/// The log-softmax of rows of `k` scores, in place.
struct LogSoftmax<'a> {
    scores: &'a mut [f32],
    k: usize,
}

impl Work for LogSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<P: Products>(self) {
        for row in self.scores.chunks_exact_mut(self.k) {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&score| f64::from(exp(score - top))).sum();
            let shift = top + sum.ln() as f32;
            row.iter_mut().for_each(|score| *score -= shift);
        }
    }
}
