//! The best clusters that we know of points from which nothing more is learned.

use anyhow::Result;
use tch::Tensor;

use super::Context;
use super::features::means_of;
use crate::cluster::neighbours::{MOST_SEARCHED, Neighbours, smoothed};
use crate::cluster::temi::{agreed, agreement};
use crate::cluster::{self, ClusterError, Clustering, Engine, Init, KMeansOptions, linkage};
use crate::tensors::to_labels;

/// Nearest others of each point: three move it before the linkage, and all tell how well clusters fit.
const NEIGHBOURS: usize = 5;

/// Clusters, and how well neighbours [agree](agreement) on them, where these were looked for.
pub struct LastClusters {
    pub clustering: Clustering,
    pub agreement: Option<f64>,
}

/// Ward's linkage of `points` `[n, r] f32` of unit length, each moved to its nearest others, and k-means from there;
/// then, where it makes neighbours agree more often, clusters that TEMI has moved. What is labelled, now and later, are
/// the points as they are.
pub fn of_ward(
    context: &Context,
    engine: &Engine,
    points: &Tensor,
    kmeans: &KMeansOptions,
) -> Result<LastClusters> {
    let stop = || context.monitor.stopping();
    let given = |points: &Tensor, centroids: &Tensor, iterations| {
        let init = Init::Given(centroids);
        let options = KMeansOptions {
            init,
            iterations,
            ..*kmeans
        };
        cluster::cluster(engine, points, &options)
    };
    let means =
        |points: &Tensor, labels: &[u32]| means_of(context.comm, points, labels, kmeans.clusters);
    let found = match points.size()[0] as usize <= MOST_SEARCHED {
        true => Some(Neighbours::find(points, NEIGHBOURS)?),
        false => None,
    };
    let near = match &found {
        Some(found) => smoothed(points, found),
        None => points.shallow_clone(),
    };
    let labels = linkage::labels(&near, None, kmeans.clusters, engine, kmeans.seed, &stop);
    let of_ward = means(&near, &labels.map_err(ClusterError::or_interrupted)?);
    let near = given(&near, &of_ward, kmeans.iterations)?;
    let own = given(points, &means(points, &to_labels(&near.labels)), 0)?;
    let Some(found) = found else {
        return Ok(LastClusters {
            clustering: own,
            agreement: None,
        });
    };
    let labels = to_labels(&own.labels);
    let moved = agreed(points, &labels, kmeans.clusters, &found, &stop);
    let (clustering, agreement, what) = match moved.map_err(ClusterError::or_interrupted)? {
        Some(moved) => (
            given(points, &moved.centroids, 0)?,
            moved.after,
            format!("were moved to where they do, from {:.2}", moved.before),
        ),
        None => {
            let agreement = agreement(&labels, kmeans.clusters, &found);
            (own, agreement, "would not gain by being moved".into())
        }
    };
    context.monitor.note(&format!(
        "near neighbours agree at {agreement:.2} (0 as by chance, 1 always): clusters {what}"
    ));
    Ok(LastClusters {
        clustering,
        agreement: Some(agreement),
    })
}
