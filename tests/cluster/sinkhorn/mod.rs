//! Optimal transport against the authors' algorithm in f64 and against all assignments.

mod balance;
mod errors;
mod extremes;
mod marginals;
mod optimum;
mod published;
pub mod reference;

use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, Transport};

use crate::{count, normal};

/// Log-probabilities of `n` points with logits of the given spread, row-major.
pub fn log_softmax(seed: u64, n: usize, k: usize, spread: f64) -> Vec<f32> {
    let row = |row: Vec<f64>| {
        let logits: Vec<f64> = row.iter().map(|z| z * spread).collect();
        let total = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
        logits.into_iter().map(move |z| (z - total) as f32)
    };
    normal(seed, n, k).into_iter().flat_map(row).collect()
}

fn to_convergence(lambda: f64) -> SinkhornOptions {
    SinkhornOptions {
        lambda,
        tolerance: 1e-4,
        max_iterations: 50_000,
        ..Default::default()
    }
}

pub fn check(n: usize, k: usize, options: &SinkhornOptions, transport: &Transport) {
    assert_eq!(transport.labels.len(), n);
    assert_eq!(transport.log_scalings.len(), k);
    assert!(transport.log_scalings.iter().all(|x| x.is_finite()));
    assert_eq!(
        transport.sizes,
        count(transport.labels.iter().map(|&l| l as usize), k)
    );
    assert_eq!(transport.sizes.iter().sum::<usize>(), n);
    assert!(transport.iterations <= options.max_iterations);
    assert!(!transport.cost.is_nan() && !transport.error.is_nan());
    assert_eq!(transport.converged, transport.error <= options.tolerance);
    assert!(transport.converged || transport.iterations == options.max_iterations);
}

pub fn sums(plan: &[f64], k: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = plan.chunks_exact(k).map(|row| row.iter().sum()).collect();
    let columns = (0..k)
        .map(|j| plan.iter().skip(j).step_by(k).sum())
        .collect();
    (rows, columns)
}

#[track_caller]
pub fn assert_all_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    let worst = a
        .iter()
        .zip(b)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, f64::max);
    assert!(worst <= tolerance, "{worst}: {a:?} and {b:?}");
}

/// The cost of a plan, `Σ −log P_ij Q_ij`.
fn plan_cost(log_p: &[f32], plan: &[f64]) -> f64 {
    log_p
        .iter()
        .zip(plan)
        .map(|(&p, q)| -f64::from(p) * q)
        .sum()
}
