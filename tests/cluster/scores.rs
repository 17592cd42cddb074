//! Scores that are computed whenever the solver asks for them, beside the same scores stored.

use ssl_cluster::cluster::ClusterError;
use ssl_cluster::cluster::sinkhorn::{
    Linear, Scores, SinkhornOptions, Solver, Transport, solve, solve_scores,
};

use super::sinkhorn::check;
use super::{Rows, assert_close, dot, normal};

/// Features `[n, d]`, weights `[k, d]` and biases `[k]`.
struct Layer {
    features: Vec<f32>,
    weights: Vec<f32>,
    biases: Vec<f32>,
    /// The log-softmax of the scores in f64, row-major.
    log_p: Vec<f32>,
}

fn layer(n: usize, d: usize, k: usize) -> Layer {
    let (features, weights) = (normal(1, n, d), normal(2, k, d));
    let biases = normal(3, 1, k).concat();
    let row = |x: &Vec<f64>| {
        let pairs = weights.iter().zip(&biases);
        let logits: Vec<f64> = pairs.map(|(w, b)| dot(x, w) + b).collect();
        let total = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
        logits.into_iter().map(move |z| (z - total) as f32)
    };
    let single = |rows: &Rows| rows.iter().flatten().map(|&x| x as f32).collect();
    Layer {
        log_p: features.iter().flat_map(row).collect(),
        features: single(&features),
        weights: single(&weights),
        biases: biases.iter().map(|&x| x as f32).collect(),
    }
}

impl Layer {
    fn scores(&self) -> Scores<'_> {
        Scores::Linear(Linear {
            features: &self.features,
            weights: &self.weights,
            biases: &self.biases,
        })
    }
}

#[test]
fn computed_scores_give_the_labels_of_stored_ones_in_any_memory() {
    // Several blocks of rows, the last of them cut.
    let (n, d, k) = (1_300, 6, 9);
    let layer = layer(n, d, k);
    for solver in [Solver::Auto, Solver::Sinkhorn, Solver::Newton] {
        let options = SinkhornOptions {
            lambda: 10.0,
            tolerance: 0.01,
            max_iterations: 20_000,
            solver,
            ..Default::default()
        };
        let stored: Transport = solve(&layer.log_p, k, &options).unwrap();
        assert!(stored.converged);
        // A matrix in f32, in 16 bits, none.
        for memory in [1 << 30, 3 * n * k, 0] {
            let options = SinkhornOptions {
                memory,
                ..options.clone()
            };
            let computed = solve_scores(layer.scores(), &options).unwrap();
            check(n, k, &options, &computed);
            assert!(computed.converged);
            let pairs = computed.labels.iter().zip(&stored.labels);
            let other = pairs.filter(|(a, b)| a != b).count();
            assert!(other <= n / 500, "{solver:?}, {memory}: {other}");
            assert_close(computed.cost, stored.cost, 1e-3);
        }
    }
}

#[test]
fn computed_scores_that_cannot_be_are_refused() {
    let layer = layer(20, 3, 4);
    let options = SinkhornOptions::default();
    let error = |scores| solve_scores(scores, &options).unwrap_err();
    let mut features = layer.features.clone();
    features[3 * 7 + 1] = f32::NAN;
    let linear = Linear {
        features: &features,
        weights: &layer.weights,
        biases: &layer.biases,
    };
    assert_eq!(
        error(Scores::Linear(linear)),
        ClusterError::NotFinite { row: 7 }
    );
    for (features, weights) in [(1, 0), (0, 1), (60, 0), (0, 12)] {
        let linear = Linear {
            features: &layer.features[features..],
            weights: &layer.weights[weights..],
            biases: &layer.biases,
        };
        assert!(matches!(
            error(Scores::Linear(linear)),
            ClusterError::Shape { .. }
        ));
    }
    let balanced = SinkhornOptions {
        exact_balance: true,
        ..options.clone()
    };
    let error = solve_scores(layer.scores(), &balanced).unwrap_err();
    assert!(error.to_string().contains("stored"), "{error}");
}
