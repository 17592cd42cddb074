//! Clusters that no point chose.

use ssl_cluster::cluster::metrics::ari;
use ssl_cluster::cluster::{Empty, Init, KMeansOptions};

use super::{as_u32, assert_nearest, fit, labels, some_of};
use crate::{Rows, assert_close, blobs, normal, rows, tensor};

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
