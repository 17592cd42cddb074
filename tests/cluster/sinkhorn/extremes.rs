//! Any λ, scores that nothing can be done with, few iterations, several threads.

use proptest::prelude::*;
use rand::Rng;
use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, plan, solve};

use super::{assert_all_close, check, log_softmax, sums};
use crate::generator;

/// If it says that it has converged, the columns have their mass.
fn assert_honest(log_p: &[f32], k: usize, options: &SinkhornOptions, about: &str) {
    let transport = solve(log_p, k, options).unwrap();
    check(log_p.len() / k, k, options, &transport);
    let plan = plan(log_p, k, options).unwrap();
    assert!(plan.iter().all(|q| q.is_finite() && *q >= 0.0));
    if transport.converged {
        let (_, columns) = sums(&plan, k);
        for (j, sum) in columns.iter().enumerate() {
            assert!(
                (sum * k as f64 - 1.0).abs() < 0.05,
                "{about}: converged after {} iterations, but column {j} has {sum} of {}",
                transport.iterations,
                1.0 / k as f64
            );
        }
    }
}

const LAMBDAS: [f64; 6] = [1.0, 10.0, 25.0, 100.0, 1_000.0, 10_000.0];

#[test]
fn any_lambda_on_ordinary_scores() {
    for lambda in LAMBDAS {
        let log_p = log_softmax(4, 150, 6, 1.0);
        let options = SinkhornOptions {
            lambda,
            ..SinkhornOptions::default()
        };
        assert_honest(&log_p, 6, &options, &format!("λ = {lambda}"));
    }
}

#[test]
fn any_lambda_with_a_column_that_nobody_likes() {
    for lambda in LAMBDAS {
        let mut log_p = log_softmax(5, 150, 6, 1.0);
        log_p
            .iter_mut()
            .skip(5)
            .step_by(6)
            .for_each(|p| *p -= 200.0);
        let options = SinkhornOptions {
            lambda,
            ..SinkhornOptions::default()
        };
        assert_honest(&log_p, 6, &options, &format!("λ = {lambda}"));
    }
}

#[test]
fn any_lambda_with_confident_rows() {
    for lambda in LAMBDAS {
        // Everybody is certain of column 0, or of one of two.
        for favourites in [1, 2] {
            let mut log_p = log_softmax(6, 150, 6, 1.0);
            for (i, row) in log_p.chunks_exact_mut(6).enumerate() {
                row.iter_mut().for_each(|p| *p -= 100.0);
                row[i % favourites] = 0.0;
            }
            let options = SinkhornOptions {
                lambda,
                ..SinkhornOptions::default()
            };
            assert_honest(
                &log_p,
                6,
                &options,
                &format!("λ = {lambda}, {favourites} columns"),
            );
        }
    }
}

#[test]
fn a_column_that_nobody_can_take_is_not_converged() {
    let mut log_p = log_softmax(7, 60, 3, 1.0);
    log_p
        .iter_mut()
        .skip(2)
        .step_by(3)
        .for_each(|p| *p = f32::NEG_INFINITY);
    assert_honest(&log_p, 3, &SinkhornOptions::default(), "impossible");
}

#[test]
fn equal_scores_are_divided_without_preference() {
    let log_p = vec![-(4.0_f32.ln()); 40];
    let options = SinkhornOptions::default();
    let transport = solve(&log_p, 4, &options).unwrap();
    check(10, 4, &options, &transport);
    assert!(transport.converged);
    assert_all_close(&plan(&log_p, 4, &options).unwrap(), &[0.025; 40], 1e-9);
}

#[test]
fn too_few_iterations_are_admitted() {
    let log_p = log_softmax(8, 300, 8, 2.0);
    for max_iterations in [0, 1, 2, 5] {
        let options = SinkhornOptions {
            tolerance: 1e-9,
            max_iterations,
            ..SinkhornOptions::default()
        };
        let transport = solve(&log_p, 8, &options).unwrap();
        check(300, 8, &options, &transport);
        assert!(!transport.converged);
        assert_eq!(transport.iterations, max_iterations);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let log_p = log_softmax(9, 5_000, 7, 1.5);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let transport = pool
            .install(|| solve(&log_p, 7, &SinkhornOptions::default()))
            .unwrap();
        let bits: Vec<u64> = transport.log_scalings.iter().map(|v| v.to_bits()).collect();
        let cost = transport.cost.to_bits();
        (
            bits,
            transport.labels,
            transport.iterations,
            transport.error.to_bits(),
            cost,
        )
    };
    let single = run(1);
    assert_eq!(single, run(4));
    assert_eq!(single, run(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_scores_are_divided(
        n in 1..80_usize,
        k in 1..12_usize,
        spread in 0.0..30.0_f64,
        lambda in 0.01..200.0_f64,
        seed in 0..u64::MAX,
    ) {
        let mut rng = generator(seed);
        let scores: Vec<f32> = (0..n * k).map(|_| -rng.gen_range(0.0..=spread) as f32).collect();
        let options = SinkhornOptions { lambda, max_iterations: 200, ..Default::default() };
        check(n, k, &options, &solve(&scores, k, &options).unwrap());
        let (rows, _) = sums(&plan(&scores, k, &options).unwrap(), k);
        assert_all_close(&rows, &vec![1.0 / n as f64; n], 1e-12);
    }
}
