//! linfa's k-means beside the tensor engine.

use ssl_cluster::cluster::{ClusterError, Init, KMeansOptions, cluster, engine, linfa};

use super::{corners, fit, labels, some_of};
use crate::{assert_close, blobs, normal, tensor};

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

#[test]
fn linfa_refuses_spherical() {
    let options = KMeansOptions {
        spherical: true,
        ..KMeansOptions::default()
    };
    let error = cluster(&linfa::ENGINE, &tensor(&normal(17, 9, 3)), &options).unwrap_err();
    assert!(matches!(error, ClusterError::Options(_)));
}
