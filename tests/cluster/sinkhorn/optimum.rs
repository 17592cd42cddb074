//! Plans and costs against the optimum, by enumeration, by hand and by linear programming.

use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, plan, solve};
use ssl_cluster::cluster::transport::{Method, transport};

use super::reference::{shares, small_problems};
use super::{assert_all_close, check, plan_cost, sums, to_convergence};
use crate::{assert_close, normal};

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
