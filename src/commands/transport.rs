//! `transport`: what goes from where to where at the least cost.

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;
use tch::Kind;

use super::{ExitStatus, mended_by_options};
use crate::cli;
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

pub fn run(args: cli::Transport) -> Result<ExitStatus> {
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
