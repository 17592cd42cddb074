//! Centroids as the search wants them, and the distances that go with scores.

use rayon::prelude::*;

use super::layout::Layout;
use super::{scaled, squares};
use crate::cluster::kernel::{COLUMNS, Isa, Panels, Products, Scale, padded};

/// Single precision rounds the arithmetic on scores by less than this share of their parts.
pub(super) const ROUNDING: f64 = 1e-6;

/// Centroids, ready for the search.
pub struct Centroids<'a> {
    isa: Isa,
    values: &'a [f32],
    /// `[k, d]` padded, in 16 bits.
    scaled: Vec<i16>,
    pub(super) d: usize,
    pub(super) panels: Panels,
    pub(super) terms: Vec<Terms>,
    pub norms: Vec<f64>,
    /// ‖c‖²/2
    half: Vec<f64>,
}

/// What turns the products of a panel into scores: `product · factor + shift`, give or take the
/// error of [`Terms::error`]. The padding scores −∞.
pub(super) struct Terms {
    pub factor: [f32; COLUMNS],
    /// −‖c‖²/2
    pub shift: [f32; COLUMNS],
    /// Parts of the error that go with the rounding of a point, with its norm, and with neither: the
    /// largest of the panel.
    with_rounding: f32,
    with_norm: f32,
    alone: f32,
}

impl Terms {
    /// By how much the score of a point of this norm may be off, that was rounded by so much.
    #[inline(always)]
    pub fn error(&self, rounding: f32, norm: f32) -> f32 {
        rounding * self.with_rounding + norm * self.with_norm + self.alone
    }
}

impl<'a> Centroids<'a> {
    /// Takes `values` `[k, d]`; products need [`Self::pack`] as well.
    pub fn new(isa: Isa, values: &'a [f32], d: usize) -> Self {
        let squares = squares(isa, values, d);
        Self {
            isa,
            values,
            scaled: Vec::new(),
            d,
            norms: squares.iter().map(|square| square.sqrt()).collect(),
            half: squares.iter().map(|square| 0.5 * square).collect(),
            panels: Panels::default(),
            terms: Vec::new(),
        }
    }

    /// Lays the centroids out in panels.
    pub fn pack(&mut self, layout: &Layout) {
        self.scaled = scaled(self.isa, self.values, &self.norms, self.d);
        self.panels = Panels::pack(&self.scaled, padded(self.d), &layout.order);
        self.terms = layout
            .order
            .par_chunks(COLUMNS)
            .map(|order| terms(order, &self.norms, &self.half, self.d))
            .collect();
    }

    /// A centroid in 16 bits.
    #[inline(always)]
    pub(super) fn scaled(&self, j: u32) -> &[i16] {
        let width = padded(self.d);
        &self.scaled[j as usize * width..][..width]
    }

    /// `x·c − ‖c‖²/2` in f64.
    #[inline(always)]
    pub fn exact_score<P: Products>(&self, point: &[f32], j: u32) -> f64 {
        let centroid = &self.values[j as usize * self.d..][..self.d];
        P::inner(point, centroid) - self.half[j as usize]
    }
}

fn terms(order: &[u32], norms: &[f64], half: &[f64], d: usize) -> Terms {
    let mut terms = Terms {
        factor: [0.0; COLUMNS],
        shift: [f32::NEG_INFINITY; COLUMNS],
        with_rounding: 0.0,
        with_norm: 0.0,
        alone: 0.0,
    };
    for (lane, &j) in order.iter().enumerate() {
        let (norm, half) = (norms[j as usize], half[j as usize]);
        let scale = Scale::new(norm, d);
        terms.factor[lane] = scale.factor as f32;
        terms.shift[lane] = -half as f32;
        terms.with_rounding = terms.with_rounding.max(up(norm));
        terms.with_norm = terms.with_norm.max(up(scale.rounding + ROUNDING * norm));
        terms.alone = terms.alone.max(up(ROUNDING * half));
    }
    terms
}

/// The next f32 that is certainly not smaller.
pub(super) fn up(value: f64) -> f32 {
    (value * (1.0 + 1e-6)) as f32 + f32::MIN_POSITIVE
}

/// The squared distance that goes with a score.
#[inline(always)]
pub fn squared_distance(norm: f64, score: f64) -> f64 {
    (norm * norm - 2.0 * score).max(0.0)
}

/// The distance that goes with a score.
#[inline(always)]
pub fn distance(norm: f64, score: f64) -> f64 {
    squared_distance(norm, score).sqrt()
}
