//! K-means: `cluster` with the tensor engine, and linfa's beside it.

mod empty;
mod engines;
mod errors;
mod lloyd;
mod products;
mod properties;
mod reference;
mod starts;
mod weights;

use ssl_cluster::cluster::{Clustering, Engine, KMeansOptions, Statistics, cluster, kmeans};

use crate::{Rows, count, dot, rows, squared_distance, tensor};

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

/// Corners of a cube, 20 apart.
fn corners() -> Rows {
    (0..8)
        .map(|i| (0..3).map(|axis| f64::from(i >> axis & 1) * 20.0).collect())
        .collect()
}
