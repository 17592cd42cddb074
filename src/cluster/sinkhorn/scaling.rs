//! Sinkhorn-Knopp itself: rows and columns are scaled in turn.
//!
//! SeLa's authors need float64, because `P^25` underflows. Here each row is divided by its own
//! maximum (the row scaling absorbs it) and the column scalings are *absorbed* into the stored
//! matrix whenever they have grown by more than `e^ABSORB` (Schmitzer, SIAM J. Sci. Comput. 2019),
//! so f32 storage suffices for every λ and nothing underflows to a division by zero. Sums are f64:
//! the convergence criterion adds the changes of all n rows, which rounding would hide for large n.
//! An iteration is one pass over memory: the row scaling follows from the row that has just been
//! read, and its contribution to the column sums is added before it leaves the cache.

use rayon::prelude::*;

use super::anderson::Anderson;
use super::lanes::{dot, exp, score};
use super::{BLOCK, Problem};
use crate::cluster::kernel::{Path, Products, Work};

/// Column potentials move by at most this (natural logarithm) between absorptions: well inside the
/// range of f32 (about ±87) on top of a matrix whose row maxima are 1.
const ABSORB: f64 = 20.0;
/// The convergence test needs the previous row sums, so it is made every tenth iteration, as the
/// authors do.
pub(super) const TEST_EVERY: usize = 10;

/// The algorithm's state.
pub(super) struct Scaling<'p> {
    problem: &'p Problem<'p>,
    /// log r_j, all of it.
    potentials: Vec<f64>,
    /// The part of `potentials` that `scaled` contains.
    absorbed: Vec<f64>,
    /// `exp(λ log P_ij + absorbed_j − top_i)`
    scaled: Vec<f32>,
    /// The row maxima of the exponent.
    tops: Vec<f64>,
    acceleration: Option<Anderson>,
    /// The logarithms of the row sums of `P^λ r` one iteration ago.
    before: Vec<f64>,
    pub iterations: usize,
    /// The authors' criterion at every test so far.
    pub errors: Vec<f64>,
}

impl<'p> Scaling<'p> {
    /// Potentials of zero. Plainly, the algorithm is the published one.
    pub fn new(problem: &'p Problem, accelerated: bool) -> Self {
        let mut scaling = Self {
            problem,
            potentials: vec![0.0; problem.k],
            absorbed: vec![0.0; problem.k],
            scaled: vec![0.0; problem.log_p.len()],
            tops: vec![0.0; problem.rows.len()],
            acceleration: accelerated.then(Anderson::default),
            before: Vec::new(),
            iterations: 0,
            errors: Vec::new(),
        };
        scaling.absorb();
        scaling
    }

    /// Iterates until the criterion falls to `tolerance`, or `most` iterations have been made in
    /// all. Returns whether it has converged.
    pub fn run(&mut self, tolerance: f64, most: usize) -> bool {
        while self.iterations < most {
            let (column_sums, log_row_sums) = self.pass();
            self.iterations += 1;
            let test = self.iterations.is_multiple_of(TEST_EVERY) || self.iterations == most;
            if test && self.iterations > 1 {
                // c_i = a_i / row sum_i, so the ratio of two successive c_i is that of the row sums.
                let change = |(new, old): (&f64, &f64)| (new - old).exp_m1().abs();
                self.errors
                    .push(log_row_sums.iter().zip(&self.before).map(change).sum());
            }
            self.before = log_row_sums;
            // The criterion compares the row scalings before and after a plain step.
            let tested_next = (self.iterations + 1).is_multiple_of(TEST_EVERY);
            self.update(&column_sums, tested_next || self.iterations + 1 == most);
            if test && self.error() <= tolerance {
                return true;
            }
        }
        false
    }

    /// The authors' criterion at the last test.
    pub fn error(&self) -> f64 {
        self.errors.last().copied().unwrap_or(f64::INFINITY)
    }

    /// log r_j.
    pub fn into_potentials(self) -> Vec<f64> {
        self.potentials
    }

    /// Rebuilds `scaled` around the present potentials.
    fn absorb(&mut self) {
        self.absorbed.copy_from_slice(&self.potentials);
        let Problem {
            k, lambda, log_p, ..
        } = *self.problem;
        let absorbed = &self.absorbed;
        self.scaled
            .par_chunks_mut(BLOCK * k)
            .zip(log_p.par_chunks(BLOCK * k))
            .zip(self.tops.par_chunks_mut(BLOCK))
            .for_each(|((scaled, log_p), tops)| {
                Path::best().run(Absorb {
                    scaled,
                    log_p,
                    tops,
                    lambda,
                    absorbed,
                });
            });
    }

    /// One pass: sums of the columns after the rows have been scaled to their marginals `[k]`, and
    /// the logarithms of the row sums of `P^λ r` before that `[n]`.
    fn pass(&self) -> (Vec<f64>, Vec<f64>) {
        let k = self.problem.k;
        let scale: Vec<f64> = self
            .potentials
            .iter()
            .zip(&self.absorbed)
            .map(|(v, w)| (v - w).exp())
            .collect();
        let masses = self.problem.rows.par_chunks(BLOCK);
        let blocks: Vec<(Vec<f64>, Vec<f64>)> = self
            .scaled
            .par_chunks(BLOCK * k)
            .zip(masses.zip(self.tops.par_chunks(BLOCK)))
            .map(|(block, (masses, tops))| {
                Path::best().run(Pass {
                    block,
                    masses,
                    tops,
                    scale: &scale,
                })
            })
            .collect();
        let mut columns = vec![0.0; k];
        let mut logs = Vec::with_capacity(self.problem.rows.len());
        for (sums, block_logs) in blocks {
            columns
                .iter_mut()
                .zip(sums)
                .for_each(|(column, sum)| *column += sum);
            logs.extend(block_logs);
        }
        for (column, &scale) in columns.iter_mut().zip(&scale) {
            *column *= scale;
        }
        (columns, logs)
    }

    /// Scales the columns to their marginals, or steps on to where that leads.
    fn update(&mut self, column_sums: &[f64], plain: bool) {
        let mut scaled = self.potentials.clone();
        scale_columns(&mut scaled, column_sums, &self.problem.columns);
        if let Some(anderson) = self.acceleration.as_mut() {
            let pairs = scaled.iter().zip(&self.potentials);
            let mut step: Vec<f64> = pairs.map(|(after, before)| after - before).collect();
            anderson.improve(&self.potentials, &mut step);
            if !plain {
                let pairs = self.potentials.iter().zip(&step);
                scaled = pairs.map(|(before, step)| before + step).collect();
            }
        }
        self.potentials = scaled;
        let moved = |(v, w): (&f64, &f64)| (v - w).abs() > ABSORB;
        if self.potentials.iter().zip(&self.absorbed).any(moved) {
            self.absorb();
        }
    }
}

/// `exp(λ log P_ij + absorbed_j − top_i)` for a block of rows, and their maxima.
struct Absorb<'a> {
    scaled: &'a mut [f32],
    log_p: &'a [f32],
    tops: &'a mut [f64],
    lambda: f64,
    absorbed: &'a [f64],
}

impl Work for Absorb<'_> {
    type Output = ();

    #[inline(always)]
    fn run<P: Products>(self) {
        let k = self.absorbed.len();
        let mut scores = vec![0.0; k];
        let rows = self
            .scaled
            .chunks_exact_mut(k)
            .zip(self.log_p.chunks_exact(k));
        for ((scaled, log_p), top) in rows.zip(self.tops) {
            *top = score(&mut scores, log_p, self.lambda, self.absorbed);
            for (value, score) in scaled.iter_mut().zip(&scores) {
                *value = exp((score - *top) as f32);
            }
        }
    }
}

/// A block of rows to be scaled to their marginals.
struct Pass<'a> {
    block: &'a [f32],
    masses: &'a [f64],
    tops: &'a [f64],
    scale: &'a [f64],
}

impl Work for Pass<'_> {
    /// The block's part of the column sums, and the logarithms of its row sums.
    type Output = (Vec<f64>, Vec<f64>);

    #[inline(always)]
    fn run<P: Products>(self) -> Self::Output {
        let k = self.scale.len();
        let mut sums = vec![0.0; k];
        let mut logs = Vec::with_capacity(self.masses.len());
        let rows = self.block.chunks_exact(k).zip(self.masses);
        for ((row, &mass), top) in rows.zip(self.tops) {
            let total = dot(row, self.scale);
            let weight = mass / total;
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight * f64::from(value);
            }
            logs.push(total.ln() + top);
        }
        (sums, logs)
    }
}

/// Moves `potentials` so that columns with these `sums` get their `targets`.
pub(super) fn scale_columns(potentials: &mut [f64], sums: &[f64], targets: &[f64]) {
    for ((potential, &sum), &target) in potentials.iter_mut().zip(sums).zip(targets) {
        // A column that has underflowed everywhere is raised step by step until it shows; one that
        // should be empty is lowered likewise.
        let step = (target.ln() - sum.ln()).clamp(-3.0 * ABSORB, 3.0 * ABSORB);
        *potential += if step.is_nan() { 0.0 } else { step };
    }
}
