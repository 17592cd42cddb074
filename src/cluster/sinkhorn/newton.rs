//! Newton's method on the column potentials.
//!
//! With the row scalings eliminated, the problem is to minimise the convex semi-dual
//! `F(v) = Σ_i a_i log Σ_j exp(λ log P_ij + v_j) − Σ_j b_j v_j` over k numbers (Cuturi and Peyré:
//! Semidual Regularized Optimal Transport, SIAM Review 2018, section 3). With `Q` the softmax of the
//! rows and `s_j = Σ_i a_i Q_ij` its gradient is `s − b` and its Hessian `diag(s) − Qᵀ diag(a) Q`,
//! one product of matrices for n far above k. Where Sinkhorn-Knopp, a first-order method, needs
//! thousands of passes on the scores of a confident network, this takes some twenty.
//!
//! A large λ makes F nearly piecewise linear, where its curvature says nothing. So the problem is
//! solved roughly for small λ first, and the potentials are scaled up with it, four times at a time.
//! Steps are damped as Levenberg and Marquardt do: the damping grows until F falls about as much as
//! its quadratic model says. Where no step does, one of Sinkhorn-Knopp's is made, which always
//! descends.
//!
//! Memory: `Q` as f32 `[n, k]`, some five matrices `[k, k] f64`, and partial Hessians `[k, k] f32`: two,
//! or more where they fit into 64 MiB (k = 10,000: 5 GB in all). Rows are divided into segments
//! that depend on n and k alone, so the result does not depend on the number of threads.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::lanes::{exp, score};
use super::scaling::scale_columns;
use super::{BLOCK, Problem};
use crate::cluster::kernel::{Isa, Products, Work};

/// Bytes of partial Hessians.
const PARTIALS: usize = 64 << 20;
/// Attempts with growing damping before a step of Sinkhorn-Knopp.
const ATTEMPTS: usize = 6;
/// Differences within a row, times λ, up to which no smaller λ need be solved first; and the error
/// for each row to which those are solved.
const GENTLE: f64 = 200.0;
const ROUGH: f64 = 0.02;
const LEVELS: i32 = 10;
/// Single precision in the exponentials leaves an error of about this for each row.
const SINGLE: f64 = 1e-6;
/// A column this far below its marginal has next to no curvature: scaling raises it faster.
const STARVED: f64 = 1e-2;

/// The solver's state.
pub(super) struct Newton<'p> {
    problem: &'p Problem<'p>,
    /// The present λ: that of the problem in the end.
    lambda: f64,
    /// Exponentials in f64.
    precise: bool,
    /// `sqrt(a_i) Q_ij` of the last point that was evaluated, `[n, k]`.
    plan: Vec<f32>,
    /// Relative to the mean of the Hessian's diagonal.
    damping: f64,
    at: Point,
    pub passes: usize,
    pub steps: usize,
}

/// Potentials and what follows from them.
#[derive(Default)]
struct Point {
    potentials: Vec<f64>,
    /// F
    value: f64,
    /// The column sums s.
    sums: Vec<f64>,
    /// The authors' criterion: what an iteration of Sinkhorn-Knopp would change from here; a bound
    /// on it where exponentials are in f64, which `plan` is not.
    error: f64,
}

impl<'p> Newton<'p> {
    /// Starts from `potentials`, to stop at `tolerance`.
    pub fn new(problem: &'p Problem, potentials: Vec<f64>, tolerance: f64) -> Self {
        let mut newton = Self {
            problem,
            lambda: problem.lambda,
            precise: tolerance < SINGLE * problem.all_rows as f64,
            plan: vec![0.0; problem.scores.count()],
            damping: 1e-6,
            at: Point::default(),
            passes: 0,
            steps: 0,
        };
        newton.at = newton.evaluate(potentials);
        newton
    }

    /// Solves from small λ up to that of the problem, to `tolerance` in the end, with about `most`
    /// passes. Returns whether it has converged.
    pub fn solve(&mut self, tolerance: f64, most: usize) -> bool {
        let rough = (ROUGH * self.problem.all_rows as f64).max(tolerance);
        let range = self.problem.range();
        let mut level = 0;
        while self.problem.lambda * 0.25_f64.powi(level) * range > GENTLE && level < LEVELS {
            level += 1;
        }
        // With few passes there is no time for a detour.
        if most < 4 * LEVELS as usize {
            level = 0;
        }
        while level > 0 {
            self.go_to(self.problem.lambda * 0.25_f64.powi(level));
            self.run(rough, most / 2);
            level -= 1;
        }
        self.go_to(self.problem.lambda);
        self.run(tolerance, most)
    }

    /// Takes another λ, with the potentials in proportion.
    fn go_to(&mut self, lambda: f64) {
        if lambda != self.lambda {
            let scale = lambda / self.lambda;
            let potentials = self.at.potentials.iter().map(|v| v * scale).collect();
            self.lambda = lambda;
            self.damping = 1e-6;
            self.at = self.evaluate(potentials);
        }
    }

    /// Steps until the criterion falls to `tolerance`, or after about `most` passes. Returns whether
    /// it has converged.
    fn run(&mut self, tolerance: f64, most: usize) -> bool {
        while self.at.error > tolerance {
            if self.passes >= most {
                return false;
            }
            if self.starved() || !self.step(most) {
                if self.passes >= most {
                    return false;
                }
                self.scale();
            }
        }
        true
    }

    /// The authors' criterion.
    pub fn error(&self) -> f64 {
        self.at.error
    }

    /// The column potentials, log r_j.
    pub fn into_potentials(self) -> Vec<f64> {
        self.at.potentials
    }

    fn starved(&self) -> bool {
        let mut columns = self.at.sums.iter().zip(&self.problem.columns);
        columns.any(|(sum, target)| *sum < STARVED * target)
    }

    /// One iteration of Sinkhorn-Knopp.
    fn scale(&mut self) {
        let mut potentials = self.at.potentials.clone();
        scale_columns(&mut potentials, &self.at.sums, &self.problem.columns);
        self.at = self.evaluate(potentials);
    }

    /// One step of Newton; false where no damping gives a descent. `plan` must be that of `at`.
    fn step(&mut self, most: usize) -> bool {
        let hessian = self.hessian();
        let gradient: Vec<f64> = self
            .at
            .sums
            .iter()
            .zip(&self.problem.columns)
            .map(|(sum, target)| sum - target)
            .collect();
        let size: f64 = gradient.iter().map(|g| g.abs()).sum();
        for _ in 0..ATTEMPTS {
            let Some((step, predicted)) = descent(&hessian, &gradient, self.damping) else {
                self.damping *= 10.0;
                continue;
            };
            let potentials = self.at.potentials.iter().zip(&step).map(|(v, s)| v + s);
            let next = self.evaluate(potentials.collect());
            let gain = self.at.value - next.value;
            let columns = next.sums.iter().zip(&self.problem.columns);
            let smaller = columns.map(|(s, b)| (s - b).abs()).sum::<f64>() < 0.5 * size;
            // Near the solution the fall of F drowns in rounding, the gradient does not.
            if gain >= 0.1 * predicted || (smaller && gain > -1e-12 * self.at.value.abs()) {
                if gain >= 0.5 * predicted || smaller {
                    self.damping = (self.damping * 0.1).max(1e-12);
                }
                self.at = next;
                self.steps += 1;
                return true;
            }
            self.damping *= 10.0;
            if self.passes >= most {
                break;
            }
        }
        false
    }

    /// Evaluates F and its gradient, and leaves Q in `plan`: one pass.
    fn evaluate(&mut self, potentials: Vec<f64>) -> Point {
        let Problem { k, scores, .. } = *self.problem;
        let (lambda, precise) = (self.lambda, self.precise);
        self.passes += 1;
        let v = &potentials;
        let blocks: Vec<Block> = self
            .plan
            .par_chunks_mut(BLOCK * k)
            .zip(self.problem.rows.par_chunks(BLOCK))
            .enumerate()
            .map_init(Vec::new, |space, (index, (plan, masses))| {
                let log_p = scores.block(index * BLOCK, masses.len(), space);
                let rows = Rows {
                    plan,
                    log_p,
                    masses,
                    lambda,
                    potentials: v,
                    precise,
                };
                Isa::best().run(rows)
            })
            .collect();
        let mut all = Block::new(k, precise);
        blocks.iter().for_each(|block| all.merge(block));
        let comm = self.problem.comm;
        all.value = comm.sum_of(all.value);
        comm.sum(&mut all.sums);
        comm.sum(&mut all.shares);
        let pairs = self.problem.columns.iter().zip(v);
        let value = all.value - pairs.map(|(b, v)| b * v).sum::<f64>();
        let sums = all.sums;
        let error = if precise {
            let columns = self.problem.columns.iter().zip(&sums).zip(&all.shares);
            // |Σ_j Q_ij (b_j / s_j − 1)| ≤ Σ_j Q_ij |b_j / s_j − 1|, summed over the rows.
            columns
                .map(|((b, s), share)| share * (b / s.max(f64::MIN_POSITIVE) - 1.0).abs())
                .sum()
        } else {
            self.error_of(&sums)
        };
        Point {
            potentials,
            value,
            sums,
            error,
        }
    }

    /// `Σ_i |Σ_j Q_ij (b_j / s_j) − 1|` for the present `plan`.
    fn error_of(&self, sums: &[f64]) -> f64 {
        let k = self.problem.k;
        let ratios = self.problem.columns.iter().zip(sums);
        // A column that has underflowed is far from its marginal, whatever its rows say.
        let change: Vec<f64> = ratios
            .map(|(b, s)| (b / s.max(f64::MIN_POSITIVE)).min(1e30) - 1.0)
            .collect();
        if sums
            .iter()
            .zip(&self.problem.columns)
            .any(|(s, b)| *s <= 0.0 && *b > 0.0)
        {
            return f64::INFINITY;
        }
        let blocks: Vec<f64> = self
            .plan
            .par_chunks(BLOCK * k)
            .zip(self.problem.rows.par_chunks(BLOCK))
            .map(|(plan, masses)| {
                let change = &change;
                Isa::best().run(Change {
                    plan,
                    masses,
                    change,
                })
            })
            .collect();
        self.problem.comm.sum_of(blocks.iter().sum())
    }

    /// `diag(s) − Qᵀ diag(a) Q` for the present `plan`, `[k, k] f64`.
    fn hessian(&self) -> Tensor {
        let k = self.problem.k;
        let n = self.problem.rows.len();
        let segments = (PARTIALS / (4 * k * k)).clamp(2, 64);
        let rows = n.div_ceil(segments).max(1);
        let partials: Vec<Array2<f32>> = self
            .plan
            .par_chunks(rows * k)
            .filter_map(|segment| {
                let q = ArrayView2::from_shape((segment.len() / k, k), segment).ok()?;
                let mut product = Array2::zeros((k, k));
                general_mat_mul(1.0, &q.t(), &q, 0.0, &mut product);
                Some(product)
            })
            .collect();
        let mut hessian = Array2::<f64>::zeros((k, k));
        for partial in partials {
            hessian.zip_mut_with(&partial, |sum, &value| *sum -= f64::from(value));
        }
        if let Some(numbers) = hessian.as_slice_mut() {
            self.problem.comm.sum(numbers);
        }
        for (j, sum) in self.at.sums.iter().enumerate() {
            hessian[[j, j]] += sum;
        }
        let flat: Vec<f64> = hessian.into_iter().collect();
        Tensor::from_slice(&flat).view([k as i64, k as i64])
    }
}

/// `Σ_i |Σ_j Q_ij change_j|` over a block of rows.
struct Change<'a> {
    plan: &'a [f32],
    masses: &'a [f64],
    change: &'a [f64],
}

impl Work for Change<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<P: Products>(self) -> f64 {
        let rows = self.plan.chunks_exact(self.change.len()).zip(self.masses);
        let mut sum = 0.0;
        for (q, &mass) in rows {
            if mass > 0.0 {
                sum += (P::dot(q, self.change) / mass.sqrt()).abs();
            }
        }
        sum
    }
}

/// Some rows, and where they are to be evaluated.
struct Rows<'a> {
    plan: &'a mut [f32],
    log_p: &'a [f32],
    masses: &'a [f64],
    lambda: f64,
    potentials: &'a [f64],
    precise: bool,
}

impl Work for Rows<'_> {
    type Output = Block;

    #[inline(always)]
    fn run<P: Products>(self) -> Block {
        let k = self.potentials.len();
        let mut block = Block::new(k, self.precise);
        let (mut scores, ones) = (vec![0.0_f64; k], vec![1.0; k]);
        let pairs = self
            .plan
            .chunks_exact_mut(k)
            .zip(self.log_p.chunks_exact(k));
        for ((q, log_p), &mass) in pairs.zip(self.masses) {
            let top = score::<P>(&mut scores, log_p, self.lambda, self.potentials);
            scores.iter_mut().for_each(|score| *score -= top);
            let total = if self.precise {
                block.add_precisely(q, &mut scores, mass)
            } else {
                block.add::<P>(q, &scores, &ones, mass)
            };
            block.value += mass * (top + total.ln());
        }
        block
    }
}

/// Sums over some rows.
struct Block {
    /// `Σ_i a_i log Σ_j exp(...)`
    value: f64,
    /// `Σ_i a_i Q_ij`
    sums: Vec<f64>,
    /// `Σ_i Q_ij` over rows that have mass; empty unless precise.
    shares: Vec<f64>,
}

impl Block {
    fn new(k: usize, precise: bool) -> Self {
        Self {
            value: 0.0,
            sums: vec![0.0; k],
            shares: vec![0.0; if precise { k } else { 0 }],
        }
    }

    fn merge(&mut self, other: &Self) {
        self.value += other.value;
        let add = |(sum, part): (&mut f64, &f64)| *sum += part;
        self.sums.iter_mut().zip(&other.sums).for_each(add);
        self.shares.iter_mut().zip(&other.shares).for_each(add);
    }

    /// Adds a row with these `scores`, of which the largest is 0, and stores `sqrt(a) Q` in `q`.
    /// Returns the sum of the exponentials.
    #[inline(always)]
    fn add<P: Products>(&mut self, q: &mut [f32], scores: &[f64], ones: &[f64], mass: f64) -> f64 {
        for (q, &score) in q.iter_mut().zip(scores) {
            *q = exp(score as f32);
        }
        let total = P::dot(q, ones);
        let root = mass.sqrt();
        let weight = (root / total) as f32;
        for (q, sum) in q.iter_mut().zip(&mut self.sums) {
            *q *= weight;
            *sum += root * f64::from(*q);
        }
        total
    }

    /// The same in f64; `scores` are overwritten.
    fn add_precisely(&mut self, q: &mut [f32], scores: &mut [f64], mass: f64) -> f64 {
        scores.iter_mut().for_each(|score| *score = score.exp());
        let total: f64 = scores.iter().sum();
        let root = mass.sqrt();
        let share = if mass > 0.0 { 1.0 / total } else { 0.0 };
        let columns = self.sums.iter_mut().zip(&mut self.shares);
        for ((q, &value), (sum, of_rows)) in q.iter_mut().zip(&*scores).zip(columns) {
            *q = (root * value / total) as f32;
            *sum += mass * value / total;
            *of_rows += share * value;
        }
        total
    }
}

/// The damped step `−(H + μI)⁻¹ g` and the fall of F that the quadratic model predicts; `None`
/// where the matrix is not positive definite. A constant shift of all potentials changes nothing,
/// so `11ᵀ` is added to H, which fixes it.
fn descent(hessian: &Tensor, gradient: &[f64], damping: f64) -> Option<(Vec<f64>, f64)> {
    let k = gradient.len() as i64;
    let mean = hessian.trace().double_value(&[]) / k as f64;
    let options = (Kind::Double, hessian.device());
    let shift = Tensor::full([k, k], mean.max(f64::MIN_POSITIVE) / k as f64, options);
    let damped = hessian + shift + Tensor::eye(k, options) * (damping * mean);
    let (factor, info) = damped.linalg_cholesky_ex(false, false);
    if info.int64_value(&[]) != 0 {
        return None;
    }
    let g = Tensor::from_slice(gradient);
    let step = -g.unsqueeze(1).cholesky_solve(&factor, false).squeeze_dim(1);
    let linear = step.dot(&g).double_value(&[]);
    let quadratic = step.dot(&hessian.mv(&step)).double_value(&[]);
    let predicted = -linear - 0.5 * quadratic;
    let values: Vec<f64> = Vec::try_from(&step).ok()?;
    (predicted > 0.0 && values.iter().all(|value| value.is_finite())).then_some((values, predicted))
}
