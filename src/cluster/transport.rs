//! Optimal transport by itself: how much goes from each supplier to each consumer at the least cost.
//!
//! Small problems exactly, as a linear program (`microlp`'s simplex); large ones by the solvers of
//! [`sinkhorn`](super::sinkhorn), whose plans are spread by 1/λ (Cuturi, NeurIPS 2013).

use microlp::{ComparisonOp, OptimizationDirection, Problem, Variable};

use super::ClusterError;
use super::sinkhorn::{self, SinkhornOptions};

/// Entries up to which [`Method::Auto`] solves the linear program.
const SMALL: usize = 10_000;
/// λ times the mean cost, where λ is ours to choose: the plan's cost is then within a few thousandths of
/// the optimum, as a rule.
const SHARPNESS: f64 = 200.0;

/// How to solve.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Method {
    /// Exactly where there are at most 10,000 entries, else by Sinkhorn with a λ of our own.
    #[default]
    Auto,
    /// The linear program, whatever its size.
    Exact,
    /// With entropy, of this λ.
    Sinkhorn { lambda: f64 },
}

/// A plan with its cost.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `[suppliers, consumers]`, row-major: what goes from each to each.
    pub amounts: Vec<f64>,
    /// Σ amount · cost
    pub cost: f64,
    /// The λ of a plan with entropy; none for an exact one.
    pub lambda: Option<f64>,
}

/// The plan for `costs` `[supply.len(), demand.len()]`, row-major.
///
/// # Errors
/// Costs of another size or not finite; masses that are negative, not finite, or of different totals;
/// a λ that is not positive.
pub fn transport(
    costs: &[f64],
    supply: &[f64],
    demand: &[f64],
    method: Method,
) -> Result<Plan, ClusterError> {
    check(costs, supply, demand)?;
    let lambda = match method {
        Method::Exact => None,
        Method::Auto if costs.len() <= SMALL => None,
        Method::Auto => {
            let mean = costs.iter().map(|cost| cost.abs()).sum::<f64>() / costs.len() as f64;
            Some(SHARPNESS / mean.max(f64::MIN_POSITIVE))
        }
        Method::Sinkhorn { lambda } => Some(lambda),
    };
    let amounts = match lambda {
        None => exact(costs, supply, demand)?,
        Some(lambda) => {
            let scores: Vec<f32> = costs.iter().map(|&cost| -cost as f32).collect();
            let options = SinkhornOptions {
                lambda,
                tolerance: 1e-6 * supply.len() as f64,
                max_iterations: 20_000,
                rows: Some(supply.to_vec()),
                columns: Some(demand.to_vec()),
                ..SinkhornOptions::default()
            };
            sinkhorn::plan(&scores, demand.len(), &options)?
        }
    };
    Ok(Plan {
        cost: amounts.iter().zip(costs).map(|(a, c)| a * c).sum(),
        amounts,
        lambda,
    })
}

fn check(costs: &[f64], supply: &[f64], demand: &[f64]) -> Result<(), ClusterError> {
    if costs.is_empty() || costs.len() != supply.len() * demand.len() {
        return Err(ClusterError::Shape {
            expected: format!(
                "costs of {} suppliers and {} consumers",
                supply.len(),
                demand.len()
            ),
            got: vec![costs.len() as i64],
        });
    }
    if let Some(index) = costs.iter().position(|cost| !cost.is_finite()) {
        return Err(ClusterError::NotFinite {
            row: index / demand.len(),
        });
    }
    let masses = supply.iter().chain(demand);
    if let Some(mass) = masses
        .clone()
        .find(|mass| !(mass.is_finite() && **mass >= 0.0))
    {
        return Err(ClusterError::Options(format!(
            "an amount is {mass}, but amounts are finite and not negative"
        )));
    }
    let (given, asked): (f64, f64) = (supply.iter().sum(), demand.iter().sum());
    if (given - asked).abs() > 1e-9 * given.max(asked) {
        return Err(ClusterError::Options(format!(
            "the supply is {given} in all, the demand {asked}: they must be equal (add a supplier or a \
             consumer that costs nothing for the rest)"
        )));
    }
    Ok(())
}

fn exact(costs: &[f64], supply: &[f64], demand: &[f64]) -> Result<Vec<f64>, ClusterError> {
    let mut problem = Problem::new(OptimizationDirection::Minimize);
    let amounts: Vec<Variable> = costs
        .iter()
        .map(|&cost| problem.add_var(cost, (0.0, f64::INFINITY)))
        .collect();
    let columns = demand.len();
    for (row, &mass) in amounts.chunks_exact(columns).zip(supply) {
        problem.add_constraint(
            row.iter().map(|&amount| (amount, 1.0)),
            ComparisonOp::Eq,
            mass,
        );
    }
    // The last column follows from the others; rounding would make it a contradiction.
    for (column, &mass) in demand.iter().enumerate().take(columns - 1) {
        let column = amounts.iter().skip(column).step_by(columns);
        problem.add_constraint(column.map(|&amount| (amount, 1.0)), ComparisonOp::Eq, mass);
    }
    let solution = problem
        .solve()
        .map_err(|error| ClusterError::Options(format!("the linear program: {error}")))?;
    Ok(amounts
        .iter()
        .map(|&amount| *solution.var_value(amount))
        .collect())
}
