//! What is refused.

use ssl_cluster::cluster::{ClusterError, Init, KMeansOptions, cluster, linfa};
use tch::{Kind, Tensor};

use super::TENSOR;
use crate::{normal, tensor};

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
