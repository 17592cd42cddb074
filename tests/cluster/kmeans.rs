//! K-means: `cluster` with the tensor engine, and linfa's beside it.

use proptest::prelude::*;
use rand::Rng;
use rand::seq::SliceRandom;
use ssl_cluster::cluster::metrics::ari;
use ssl_cluster::cluster::{
    ClusterError, Clustering, Empty, Engine, Init, KMeansOptions, Statistics, cluster, engine,
    kmeans, kmeans::TensorKMeans, linfa,
};
use tch::{Kind, Tensor};

use super::{
    Rows, assert_close, blobs, count, dot, generator, normal, rows, squared_distance, tensor,
};

const TENSOR: &Engine = &kmeans::ENGINE;

fn fit(points: &Rows, options: &KMeansOptions) -> Clustering {
    let clustering = cluster(TENSOR, &tensor(points), options).unwrap();
    check(points.len(), points[0].len(), options, &clustering);
    clustering
}

/// What holds of every result.
fn check(n: usize, d: usize, options: &KMeansOptions, clustering: &Clustering) {
    let labels = labels(clustering);
    assert_eq!(labels.len(), n);
    assert_eq!(clustering.sizes, count(labels, options.clusters));
    assert_eq!(clustering.sizes.iter().sum::<usize>(), n);
    assert_eq!(
        clustering.centroids.size(),
        [options.clusters as i64, d as i64]
    );
    assert!(
        rows(&clustering.centroids)
            .iter()
            .flatten()
            .all(|x| x.is_finite())
    );
    let statistics = &clustering.statistics;
    assert!(statistics.iterations <= options.iterations);
    let objectives = objectives(statistics);
    assert_eq!(objectives.len(), statistics.iterations + 1);
    assert!(objectives.iter().all(|x| x.is_finite() && *x >= 0.0));
}

/// The objective of every assignment.
fn objectives(statistics: &Statistics) -> Vec<f64> {
    let history = statistics.history.iter();
    history.map(|step| step.objective).collect()
}

fn labels(clustering: &Clustering) -> Vec<usize> {
    let labels: Vec<i64> = Vec::try_from(&clustering.labels).unwrap();
    labels.into_iter().map(|label| label as usize).collect()
}

fn as_u32(labels: &[usize]) -> Vec<u32> {
    labels.iter().map(|&label| label as u32).collect()
}

/// `k` different points, spread over the list.
fn some_of(points: &Rows, k: usize) -> Rows {
    (0..k)
        .map(|i| points[i * points.len() / k].clone())
        .collect()
}

fn unit(row: &[f64]) -> Vec<f64> {
    let norm = dot(row, row).sqrt();
    row.iter().map(|x| x / norm).collect()
}

struct Reference {
    labels: Vec<usize>,
    centroids: Rows,
    objective: Vec<f64>,
}

/// Lloyd's algorithm from its definition, for data that leave no cluster empty.
fn lloyd(points: &Rows, start: &Rows, iterations: usize, spherical: bool) -> Reference {
    let map = |matrix: &Rows| -> Rows {
        let row = |row: &Vec<f64>| if spherical { unit(row) } else { row.clone() };
        matrix.iter().map(row).collect()
    };
    let (points, mut centroids) = (map(points), map(start));
    let nearest = |centroids: &Rows| -> Vec<usize> {
        let distance = |x: &[f64], c: &[f64]| {
            if spherical {
                -dot(x, c)
            } else {
                squared_distance(x, c)
            }
        };
        let best = |x: &Vec<f64>| {
            let of = |j: &usize| distance(x, &centroids[*j]);
            (0..centroids.len())
                .min_by(|i, j| of(i).total_cmp(&of(j)))
                .unwrap()
        };
        points.iter().map(best).collect()
    };
    let value = |labels: &[usize], centroids: &Rows| -> f64 {
        let of = |(x, &label): (&Vec<f64>, &usize)| squared_distance(x, &centroids[label]);
        points.iter().zip(labels).map(of).sum()
    };
    let mut labels = nearest(&centroids);
    let mut objective = vec![value(&labels, &centroids)];
    for _ in 0..iterations {
        for (cluster, centroid) in centroids.iter_mut().enumerate() {
            let members: Vec<_> = points
                .iter()
                .zip(&labels)
                .filter(|(_, label)| **label == cluster)
                .collect();
            assert!(
                !members.is_empty(),
                "the test wants data that leave no cluster empty"
            );
            for (j, value) in centroid.iter_mut().enumerate() {
                *value = members.iter().map(|(x, _)| x[j]).sum::<f64>() / members.len() as f64;
            }
        }
        centroids = map(&centroids);
        let next = nearest(&centroids);
        objective.push(value(&next, &centroids));
        let settled = next == labels;
        labels = next;
        if settled {
            break;
        }
    }
    Reference {
        labels,
        centroids,
        objective,
    }
}

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

/// The label of every point is as near as any centroid, up to f32.
fn assert_nearest(points: &Rows, clustering: &Clustering) {
    let centroids = rows(&clustering.centroids);
    for (x, label) in points.iter().zip(labels(clustering)) {
        let best = centroids
            .iter()
            .map(|c| squared_distance(x, c))
            .fold(f64::INFINITY, f64::min);
        let own = squared_distance(x, &centroids[label]);
        assert!(
            own <= best + 1e-5 * (1.0 + dot(x, x)),
            "{own}, but {best} is possible"
        );
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

/// Corners of a cube, 20 apart.
fn corners() -> Rows {
    (0..8)
        .map(|i| (0..3).map(|axis| f64::from(i >> axis & 1) * 20.0).collect())
        .collect()
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
fn both_engines_find_the_same_blobs() {
    let (points, blob) = blobs(11, &corners(), 40, 0.8);
    let start = tensor(&some_of(&points, 8));
    let options = KMeansOptions {
        clusters: 8,
        init: Init::Given(&start),
        ..Default::default()
    };
    let ours = fit(&points, &options);
    let theirs = cluster(&linfa::ENGINE, &tensor(&points), &options).unwrap();
    assert_eq!(labels(&ours), blob);
    assert_eq!(labels(&theirs), blob);
    assert_eq!(theirs.sizes, [40; 8]);
    let ratio = theirs.statistics.objective() / ours.statistics.objective();
    assert_close(ratio, 1.0, 1e-3);
}

#[test]
fn both_engines_are_equally_good_on_one_cloud() {
    let points = normal(12, 1_000, 4);
    let start = tensor(&some_of(&points, 6));
    let options = KMeansOptions {
        clusters: 6,
        iterations: 100,
        init: Init::Given(&start),
        ..KMeansOptions::default()
    };
    let ours = fit(&points, &options).statistics.objective();
    let theirs = cluster(&linfa::ENGINE, &tensor(&points), &options).unwrap();
    assert_close(theirs.statistics.objective() / ours, 1.0, 0.01);
}

#[test]
fn engines_are_found_by_name() {
    assert_eq!(engine("tensor").unwrap().name, "tensor");
    assert_eq!(engine("linfa").unwrap().name, "linfa");
    assert!(engine("faiss").is_none());
}

// Empty clusters.

#[test]
fn a_centroid_far_from_all_points_is_brought_back() {
    let points = normal(13, 300, 5);
    for lost in 1..8 {
        let mut start = some_of(&points, 8);
        for centroid in start.iter_mut().take(lost) {
            *centroid = vec![1e4; 5];
        }
        let given = tensor(&start);
        let options = KMeansOptions {
            clusters: 8,
            init: Init::Given(&given),
            ..KMeansOptions::default()
        };
        let clustering = fit(&points, &options);
        assert!(clustering.statistics.reassigned() >= lost);
        assert!(
            clustering.sizes.iter().all(|&size| size > 0),
            "{:?}",
            clustering.sizes
        );
        assert_nearest(&points, &clustering);
        // About as good as from good centroids.
        let all = tensor(&some_of(&points, 8));
        let good = fit(
            &points,
            &KMeansOptions {
                init: Init::Given(&all),
                ..options
            },
        );
        let ratio = clustering.statistics.objective() / good.statistics.objective();
        assert_close(ratio, 1.0, 0.1);
    }
}

#[test]
fn an_empty_cluster_takes_one_half_of_a_large_one() {
    // One lost centroid, and a cluster so much larger than the other that the draw (99 : 1) takes
    // it: two blobs far apart in it, so that the halves are the blobs.
    let centres = vec![vec![10.0, 10.0], vec![10.0, 14.0], vec![-50.0, 0.0]];
    let (points, blob) = blobs(14, &centres, 50, 0.1);
    let points = points[..102].to_vec();
    let start = tensor(&vec![vec![10.0, 12.0], vec![-50.0, 0.0], vec![1e4, 1e4]]);
    let options = KMeansOptions {
        clusters: 3,
        init: Init::Given(&start),
        ..KMeansOptions::default()
    };
    let clustering = fit(&points, &options);
    assert_eq!(clustering.statistics.reassigned(), 1);
    assert_eq!(
        ari(&as_u32(&labels(&clustering)), &as_u32(&blob[..102])),
        1.0
    );
}

#[test]
fn an_empty_cluster_takes_the_farthest_point_or_stays() {
    // Two groups of which one is loose, and a centroid that nobody chooses.
    let points: Rows = [0.0, 1.0, 2.0, 100.0, 104.0, 130.0]
        .iter()
        .map(|&x| vec![x])
        .collect();
    let start = tensor(&vec![vec![1.0], vec![110.0], vec![-500.0]]);
    let options = |empty| KMeansOptions {
        clusters: 3,
        init: Init::Given(&start),
        empty,
        ..Default::default()
    };
    let filled = fit(&points, &options(Empty::Farthest));
    assert_eq!(labels(&filled), [0, 0, 0, 1, 1, 2]);
    assert_eq!(filled.statistics.reassigned(), 1);
    let kept = fit(&points, &options(Empty::Keep));
    assert_eq!(kept.sizes, [3, 3, 0]);
    assert_eq!(rows(&kept.centroids)[2], [-500.0]);
    assert_eq!(kept.statistics.reassigned(), 0);
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

#[test]
fn more_clusters_than_different_points() {
    for init in [Init::Random, Init::PlusPlus] {
        for spherical in [false, true] {
            let points: Rows = (0..60)
                .map(|i| vec![f64::from(i % 3) + 1.0, 2.0, f64::from(i % 3 / 2)])
                .collect();
            let options = KMeansOptions {
                clusters: 10,
                spherical,
                init,
                ..KMeansOptions::default()
            };
            let clustering = fit(&points, &options);
            assert!(clustering.statistics.reassigned() > 0);
            let labels = labels(&clustering);
            for (i, label) in labels.iter().enumerate() {
                assert_eq!(*label, labels[i % 3], "equal points have equal labels");
            }
        }
    }
}

#[test]
fn all_points_equal() {
    for value in [0.0, 1.0, -3.5e4] {
        for (init, spherical) in [
            (Init::Random, false),
            (Init::Random, true),
            (Init::PlusPlus, false),
        ] {
            let points = vec![vec![value; 4]; 30];
            for clusters in [1, 5, 30] {
                let options = KMeansOptions {
                    clusters,
                    spherical,
                    init,
                    ..KMeansOptions::default()
                };
                let clustering = fit(&points, &options);
                assert_eq!(clustering.statistics.reassigned() > 0, clusters > 1);
                let labels = labels(&clustering);
                assert!(labels.iter().all(|&label| label == labels[0]));
            }
        }
    }
}

#[test]
fn an_empty_cluster_splits_one_that_is_centred_on_the_origin() {
    let points: Rows = (0..20)
        .map(|i| vec![if i % 2 == 0 { 1.0 } else { -1.0 }, 0.0])
        .collect();
    let start = tensor(&vec![vec![0.0, 0.0], vec![100.0, 100.0]]);
    let options = KMeansOptions {
        clusters: 2,
        init: Init::Given(&start),
        ..KMeansOptions::default()
    };
    assert_eq!(fit(&points, &options).sizes, [10, 10]);
}

// Errors.

#[test]
fn errors_say_what_is_wrong() {
    let points = tensor(&normal(15, 5, 3));
    let refused = |points: &Tensor, options: &KMeansOptions| {
        cluster(TENSOR, points, options).expect_err("an error")
    };
    let with = |clusters| KMeansOptions {
        clusters,
        ..KMeansOptions::default()
    };
    assert_eq!(
        refused(&points, &with(6)),
        ClusterError::TooFewPoints {
            points: 5,
            clusters: 6
        }
    );
    assert_eq!(refused(&points, &with(0)), ClusterError::NoClusters);
    for shape in [vec![15], vec![5, 3, 1], vec![5, 0]] {
        let tensor = Tensor::zeros(&shape, (Kind::Float, tch::Device::Cpu));
        let error = refused(&tensor, &with(2));
        assert!(
            matches!(&error, ClusterError::Shape { got, .. } if *got == shape),
            "{error}"
        );
    }
    for shape in [[2, 4], [3, 3]] {
        let start = Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
        let error = refused(
            &points,
            &KMeansOptions {
                init: Init::Given(&start),
                ..with(2)
            },
        );
        assert!(
            matches!(&error, ClusterError::Shape { got, .. } if *got == shape),
            "{error}"
        );
    }
}

#[test]
fn the_first_row_with_nan_is_named() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut points = normal(16, 9, 3);
        points[4][2] = value;
        points[7][0] = value;
        let options = KMeansOptions::default();
        for engine in [TENSOR, &linfa::ENGINE] {
            let error = cluster(engine, &tensor(&points), &options).unwrap_err();
            assert_eq!(error, ClusterError::NotFinite { row: 4 });
        }
    }
    // In a later block of rows: 64 MiB are 262,144 rows of 32.
    let large = Tensor::zeros([262_200, 32], (Kind::Float, tch::Device::Cpu));
    let _ = large.get(262_150).fill_(f64::NAN);
    let error = cluster(TENSOR, &large, &KMeansOptions::default()).unwrap_err();
    assert_eq!(error, ClusterError::NotFinite { row: 262_150 });
    assert!(error.to_string().contains("262150"));
}

#[test]
fn linfa_refuses_spherical() {
    let options = KMeansOptions {
        spherical: true,
        ..KMeansOptions::default()
    };
    let error = cluster(&linfa::ENGINE, &tensor(&normal(17, 9, 3)), &options).unwrap_err();
    assert!(matches!(error, ClusterError::Options(_)));
}

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

#[test]
fn a_weight_counts_like_so_many_copies() {
    let points = normal(51, 300, 4);
    let weights: Vec<f32> = (0..300).map(|i| (i % 4) as f32).collect();
    let copies: Rows = points
        .iter()
        .zip(&weights)
        .flat_map(|(point, &weight)| vec![point.clone(); weight as usize])
        .collect();
    let start = tensor(&some_of(&copies, 7));
    let column = Tensor::from_slice(&weights);
    let options = KMeansOptions {
        clusters: 7,
        init: Init::Given(&start),
        ..KMeansOptions::default()
    };
    let weighted = KMeansOptions {
        weights: Some(&column),
        ..options
    };
    let (copied, weighted) = (fit(&copies, &options), fit(&points, &weighted));
    for (a, b) in objectives(&copied.statistics)
        .into_iter()
        .zip(objectives(&weighted.statistics))
    {
        assert_close(a, b, 1e-6 * a);
    }
    for (a, b) in rows(&copied.centroids)
        .iter()
        .zip(rows(&weighted.centroids))
    {
        assert_close(squared_distance(a, &b), 0.0, 1e-10);
    }
    let of_copies = labels(&weighted)
        .into_iter()
        .zip(&weights)
        .flat_map(|(label, &weight)| vec![label; weight as usize]);
    assert!(of_copies.eq(labels(&copied)));
}

#[test]
fn a_sample_takes_its_weights_along() {
    let points = normal(53, 400, 3);
    let weights: Vec<f32> = (0..400).map(|i| if i < 200 { 1.0 } else { 2.0 }).collect();
    let weights = Tensor::from_slice(&weights);
    let options = KMeansOptions {
        clusters: 4,
        iterations: 5,
        weights: Some(&weights),
        max_points_per_centroid: Some(20),
        ..KMeansOptions::default()
    };
    let clustering = cluster(TENSOR, &tensor(&points), &options).unwrap();
    assert_eq!(clustering.sizes.iter().sum::<usize>(), 400);
    assert_nearest(&points, &clustering);
}

#[test]
fn weights_that_make_no_sense_are_refused() {
    let points = tensor(&normal(52, 5, 2));
    for weights in [
        vec![1.0_f32; 4],
        vec![1.0, -1.0, 1.0, 1.0, 1.0],
        vec![1.0, f32::NAN, 1.0, 1.0, 1.0],
        vec![0.0; 5],
    ] {
        let weights = Tensor::from_slice(&weights);
        let options = KMeansOptions {
            weights: Some(&weights),
            ..KMeansOptions::default()
        };
        assert!(cluster(TENSOR, &points, &options).is_err());
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

/// What runs on CUDA, on the CPU.
const PRODUCTS: Engine = Engine {
    name: "products",
    help: "",
    clusterer: &TensorKMeans { products: true },
};

#[test]
fn matrix_products_find_what_the_search_finds() {
    let (points, _) = blobs(77, &normal(78, 12, 9), 40, 0.7);
    // Some centroids that no point is near to.
    let mut start: Rows = points[..30].to_vec();
    start[20..].iter_mut().flatten().for_each(|x| *x += 50.0);
    let start = tensor(&start);
    let weights = tensor(&normal(79, 1, points.len())).square().squeeze();
    let base = KMeansOptions {
        clusters: 30,
        iterations: 60,
        seed: 5,
        ..Default::default()
    };
    // More scores than one block holds.
    let many = normal(80, 17_000, 2);
    let lost = KMeansOptions {
        init: Init::Given(&start),
        ..base
    };
    let cases = [
        ("plain", &points, base),
        (
            "cut short",
            &points,
            KMeansOptions {
                iterations: 5,
                ..base
            },
        ),
        (
            "no iterations",
            &points,
            KMeansOptions {
                iterations: 0,
                ..base
            },
        ),
        (
            "tolerance",
            &points,
            KMeansOptions {
                tolerance: 0.01,
                ..base
            },
        ),
        (
            "spherical",
            &points,
            KMeansOptions {
                spherical: true,
                ..base
            },
        ),
        (
            "weights",
            &points,
            KMeansOptions {
                weights: Some(&weights),
                ..base
            },
        ),
        (
            "one cluster",
            &points,
            KMeansOptions {
                clusters: 1,
                ..base
            },
        ),
        (
            "as many as points",
            &points,
            KMeansOptions {
                clusters: points.len(),
                ..base
            },
        ),
        (
            "several blocks",
            &many,
            KMeansOptions {
                clusters: 2_000,
                iterations: 1,
                ..base
            },
        ),
        ("split", &points, lost),
        (
            "farthest",
            &points,
            KMeansOptions {
                empty: Empty::Farthest,
                ..lost
            },
        ),
        (
            "keep",
            &points,
            KMeansOptions {
                empty: Empty::Keep,
                ..lost
            },
        ),
    ];
    for (name, points, options) in cases {
        let search = fit(points, &options);
        let products = cluster(&PRODUCTS, &tensor(points), &options).unwrap();
        check(points.len(), points[0].len(), &options, &products);
        assert_eq!(labels(&products), labels(&search), "{name}");
        let steps = |of: &Clustering| -> Vec<(usize, usize)> {
            let history = of.statistics.history.iter();
            history.map(|step| (step.moved, step.reassigned)).collect()
        };
        assert_eq!(steps(&products), steps(&search), "{name}");
        let pairs = objectives(&products.statistics)
            .into_iter()
            .zip(objectives(&search.statistics));
        for (a, b) in pairs {
            assert_close(a, b, 1e-4 * b.max(1.0));
        }
        let apart = (&products.centroids - &search.centroids).abs().max();
        assert!(apart.double_value(&[]) < 1e-5, "{name}");
    }
}

#[test]
fn matrix_products_see_small_differences_far_from_the_origin() {
    let far: Rows = (0..200)
        .map(|i| {
            vec![
                4096.0 + f64::from(i % 2) / 64.0,
                4096.0,
                f64::from(i / 100) / 128.0,
            ]
        })
        .collect();
    let start = tensor(&vec![
        far[0].clone(),
        far[1].clone(),
        far[100].clone(),
        far[101].clone(),
    ]);
    let options = KMeansOptions {
        clusters: 4,
        init: Init::Given(&start),
        ..Default::default()
    };
    let products = cluster(&PRODUCTS, &tensor(&far), &options).unwrap();
    let expected: Vec<usize> = (0..200).map(|i| i % 2 + 2 * (i / 100)).collect();
    assert_eq!(labels(&products), expected);
}
