//! Sinkhorn-Knopp itself: rows and columns are scaled in turn.
//!
//! SeLa's authors need float64, because `P^25` underflows. Here each row is divided by its own
//! maximum (the row scaling absorbs it) and the column scalings are *absorbed* into the stored
//! matrix whenever they have grown by more than `e^ABSORB` (Schmitzer, SIAM J. Sci. Comput. 2019),
//! so f32 storage, or even 16 bits ([`Entry`]), suffices for every λ and nothing underflows to a
//! division by zero. Sums are f64: the convergence criterion adds the changes of all n rows, which rounding would hide for large n.
//! An iteration is one pass over memory: the row scaling follows from the row that has just been
//! read, and its contribution to the column sums is added before it leaves the cache.

use rayon::prelude::*;

use super::anderson::Anderson;
use super::entry::{Entry, rounding};
use super::lanes::score;
use super::{BLOCK, Problem, SinkhornOptions, Solver};
use crate::cluster::kernel::{Isa, Products, Work};

/// Column potentials move by at most this (natural logarithm) between absorptions: well inside the
/// range of f32 (about ±87) on top of a matrix whose row maxima are 1.
const ABSORB: f64 = 20.0;
/// The same for roots in 16 bits, whose range is ±22; and from `NEAR` times the tolerance on, where
/// potentials hardly move any more, numbers that matter shall be large, and so exact.
const ABSORB_ROOTS: f64 = 12.0;
const ABSORB_NEAR: f64 = 2.0;
const NEAR: f64 = 1_000.0;
/// The convergence test compares the row scalings before and after a plain step. The authors make it
/// every tenth iteration; accelerated iterations gain more in five.
const TEST_EVERY: usize = 10;
const TEST_EVERY_ACCELERATED: usize = 5;

/// The algorithm's state.
pub(super) struct Scaling<'p> {
    problem: &'p Problem<'p>,
    /// log r_j, all of it.
    potentials: Vec<f64>,
    /// The part of `potentials` that `scaled` contains.
    absorbed: Vec<f64>,
    /// `exp(λ log P_ij + absorbed_j − top_i)`
    scaled: Scaled,
    /// The row maxima of the exponent.
    tops: Vec<f64>,
    acceleration: Option<Anderson>,
    /// Iterations from one test of convergence to the next.
    test_every: usize,
    /// The logarithms of the row sums of `P^λ r` one iteration ago.
    before: Vec<f64>,
    pub iterations: usize,
    /// The authors' criterion at every test so far.
    errors: Vec<f64>,
}

impl<'p> Scaling<'p> {
    /// Begins with `potentials`. With [`Solver::Sinkhorn`] the algorithm is the published
    /// one, in f32 where memory allows.
    pub fn new(problem: &'p Problem, potentials: Vec<f64>, options: &SinkhornOptions) -> Self {
        let count = problem.scores.count();
        let accelerated = options.solver != Solver::Sinkhorn;
        // All processes store alike, and so make the same passes.
        let all_have = |bytes: usize| !problem.comm.any(bytes * count > options.memory);
        let fine = rounding(problem.all_rows, problem.k) <= options.tolerance;
        let mut scaling = Self {
            problem,
            potentials,
            absorbed: vec![0.0; problem.k],
            scaled: if !all_have(2) {
                Scaled::Not
            } else if (accelerated && fine) || !all_have(4) {
                Scaled::Roots(vec![0; count])
            } else {
                Scaled::Single(vec![0.0; count])
            },
            tops: vec![0.0; problem.rows.len()],
            acceleration: accelerated.then(Anderson::default),
            test_every: if accelerated {
                TEST_EVERY_ACCELERATED
            } else {
                TEST_EVERY
            },
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
            let test = self.iterations.is_multiple_of(self.test_every) || self.iterations == most;
            if test && self.iterations > 1 {
                // c_i = a_i / row sum_i, so the ratio of two successive c_i is that of the row sums.
                let change = |(new, old): (&f64, &f64)| (new - old).exp_m1().abs();
                let error = log_row_sums.iter().zip(&self.before).map(change).sum();
                self.errors.push(self.problem.comm.sum_of(error));
            }
            self.before = log_row_sums;
            // The criterion compares the row scalings before and after a plain step.
            let tested_next = (self.iterations + 1).is_multiple_of(self.test_every);
            self.update(&column_sums, tested_next || self.iterations + 1 == most);
            let more = self.iterations < most;
            if test && more && self.error() <= NEAR * tolerance && self.coarse() {
                self.absorb();
            } else if test && self.error() <= tolerance {
                return true;
            }
        }
        false
    }

    /// The authors' criterion at the last test.
    pub fn error(&self) -> f64 {
        self.errors.last().copied().unwrap_or(f64::INFINITY)
    }

    /// Iterations until `tolerance` at the rate of the last two tests.
    pub fn iterations_left(&self, tolerance: f64) -> f64 {
        match self.errors[..] {
            [.., before, now] if now < before && tolerance > 0.0 => {
                self.test_every as f64 * (tolerance / now).ln() / (now / before).ln()
            }
            _ => f64::INFINITY,
        }
    }

    /// log r_j.
    pub fn into_potentials(self) -> Vec<f64> {
        self.potentials
    }

    /// Rebuilds `scaled` around the present potentials.
    fn absorb(&mut self) {
        self.absorbed.copy_from_slice(&self.potentials);
        match &mut self.scaled {
            Scaled::Single(scaled) => fill(self.problem, scaled, &mut self.tops, &self.absorbed),
            Scaled::Roots(scaled) => fill(self.problem, scaled, &mut self.tops, &self.absorbed),
            Scaled::Not => {}
        }
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
        let blocks = match &self.scaled {
            Scaled::Single(scaled) => sums(self.problem, scaled, &self.tops, &scale),
            Scaled::Roots(scaled) => sums(self.problem, scaled, &self.tops, &scale),
            Scaled::Not => fresh_sums(self.problem, &self.absorbed, &scale),
        };
        let mut columns = vec![0.0; k];
        let mut logs = Vec::with_capacity(self.problem.rows.len());
        for (sums, block_logs) in blocks {
            columns
                .iter_mut()
                .zip(sums)
                .for_each(|(column, sum)| *column += sum);
            logs.extend(block_logs);
        }
        self.problem.comm.sum(&mut columns);
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
        let most = match self.scaled {
            Scaled::Single(_) => ABSORB,
            Scaled::Roots(_) => ABSORB_ROOTS,
            Scaled::Not => f64::NEG_INFINITY,
        };
        if self.drift() > most {
            self.absorb();
        }
    }

    /// How far potentials are from those that `scaled` contains, apart from a shift of all of them,
    /// which row scalings take back.
    fn drift(&self) -> f64 {
        let drifts = self.potentials.iter().zip(&self.absorbed);
        let (low, high) = drifts
            .map(|(v, w)| v - w)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), drift| {
                (low.min(drift), high.max(drift))
            });
        (high - low) / 2.0
    }

    /// Whether 16 bits are too few for the present potentials.
    fn coarse(&self) -> bool {
        matches!(self.scaled, Scaled::Roots(_)) && self.drift() > ABSORB_NEAR
    }
}

/// A matrix of numbers from 0 to 1.
enum Scaled {
    Single(Vec<f32>),
    Roots(Vec<u16>),
    /// Computed anew in every pass, around potentials that are always absorbed.
    Not,
}

/// As [`sums`], from the scores.
fn fresh_sums(problem: &Problem, absorbed: &[f64], scale: &[f64]) -> Vec<(Vec<f64>, Vec<f64>)> {
    problem.scores.for_each_block(|index, log_p| {
        Isa::best().run(FreshPass {
            log_p,
            masses: &problem.rows[index * BLOCK..][..log_p.len() / problem.k],
            lambda: problem.lambda,
            absorbed,
            scale,
        })
    })
}

/// A block of rows to be scaled to their marginals, as scores.
struct FreshPass<'a> {
    log_p: &'a [f32],
    masses: &'a [f64],
    lambda: f64,
    absorbed: &'a [f64],
    scale: &'a [f64],
}

impl Work for FreshPass<'_> {
    /// As of [`Pass`].
    type Output = (Vec<f64>, Vec<f64>);

    #[inline(always)]
    fn run<P: Products>(self) -> Self::Output {
        let k = self.absorbed.len();
        let (mut sums, mut scores, mut row) = (vec![0.0; k], vec![0.0; k], vec![0.0_f32; k]);
        let mut logs = Vec::with_capacity(self.masses.len());
        for (log_p, &mass) in self.log_p.chunks_exact(k).zip(self.masses) {
            let top =
                exponentials::<P, f32>(&mut row, &mut scores, log_p, self.lambda, self.absorbed);
            logs.push(add_row::<P>(&mut sums, &row, self.scale, mass).ln() + top);
        }
        (sums, logs)
    }
}

/// `exp(λ log P_j + absorbed_j − top)` of a row, and the top; `scores` is space.
#[inline(always)]
fn exponentials<P: Products, E: Entry>(
    row: &mut [E],
    scores: &mut [f64],
    log_p: &[f32],
    lambda: f64,
    absorbed: &[f64],
) -> f64 {
    let top = score::<P>(scores, log_p, lambda, absorbed);
    for (value, score) in row.iter_mut().zip(&*scores) {
        *value = E::of_exponent((score - top) as f32);
    }
    top
}

/// Adds a row, scaled to its mass, to the column sums. Returns what it summed up to before.
#[inline(always)]
fn add_row<P: Products>(sums: &mut [f64], row: &[f32], scale: &[f64], mass: f64) -> f64 {
    let total = P::dot(row, scale);
    let weight = mass / total;
    for (sum, &value) in sums.iter_mut().zip(row) {
        *sum += weight * f64::from(value);
    }
    total
}

fn fill<E: Entry>(problem: &Problem, scaled: &mut [E], tops: &mut [f64], absorbed: &[f64]) {
    let Problem {
        k, lambda, scores, ..
    } = *problem;
    scaled
        .par_chunks_mut(BLOCK * k)
        .zip(tops.par_chunks_mut(BLOCK))
        .enumerate()
        .for_each_init(Vec::new, |space, (index, (scaled, tops))| {
            let log_p = scores.block(index * BLOCK, tops.len(), space);
            Isa::best().run(Absorb {
                scaled,
                log_p,
                tops,
                lambda,
                absorbed,
            });
        });
}

/// For each block of rows its part of the column sums, and the logarithms of its row sums.
fn sums<E: Entry>(
    problem: &Problem,
    scaled: &[E],
    tops: &[f64],
    scale: &[f64],
) -> Vec<(Vec<f64>, Vec<f64>)> {
    let scale: Vec<f64> = scale.iter().map(|scale| scale * E::UNIT).collect();
    let masses = problem.rows.par_chunks(BLOCK);
    scaled
        .par_chunks(BLOCK * problem.k)
        .zip(masses.zip(tops.par_chunks(BLOCK)))
        .map(|(block, (masses, tops))| {
            let (mut sums, logs) = Isa::best().run(Pass {
                block,
                masses,
                tops,
                scale: &scale,
            });
            sums.iter_mut().for_each(|sum| *sum *= E::UNIT);
            (sums, logs)
        })
        .collect()
}

/// `exp(λ log P_ij + absorbed_j − top_i)` for a block of rows, and their maxima.
struct Absorb<'a, E> {
    scaled: &'a mut [E],
    log_p: &'a [f32],
    tops: &'a mut [f64],
    lambda: f64,
    absorbed: &'a [f64],
}

impl<E: Entry> Work for Absorb<'_, E> {
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
            *top = exponentials::<P, E>(scaled, &mut scores, log_p, self.lambda, self.absorbed);
        }
    }
}

/// A block of rows to be scaled to their marginals.
struct Pass<'a, E> {
    block: &'a [E],
    masses: &'a [f64],
    tops: &'a [f64],
    scale: &'a [f64],
}

impl<E: Entry> Work for Pass<'_, E> {
    /// The block's part of the column sums, and the logarithms of its row sums.
    type Output = (Vec<f64>, Vec<f64>);

    #[inline(always)]
    fn run<P: Products>(self) -> Self::Output {
        let k = self.scale.len();
        let mut sums = vec![0.0; k];
        let mut logs = Vec::with_capacity(self.masses.len());
        let mut values = vec![0.0; k];
        let rows = self.block.chunks_exact(k).zip(self.masses);
        for ((row, &mass), top) in rows.zip(self.tops) {
            let row = E::values(row, &mut values);
            logs.push(add_row::<P>(&mut sums, row, self.scale, mass).ln() + top);
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
