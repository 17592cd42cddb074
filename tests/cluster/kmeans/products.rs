//! Matrix products, as on CUDA, against the search for the nearest centroids on a CPU.

use ssl_cluster::cluster::kmeans::TensorKMeans;
use ssl_cluster::cluster::{Clustering, Empty, Engine, Init, KMeansOptions, cluster};

use super::{check, fit, labels, objectives};
use crate::{Rows, assert_close, blobs, normal, tensor};

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
