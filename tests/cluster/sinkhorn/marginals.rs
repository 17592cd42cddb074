//! Rows and columns have the sums that were asked for.

use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, plan, solve};

use super::{assert_all_close, check, log_softmax, sums, to_convergence};
use crate::assert_close;

#[test]
fn uniform_marginals_are_met() {
    for (n, k, lambda) in [
        (200, 7, 1.0),
        (200, 7, 25.0),
        (600, 10, 10.0),
        (40, 1, 25.0),
    ] {
        let log_p = log_softmax(n as u64, n, k, 1.0);
        let options = to_convergence(lambda);
        let transport = solve(&log_p, k, &options).unwrap();
        check(n, k, &options, &transport);
        assert!(transport.converged);
        let (rows, columns) = sums(&plan(&log_p, k, &options).unwrap(), k);
        assert_all_close(&rows, &vec![1.0 / n as f64; n], 1e-12);
        assert_all_close(&columns, &vec![1.0 / k as f64; k], 1e-5);
    }
}

#[test]
fn unequal_marginals_are_met() {
    let (n, k) = (300, 4);
    let log_p = log_softmax(1, n, k, 1.0);
    let rows: Vec<f64> = (0..n).map(|i| 1.0 + (i % 3) as f64).collect();
    let total: f64 = rows.iter().sum();
    let columns: Vec<f64> = [0.1, 0.2, 0.3, 0.4]
        .iter()
        .map(|share| share * total)
        .collect();
    let options = SinkhornOptions {
        rows: Some(rows.clone()),
        columns: Some(columns.clone()),
        ..to_convergence(10.0)
    };
    let transport = solve(&log_p, k, &options).unwrap();
    check(n, k, &options, &transport);
    assert!(transport.converged);
    let found = sums(&plan(&log_p, k, &options).unwrap(), k);
    assert_all_close(&found.0, &rows, 1e-9);
    assert_all_close(&found.1, &columns, 1e-5 * total);
}

#[test]
fn labels_are_nearly_balanced() {
    for seed in 0..3 {
        let (n, k) = (2_000, 10);
        // Every point favours the first columns.
        let mut log_p = log_softmax(seed, n, k, 1.0);
        log_p
            .iter_mut()
            .enumerate()
            .for_each(|(i, p)| *p -= (i % k) as f32 * 0.5);
        let options = SinkhornOptions::default();
        let transport = solve(&log_p, k, &options).unwrap();
        check(n, k, &options, &transport);
        assert!(transport.converged);
        let sizes = &transport.sizes;
        assert!(
            sizes.iter().all(|size| size.abs_diff(n / k) <= n / k / 20),
            "{sizes:?}"
        );
    }
}

#[test]
fn a_column_without_mass_takes_nothing() {
    let log_p = log_softmax(2, 60, 3, 1.0);
    let options = SinkhornOptions {
        columns: Some(vec![0.5, 0.5, 0.0]),
        ..to_convergence(10.0)
    };
    let transport = solve(&log_p, 3, &options).unwrap();
    check(60, 3, &options, &transport);
    assert_eq!(transport.sizes[2], 0);
    let (_, columns) = sums(&plan(&log_p, 3, &options).unwrap(), 3);
    assert_all_close(&columns, &[0.5, 0.5, 0.0], 1e-5);
}

#[test]
fn impossible_pairs_stay_empty() {
    // Point i may take any label but i % 3.
    let mut log_p = log_softmax(3, 90, 3, 1.0);
    (0..90).for_each(|i| log_p[i * 3 + i % 3] = f32::NEG_INFINITY);
    let options = to_convergence(5.0);
    let transport = solve(&log_p, 3, &options).unwrap();
    check(90, 3, &options, &transport);
    assert!(
        transport
            .labels
            .iter()
            .enumerate()
            .all(|(i, &label)| label as usize != i % 3)
    );
    let plan = plan(&log_p, 3, &options).unwrap();
    assert!((0..90).all(|i| plan[i * 3 + i % 3] == 0.0));
    assert_all_close(&sums(&plan, 3).1, &[1.0 / 3.0; 3], 1e-5);
}

#[test]
fn the_mean_cost_is_that_of_the_labels() {
    let log_p = log_softmax(10, 100, 5, 1.0);
    let transport = solve(&log_p, 5, &SinkhornOptions::default()).unwrap();
    let labelled = transport
        .labels
        .iter()
        .enumerate()
        .map(|(i, &l)| log_p[i * 5 + l as usize]);
    let mean = labelled.map(|p| -f64::from(p)).sum::<f64>() / 100.0;
    assert_close(transport.cost, mean, 1e-12);
}
