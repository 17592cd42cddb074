//! Newton's method on the potentials against Sinkhorn-Knopp in f64, and where the latter is slow.

use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, Solver, plan, solve};

use super::sinkhorn::reference::{agreement, authors};
use super::sinkhorn::{assert_all_close, check, log_softmax, sums};

fn newton(lambda: f64) -> SinkhornOptions {
    SinkhornOptions {
        lambda,
        tolerance: 1e-6,
        max_iterations: 500,
        solver: Solver::Newton,
        ..SinkhornOptions::default()
    }
}

/// Scores of a confident network: sharp, and with columns that few rows like.
fn confident(seed: u64, n: usize, k: usize) -> Vec<f32> {
    let mut log_p = log_softmax(seed, n, k, 6.0);
    for (i, p) in log_p.iter_mut().enumerate() {
        *p -= 4.0 * (i % k) as f32 / k as f32;
    }
    log_p
}

#[test]
fn agrees_with_sinkhorn_knopp_in_f64() {
    let (n, k) = (300, 7);
    for lambda in [1.0, 5.0, 25.0] {
        for seed in 0..3 {
            let log_p = log_softmax(seed, n, k, 1.5);
            let ours = solve(&log_p, k, &newton(lambda)).unwrap();
            check(n, k, &newton(lambda), &ours);
            assert!(ours.converged && ours.newton_steps > 0);
            let expected = authors(&log_p, k, lambda, 1e-9);
            assert!(agreement(&ours.labels, &expected.labels) >= 0.99);
            assert_all_close(&ours.log_scalings, &expected.log_scalings, 1e-4);
        }
    }
}

#[test]
fn unequal_marginals_are_met() {
    let (n, k) = (200, 5);
    let log_p = log_softmax(4, n, k, 2.0);
    let rows: Vec<f64> = (0..n).map(|i| (i % 4) as f64).collect();
    let total: f64 = rows.iter().sum();
    let columns = [0.4, 0.05, 0.15, 0.3, 0.1].map(|share| share * total);
    let options = SinkhornOptions {
        rows: Some(rows.clone()),
        columns: Some(columns.to_vec()),
        ..newton(20.0)
    };
    let transport = solve(&log_p, k, &options).unwrap();
    assert!(transport.converged);
    let found = sums(&plan(&log_p, k, &options).unwrap(), k);
    assert_all_close(&found.0, &rows, 1e-9);
    assert_all_close(&found.1, &columns, 1e-6 * total);
}

#[test]
fn confident_scores_take_few_passes() {
    let (n, k) = (3_000, 20);
    let log_p = confident(1, n, k);
    let with = |solver, max_iterations| SinkhornOptions {
        solver,
        max_iterations,
        tolerance: 1e-3,
        ..SinkhornOptions::default()
    };
    let published = solve(&log_p, k, &with(Solver::Sinkhorn, 1_000)).unwrap();
    assert!(!published.converged, "the case is too easy");
    for solver in [Solver::Newton, Solver::Auto] {
        let options = with(solver, 150);
        let transport = solve(&log_p, k, &options).unwrap();
        check(n, k, &options, &transport);
        assert!(transport.converged, "{solver:?}: error {}", transport.error);
        let (_, columns) = sums(&plan(&log_p, k, &options).unwrap(), k);
        assert_all_close(&columns, &vec![1.0 / k as f64; k], 1e-6);
        let balanced = n / k;
        assert!(
            transport
                .sizes
                .iter()
                .all(|size| size.abs_diff(balanced) <= balanced / 20),
            "{:?}",
            transport.sizes
        );
    }
}

#[test]
fn the_published_algorithm_is_kept_by_name() {
    let log_p = confident(2, 500, 8);
    let options = SinkhornOptions {
        solver: Solver::Sinkhorn,
        max_iterations: 200,
        ..SinkhornOptions::default()
    };
    assert_eq!(solve(&log_p, 8, &options).unwrap().newton_steps, 0);
}

#[test]
fn any_lambda_is_solved() {
    for lambda in [0.1, 1.0, 25.0, 100.0, 1_000.0, 10_000.0] {
        let log_p = log_softmax(3, 400, 6, 1.0);
        let options = SinkhornOptions {
            tolerance: 0.1,
            ..newton(lambda)
        };
        let transport = solve(&log_p, 6, &options).unwrap();
        check(400, 6, &options, &transport);
        let (_, columns) = sums(&plan(&log_p, 6, &options).unwrap(), 6);
        // With a large λ a column is a step function of its potential: a row more or less.
        assert!(
            columns
                .iter()
                .all(|column| (column - 1.0 / 6.0).abs() < 0.02),
            "λ = {lambda}: {columns:?}, error {}",
            transport.error
        );
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let log_p = confident(5, 5_000, 7);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let transport = pool.install(|| solve(&log_p, 7, &newton(25.0))).unwrap();
        let bits: Vec<u64> = transport.log_scalings.iter().map(|v| v.to_bits()).collect();
        (bits, transport.iterations, transport.error.to_bits())
    };
    assert_eq!(run(1), run(4));
}
