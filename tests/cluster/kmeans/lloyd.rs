//! The tensor engine against Lloyd's algorithm from its definition, and what holds of every iteration.

use rand::Rng;
use ssl_cluster::cluster::{Init, KMeansOptions, cluster};
use tch::Tensor;

use super::reference::lloyd;
use super::{TENSOR, assert_nearest, check, fit, labels, objectives, some_of};
use crate::{Rows, assert_close, dot, generator, normal, rows, squared_distance, tensor};

fn assert_equals_lloyd(points: &Rows, start: &Rows, iterations: usize, spherical: bool) {
    let given = tensor(start);
    let options = KMeansOptions {
        clusters: start.len(),
        iterations,
        spherical,
        init: Init::Given(&given),
        ..KMeansOptions::default()
    };
    let (ours, expected) = (
        fit(points, &options),
        lloyd(points, start, iterations, spherical),
    );
    assert_eq!(labels(&ours), expected.labels);
    assert_eq!(ours.statistics.reassigned(), 0);
    let scale: f64 = points
        .iter()
        .map(|x| if spherical { 1.0 } else { dot(x, x) })
        .sum();
    let objective = objectives(&ours.statistics);
    assert_eq!(objective.len(), expected.objective.len());
    for (a, b) in objective.iter().zip(&expected.objective) {
        assert_close(*a, *b, 1e-6 * scale);
    }
    for (a, b) in rows(&ours.centroids)
        .iter()
        .flatten()
        .zip(expected.centroids.iter().flatten())
    {
        assert_close(*a, *b, 1e-5);
    }
}

#[test]
fn equals_lloyd_from_the_same_centroids() {
    let cases = [
        (1, 1, 1),
        (50, 1, 3),
        (200, 5, 1),
        (30, 4, 30),
        (257, 2, 5),
        (300, 8, 7),
        (1_000, 33, 20),
    ];
    for (n, d, k) in cases {
        let points = normal(n as u64, n, d);
        for iterations in [1, 3, 100] {
            assert_equals_lloyd(&points, &some_of(&points, k), iterations, false);
        }
    }
}

#[test]
fn spherical_equals_lloyd_by_dot_products() {
    for (n, d, k) in [(40, 2, 1), (30, 4, 30), (300, 8, 7), (500, 33, 12)] {
        let points = normal(n as u64 + 1, n, d);
        let start = some_of(&points, k);
        assert_equals_lloyd(&points, &start, 50, true);
        let given = tensor(&start);
        let clustering = fit(
            &points,
            &KMeansOptions {
                clusters: k,
                spherical: true,
                init: Init::Given(&given),
                ..KMeansOptions::default()
            },
        );
        for centroid in rows(&clustering.centroids) {
            assert_close(dot(&centroid, &centroid).sqrt(), 1.0, 1e-5);
        }
    }
}

#[test]
fn spherical_ignores_lengths_and_survives_a_zero_point() {
    let points = normal(3, 120, 6);
    let stretched: Rows = points
        .iter()
        .enumerate()
        .map(|(i, row)| row.iter().map(|x| x * f64::from(1 << (i % 9))).collect())
        .collect();
    let options = KMeansOptions {
        clusters: 5,
        spherical: true,
        ..KMeansOptions::default()
    };
    assert_eq!(
        labels(&fit(&points, &options)),
        labels(&fit(&stretched, &options))
    );
    let mut with_zero = points;
    with_zero[7] = vec![0.0; 6];
    fit(&with_zero, &options);
}

#[test]
fn labels_are_the_nearest_final_centroids() {
    for seed in 0..5 {
        let points = normal(seed, 400, 6);
        for init in [Init::Random, Init::PlusPlus] {
            for iterations in [0, 1, 20] {
                let options = KMeansOptions {
                    clusters: 9,
                    iterations,
                    seed,
                    init,
                    ..Default::default()
                };
                assert_nearest(&points, &fit(&points, &options));
            }
        }
    }
}

#[test]
fn labels_are_the_nearest_centroids_in_every_block_of_rows() {
    // 64 clusters: blocks of 131,072 rows.
    let mut rng = generator(4);
    let points: Vec<f32> = (0..140_000 * 2).map(|_| rng.gen_range(0.0..1.0)).collect();
    let matrix = Tensor::from_slice(&points).reshape([-1, 2]);
    let options = KMeansOptions {
        clusters: 64,
        iterations: 1,
        ..Default::default()
    };
    let clustering = cluster(TENSOR, &matrix, &options).unwrap();
    check(140_000, 2, &options, &clustering);
    let points = rows(&matrix);
    assert_nearest(&points, &clustering);
    let centroids = rows(&clustering.centroids);
    let objective: f64 = points
        .iter()
        .zip(labels(&clustering))
        .map(|(x, label)| squared_distance(x, &centroids[label]))
        .sum();
    assert_close(
        objectives(&clustering.statistics)[1],
        objective,
        1e-3 * objective,
    );
}

#[test]
fn the_objective_never_rises() {
    for seed in 0..10 {
        let points = normal(seed, 500, 10);
        for spherical in [false, true] {
            let options = KMeansOptions {
                clusters: 12,
                iterations: 100,
                seed,
                spherical,
                ..KMeansOptions::default()
            };
            let statistics = fit(&points, &options).statistics;
            assert_eq!(statistics.reassigned(), 0);
            assert!(statistics.iterations > 3);
            for pair in objectives(&statistics).windows(2) {
                assert!(pair[1] <= pair[0] * (1.0 + 1e-6), "{pair:?}");
            }
        }
    }
}

#[test]
fn a_tolerance_stops_at_the_first_small_gain() {
    let points = normal(8, 600, 10);
    let options = KMeansOptions {
        clusters: 15,
        iterations: 100,
        ..Default::default()
    };
    let full = fit(&points, &options).statistics;
    let stopped = fit(
        &points,
        &KMeansOptions {
            tolerance: 0.01,
            ..options
        },
    )
    .statistics;
    assert!(stopped.iterations < full.iterations);
    let falls = objectives(&stopped);
    assert_eq!(falls, objectives(&full)[..=stopped.iterations]);
    let gains: Vec<f64> = falls.windows(2).map(|p| (p[0] - p[1]) / p[1]).collect();
    let (last, earlier) = gains.split_last().unwrap();
    assert!(
        *last < 0.01 && earlier.iter().all(|gain| *gain >= 0.01),
        "{gains:?}"
    );
}
