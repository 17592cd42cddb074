//! K-means by `linfa-clustering`: an independent implementation to check ours against.
//!
//! linfa's is *m_k-means*: the old centroid counts as one more point of its cluster, so that no
//! cluster loses all of its points and none is ever reassigned.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_clustering::{KMeans, KMeansInit};
use tch::{Kind, Tensor};

use super::arrays::{to_array, to_tensor};
use super::init::initial_centroids;
use super::{
    Assignment, ClusterError, Clusterer, Clustering, Empty, Engine, KMeansOptions, Statistics,
    sizes,
};
use crate::random::{Purpose, stream};
use crate::tensors::from_labels;

/// The registry entry.
pub const ENGINE: Engine = Engine {
    name: "linfa",
    help: "linfa-clustering's m_k-means: a reference on the CPU, slow for many points; its tolerance is how far centroids move",
    clusterer: &LinfaKMeans,
};

/// `linfa_clustering::KMeans` on features copied to the CPU (memory: one more copy of them).
#[derive(Debug)]
pub struct LinfaKMeans;

impl Clusterer for LinfaKMeans {
    fn fit(&self, points: &Tensor, options: &KMeansOptions) -> Result<Clustering, ClusterError> {
        if options.spherical {
            return Err(ClusterError::Options(
                "the linfa engine has no spherical k-means: use `--engine tensor`".into(),
            ));
        }
        if options.empty != Empty::Split {
            return Err(ClusterError::Options(
                "the linfa engine leaves no cluster empty: use `--engine tensor` with --empty"
                    .into(),
            ));
        }
        if options.weights.is_some() {
            return Err(ClusterError::Options(
                "the linfa engine takes no weights: use `--engine tensor`".into(),
            ));
        }
        if options.comm.size() > 1 {
            return Err(ClusterError::Options(
                "the linfa engine wants all points in one process: use `--engine tensor`".into(),
            ));
        }
        let rng = stream(options.seed, Purpose::Clustering, 1, 0);
        let start = to_array(&initial_centroids(points, options)?)?;
        let dataset = DatasetBase::from(to_array(points)?);
        // linfa requires a positive tolerance and at least one iteration.
        let tolerance = (options.tolerance as f32).max(f32::MIN_POSITIVE);
        let model = KMeans::params_with_rng(options.clusters, rng)
            .init_method(KMeansInit::Precomputed(start))
            .n_runs(1)
            .max_n_iterations(options.iterations.max(1) as u64)
            .tolerance(tolerance)
            .fit(&dataset)
            .map_err(|error| ClusterError::Linfa(error.to_string()))?;
        let labels = model.predict(&dataset.records);
        let labels: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
        let labels = from_labels(&labels);
        let centroids = to_tensor(model.centroids());
        let on_cpu = points.to_device(tch::Device::Cpu).to_kind(Kind::Float);
        let objective = (&on_cpu - centroids.index_select(0, &labels))
            .square()
            .sum(Kind::Double)
            .double_value(&[]);
        Ok(Clustering {
            sizes: sizes(&labels, options.clusters),
            labels: labels.to_device(points.device()),
            centroids: centroids.to_device(points.device()),
            statistics: Statistics {
                history: vec![Assignment {
                    objective,
                    ..Assignment::default()
                }],
                iterations: options.iterations,
                ..Statistics::default()
            },
        })
    }
}
