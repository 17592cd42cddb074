//! Labels of exactly equal sizes.

use proptest::prelude::*;
use rand::Rng;
use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, solve};

use super::log_softmax;
use super::reference::enumerate;
use crate::{assert_close, generator};

#[test]
fn exact_balance_is_the_optimum_whatever_lambda() {
    for (seed, sizes) in (0..30).flat_map(|seed| [(seed, vec![3, 3]), (seed, vec![2, 2, 2])]) {
        let log_p = log_softmax(700 + seed, 6, sizes.len(), 2.0);
        let optimum = enumerate(&log_p, &sizes);
        for lambda in [0.5, 10.0] {
            let options = SinkhornOptions {
                lambda,
                max_iterations: 20,
                exact_balance: true,
                ..Default::default()
            };
            let transport = solve(&log_p, sizes.len(), &options).unwrap();
            assert_eq!(transport.sizes, sizes);
            assert_close(transport.cost, optimum.cost, 1e-6);
        }
    }
}

#[test]
fn sizes_that_cannot_be_equal_differ_by_one() {
    // Seven points in three clusters: the best of the three ways to divide them.
    for seed in 0..30 {
        let log_p = log_softmax(800 + seed, 7, 3, 2.0);
        let ways = [[3, 2, 2], [2, 3, 2], [2, 2, 3]];
        let costs = ways.iter().map(|sizes| enumerate(&log_p, sizes).cost);
        let best = costs.fold(f64::INFINITY, f64::min);
        let options = SinkhornOptions {
            exact_balance: true,
            ..Default::default()
        };
        let transport = solve(&log_p, 3, &options).unwrap();
        let mut sizes = transport.sizes.clone();
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 2, 3]);
        assert_close(transport.cost, best, 1e-6);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// No single point, and no two that change places, could cost less.
    #[test]
    fn exact_balance_leaves_nothing_to_gain(
        seed in 0..u64::MAX,
        n in 1..60_usize,
        k in 1..12_usize,
        forbidden in 0.0..0.4,
        iterations in 1..30_usize,
    ) {
        let mut log_p = log_softmax(seed, n, k, 3.0);
        let mut rng = generator(seed);
        for row in log_p.chunks_exact_mut(k) {
            for p in row.iter_mut().skip(1) {
                if rng.gen_bool(forbidden) {
                    *p = f32::NEG_INFINITY;
                }
            }
        }
        let options = SinkhornOptions {
            lambda: 5.0,
            max_iterations: iterations,
            exact_balance: true,
            ..Default::default()
        };
        // Some leave no labels of equal sizes.
        let Ok(transport) = solve(&log_p, k, &options) else {
            return Ok(());
        };
        let sizes = &transport.sizes;
        prop_assert!(sizes.iter().all(|&size| size == n / k || size == n.div_ceil(k)));
        prop_assert!(transport.moved <= n);
        let cost = |row: usize, label: u32| -f64::from(log_p[row * k + label as usize]);
        let labels = &transport.labels;
        prop_assert!((0..n).all(|row| cost(row, labels[row]).is_finite()));
        for (a, &at) in labels.iter().enumerate() {
            for to in 0..k as u32 {
                if sizes[at as usize] > n / k && sizes[to as usize] < n.div_ceil(k) {
                    prop_assert!(cost(a, to) >= cost(a, at) - 1e-6);
                }
            }
            for (b, &other) in labels.iter().enumerate() {
                let now = cost(a, at) + cost(b, other);
                prop_assert!(cost(a, other) + cost(b, at) >= now - 1e-6);
            }
        }
    }
}

#[test]
fn exact_balance_of_many_points_costs_little() {
    let (n, k) = (5_000, 50);
    let log_p = log_softmax(900, n, k, 1.5);
    let plain = solve(&log_p, k, &SinkhornOptions::default()).unwrap();
    let options = SinkhornOptions {
        exact_balance: true,
        ..Default::default()
    };
    let exact = solve(&log_p, k, &options).unwrap();
    assert_eq!(exact.sizes, [n / k; 50]);
    assert!(exact.moved > 0 && exact.moved < n / 20, "{}", exact.moved);
    assert!(
        exact.cost < plain.cost * 1.01,
        "{} after {}",
        exact.cost,
        plain.cost
    );
    // A column that nobody can take.
    let mut forbidden = log_p;
    forbidden
        .iter_mut()
        .step_by(k)
        .for_each(|p| *p = f32::NEG_INFINITY);
    let options = SinkhornOptions {
        max_iterations: 50,
        exact_balance: true,
        ..Default::default()
    };
    let error = solve(&forbidden, k, &options).unwrap_err();
    assert!(
        error.to_string().contains("no labels of equal sizes"),
        "{error}"
    );
}
