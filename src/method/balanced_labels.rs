//! Labels of equal sizes for the heads of a network: SeLa's label step, by optimal transport.

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

use super::Context;
use crate::cluster::sinkhorn::{self, Linear, Scores, SinkhornOptions, Solver, Transport};
use crate::comm::Comm;
use crate::device;
use crate::error::usage;
use crate::model::MultiHead;
use crate::monitor::Phase;
use crate::record::LabelStepRecord;

/// Scores computed at once on the device.
const BLOCK: i64 = 16 << 20;

/// How the transport problems of a label step are solved.
#[derive(Debug, Clone, Copy)]
pub struct Balancing {
    /// Exponent of the probabilities.
    pub lambda: f64,
    /// Where the solver stops: sum of the rows' relative changes.
    pub tolerance: f64,
    /// Passes at most.
    pub max_iterations: usize,
    pub solver: Solver,
    /// Gigabytes beside the features; scores that do not fit are computed when they are needed.
    pub memory: f64,
}

impl Balancing {
    /// Refuses values that cannot work, with the option to change.
    pub fn check(&self) -> Result<()> {
        if self.max_iterations == 0 {
            bail!(usage("max_iterations must be at least 1"));
        }
        if !(self.lambda > 0.0 && self.lambda.is_finite()) {
            bail!(usage("--lambda must be a positive number"));
        }
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            bail!(usage("--tolerance must not be negative"));
        }
        if !(self.memory >= 0.0 && self.memory.is_finite()) {
            bail!(usage("--memory must be a number of gigabytes, 0 or more"));
        }
        Ok(())
    }

    /// Solves for these of `heads` from activations `[n, d]`, reports what did not converge, and gives their
    /// record.
    ///
    /// # Errors
    /// Scores that are no numbers.
    pub fn solve(
        &self,
        context: &Context,
        heads: &MultiHead,
        features: &Tensor,
        which: impl IntoIterator<Item = usize>,
    ) -> Result<(Vec<(usize, Transport)>, LabelStepRecord)> {
        let started = std::time::Instant::now();
        context.monitor.begin(Phase::Cluster, "balancing labels", 0);
        let solved: Result<Vec<_>> = which
            .into_iter()
            .map(|head| Ok((head, self.transport(context.comm, heads, features, head)?)))
            .collect();
        context.monitor.end();
        let solved = solved?;
        for (head, transport) in solved.iter().filter(|(_, transport)| !transport.converged) {
            context.monitor.warn(&format!(
                "the label step of head {head} stopped after {} iterations at error {:.2} \
                 (tolerance {}); a smaller --lambda or a larger --tolerance converges sooner",
                transport.iterations, transport.error, self.tolerance
            ));
        }
        // Over the heads that were solved: the passes of all, the largest error, the mean cost.
        let transports = || solved.iter().map(|(_, transport)| transport);
        let record = LabelStepRecord {
            clusters: heads.clusters() as usize,
            iterations: Some(transports().map(|one| one.iterations).sum()),
            error: transports().map(|one| one.error).reduce(f64::max),
            cost: Some(transports().map(|one| one.cost).sum::<f64>() / solved.len() as f64),
            seconds: [(
                Phase::Cluster.name().to_string(),
                started.elapsed().as_secs_f64(),
            )]
            .into(),
            ..LabelStepRecord::default()
        };
        Ok((solved, record))
    }

    /// Solves the transport problem of one head from activations `[n, d]`. Where scores `[n, k]` in f32
    /// and the least that the solver keeps beside them do not fit, it computes scores itself.
    fn transport(
        &self,
        comm: &'static dyn Comm,
        heads: &MultiHead,
        features: &Tensor,
        head: usize,
    ) -> Result<Transport> {
        let (n, k) = (features.size()[0], heads.clusters());
        let count = (n * k) as usize;
        let memory = (self.memory * 1e9) as usize;
        let options = |memory| SinkhornOptions {
            lambda: self.lambda,
            tolerance: self.tolerance,
            max_iterations: self.max_iterations,
            solver: self.solver,
            memory,
            comm,
            ..SinkhornOptions::default()
        };
        if 6 * count <= memory {
            let log_p = log_probabilities(heads, features, head as i64);
            return Ok(sinkhorn::solve(
                &log_p,
                k as usize,
                &options(memory - 4 * count),
            )?);
        }
        let here = |tensor: &Tensor| {
            let tensor = tensor.detach().to_device(Device::Cpu);
            tensor.to_kind(Kind::Float).contiguous()
        };
        let (features, weights, biases) = (
            here(features),
            here(&heads.weight(head as i64)),
            here(&heads.bias(head as i64)),
        );
        let scores = Scores::Linear(Linear {
            features: device::numbers(&features),
            weights: device::numbers(&weights),
            biases: device::numbers(&biases),
        });
        Ok(sinkhorn::solve_scores(scores, &options(memory))?)
    }
}

/// Log-probabilities of one head, row-major `[n, k]`, from activations `[n, d]`, by blocks: all logits at
/// once would be n·k numbers on the device, twice.
fn log_probabilities(heads: &MultiHead, features: &Tensor, head: i64) -> Vec<f32> {
    let (n, k) = (features.size()[0], heads.clusters());
    let mut log_p = vec![0.0_f32; (n * k) as usize];
    let rows = (BLOCK / k).max(1);
    let device = heads.weight(head).device();
    for (start, block) in (0..n)
        .step_by(rows as usize)
        .zip(log_p.chunks_mut((rows * k) as usize))
    {
        let scores = tch::no_grad(|| {
            let features = features.narrow(0, start, rows.min(n - start));
            heads
                .forward_head(&features.to_device(device), head)
                .log_softmax(1, Kind::Float)
                .to_device(Device::Cpu)
                .contiguous()
        });
        scores.copy_data(block, block.len());
    }
    log_p
}
