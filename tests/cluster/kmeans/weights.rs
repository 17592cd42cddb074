//! Points that count more than others.

use ssl_cluster::cluster::{Init, KMeansOptions, cluster};
use tch::Tensor;

use super::{TENSOR, assert_nearest, fit, labels, objectives, some_of};
use crate::{Rows, assert_close, normal, rows, squared_distance, tensor};

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
