//! What methods do with the features of all images: DeepCluster's clustering, by k-means or by power
//! iteration.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tch::{Device, Kind, Tensor};

use super::{Context, Labelling, View};
use crate::cluster::assigner::{Assigner, Centroids, FeatureKind, StoredPoints};
use crate::cluster::pic::{self, Pic, PicOptions};
use crate::cluster::preprocess::{Pca, l2_rows};
use crate::cluster::{self, Clustering, Empty, Init, KMeansOptions};
use crate::device::within_memory;
use crate::monitor::Phase;
use crate::random::Purpose;
use crate::record::LabelStepRecord;

/// Features clustered as DeepCluster does: PCA, whitening, L2, k-means.
#[derive(Debug)]
pub struct ClusteredFeatures {
    pub pca: Pca,
    pub clustering: Clustering,
    pub record: LabelStepRecord,
}

/// Features on which power iteration has found its clusters.
#[derive(Debug)]
pub struct Grouped {
    pub pca: Pca,
    /// `[n, r] f32`: whitened, of unit length.
    pub points: Tensor,
    pub pic: Pic,
    pub record: LabelStepRecord,
}

/// Clusters hidden features `[n, d]` by power iteration on the graph of their nearest neighbours.
pub fn group_features(
    context: &Context,
    features: &Tensor,
    options: &PicOptions,
) -> Result<Grouped> {
    let started = std::time::Instant::now();
    context.monitor.begin(Phase::Cluster, "clustering", 0);
    let work = || -> Result<Grouped> {
        let (pca, points) = whitened(context, features)?;
        let reduce_seconds = started.elapsed().as_secs_f64();
        let pic = pic::cluster(&points, options)?;
        if let Some(warning) = pic.loneliness(options.sigma) {
            context
                .monitor
                .warn(&format!("{warning} (--set sigma=...)"));
        }
        let record = LabelStepRecord {
            clusters: pic.sizes.len(),
            components: Some(pca.rank()),
            iterations: Some(pic.iterations),
            seconds: seconds(reduce_seconds, pic.seconds),
            ..LabelStepRecord::default()
        };
        Ok(Grouped {
            pca,
            points,
            pic,
            record,
        })
    };
    let result = clustered_within_memory(context, features, work);
    context.monitor.end();
    result
}

/// Labels every image by the clusters that power iteration finds for the network as it is.
pub fn label_by_groups(context: &Context, options: &PicOptions) -> Result<Labelling> {
    let features = context.features(FeatureKind::Hidden, View::Plain)?;
    let grouped = group_features(context, &features, options)?;
    let labels: Vec<i64> = grouped
        .pic
        .labels
        .iter()
        .map(|&label| label.into())
        .collect();
    let points = grouped.points.to_device(Device::Cpu);
    let assigner = StoredPoints {
        pca: grouped.pca.to_device(Device::Cpu),
        centroids: means_of(&points, &grouped.pic.labels, grouped.pic.sizes.len()),
        points,
        labels: Tensor::from_slice(&labels),
        sigma: options.sigma,
    };
    let assignments = assigner
        .to_device(context.network.device())
        .assign(&features);
    Ok(Labelling {
        assignments,
        assigner: Box::new(assigner),
        record: grouped.record,
    })
}

/// Does `work` on `features`, without gradients.
fn clustered_within_memory<T>(
    context: &Context,
    features: &Tensor,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let shape = features.size();
    let doing = || format!("while {} x {} features were clustered", shape[0], shape[1]);
    let cure = "fewer --components or --clusters take less, and so does --device cpu";
    let device = context.network.device();
    within_memory(device, doing, cure, || tch::no_grad(work))?
}

/// Principal components of features, whitened and of unit length, as DeepCluster clusters them, on the
/// network's device.
fn whitened(context: &Context, features: &Tensor) -> Result<(Pca, Tensor)> {
    let components = context.config.cluster.components;
    let pca = Pca::fit_on(context.network.device(), features, components, true)
        .context("the network's features cannot be clustered (has the training diverged? a lower --lr helps)")?;
    let points = l2_rows(&pca.apply(features, Kind::Float));
    Ok((pca, points))
}

fn seconds(reduce: f64, cluster: f64) -> BTreeMap<String, f64> {
    [
        ("reduce".to_string(), reduce),
        (Phase::Cluster.name().to_string(), cluster),
    ]
    .into()
}

/// Clusters hidden features `[n, d]`. With `previous` labels k-means starts from their means; `empty`
/// says what becomes of clusters that no image chose.
pub fn cluster_features(
    context: &Context,
    features: &Tensor,
    previous: Option<&[u32]>,
    empty: Empty,
) -> Result<ClusteredFeatures> {
    let options = &context.config.cluster;
    let started = std::time::Instant::now();
    context.monitor.begin(Phase::Cluster, "clustering", 0);
    let work = || -> Result<ClusteredFeatures> {
        let (pca, points) = whitened(context, features)?;
        let reduce_seconds = started.elapsed().as_secs_f64();
        let engine = cluster::engine(&options.engine)
            .with_context(|| format!("there is no k-means engine '{}'", options.engine))?;
        let start = previous.map(|labels| means_of(&points, labels, options.clusters));
        let clustering = cluster::cluster(
            engine,
            &points,
            &KMeansOptions {
                clusters: options.clusters,
                iterations: options.iterations,
                seed: context.step_seed(Purpose::Clustering),
                init: start.as_ref().map_or(Init::Random, Init::Given),
                empty,
                device: Some(context.network.device()),
                ..KMeansOptions::default()
            },
        )?;
        let statistics = &clustering.statistics;
        let record = LabelStepRecord {
            clusters: options.clusters,
            reassigned: Some(statistics.reassigned()),
            objective: Some(statistics.objective()),
            components: Some(pca.rank()),
            iterations: Some(statistics.iterations),
            seconds: seconds(reduce_seconds, statistics.seconds),
            ..LabelStepRecord::default()
        };
        Ok(ClusteredFeatures {
            pca,
            clustering,
            record,
        })
    };
    let result = clustered_within_memory(context, features, work);
    context.monitor.end();
    result
}

/// The means `[k, r]` of the points that share a label; a label that nobody has gets the point of
/// that number.
fn means_of(points: &Tensor, labels: &[u32], clusters: usize) -> Tensor {
    let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
    let labels = Tensor::from_slice(&labels);
    let on_cpu = points.to_device(Device::Cpu);
    let shape = [clusters as i64, points.size()[1]];
    let sums = Tensor::zeros(shape, (Kind::Float, Device::Cpu)).index_add(0, &labels, &on_cpu);
    let counts = labels
        .bincount(None::<Tensor>, clusters as i64)
        .to_kind(Kind::Float)
        .unsqueeze(1);
    let means = sums / counts.clamp_min(1.0);
    means
        .where_self(&counts.gt(0.0), &on_cpu.narrow(0, 0, clusters as i64))
        .to_device(points.device())
}

/// Clusters the features of the network as it is and labels every image by its nearest centroid:
/// the last labels of every method whose labels are clusters.
pub fn label_by_clusters(context: &Context, empty: Empty) -> Result<Labelling> {
    let features = context.features(FeatureKind::Hidden, View::Plain)?;
    let clustered = cluster_features(context, &features, None, empty)?;
    let numbers = features.size()[0] * clustered.pca.rank() as i64;
    let assigner = Centroids {
        variance: clustered.record.objective.unwrap_or_default() / numbers as f64,
        pca: clustered.pca.to_device(Device::Cpu),
        centroids: clustered.clustering.centroids.to_device(Device::Cpu),
    };
    let assignments = assigner
        .to_device(context.network.device())
        .assign(&features);
    Ok(Labelling {
        assignments,
        assigner: Box::new(assigner),
        record: clustered.record,
    })
}
