//! What is refused.

use ssl_cluster::cluster::ClusterError;
use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, plan, solve};

use super::log_softmax;

#[test]
fn bad_scores_are_refused() {
    let good = log_softmax(11, 6, 3, 1.0);
    for value in [f32::NAN, f32::INFINITY] {
        let mut bad = good.clone();
        bad[3 * 4 + 1] = value;
        let error = solve(&bad, 3, &SinkhornOptions::default()).unwrap_err();
        assert_eq!(error, ClusterError::NotFinite { row: 4 });
    }
    let mut bad = good.clone();
    bad[6..9].fill(f32::NEG_INFINITY);
    let error = plan(&bad, 3, &SinkhornOptions::default()).unwrap_err();
    assert_eq!(error, ClusterError::NotFinite { row: 2 });
    for (scores, k) in [(&good[..], 0), (&good[..17], 3), (&[][..], 3)] {
        let error = solve(scores, k, &SinkhornOptions::default()).unwrap_err();
        assert!(matches!(error, ClusterError::Shape { .. }));
        assert!(plan(scores, k, &SinkhornOptions::default()).is_err());
    }
}

#[test]
fn bad_options_are_refused() {
    let log_p = log_softmax(12, 4, 2, 1.0);
    let refused = |options: SinkhornOptions| {
        let error = solve(&log_p, 2, &options).unwrap_err();
        assert!(matches!(error, ClusterError::Options(_)), "{error}");
    };
    for lambda in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(SinkhornOptions {
            lambda,
            ..SinkhornOptions::default()
        });
    }
    let wrong_rows = [vec![0.5; 2], vec![0.25; 5], vec![0.5, 0.5, 0.5, -0.5]];
    for rows in wrong_rows
        .into_iter()
        .chain([vec![0.3; 4], vec![f64::NAN; 4]])
    {
        refused(SinkhornOptions {
            rows: Some(rows),
            ..SinkhornOptions::default()
        });
    }
    let wrong_columns = [vec![1.0], vec![0.5; 3], vec![0.5, 0.6], vec![1.5, -0.5]];
    for columns in wrong_columns.into_iter().chain([vec![f64::INFINITY, 0.5]]) {
        refused(SinkhornOptions {
            columns: Some(columns),
            ..SinkhornOptions::default()
        });
    }
}
