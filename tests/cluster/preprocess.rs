//! Principal components, whitening and unit length.

use ssl_cluster::cluster::ClusterError;
use ssl_cluster::cluster::preprocess::Pca;
use ssl_cluster::comm::OneProcess;
use ssl_cluster::tensors::l2_rows;
use tch::{Device, Kind, Tensor};

use super::{Rows, assert_close, dot, normal, rows, tensor};

/// Correlated features of different sizes, away from the origin: `n` points of `rank` dimensions
/// mapped into `d`.
fn correlated(seed: u64, n: usize, rank: usize, d: usize) -> Rows {
    let (hidden, map) = (normal(seed, n, rank), normal(seed + 1, d, rank));
    let feature = |h: &[f64], j: usize| {
        let scale = 1.0 + j as f64 % 5.0;
        f64::from((dot(h, &map[j]) * scale + j as f64) as f32)
    };
    hidden
        .iter()
        .map(|h| (0..d).map(|j| feature(h, j)).collect())
        .collect()
}

fn mean(points: &Rows) -> Vec<f64> {
    let n = points.len() as f64;
    (0..points[0].len())
        .map(|j| points.iter().map(|x| x[j]).sum::<f64>() / n)
        .collect()
}

fn covariance(points: &Rows) -> Rows {
    let (mean, d) = (mean(points), points[0].len());
    let entry = |i: usize, j: usize| {
        let products = points.iter().map(|x| (x[i] - mean[i]) * (x[j] - mean[j]));
        products.sum::<f64>() / points.len() as f64
    };
    (0..d)
        .map(|i| (0..d).map(|j| entry(i, j)).collect())
        .collect()
}

fn assert_identity(matrix: &Rows, tolerance: f64) {
    for (i, row) in matrix.iter().enumerate() {
        for (j, &value) in row.iter().enumerate() {
            assert_close(value, f64::from(u8::from(i == j)), tolerance);
        }
    }
}

fn finite(matrix: &Tensor) -> bool {
    rows(matrix).iter().flatten().all(|x| x.is_finite())
}

fn eigenvalues(pca: &Pca) -> Vec<f64> {
    Vec::try_from(&pca.eigenvalues).unwrap()
}

#[test]
fn whitened_features_have_unit_covariance() {
    for (n, d, most) in [(500, 8, 8), (500, 8, 3), (2_000, 40, 40)] {
        let features = correlated(1, n, d, d);
        let pca = Pca::fit(&tensor(&features), most, true).unwrap();
        assert_eq!(pca.rank(), most);
        let white = rows(&pca.apply(&tensor(&features), Kind::Double));
        assert_identity(&covariance(&white), 1e-3);
        mean(&white)
            .iter()
            .for_each(|m| assert_close(*m, 0.0, 1e-9));
    }
    // Of the same size in all directions, the identity is met closely.
    let features = normal(2, 1_000, 10);
    let pca = Pca::fit(&tensor(&features), 10, true).unwrap();
    assert_identity(
        &covariance(&rows(&pca.apply(&tensor(&features), Kind::Float))),
        1e-4,
    );
}

#[test]
fn components_are_orthonormal_eigenvectors_of_the_covariance() {
    // The second has fewer rows than columns.
    for (n, d) in [(300, 6), (5, 12)] {
        check_components(&correlated(3, n, d, d), d);
    }
}

fn check_components(features: &Rows, d: usize) {
    let pca = Pca::fit(&tensor(features), d, false).unwrap();
    let (components, values) = (rows(&pca.components), eigenvalues(&pca));
    assert_identity(
        &components
            .iter()
            .map(|a| components.iter().map(|b| dot(a, b)).collect())
            .collect(),
        1e-10,
    );
    let covariance = covariance(features);
    for (component, &value) in components.iter().zip(&values) {
        for (row, &entry) in covariance.iter().zip(component) {
            assert_close(dot(row, component), value * entry, 1e-9 * values[0]);
        }
    }
    assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
    let trace: f64 = (0..d).map(|i| covariance[i][i]).sum();
    assert_close(values.iter().sum::<f64>() / trace, 1.0, 1e-10);
    let expected = mean(features);
    let found: Vec<f64> = Vec::try_from(&pca.mean).unwrap();
    expected
        .iter()
        .zip(&found)
        .for_each(|(a, b)| assert_close(*a, *b, 1e-10));
}

#[test]
fn without_whitening_distances_are_kept() {
    let features = correlated(4, 50, 5, 5);
    let pca = Pca::fit(&tensor(&features), 5, false).unwrap();
    let projected = rows(&pca.apply(&tensor(&features), Kind::Double));
    for (x, y) in features.iter().zip(&projected) {
        let (a, b) = (
            super::squared_distance(x, &features[0]),
            super::squared_distance(y, &projected[0]),
        );
        assert_close(a, b, 1e-9 * (1.0 + a));
    }
}

#[test]
fn applying_changes_nothing() {
    for whiten in [false, true] {
        let features = tensor(&correlated(5, 100, 7, 7));
        let pca = Pca::fit(&features, 4, whiten).unwrap();
        let before = pca.components.copy();
        let first = pca.apply(&features, Kind::Float);
        let second = pca.apply(&features, Kind::Float);
        assert!(first.equal(&second));
        assert!(pca.components.equal(&before));
    }
}

#[test]
fn dead_and_duplicated_features_lower_the_rank() {
    let mut features = normal(6, 400, 8);
    for row in &mut features {
        row[2] = 0.0;
        row[3] = 5.0;
        row[5] = row[4];
    }
    let features = tensor(&features);
    let pca = Pca::fit(&features, 8, true).unwrap();
    assert_eq!(pca.rank(), 5);
    assert_eq!(pca.components.size(), [5, 8]);
    assert_eq!(pca.eigenvalues.size(), [5]);
    let white = pca.apply(&features, Kind::Float);
    assert_eq!(white.size(), [400, 5]);
    assert_identity(&covariance(&rows(&white)), 1e-4);
}

#[test]
fn what_varies_less_than_it_was_rounded_is_not_whitened() {
    // Column 4 varies little, but more than bf16 errs; column 5 differs from column 0 by less.
    let mut exact = normal(61, 3_000, 6);
    for row in &mut exact {
        row[4] *= 0.3;
        row[5] = row[0] + 0.01 * row[5];
        row.iter_mut().for_each(|x| *x += 8.0);
    }
    let exact = tensor(&exact);
    let rounded = exact.to_kind(Kind::BFloat16).to_kind(Kind::Float);
    let rank = |features: &Tensor, rounding| {
        let pca = Pca::whitening(Device::Cpu, &OneProcess, features, 6, rounding).unwrap();
        let white = rows(&pca.apply(features, Kind::Double));
        assert_identity(&covariance(&white), 1e-3);
        pca.rank()
    };
    // Eight bits: errors of at most 2^-8 of a number, evenly spread.
    let rounding = 2.0_f64.powi(-8) / 3.0_f64.sqrt();
    assert_eq!(rank(&exact, 0.0), 6);
    assert_eq!(rank(&rounded, 0.0), 6);
    assert_eq!(rank(&rounded, rounding), 5);
}

#[test]
fn fewer_points_than_features() {
    let features = tensor(&normal(7, 10, 30));
    let pca = Pca::fit(&features, 30, true).unwrap();
    assert_eq!(pca.rank(), 9);
    assert_identity(
        &covariance(&rows(&pca.apply(&features, Kind::Double))),
        1e-4,
    );
}

#[test]
fn constant_features_and_a_single_row_stay_finite() {
    let constant = vec![vec![0.1_f32.into(), -3.0, 1e6, 0.0]; 50];
    for features in [
        constant.clone(),
        constant[..1].to_vec(),
        vec![vec![0.0; 4]; 3],
    ] {
        for whiten in [false, true] {
            let pca = Pca::fit(&tensor(&features), 4, whiten).unwrap();
            assert_eq!(pca.rank(), 1);
            let own = pca.apply(&tensor(&features), Kind::Float);
            assert!(finite(&own) && finite(&l2_rows(&own)));
        }
    }
}

#[test]
fn constant_features_leave_other_points_finite() {
    let pca = Pca::fit(&tensor(&vec![vec![1.0, 2.0, 3.0]; 20]), 3, true).unwrap();
    let others = tensor(&vec![vec![2.0, -1.0, 0.0], vec![1.0, 2.0, 3.0]]);
    for kind in [Kind::Float, Kind::Double] {
        let points = pca.apply(&others, kind);
        assert!(
            finite(&points) && finite(&l2_rows(&points)),
            "{kind:?}: {points}"
        );
    }
}

#[test]
fn blocks_of_rows_make_no_difference() {
    // 286,720 rows of 32 doubles are 70 MiB: two blocks. The repeated matrix has the same mean and
    // covariance.
    let features = tensor(&correlated(8, 4_096, 32, 32));
    let many = features.repeat([70, 1]);
    let (once, often) = (
        Pca::fit(&features, 32, true).unwrap(),
        Pca::fit(&many, 32, true).unwrap(),
    );
    for (a, b) in eigenvalues(&once).iter().zip(eigenvalues(&often)) {
        assert_close(b / a, 1.0, 1e-8);
    }
    let points = often.apply(&many, Kind::Float);
    assert_eq!(points.size(), [286_720, 32]);
    let last = often.apply(&features, Kind::Float);
    let difference = points.narrow(0, 286_720 - 4_096, 4_096) - last;
    assert!(difference.abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn bad_features_are_refused() {
    let mut features = normal(9, 6, 3);
    features[4][1] = f64::NAN;
    let error = Pca::fit(&tensor(&features), 3, true).unwrap_err();
    assert_eq!(error, ClusterError::NotFinite { row: 4 });
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    for shape in [&[6_i64][..], &[2, 3, 1], &[2, 0]] {
        let error = Pca::fit(&zeros(shape), 3, true).unwrap_err();
        assert!(matches!(&error, ClusterError::Shape { got, .. } if got == shape));
    }
    assert!(Pca::fit(&zeros(&[0, 3]), 3, true).is_err());
}

#[test]
fn rows_get_unit_length_and_zero_stays_zero() {
    let mut points = normal(10, 20, 5);
    points[3] = vec![0.0; 5];
    for kind in [Kind::Float, Kind::Double] {
        let result = l2_rows(&tensor(&points).to_kind(kind));
        assert_eq!(result.kind(), kind);
        for (i, (row, point)) in rows(&result).iter().zip(&points).enumerate() {
            if i == 3 {
                assert_eq!(row, &[0.0; 5]);
            } else {
                let norm = dot(point, point).sqrt();
                row.iter()
                    .zip(point)
                    .for_each(|(a, b)| assert_close(*a, b / norm, 1e-6));
            }
        }
    }
}

#[test]
fn a_first_block_unlike_the_rest_changes_nothing() {
    // 64 MiB are 32,768 rows of 256 doubles.
    let (n, d, first) = (40_000, 256, 32_768);
    let mut points = tensor(&normal(81, n, d));
    let _ = points.narrow(0, 0, first).g_add_scalar_(5.0);
    points = points.contiguous();
    let pca = Pca::fit(&points, d, true).unwrap();
    let whitened = pca.apply(&points, Kind::Double);
    let mean = whitened.mean_dim(0, false, Kind::Double);
    assert!(mean.abs().max().double_value(&[]) < 1e-9);
    let covariance = whitened.transpose(0, 1).matmul(&whitened) / n as f64;
    let identity = Tensor::eye(d as i64, (Kind::Double, Device::Cpu));
    assert!((covariance - identity).abs().max().double_value(&[]) < 1e-4);
}
