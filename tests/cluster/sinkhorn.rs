//! Optimal transport against the authors' algorithm in f64 and against all assignments.

use proptest::prelude::*;
use rand::Rng;
use ssl_cluster::cluster::ClusterError;
use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, Solver, Transport, plan, solve};

use ssl_cluster::cluster::transport::{Method, transport};

use super::{assert_close, count, generator, normal};

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

// Marginals.

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

// The authors' algorithm (`sinkhornknopp.py: optimize_L_sk`) in f64.

pub struct Authors {
    pub labels: Vec<u32>,
    pub log_scalings: Vec<f64>,
}

pub fn authors(log_p: &[f32], k: usize, lambda: f64, tolerance: f64) -> Authors {
    let n = log_p.len() / k;
    let p: Vec<f64> = log_p
        .iter()
        .map(|&p| (lambda * f64::from(p)).exp())
        .collect();
    let (mut r, mut c) = (vec![1.0 / k as f64; k], vec![1.0 / n as f64; n]);
    let mut counter = 0;
    loop {
        for (j, r) in r.iter_mut().enumerate() {
            *r = 1.0 / k as f64 / (0..n).map(|i| p[i * k + j] * c[i]).sum::<f64>();
        }
        let new: Vec<f64> = (0..n)
            .map(|i| 1.0 / n as f64 / (0..k).map(|j| p[i * k + j] * r[j]).sum::<f64>())
            .collect();
        let error: f64 = c
            .iter()
            .zip(&new)
            .map(|(old, new)| (old / new - 1.0).abs())
            .sum();
        c = new;
        if counter % 10 == 0 && error <= tolerance {
            break;
        }
        counter += 1;
        assert!(counter < 100_000);
    }
    let score = |i: usize, j: usize| p[i * k + j] * r[j] * c[i];
    let best = |i| {
        (0..k)
            .max_by(|&a, &b| score(i, a).total_cmp(&score(i, b)))
            .unwrap() as u32
    };
    let logs: Vec<f64> = r.iter().map(|r| r.ln()).collect();
    let mean = logs.iter().sum::<f64>() / k as f64;
    Authors {
        labels: (0..n).map(best).collect(),
        log_scalings: logs.iter().map(|log| log - mean).collect(),
    }
}

pub fn agreement(a: &[u32], b: &[u32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

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

// The optimum, by looking at every assignment.

struct Optimum {
    labels: Vec<u32>,
    /// Mean cost for each point.
    cost: f64,
    /// How much the second best costs more, over all points.
    gap: f64,
}

fn enumerate(log_p: &[f32], sizes: &[usize]) -> Optimum {
    let (k, n) = (sizes.len(), log_p.len() / sizes.len());
    let mut costs: Vec<(f64, Vec<u32>)> = (0..k.pow(n as u32))
        .map(|code| {
            (0..n)
                .map(|i| (code / k.pow(i as u32) % k) as u32)
                .collect()
        })
        .filter(|labels: &Vec<u32>| count(labels.iter().map(|&l| l as usize), k) == sizes)
        .map(|labels| {
            let costs = labels
                .iter()
                .enumerate()
                .map(|(i, &l)| log_p[i * k + l as usize]);
            (costs.map(|p| -f64::from(p)).sum(), labels)
        })
        .collect();
    costs.sort_by(|a, b| a.0.total_cmp(&b.0));
    Optimum {
        labels: costs[0].1.clone(),
        cost: costs[0].0 / n as f64,
        gap: costs[1].0 - costs[0].0,
    }
}

fn small_problems() -> impl Iterator<Item = (Vec<f32>, Vec<usize>, Optimum)> {
    let sizes = [vec![3, 3], vec![2, 2, 2], vec![1, 2, 3], vec![4, 2]];
    sizes.into_iter().flat_map(|sizes| {
        (0..10).map(move |seed| {
            let log_p = log_softmax(100 + seed, 6, sizes.len(), 1.0);
            let optimum = enumerate(&log_p, &sizes);
            (log_p, sizes.clone(), optimum)
        })
    })
}

fn shares(sizes: &[usize]) -> Option<Vec<f64>> {
    Some(sizes.iter().map(|&size| size as f64 / 6.0).collect())
}

#[test]
fn large_lambda_finds_the_optimal_assignment() {
    let mut tested = 0;
    for (log_p, sizes, optimum) in small_problems().filter(|(.., optimum)| optimum.gap > 0.05) {
        let options = SinkhornOptions {
            columns: shares(&sizes),
            ..to_convergence(400.0)
        };
        let transport = solve(&log_p, sizes.len(), &options).unwrap();
        check(6, sizes.len(), &options, &transport);
        assert_eq!(transport.labels, optimum.labels);
        assert_eq!(transport.sizes, sizes);
        assert_close(transport.cost, optimum.cost, 1e-6);
        let plan = plan(&log_p, sizes.len(), &options).unwrap();
        assert_close(plan_cost(&log_p, &plan), optimum.cost, 1e-3);
        tested += 1;
    }
    assert!(tested >= 25, "{tested}");
}

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

#[test]
fn the_cost_falls_to_the_optimum_as_lambda_grows() {
    for (log_p, sizes, optimum) in small_problems() {
        let k = sizes.len();
        let mut before = f64::INFINITY;
        for lambda in [0.5, 1.0, 5.0, 25.0, 100.0] {
            let options = SinkhornOptions {
                columns: shares(&sizes),
                ..to_convergence(lambda)
            };
            let plan = plan(&log_p, k, &options).unwrap();
            let cost = plan_cost(&log_p, &plan);
            // The plan minimises cost − entropy/λ, and entropies of plans with these row sums
            // differ by no more than ln k.
            assert!(cost >= optimum.cost - 1e-4);
            assert!(cost <= optimum.cost + (k as f64).ln() / lambda + 1e-4);
            assert!(cost <= before + 1e-4);
            before = cost;
        }
    }
}

#[test]
fn laptops_go_to_the_nearer_shops() {
    // Two warehouses with 25 laptops each, two shops that want 25 each.
    let costs = [1.0_f32, 3.0, 2.0, 1.0];
    let log_p = costs.map(|cost| -cost);
    let with = |lambda| SinkhornOptions {
        lambda,
        tolerance: 1e-6,
        max_iterations: 10_000,
        rows: Some(vec![25.0; 2]),
        columns: Some(vec![25.0; 2]),
        ..SinkhornOptions::default()
    };
    let exact = plan(&log_p, 2, &with(50.0)).unwrap();
    assert_all_close(&exact, &[25.0, 0.0, 0.0, 25.0], 1e-6);
    assert_close(plan_cost(&log_p, &exact), 50.0, 1e-5);
    assert_eq!(solve(&log_p, 2, &with(50.0)).unwrap().labels, [0, 1]);
    let mut crossing = 0.0;
    for lambda in [3.0, 1.0, 0.1] {
        let smooth = plan(&log_p, 2, &with(lambda)).unwrap();
        let (rows, columns) = sums(&smooth, 2);
        assert_all_close(&rows, &[25.0; 2], 1e-9);
        assert_all_close(&columns, &[25.0; 2], 1e-4);
        assert!(smooth[1] > crossing, "a smaller λ spreads more: {smooth:?}");
        // By hand: q/(25 − q) = exp(−λ (3 + 2 − 1 − 1)/2).
        let odds = (-1.5 * lambda).exp();
        assert_close(smooth[1], 25.0 * odds / (1.0 + odds), 1e-4);
        crossing = smooth[1];
    }
}

#[test]
fn laptops_from_unequal_warehouses() {
    // 30 and 20 laptops; shops want 10 and 40. The first warehouse is the nearer one for both
    // shops, but sending its 10 to the first shop saves more.
    let log_p = [-1.0_f32, -2.0, -4.0, -3.0];
    let options = SinkhornOptions {
        rows: Some(vec![30.0, 20.0]),
        columns: Some(vec![10.0, 40.0]),
        ..to_convergence(20.0)
    };
    let plan = plan(&log_p, 2, &options).unwrap();
    assert_all_close(&plan, &[10.0, 20.0, 0.0, 20.0], 1e-3);
}

#[test]
fn the_linear_program_agrees_with_every_assignment_and_with_large_lambda() {
    for (log_p, sizes, optimum) in small_problems() {
        let costs: Vec<f64> = log_p.iter().map(|p| -f64::from(*p)).collect();
        let (supply, demand) = (
            vec![1.0; 6],
            sizes.iter().map(|&s| s as f64).collect::<Vec<_>>(),
        );
        let exact = transport(&costs, &supply, &demand, Method::Exact).unwrap();
        assert_close(exact.cost, 6.0 * optimum.cost, 1e-6);
        let (rows, columns) = sums(&exact.amounts, demand.len());
        assert_all_close(&rows, &supply, 1e-9);
        assert_all_close(&columns, &demand, 1e-9);
        let smooth = transport(&costs, &supply, &demand, Method::Sinkhorn { lambda: 200.0 });
        assert_close(smooth.unwrap().cost, exact.cost, 0.02);
    }
    // Amounts that are no whole numbers, many of them.
    let (supply, demand) = (vec![0.1; 30], vec![0.12; 25]);
    let costs: Vec<f64> = normal(5, 30, 25).into_iter().flatten().collect();
    let exact = transport(&costs, &supply, &demand, Method::Auto).unwrap();
    let smooth = transport(&costs, &supply, &demand, Method::Sinkhorn { lambda: 100.0 }).unwrap();
    assert!(exact.cost <= smooth.cost && smooth.cost < exact.cost + 0.05);
    assert!(
        exact
            .amounts
            .iter()
            .filter(|&&amount| amount > 1e-9)
            .count()
            <= 54
    );
}

// Extremes.

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

// Errors.

#[test]
fn bad_scores_are_refused() {
    let good = log_softmax(11, 6, 3, 1.0);
    for value in [f32::NAN, f32::INFINITY] {
        let mut bad = good.clone();
        bad[3 * 4 + 1] = value;
        let error = solve(&bad, 3, &SinkhornOptions::default()).unwrap_err();
        assert_eq!(error, ClusterError::NotFinite { row: 4 });
    }
    let mut bad = good.clone();
    bad[6..9].fill(f32::NEG_INFINITY);
    let error = plan(&bad, 3, &SinkhornOptions::default()).unwrap_err();
    assert_eq!(error, ClusterError::NotFinite { row: 2 });
    for (scores, k) in [(&good[..], 0), (&good[..17], 3), (&[][..], 3)] {
        let error = solve(scores, k, &SinkhornOptions::default()).unwrap_err();
        assert!(matches!(error, ClusterError::Shape { .. }));
        assert!(plan(scores, k, &SinkhornOptions::default()).is_err());
    }
}

#[test]
fn bad_options_are_refused() {
    let log_p = log_softmax(12, 4, 2, 1.0);
    let refused = |options: SinkhornOptions| {
        let error = solve(&log_p, 2, &options).unwrap_err();
        assert!(matches!(error, ClusterError::Options(_)), "{error}");
    };
    for lambda in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(SinkhornOptions {
            lambda,
            ..SinkhornOptions::default()
        });
    }
    let wrong_rows = [vec![0.5; 2], vec![0.25; 5], vec![0.5, 0.5, 0.5, -0.5]];
    for rows in wrong_rows
        .into_iter()
        .chain([vec![0.3; 4], vec![f64::NAN; 4]])
    {
        refused(SinkhornOptions {
            rows: Some(rows),
            ..SinkhornOptions::default()
        });
    }
    let wrong_columns = [vec![1.0], vec![0.5; 3], vec![0.5, 0.6], vec![1.5, -0.5]];
    for columns in wrong_columns.into_iter().chain([vec![f64::INFINITY, 0.5]]) {
        refused(SinkhornOptions {
            columns: Some(columns),
            ..SinkhornOptions::default()
        });
    }
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
