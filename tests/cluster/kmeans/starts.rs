//! Where centroids start.

use ssl_cluster::cluster::metrics::ari;
use ssl_cluster::cluster::{Init, KMeansOptions, cluster};

use super::{TENSOR, as_u32, assert_nearest, corners, fit, labels, objectives};
use crate::{Rows, blobs, normal, rows, tensor};

#[test]
fn a_seed_decides_the_result() {
    let points = normal(9, 400, 5);
    let run = |seed, init| {
        let options = KMeansOptions {
            clusters: 10,
            seed,
            init,
            ..KMeansOptions::default()
        };
        let clustering = fit(&points, &options);
        (
            labels(&clustering),
            rows(&clustering.centroids),
            objectives(&clustering.statistics),
        )
    };
    for init in [Init::Random, Init::PlusPlus] {
        assert_eq!(run(1, init), run(1, init));
        assert_ne!(run(1, init).0, run(2, init).0);
    }
}

#[test]
fn random_centroids_are_different_points() {
    let points = normal(10, 40, 3);
    let mut starts = Vec::new();
    for (seed, k) in [(0, 10), (1, 10), (2, 40)] {
        let options = KMeansOptions {
            clusters: k,
            iterations: 0,
            seed,
            ..KMeansOptions::default()
        };
        let centroids = rows(&fit(&points, &options).centroids);
        let mut chosen: Vec<usize> = centroids
            .iter()
            .map(|c| {
                points
                    .iter()
                    .position(|x| x == c)
                    .expect("a centroid is no point")
            })
            .collect();
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen.len(), k);
        starts.push(chosen);
    }
    assert_ne!(starts[0], starts[1]);
}

#[test]
fn plus_plus_and_its_parallel_kind_find_separated_blobs() {
    let found = |init| {
        let right = |seed: &u64| {
            let (points, blob) = blobs(*seed, &corners(), 50, 0.5);
            let options = KMeansOptions {
                clusters: 8,
                seed: *seed,
                init,
                ..KMeansOptions::default()
            };
            ari(&as_u32(&labels(&fit(&points, &options))), &as_u32(&blob)) == 1.0
        };
        (0..10).filter(right).count()
    };
    assert_eq!(found(Init::PlusPlus), 10);
    // k-means‖ draws several in a round, now and then two in one blob; at random hardly any is right.
    let (parallel, random) = (found(Init::Parallel), found(Init::Random));
    assert!(parallel >= 5 && random <= 3, "{parallel}, {random}");
}

#[test]
fn restarts_take_the_best_and_samples_label_all() {
    let centres: Rows = normal(21, 12, 6);
    let (points, _) = blobs(22, &centres, 30, 0.2);
    let options = KMeansOptions {
        clusters: 12,
        ..Default::default()
    };
    let one = fit(&points, &options).statistics.objective();
    let many = KMeansOptions {
        restarts: 8,
        ..options
    };
    let best = fit(&points, &many).statistics.objective();
    assert!(best < one, "{best} after {one}");
    let few = KMeansOptions {
        max_points_per_centroid: Some(10),
        ..options
    };
    let sampled = cluster(TENSOR, &tensor(&points), &few).unwrap();
    assert_eq!(sampled.sizes.iter().sum::<usize>(), points.len());
    assert_nearest(&points, &sampled);
}
