//! Equal-sized labels as an optimal-transport problem (Cuturi, NeurIPS 2013; SeLa, Asano,
//! Rupprecht and Vedaldi, ICLR 2020, section 3; yukimasano/self-label `sinkhornknopp.py`).
//!
//! Given log-probabilities `[n, k]`, find row and column scalings of `P^λ` such that row `i` sums to
//! `a_i` and column `j` to `b_j`; point `i` then takes the label `argmax_j r_j P_ij^λ`.
//!
//! - [`scaling`]: Sinkhorn-Knopp, the published algorithm, or accelerated ([`anderson`])
//! - [`newton`]: Newton's method on the k column potentials, for scores on which the former takes
//!   thousands of passes
//!
//! - [`balance`]: labels of exactly equal sizes, from those of either
//!
//! Both solvers find the same scalings, and [`Solver::Auto`] takes the cheaper one. Memory: the scores
//! and one more matrix `[n, k]` of f32, of 16 bits where the tolerance allows or memory demands it, or
//! none. Blocks of rows are fixed and their sums are added in order, so the
//! result does not depend on the number of threads.

mod anderson;
mod balance;
mod entry;
mod lanes;
mod newton;
mod scaling;
mod scores;

use serde::{Deserialize, Serialize};

use tch::Tensor;

use super::{ClusterError, kernel};
use crate::cluster::agreed;
use crate::cluster::one_thread::OneThread;
use crate::comm::{Comm, OneProcess};
use newton::Newton;
use scaling::Scaling;
pub use scores::{Linear, Scores};

/// What the solver may take, where nothing is said: enough for two billion entries in f32.
const MEMORY: usize = 8 << 30;
/// Rows handled by one task.
const BLOCK: usize = 512;

/// Rows that are looked at for the range of the scores.
const SAMPLE: usize = 1_000;
/// Columns up to which a Cholesky factorisation is no work for several threads.
const FEW_COLUMNS: usize = 2_000;
/// One row of so many is looked at first, if these are enough for the columns, and so many times.
const SHARE: usize = 8;
const ROWS_FOR_A_COLUMN: usize = 4;
const WARM_UP: usize = 19;
/// Iterations of Sinkhorn-Knopp after which [`Solver::Auto`] looks how fast it converges.
const TRIAL: usize = 30;
/// Passes that Newton's method takes, to compare costs.
const NEWTON_STEPS: f64 = 15.0;
/// A pass of Newton's method against one of Sinkhorn-Knopp: exponentials in place of products, and
/// for each column a multiplication for each entry.
const NEWTON_PASS: f64 = 4.0;
const NEWTON_COLUMN: f64 = 1.0 / 50.0;

/// How the scalings are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// Sinkhorn-Knopp, accelerated, where it converges soon; Newton's method otherwise.
    #[default]
    Auto,
    /// The published algorithm.
    Sinkhorn,
    /// Newton's method on the column potentials.
    Newton,
}

/// What to solve for, and how far.
#[derive(Debug, Clone)]
pub struct SinkhornOptions {
    /// The exponent of P, the inverse of the entropic regularisation: larger is nearer to the exact
    /// optimum and slower. SeLa: 25 (ImageNet), 10 (CIFAR).
    pub lambda: f64,
    /// Stop when `Σ_i |c_i / c_i,new − 1|` over all rows falls to this (the authors' criterion).
    pub tolerance: f64,
    /// Passes over the matrix at most; those over a share of the rows, with which [`Solver::Auto`] begins,
    /// are not counted.
    pub max_iterations: usize,
    pub solver: Solver,
    /// Row sums, `n` of them; uniform when absent.
    pub rows: Option<Vec<f64>>,
    /// Column sums, `k` of them, with the same total; uniform when absent.
    pub columns: Option<Vec<f64>>,
    /// Labels whose sizes differ by one at most, at the least cost; for uniform marginals.
    pub exact_balance: bool,
    /// Bytes that the solver may take beside the scores: with fewer than a matrix of 16 bits takes,
    /// exponentials are computed in every pass. Newton's method by name does not look at it.
    pub memory: usize,
    /// The processes that hold the rows, a share each; [`Self::rows`] are those that lie here.
    pub comm: &'static dyn Comm,
}

impl Default for SinkhornOptions {
    /// λ = 25 and tolerance 0.1 (SeLa on ImageNet), at most 2,000 iterations.
    fn default() -> Self {
        Self {
            lambda: 25.0,
            tolerance: 0.1,
            max_iterations: 2_000,
            solver: Solver::Auto,
            rows: None,
            columns: None,
            exact_balance: false,
            memory: MEMORY,
            comm: &OneProcess,
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
    /// Rows of all processes that took each label: balanced up to the rounding by argmax, or exactly.
    pub sizes: Vec<usize>,
    /// Rows whose label was changed for exact balance.
    pub moved: usize,
    /// Passes over the matrix.
    pub iterations: usize,
    /// Those that were steps of Newton's method.
    pub newton_steps: usize,
    /// The authors' criterion at the last test.
    pub error: f64,
    pub converged: bool,
    /// `−(1/n) Σ_i log P_i,label(i)`: the mean cost of the labels.
    pub cost: f64,
}

/// The matrix and marginals of one problem, checked.
struct Problem<'a> {
    scores: Scores<'a>,
    k: usize,
    lambda: f64,
    rows: Vec<f64>,
    columns: Vec<f64>,
    comm: &'static dyn Comm,
    /// Rows of all processes.
    all_rows: usize,
}

/// What a solver came to.
struct Solution {
    potentials: Vec<f64>,
    iterations: usize,
    newton_steps: usize,
    error: f64,
    converged: bool,
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
    solve_scores(Scores::Stored { values: log_p, k }, options)
}

/// The same for scores from anywhere.
///
/// # Errors
/// As for [`solve`]; exact balance of scores that are not stored.
pub fn solve_scores(scores: Scores, options: &SinkhornOptions) -> Result<Transport, ClusterError> {
    let problem = Problem::new(scores, options)?;
    let k = problem.k;
    let needs = |what| ClusterError::Options(format!("labels of equal sizes need {what}"));
    let balanced = match scores {
        _ if !options.exact_balance => None,
        _ if options.rows.is_some() || options.columns.is_some() => {
            return Err(needs("equal marginals"));
        }
        Scores::Linear(_) => return Err(needs("scores that are stored")),
        _ if options.comm.size() > 1 => return Err(needs("one process that has all rows")),
        Scores::Stored { values, .. } => Some(values),
    };
    let solution = problem.solve(options);
    let log_scalings = centred(solution.potentials);
    let mut labels = problem.labels(&log_scalings);
    let mut moved = 0;
    if let Some(log_p) = balanced {
        let duals = log_scalings.iter().map(|v| v / options.lambda).collect();
        moved = balance::equalise(log_p, k, duals, &mut labels).ok_or_else(|| {
            ClusterError::Options(
                "probabilities of 0 leave no labels of equal sizes: give every row some chance \
                 in more columns"
                    .into(),
            )
        })?;
    }
    let mut sizes = vec![0; k];
    labels.iter().for_each(|&label| sizes[label as usize] += 1);
    let sizes = options.comm.sum_counts(&sizes);
    Ok(Transport {
        cost: problem.cost(&labels),
        log_scalings,
        labels,
        sizes,
        moved,
        iterations: solution.iterations,
        newton_steps: solution.newton_steps,
        error: solution.error,
        converged: solution.converged,
    })
}

/// The same for a contiguous tensor `[n, k] f32` on the CPU, which is read where it lies.
///
/// # Errors
/// As for [`solve`], and for any other tensor.
pub fn solve_tensor(log_p: &Tensor, options: &SinkhornOptions) -> Result<Transport, ClusterError> {
    match (kernel::values(log_p), &log_p.size()[..]) {
        (Some(values), &[_, k]) => solve(values, k as usize, options),
        _ => Err(ClusterError::Shape {
            expected: "a contiguous matrix of f32 on the CPU".into(),
            got: log_p.size(),
        }),
    }
}

/// The transport plan itself, `[n, k]` row-major, with `P` given as in [`solve`]: for small problems
/// whose plan is read by a person. Row sums are exact, column sums as near as the tolerance.
///
/// # Errors
/// As for [`solve`]; rows of several processes.
pub fn plan(log_p: &[f32], k: usize, options: &SinkhornOptions) -> Result<Vec<f64>, ClusterError> {
    if options.comm.size() > 1 {
        return Err(ClusterError::Options(
            "a plan is written by one process that has all rows".into(),
        ));
    }
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

impl<'a> Problem<'a> {
    fn new(scores: Scores<'a>, options: &SinkhornOptions) -> Result<Self, ClusterError> {
        let comm = options.comm;
        agreed(comm, scores.check())?;
        if !(options.lambda > 0.0 && options.lambda.is_finite()) {
            return Err(ClusterError::Options(format!(
                "lambda must be a positive number, not {}",
                options.lambda
            )));
        }
        let k = scores.columns();
        let all_rows = comm.sum_of(scores.rows() as f64) as usize;
        let rows = match &options.rows {
            // Uniform over the rows of all.
            None => vec![1.0 / all_rows as f64; scores.rows()],
            given => agreed(comm, marginal(given.as_deref(), scores.rows(), "rows"))?,
        };
        let columns = marginal(options.columns.as_deref(), k, "columns")?;
        let (a, b): (f64, f64) = (comm.sum_of(rows.iter().sum()), columns.iter().sum());
        if (a - b).abs() > 1e-9 * a.max(b) {
            return Err(ClusterError::Options(format!(
                "rows sum to {a}, columns to {b}"
            )));
        }
        Ok(Self {
            scores,
            k,
            lambda: options.lambda,
            rows,
            columns,
            comm,
            all_rows,
        })
    }

    fn solve(&self, options: &SinkhornOptions) -> Solution {
        let (tolerance, most) = (options.tolerance, options.max_iterations);
        // A column that must stay empty has its potential at −infinity, out of Newton's reach.
        let within_reach = self.columns.iter().all(|&mass| mass > 0.0);
        // Newton's method on many columns has large matrices to factorise.
        let _one_thread = (self.k <= FEW_COLUMNS).then(OneThread::new);
        if options.solver == Solver::Newton && within_reach {
            return self.newton(vec![0.0; self.k], 0, options);
        }
        let start = match options.solver {
            Solver::Auto if most > TRIAL => self.first_potentials(options),
            _ => vec![0.0; self.k],
        };
        let mut scaling = Scaling::new(self, start, options);
        // All go the same way.
        let fits = !self.comm.any(4 * self.scores.count() > options.memory);
        let mut converged = false;
        if options.solver == Solver::Auto && within_reach && fits && most > TRIAL {
            converged = scaling.run(tolerance, TRIAL);
            let newton = NEWTON_STEPS * (NEWTON_PASS + NEWTON_COLUMN * self.k as f64);
            if !converged && scaling.iterations_left(tolerance) > newton {
                return self.newton(scaling.into_potentials(), TRIAL, options);
            }
        }
        let converged = converged || scaling.run(tolerance, most);
        Solution {
            iterations: scaling.iterations,
            newton_steps: 0,
            error: scaling.error(),
            converged,
            potentials: scaling.into_potentials(),
        }
    }

    /// Potentials to begin with: from a few iterations on a share of the rows, whose columns are not far
    /// from those of all. Zeros where there are too few rows, zero probabilities, or little memory.
    fn first_potentials(&self, options: &SinkhornOptions) -> Vec<f64> {
        let count = self.rows.len() / SHARE;
        let zeros = vec![0.0; self.k];
        let memory = options.memory.checked_sub(self.scores.bytes_of(count));
        let alone = self.comm.size() == 1;
        let (Some(memory), true) = (memory, alone && count >= ROWS_FOR_A_COLUMN * self.k) else {
            return zeros;
        };
        let few = (0..count).map(|row| row * SHARE);
        let log_p = self.scores.every(SHARE, count);
        let mass: f64 = few.clone().map(|row| self.rows[row]).sum();
        let total: f64 = self.rows.iter().sum();
        if mass <= 0.0 || log_p.contains(&f32::NEG_INFINITY) {
            return zeros;
        }
        let problem = Problem {
            scores: Scores::Stored {
                values: &log_p,
                k: self.k,
            },
            k: self.k,
            lambda: self.lambda,
            rows: few.map(|row| self.rows[row] * total / mass).collect(),
            columns: self.columns.clone(),
            comm: self.comm,
            all_rows: count,
        };
        let options = SinkhornOptions {
            memory,
            ..options.clone()
        };
        let mut scaling = Scaling::new(&problem, zeros, &options);
        scaling.run(options.tolerance, WARM_UP);
        scaling.into_potentials()
    }

    fn newton(&self, start: Vec<f64>, before: usize, options: &SinkhornOptions) -> Solution {
        let mut newton = Newton::new(self, start, options.tolerance);
        let converged = newton.solve(options.tolerance, options.max_iterations - before);
        Solution {
            iterations: before + newton.passes,
            newton_steps: newton.steps,
            error: newton.error(),
            converged,
            potentials: newton.into_potentials(),
        }
    }

    /// The mean difference between the largest and the smallest score of a row, on a sample; scores
    /// of −infinity are left out.
    fn range(&self) -> f64 {
        let step = (self.rows.len() / SAMPLE).max(1);
        let few = self.scores.every(step, self.rows.len() / step);
        let (mut sum, mut count) = (0.0, 0);
        for row in few.chunks_exact(self.k) {
            let finite = row.iter().copied().filter(|p| p.is_finite());
            let (low, high) = finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), p| {
                (low.min(p), high.max(p))
            });
            sum += f64::from(high - low);
            count += 1;
        }
        let mut total = [sum, f64::from(count)];
        self.comm.sum(&mut total);
        total[0] / total[1].max(1.0)
    }

    /// `argmax_j (λ log P_ij + log r_j)` of every row, ties to the smaller index.
    fn labels(&self, potentials: &[f64]) -> Vec<u32> {
        let label = |row: &[f32]| {
            let mut best = (f64::NEG_INFINITY, 0);
            for (j, (&p, potential)) in row.iter().zip(potentials).enumerate() {
                let score = self.lambda * f64::from(p) + potential;
                if score > best.0 {
                    best = (score, j as u32);
                }
            }
            best.1
        };
        let blocks = self
            .scores
            .for_each_block(|_, rows| rows.chunks_exact(self.k).map(label).collect::<Vec<u32>>());
        blocks.concat()
    }

    /// The mean cost of labels.
    fn cost(&self, labels: &[u32]) -> f64 {
        let blocks = self.scores.for_each_block(|index, rows| {
            let pairs = rows.chunks_exact(self.k).zip(&labels[index * BLOCK..]);
            pairs
                .map(|(row, &label)| f64::from(row[label as usize]))
                .sum::<f64>()
        });
        -self.comm.sum_of(blocks.iter().sum::<f64>()) / self.all_rows as f64
    }
}

/// Only differences of potentials matter: gives them a mean of 0.
fn centred(mut potentials: Vec<f64>) -> Vec<f64> {
    let mean = potentials.iter().sum::<f64>() / potentials.len() as f64;
    potentials
        .iter_mut()
        .for_each(|potential| *potential -= mean);
    potentials
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
