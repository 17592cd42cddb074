//! `transport`: what goes from where to where at the least cost.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use tch::Kind;

use super::{ExitStatus, mended_by_options};
use crate::cluster::transport::{Method, transport};
use crate::error::usage;
use crate::matrix;

/// What is printed.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    cost: f64,
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lambda: Option<f64>,
    /// A row for each supplier.
    plan: Vec<&'a [f64]>,
}

/// Optimal transport: what goes from where to where at the least cost.
#[derive(Debug, Args)]
#[command(after_help = TRANSPORT_EXAMPLES)]
pub struct TransportArgs {
    /// Costs, a row for each supplier and a column for each consumer (.csv, .npy, .jsonl; `-`: stdin)
    pub costs: PathBuf,
    /// What each supplier has, separated by commas [default: equal shares of 1]
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub supply: Option<Vec<f64>>,
    /// What each consumer wants, separated by commas [default: equal shares of 1]
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub demand: Option<Vec<f64>>,
    /// Spread the plan by entropy: smaller values spread more
    #[arg(long)]
    pub lambda: Option<f64>,
    /// Solve exactly even where there are more than 10,000 entries
    #[arg(long, conflicts_with = "lambda")]
    pub exact: bool,
}

const TRANSPORT_EXAMPLES: &str = "\
Two warehouses hold 25 laptops each, two shops want 25 each; a laptop costs 1 from the first
warehouse to the first shop and 3 to the second, 2 and 1 from the second warehouse:
  printf '1,3\\n2,1\\n' | ssl-cluster transport - --supply 25,25 --demand 25,25
  {\"cost\":50.0,\"exact\":true,\"plan\":[[25.0,0.0],[0.0,25.0]]}

With entropy, some laptops go the longer way:
  printf '1,3\\n2,1\\n' | ssl-cluster transport - --supply 25,25 --demand 25,25 --lambda 1";

pub fn run(args: TransportArgs) -> Result<ExitStatus> {
    let costs = matrix::read_as(&args.costs, Kind::Double)?;
    let (rows, columns) = (costs.size()[0] as usize, costs.size()[1] as usize);
    let costs: Vec<f64> = Vec::try_from(&costs.contiguous().view(-1))?;
    let supply = amounts(args.supply.as_deref(), rows, "--supply", "rows")?;
    let demand = amounts(args.demand.as_deref(), columns, "--demand", "columns")?;
    let method = match (args.lambda, args.exact) {
        (Some(lambda), _) => Method::Sinkhorn { lambda },
        (None, true) => Method::Exact,
        (None, false) => Method::Auto,
    };
    let plan = transport(&costs, &supply, &demand, method)
        .map_err(mended_by_options)
        .with_context(|| format!("'{}'", args.costs.display()))?;
    let answer = Answer {
        cost: plan.cost,
        exact: plan.lambda.is_none(),
        lambda: plan.lambda,
        plan: plan.amounts.chunks_exact(columns).collect(),
    };
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &answer)?;
    writeln!(out)?;
    Ok(ExitStatus::Done)
}

/// The amounts given, or equal shares of 1.
fn amounts(given: Option<&[f64]>, count: usize, option: &str, what: &str) -> Result<Vec<f64>> {
    match given {
        None => Ok(vec![1.0 / count as f64; count]),
        Some(given) if given.len() == count => Ok(given.to_vec()),
        Some(given) => Err(usage(format!(
            "{option} has {} amounts, the costs have {count} {what}",
            given.len()
        ))),
    }
}
