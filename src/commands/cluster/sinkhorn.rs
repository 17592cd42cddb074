//! `cluster --method sinkhorn`.

use std::time::Instant;

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::args::{ClusterArgs, Scores};
use super::{RowLabel, Stats, plain};
use crate::cluster::sinkhorn::{self, SinkhornOptions};
use crate::cluster::{CHUNK_BYTES, chunks};
use crate::commands::mended_by_options;
use crate::error::usage;
use crate::monitor::Monitor;
use crate::ui::Ui;

pub fn run(args: &ClusterArgs, scores: Tensor, ui: &Ui) -> Result<(Vec<RowLabel>, Stats)> {
    let started = Instant::now();
    let (_, k) = match scores.size()[..] {
        [n, k] if n > 0 && k > 0 => (n, k),
        _ => bail!("it holds no scores"),
    };
    if args.clusters.is_some_and(|clusters| clusters as i64 != k) {
        return Err(usage(format!(
            "the scores have {k} columns: leave --clusters out"
        )));
    }
    let kind = args.input.unwrap_or(Scores::Logits);
    if kind == Scores::Probabilities {
        let negative = scores.lt(0.0).any_dim(1, false).to_kind(Kind::Int);
        if negative.max().int64_value(&[]) != 0 {
            let row = negative.argmax(0, false).int64_value(&[]);
            bail!("row {row} has a negative probability (are these logits? use --input logits)");
        }
    }
    if kind == Scores::Probabilities {
        // In place: the scores may take half of the memory.
        for (start, rows) in chunks(&scores, CHUNK_BYTES) {
            scores
                .narrow(0, start as i64, rows.size()[0])
                .copy_(&rows.log());
        }
    }
    let defaults = SinkhornOptions::default();
    let options = SinkhornOptions {
        lambda: args.lambda.unwrap_or(defaults.lambda),
        solver: args.solver.unwrap_or(defaults.solver),
        exact_balance: args.exact_balance,
        memory: match args.memory {
            None => defaults.memory,
            Some(gigabytes) if gigabytes >= 0.0 => (gigabytes * 1e9) as usize,
            Some(wrong) => return Err(usage(format!("--memory cannot be {wrong} GB"))),
        },
        tolerance: args.tolerance.unwrap_or(defaults.tolerance),
        max_iterations: args.iterations.unwrap_or(defaults.max_iterations),
        ..defaults
    };
    // Logits are solved for as they are: the solution does not change with what is added to a row.
    let mut solved = sinkhorn::solve_tensor(&scores, &options).map_err(mended_by_options)?;
    if kind == Scores::Logits {
        solved.cost += mean_logsumexp(&scores);
    }
    if !solved.converged {
        ui.warn(&format!(
            "stopped after {} iterations at error {:.3}, tolerance {}: raise --iterations or --tolerance",
            solved.iterations, solved.error, options.tolerance
        ));
    }
    let stats = Stats {
        iterations: solved.iterations,
        seconds: started.elapsed().as_secs_f64(),
        error: Some(solved.error),
        cost: Some(solved.cost),
        newton_steps: Some(solved.newton_steps),
        moved: args.exact_balance.then_some(solved.moved),
        sizes: solved.sizes,
        ..Stats::default()
    };
    Ok((plain(solved.labels), stats))
}

/// What the costs of logits lack to be those of log-probabilities.
fn mean_logsumexp(logits: &Tensor) -> f64 {
    let sum: f64 = chunks(logits, CHUNK_BYTES)
        .map(|(_, rows)| rows.logsumexp(1, false).sum(Kind::Double).double_value(&[]))
        .sum();
    sum / logits.size()[0] as f64
}
