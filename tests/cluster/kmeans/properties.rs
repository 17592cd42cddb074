//! What holds of any points.

use proptest::prelude::*;
use rand::seq::SliceRandom;
use ssl_cluster::cluster::{Init, KMeansOptions};

use super::{assert_nearest, fit, labels, some_of};
use crate::{Rows, generator, normal, tensor};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Small whole coordinates: many equal points and ties.
    #[test]
    fn any_points_are_divided(
        (d, points) in (1..4_usize).prop_flat_map(|d| {
            let row = prop::collection::vec(-2..3_i32, d);
            (Just(d), prop::collection::vec(row, 1..40))
        }),
        share in 0.0..1.0_f64,
        seed in 0..u64::MAX,
        spherical: bool,
    ) {
        let clusters = 1 + ((points.len() - 1) as f64 * share) as usize;
        let points: Rows =
            points.iter().map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
        let options = KMeansOptions { clusters, seed, spherical, ..KMeansOptions::default() };
        let clustering = fit(&points, &options);
        prop_assert_eq!(clustering.centroids.size()[1] as usize, d);
        if !spherical {
            assert_nearest(&points, &clustering);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_must_not_matter_does_not(
        n in 12..200_usize,
        d in 1..20_usize,
        clusters in 1..12_usize,
        power in -8..9_i32,
        seed in 0..u64::MAX,
    ) {
        let points = normal(seed, n, d);
        let start = some_of(&points, clusters);
        let with = |points: &Rows, start: &Rows| {
            let start = tensor(start);
            fit(points, &KMeansOptions { clusters, init: Init::Given(&start), ..KMeansOptions::default() })
        };
        let plain = with(&points, &start);

        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut generator(seed));
        let shuffled: Rows = order.iter().map(|&row| points[row].clone()).collect();
        let expected: Vec<usize> = order.iter().map(|&row| labels(&plain)[row]).collect();
        prop_assert_eq!(labels(&with(&shuffled, &start)), expected);

        // A power of two changes no rounding.
        let scale = 2.0_f64.powi(power);
        let scaled = |rows: &Rows| -> Rows {
            rows.iter().map(|row| row.iter().map(|x| x * scale).collect()).collect()
        };
        prop_assert_eq!(labels(&with(&scaled(&points), &scaled(&start))), labels(&plain));

        // Coordinates on a grid stay exact when they are moved.
        let grid = |rows: &Rows, by: f64| -> Rows {
            rows.iter().map(|row| row.iter().map(|x| (x * 64.0).round() / 64.0 + by).collect()).collect()
        };
        let (here, there) = ([grid(&points, 0.0), grid(&start, 0.0)], [grid(&points, 3.0), grid(&start, 3.0)]);
        let once = |points: &Rows, start: &Rows| {
            let start = tensor(start);
            let options = KMeansOptions { clusters, iterations: 0, init: Init::Given(&start), ..KMeansOptions::default() };
            labels(&fit(points, &options))
        };
        prop_assert_eq!(once(&here[0], &here[1]), once(&there[0], &there[1]));
    }

    #[test]
    fn a_warm_start_at_a_fixed_point_stops_at_once(seed in 0..u64::MAX, clusters in 1..10_usize) {
        let points = normal(seed, 150, 3);
        let options = KMeansOptions { clusters, iterations: 500, seed, ..KMeansOptions::default() };
        let rested = fit(&points, &options);
        let again = fit(&points, &KMeansOptions { init: Init::Given(&rested.centroids), ..options });
        prop_assert_eq!(again.statistics.iterations, 1);
        prop_assert_eq!(again.statistics.history[1].moved, 0);
        prop_assert_eq!(labels(&again), labels(&rested));
    }
}
