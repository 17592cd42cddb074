//! Where the centroids of k-means start.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_clustering::{KMeans, KMeansInit};
use rand::seq::index;
use rand_xoshiro::Xoshiro256PlusPlus;
use tch::{Kind, Tensor};

use super::arrays::{to_array, to_tensor};
use super::{ClusterError, KMeansOptions};
use crate::random::{Purpose, stream};
use crate::tensors::l2_rows;

/// k-means++ and k-means‖ look at no more than this many points for each cluster: their cost is n·k·d, and a
/// sample of this size gives starts of the same quality.
const SPREAD_SAMPLE: usize = 64;

/// Where the centroids start.
#[derive(Debug, Clone, Copy, Default)]
pub enum Init<'a> {
    /// Distinct points, drawn at random (DeepCluster's choice).
    #[default]
    Random,
    /// k-means++ (Arthur and Vassilvitskii, SODA 2007), by linfa.
    PlusPlus,
    /// k-means‖ (Bahmani et al., VLDB 2012), by linfa.
    Parallel,
    /// These: `[k, d] f32`.
    Given(&'a Tensor),
}

/// Initial centroids `[k, d] f32` as `options` say.
pub(super) fn initial_centroids(
    points: &Tensor,
    options: &KMeansOptions,
) -> Result<Tensor, ClusterError> {
    let centroids = match options.init {
        Init::Given(centroids) => centroids.to_kind(Kind::Float).to_device(points.device()),
        Init::PlusPlus | Init::Parallel => spread(points, options)?,
        Init::Random if options.comm.size() > 1 => random_of_all(points, options),
        Init::Random => {
            points.index_select(0, &random_rows(points, options.clusters, options.seed))
        }
    };
    Ok(if options.spherical {
        l2_rows(&centroids)
    } else {
        centroids.copy()
    })
}

/// The indices of `count` different rows of `points`, drawn at random, on its device.
pub(super) fn random_rows(points: &Tensor, count: usize, seed: u64) -> Tensor {
    let rows = draw(points.size()[0] as usize, count, seed);
    Tensor::from_slice(&rows).to_device(points.device())
}

fn draw(all: usize, count: usize, seed: u64) -> Vec<i64> {
    let mut rng = stream(seed, Purpose::Clustering, 0, 0);
    let rows = index::sample(&mut rng, all, count).into_iter();
    rows.map(|row| row as i64).collect()
}

/// Points of all processes, drawn as one process would from all rows in the order of ranks.
fn random_of_all(points: &Tensor, options: &KMeansOptions) -> Tensor {
    let comm = options.comm;
    let counts = comm.gather(&Tensor::from_slice(&[points.size()[0]]).unsqueeze(1));
    let counts = Vec::<i64>::try_from(&counts.view(-1)).unwrap_or_default();
    let first: i64 = counts[..comm.rank()].iter().sum();
    let shape = [options.clusters as i64, points.size()[1]];
    // Everyone gives those that are its own.
    let chosen = Tensor::zeros(shape, (Kind::Double, points.device()));
    let rows = draw(
        counts.iter().sum::<i64>() as usize,
        options.clusters,
        options.seed,
    );
    for (centroid, row) in (0..).zip(rows) {
        if (0..points.size()[0]).contains(&(row - first)) {
            chosen.get(centroid).copy_(&points.get(row - first));
        }
    }
    comm.sum_tensor(chosen).to_kind(Kind::Float)
}

/// Centroids `[k, d] f32` by k-means++ or k-means‖ as `options` say, followed by one iteration (linfa
/// offers no less), on a sample of the points.
fn spread(points: &Tensor, options: &KMeansOptions) -> Result<Tensor, ClusterError> {
    let (k, seed) = (options.clusters, options.seed);
    let method = match options.init {
        Init::Parallel => KMeansInit::KMeansPara,
        _ => KMeansInit::KMeansPlusPlus,
    };
    let n = points.size()[0] as usize;
    let rows = random_rows(points, n.min(k.saturating_mul(SPREAD_SAMPLE)), seed);
    let sample = points.index_select(0, &rows);
    let rng: Xoshiro256PlusPlus = stream(seed, Purpose::Clustering, 2, 0);
    let model = KMeans::params_with_rng(k, rng)
        .init_method(method)
        .n_runs(1)
        .max_n_iterations(1)
        // One iteration counts as converged whatever it moved.
        .tolerance(f32::MAX)
        .fit(&DatasetBase::from(to_array(&sample)?))
        .map_err(|error| ClusterError::Linfa(error.to_string()))?;
    let centroids = to_tensor(model.centroids()).to_device(points.device());
    Ok(centroids)
}
