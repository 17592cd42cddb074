//! The authors' algorithm finds the same labels.

use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, Solver, solve};

use super::reference::{agreement, authors};
use super::{assert_all_close, check, log_softmax, to_convergence};
use crate::{assert_close, normal};

#[test]
fn agrees_with_the_authors_algorithm() {
    let (n, k) = (200, 7);
    for lambda in [1.0, 2.0, 5.0, 10.0, 25.0] {
        for seed in 0..4 {
            let log_p = log_softmax(seed, n, k, 1.5);
            let options = to_convergence(lambda);
            let ours = solve(&log_p, k, &options).unwrap();
            check(n, k, &options, &ours);
            let expected = authors(&log_p, k, lambda, 1e-9);
            assert!(agreement(&ours.labels, &expected.labels) >= 0.99);
            let mean = ours.log_scalings.iter().sum::<f64>() / k as f64;
            let centred: Vec<f64> = ours.log_scalings.iter().map(|v| v - mean).collect();
            assert_all_close(&centred, &expected.log_scalings, 1e-3);
            // Stopped where the authors stop, on labels.
            let options = SinkhornOptions {
                lambda,
                ..SinkhornOptions::default()
            };
            let ours = solve(&log_p, k, &options).unwrap();
            let expected = authors(&log_p, k, lambda, 0.1);
            assert!(agreement(&ours.labels, &expected.labels) >= 0.99);
        }
    }
}

#[test]
fn the_tolerance_can_be_reached_for_a_million_points() {
    // The authors' tolerance is for the sum over all points, so that of a small problem must be
    // as much smaller to ask for the same precision: 0.1 for ImageNet's 1.28 million.
    let (n, k, lambda) = (2_000, 10, 10.0);
    let log_p = log_softmax(13, n, k, 1.0);
    let tolerance = 0.1 * n as f64 / 1.28e6;
    authors(&log_p, k, lambda, tolerance);
    let options = SinkhornOptions {
        lambda,
        tolerance,
        ..SinkhornOptions::default()
    };
    let transport = solve(&log_p, k, &options).unwrap();
    check(n, k, &options, &transport);
    assert!(
        transport.converged,
        "the error stays at {} > {tolerance}",
        transport.error
    );
}

#[test]
fn sixteen_bits_a_warm_start_and_no_storage_change_no_label() {
    let (n, k) = (6_000, 20);
    let scores: Vec<f32> = normal(61, n, k)
        .into_iter()
        .flatten()
        .map(|x| (2.0 * x) as f32)
        .collect();
    let published = SinkhornOptions {
        solver: Solver::Sinkhorn,
        tolerance: 1e-4,
        max_iterations: 100_000,
        lambda: 5.0,
        ..SinkhornOptions::default()
    };
    let ours = SinkhornOptions {
        lambda: 5.0,
        ..SinkhornOptions::default()
    };
    let (published, ours) = (
        solve(&scores, k, &published).unwrap(),
        solve(&scores, k, &ours).unwrap(),
    );
    let unstored = SinkhornOptions {
        memory: 0,
        lambda: 5.0,
        ..SinkhornOptions::default()
    };
    let unstored = solve(&scores, k, &unstored).unwrap();
    // Less than f32 takes, and a tolerance that would have asked for it.
    let forced = SinkhornOptions {
        memory: 3 * n * k,
        lambda: 5.0,
        tolerance: 1e-3,
        ..SinkhornOptions::default()
    };
    let forced = solve(&scores, k, &forced).unwrap();
    assert!(published.converged);
    for ours in [ours, unstored, forced] {
        assert!(ours.converged);
        assert!(ours.iterations < published.iterations);
        let pairs = ours.labels.iter().zip(&published.labels);
        let equal = pairs.filter(|(a, b)| a == b).count();
        assert!(equal as f64 >= 0.999 * n as f64, "{equal}");
        for (a, b) in ours.log_scalings.iter().zip(&published.log_scalings) {
            assert_close(*a, *b, 1e-3);
        }
    }
}
