//! K clusters by Ward's linkage: of the points themselves, or, of many, of the centroids of a fine k-means.

use tch::{Device, Kind, Tensor};

use super::ward::ward;
use super::{ClusterError, Engine, KMeansOptions, cluster, matrix_size};
use crate::tensors::{to_f32, to_f64, to_labels};

/// Points up to which the tree is that of the points themselves: its memory grows with their square, to 1.6 GB
/// here.
pub const MOST_POINTS: usize = 20_000;
/// Centroids in place of more points, and the iterations that find them.
const CENTROIDS: usize = 4_096;
const ITERATIONS: usize = 10;

/// Labels of `points` `[n, d] f32`, each of weight 1 or of `weights` `[n]`: Ward's tree cut into `clusters`.
/// `engine` and `seed` are for the k-means of more than [`MOST_POINTS`] points, the only step in which anything
/// is drawn. `stop` is asked now and then whether to end early.
///
/// # Errors
/// As [`cluster()`] and [`ward()`].
pub fn labels(
    points: &Tensor,
    weights: Option<&Tensor>,
    clusters: usize,
    engine: &Engine,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<u32>, ClusterError> {
    let (n, d) = matrix_size(points)?;
    if clusters > n {
        return Err(ClusterError::TooFewPoints {
            points: n,
            clusters,
        });
    }
    if n <= MOST_POINTS {
        let weights = weights.map(to_f64);
        return ward(&to_f32(points), n, d, weights.as_deref(), stop)?.cut(clusters);
    }
    let options = KMeansOptions {
        clusters: CENTROIDS.max(clusters),
        iterations: ITERATIONS,
        seed,
        weights,
        ..KMeansOptions::default()
    };
    let fine = cluster(engine, points, &options)?;
    let label = fine.labels.to_device(Device::Cpu);
    let ones = || Tensor::ones([n as i64], (Kind::Double, Device::Cpu));
    let weights = weights.map_or_else(ones, |weights| {
        weights.to_device(Device::Cpu).to_kind(Kind::Double)
    });
    let of_each = label.bincount(Some(&weights), options.clusters as i64);
    let used = of_each.gt(0.0).nonzero().squeeze_dim(1);
    let centroids = fine.centroids.to_device(Device::Cpu).index_select(0, &used);
    let weights = to_f64(&of_each.index_select(0, &used));
    let count = weights.len();
    let of_centroids = ward(&to_f32(&centroids), count, d, Some(&weights), stop)?.cut(clusters)?;
    let mut label_of = vec![0; options.clusters];
    for (centroid, of_centroid) in to_labels(&used).into_iter().zip(of_centroids) {
        label_of[centroid as usize] = of_centroid;
    }
    let labels = to_labels(&label).into_iter();
    Ok(labels.map(|label| label_of[label as usize]).collect())
}
