//! Sinkhorn-Knopp: labels of equal size as an optimal-transport problem (Cuturi, NeurIPS 2013;
//! SeLa, Asano, Rupprecht and Vedaldi, ICLR 2020, section 3; yukimasano/self-label
//! `sinkhornknopp.py`).
//!
//! Given log-probabilities `[n, k]`, find row and column scalings of `P^λ` such that row `i` sums to
//! `a_i` and column `j` to `b_j`; point `i` then takes the label `argmax_j r_j P_ij^λ`.
//!
//! The authors need float64, because `P^25` underflows. Here each row is divided by its own maximum
//! (the row scaling absorbs it) and the column scalings are *absorbed* into the stored matrix
//! whenever they have grown by more than `e^ABSORB` (Schmitzer, SIAM J. Sci. Comput. 2019), so f32
//! storage suffices for every λ and nothing underflows to a division by zero. Sums are f64: the
//! convergence criterion adds the changes of all n rows, which rounding would hide for large n.
//! An iteration is one pass over memory: the row scaling follows from the row that has just been
//! read, and its contribution to the column sums is added before it leaves the cache.
//! Memory: two f32 matrices `[n, k]`. Blocks of rows are fixed, and their column sums are added in
//! order, so the result does not depend on the number of threads.

use rayon::prelude::*;

use super::ClusterError;

/// Column potentials move by at most this (natural logarithm) between absorptions: well inside the
/// range of f32 (about ±87) on top of a matrix whose row maxima are 1.
const ABSORB: f64 = 20.0;
/// The convergence test needs the previous row sums, so it is made every tenth iteration, as the
/// authors do.
const TEST_EVERY: usize = 10;
/// Rows handled by one task.
const BLOCK: usize = 512;

/// What to solve for, and how far.
#[derive(Debug, Clone)]
pub struct SinkhornOptions {
    /// The exponent of P, the inverse of the entropic regularisation: larger is nearer to the exact
    /// optimum and slower. SeLa: 25 (ImageNet), 10 (CIFAR).
    pub lambda: f64,
    /// Stop when `Σ_i |c_i / c_i,new − 1|` over all rows falls to this (the authors' criterion).
    pub tolerance: f64,
    pub max_iterations: usize,
    /// Row sums, `n` of them; uniform when absent.
    pub rows: Option<Vec<f64>>,
    /// Column sums, `k` of them, with the same total; uniform when absent.
    pub columns: Option<Vec<f64>>,
}

impl Default for SinkhornOptions {
    /// λ = 25 and tolerance 0.1 (SeLa on ImageNet), at most 2,000 iterations.
    fn default() -> Self {
        Self {
            lambda: 25.0,
            tolerance: 0.1,
            max_iterations: 2_000,
            rows: None,
            columns: None,
        }
    }
}

/// A solution.
#[derive(Debug, Clone)]
pub struct Transport {
    /// `[k]`: log r_j. Labels are `argmax_j (λ log P_ij + log r_j)`, for new points as well.
    pub log_scalings: Vec<f64>,
    /// `[n]`: the label of each row.
    pub labels: Vec<u32>,
    /// Rows that took each label: balanced up to the rounding by argmax.
    pub sizes: Vec<usize>,
    pub iterations: usize,
    /// The authors' criterion at the last test.
    pub error: f64,
    pub converged: bool,
    /// `−(1/n) Σ_i log P_i,label(i)`: the mean cost of the labels.
    pub cost: f64,
}

/// The matrix and marginals of one problem, and the solver's state.
struct Solver<'a> {
    log_p: &'a [f32],
    k: usize,
    lambda: f64,
    rows: Vec<f64>,
    columns: Vec<f64>,
    /// log r_j, all of it.
    potentials: Vec<f64>,
    /// The part of `potentials` that `scaled` contains.
    absorbed: Vec<f64>,
    /// `exp(λ log P_ij + absorbed_j − top_i)`
    scaled: Vec<f32>,
    /// The row maxima of the exponent.
    tops: Vec<f64>,
}

/// Solves the problem for log-probabilities (or any scores: −cost) `log_p`, row-major `[n, k]`.
///
/// # Errors
/// A matrix of another size, NaN or +infinity in it, a row with nothing but −infinity, marginals of
/// the wrong number, negative, or of different totals, λ that is not positive and finite.
pub fn solve(
    log_p: &[f32],
    k: usize,
    options: &SinkhornOptions,
) -> Result<Transport, ClusterError> {
    let mut solver = Solver::new(log_p, k, options)?;
    let n = solver.rows.len();
    let mut before = Vec::new();
    let (mut iterations, mut error, mut converged) = (0, f64::INFINITY, false);
    while iterations < options.max_iterations && !converged {
        let (column_sums, log_row_sums) = solver.pass();
        iterations += 1;
        if iterations > 1 && (iterations % TEST_EVERY == 0 || iterations == options.max_iterations)
        {
            // c_i = a_i / row sum_i, so the ratio of two successive c_i is that of the row sums.
            let change = |(new, old): (&f64, &f64)| (new - old).exp_m1().abs();
            error = log_row_sums.iter().zip(&before).map(change).sum();
            converged = error <= options.tolerance;
        }
        before = log_row_sums;
        solver.update(&column_sums);
    }
    solver.centre();
    let labels = solver.labels();
    let mut sizes = vec![0; k];
    let mut cost = 0.0;
    for (row, &label) in labels.iter().enumerate() {
        sizes[label as usize] += 1;
        cost -= f64::from(log_p[row * k + label as usize]) / n as f64;
    }
    Ok(Transport {
        log_scalings: solver.potentials,
        labels,
        sizes,
        iterations,
        error,
        converged,
        cost,
    })
}

/// The transport plan itself, `[n, k]` row-major, with `P` given as in [`solve`]: for small problems
/// whose plan is read by a person. Row sums are exact, column sums as near as the tolerance.
pub fn plan(log_p: &[f32], k: usize, options: &SinkhornOptions) -> Result<Vec<f64>, ClusterError> {
    let transport = solve(log_p, k, options)?;
    let rows = marginal(options.rows.as_deref(), log_p.len() / k.max(1), "rows")?;
    let mut plan = Vec::with_capacity(log_p.len());
    for (row, &mass) in log_p.chunks_exact(k).zip(&rows) {
        let scores: Vec<f64> = row
            .iter()
            .zip(&transport.log_scalings)
            .map(|(&p, v)| options.lambda * f64::from(p) + v)
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - top).exp()).sum();
        plan.extend(
            scores
                .iter()
                .map(|score| mass * (score - top).exp() / total),
        );
    }
    Ok(plan)
}

impl<'a> Solver<'a> {
    fn new(log_p: &'a [f32], k: usize, options: &SinkhornOptions) -> Result<Self, ClusterError> {
        if k == 0 || log_p.is_empty() || !log_p.len().is_multiple_of(k) {
            return Err(ClusterError::Shape {
                expected: format!("a matrix with {k} columns"),
                got: vec![log_p.len() as i64],
            });
        }
        if !(options.lambda > 0.0 && options.lambda.is_finite()) {
            return Err(ClusterError::Options(format!(
                "lambda must be a positive number, not {}",
                options.lambda
            )));
        }
        let bad = |row: &[f32]| {
            row.iter().any(|p| p.is_nan() || *p == f32::INFINITY)
                || row.iter().all(|p| *p == f32::NEG_INFINITY)
        };
        if let Some(row) = log_p.chunks_exact(k).position(bad) {
            return Err(ClusterError::NotFinite { row });
        }
        let rows = marginal(options.rows.as_deref(), log_p.len() / k, "rows")?;
        let columns = marginal(options.columns.as_deref(), k, "columns")?;
        let (a, b): (f64, f64) = (rows.iter().sum(), columns.iter().sum());
        if (a - b).abs() > 1e-9 * a.max(b) {
            return Err(ClusterError::Options(format!(
                "rows sum to {a}, columns to {b}"
            )));
        }
        let mut solver = Self {
            log_p,
            k,
            lambda: options.lambda,
            rows,
            columns,
            potentials: vec![0.0; k],
            absorbed: vec![0.0; k],
            scaled: vec![0.0; log_p.len()],
            tops: vec![0.0; log_p.len() / k],
        };
        solver.absorb();
        Ok(solver)
    }

    /// Rebuilds `scaled` around the present potentials.
    fn absorb(&mut self) {
        self.absorbed.copy_from_slice(&self.potentials);
        let (k, lambda, absorbed) = (self.k, self.lambda, &self.absorbed);
        self.scaled
            .par_chunks_exact_mut(k)
            .zip(self.log_p.par_chunks_exact(k))
            .zip(&mut self.tops)
            .with_min_len(BLOCK)
            .for_each(|((scaled, log_p), top)| {
                let score = |j: usize| lambda * f64::from(log_p[j]) + absorbed[j];
                *top = (0..k).map(score).fold(f64::NEG_INFINITY, f64::max);
                for (j, value) in scaled.iter_mut().enumerate() {
                    *value = ((score(j) - *top) as f32).exp();
                }
            });
    }

    /// One pass: sums of the columns after the rows have been scaled to their marginals `[k]`, and
    /// the logarithms of the row sums of `P^λ r` before that `[n]`.
    fn pass(&self) -> (Vec<f64>, Vec<f64>) {
        let k = self.k;
        let scale: Vec<f64> = self
            .potentials
            .iter()
            .zip(&self.absorbed)
            .map(|(v, w)| (v - w).exp())
            .collect();
        let blocks: Vec<(Vec<f64>, Vec<f64>)> = self
            .scaled
            .par_chunks(BLOCK * k)
            .zip(self.rows.par_chunks(BLOCK).zip(self.tops.par_chunks(BLOCK)))
            .map(|(block, (masses, tops))| {
                let mut sums = vec![0.0; k];
                let mut logs = Vec::with_capacity(masses.len());
                for ((row, &mass), top) in block.chunks_exact(k).zip(masses).zip(tops) {
                    let total = dot(row, &scale);
                    let weight = mass / total;
                    for (sum, &value) in sums.iter_mut().zip(row) {
                        *sum += weight * f64::from(value);
                    }
                    logs.push(total.ln() + top);
                }
                (sums, logs)
            })
            .collect();
        let mut columns = vec![0.0; k];
        let mut logs = Vec::with_capacity(self.rows.len());
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

    /// Scales the columns to their marginals.
    fn update(&mut self, column_sums: &[f64]) {
        for ((potential, &sum), &target) in self
            .potentials
            .iter_mut()
            .zip(column_sums)
            .zip(&self.columns)
        {
            // A column that has underflowed everywhere is raised step by step until it shows; one
            // that should be empty is lowered likewise.
            let step = (target.ln() - sum.ln()).clamp(-3.0 * ABSORB, 3.0 * ABSORB);
            *potential += if step.is_nan() { 0.0 } else { step };
        }
        let moved = |(v, w): (&f64, &f64)| (v - w).abs() > ABSORB;
        if self.potentials.iter().zip(&self.absorbed).any(moved) {
            self.absorb();
        }
    }

    /// Only differences of potentials matter: give them a mean of 0.
    fn centre(&mut self) {
        let mean = self.potentials.iter().sum::<f64>() / self.k as f64;
        self.potentials
            .iter_mut()
            .for_each(|potential| *potential -= mean);
    }

    /// `argmax_j (λ log P_ij + log r_j)` of every row, ties to the smaller index.
    fn labels(&self) -> Vec<u32> {
        self.log_p
            .par_chunks_exact(self.k)
            .with_min_len(BLOCK)
            .map(|row| {
                let mut best = (f64::NEG_INFINITY, 0);
                for (j, (&p, potential)) in row.iter().zip(&self.potentials).enumerate() {
                    let score = self.lambda * f64::from(p) + potential;
                    if score > best.0 {
                        best = (score, j as u32);
                    }
                }
                best.1
            })
            .collect()
    }
}

/// A dot product in eight lanes, so that the compiler may use vector instructions.
fn dot(a: &[f32], b: &[f64]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a8.remainder().iter().zip(b8.remainder());
    let tail: f64 = rest.map(|(&x, y)| f64::from(x) * y).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            lanes[lane] += f64::from(x[lane]) * y[lane];
        }
    }
    lanes.iter().sum::<f64>() + tail
}

/// The given marginal checked, or the uniform one; scaled to a total of 1 only when uniform.
fn marginal(given: Option<&[f64]>, count: usize, which: &str) -> Result<Vec<f64>, ClusterError> {
    let Some(given) = given else {
        return Ok(vec![1.0 / count as f64; count]);
    };
    if given.len() != count {
        return Err(ClusterError::Options(format!(
            "{which}: {count} marginals are needed, {} are given",
            given.len()
        )));
    }
    match given
        .iter()
        .position(|mass| !(mass.is_finite() && *mass >= 0.0))
    {
        Some(index) => Err(ClusterError::Options(format!(
            "{which}: marginal {index} is {}, but masses are finite and not negative",
            given[index]
        ))),
        None => Ok(given.to_vec()),
    }
}
