//! What methods do with the features of all images: DeepCluster's clustering, by k-means or by power
//! iteration.

use anyhow::{Context as _, Result, bail};
use tch::{Device, Kind, Tensor};

use super::last_clusters::of_ward;
use super::{Context, Labelling, View};
use crate::cluster::assigner::{Assigner, Centroids, FeatureKind, Fit, StoredPoints};
use crate::cluster::copies::without_copies;
use crate::cluster::pic::{self, Pic, PicOptions};
use crate::cluster::preprocess::Pca;
use crate::cluster::{self, Clustering, Empty, Init, KMeansOptions};
use crate::comm::Comm;
use crate::device::within_memory;
use crate::error::usage;
use crate::monitor::Phase;
use crate::random::Purpose;
use crate::record::LabelStepRecord;
use crate::tensors::{from_labels, l2_rows};

/// Features clustered as DeepCluster does: PCA, whitening (or directions), L2, then what gave `clusters`.
#[derive(Debug)]
pub struct Clustered<C> {
    pub pca: Pca,
    pub clusters: C,
    pub record: LabelStepRecord,
}

/// Clusters that power iteration has found.
#[derive(Debug)]
pub struct Groups {
    /// `[n, r] f32`: whitened, of unit length.
    pub points: Tensor,
    pub pic: Pic,
}

/// Where k-means begins, and with it how much is done for its result.
#[derive(Debug, Clone, Copy)]
pub enum Beginning<'a> {
    /// At points drawn at random.
    Random,
    /// Several times at points drawn far apart (k-means++): the best is taken.
    Best,
    /// At the means of these labels.
    Labels(&'a [u32]),
    /// At the means of Ward's clusters of smoothed points, and on to where near neighbours agree: nothing is drawn.
    Ward,
}

impl Beginning<'_> {
    /// What gives the best clusters, where nothing more is learned from them: Ward's linkage, which wants all images
    /// in one process.
    pub fn for_last_labels(context: &Context) -> Self {
        match context.comm.size() {
            1 => Self::Ward,
            _ => Self::Best,
        }
    }
}

/// Runs of k-means for [`Beginning::Best`].
const RESTARTS: usize = 10;

/// Clusters hidden features `[n, d]` by k-means; `empty` says what becomes of clusters that no image chose.
///
/// # Errors
/// Features that are no numbers; too few of them; too little memory.
pub fn cluster_features(
    context: &Context,
    features: &Tensor,
    beginning: Beginning,
    empty: Empty,
) -> Result<Clustered<Clustering>> {
    let options = &context.config.cluster;
    let alone = context.comm.size() == 1;
    if matches!(beginning, Beginning::Ward) && !alone {
        bail!(usage(
            "Ward's linkage wants all images in one process: take k-means"
        ));
    }
    clustered(context, features, |points| {
        let engine = cluster::engine(&options.engine)
            .with_context(|| format!("there is no k-means engine '{}'", options.engine))?;
        let kmeans = KMeansOptions {
            clusters: options.clusters,
            iterations: options.iterations,
            seed: context.step_seed(Purpose::Clustering),
            empty,
            device: Some(context.network.device()),
            comm: context.comm,
            ..KMeansOptions::default()
        };
        let means = |points: &Tensor, labels: &[u32]| {
            means_of(context.comm, points, labels, options.clusters)
        };
        let mut agreement = None;
        let clustering = match beginning {
            Beginning::Random => cluster::cluster(engine, &points, &kmeans)?,
            Beginning::Best => {
                let best = KMeansOptions {
                    init: if alone { Init::PlusPlus } else { Init::Random },
                    restarts: RESTARTS,
                    ..kmeans
                };
                cluster::cluster(engine, &points, &best)?
            }
            Beginning::Labels(labels) => {
                let means = means(&points, labels);
                let init = Init::Given(&means);
                cluster::cluster(engine, &points, &KMeansOptions { init, ..kmeans })?
            }
            Beginning::Ward => {
                let found = of_ward(context, engine, &points, &kmeans)?;
                agreement = found.agreement;
                found.clustering
            }
        };
        let statistics = &clustering.statistics;
        let record = LabelStepRecord {
            clusters: options.clusters,
            reassigned: Some(statistics.reassigned()),
            objective: Some(statistics.objective()),
            iterations: Some(statistics.iterations),
            agreement,
            seconds: [(Phase::Cluster.name().into(), statistics.seconds)].into(),
            ..LabelStepRecord::default()
        };
        Ok((clustering, record))
    })
}

/// Clusters hidden features `[n, d]` by power iteration on the graph of their nearest neighbours.
///
/// # Errors
/// As [`cluster_features`].
pub fn group_features(
    context: &Context,
    features: &Tensor,
    options: &PicOptions,
) -> Result<Clustered<Groups>> {
    if context.comm.size() > 1 {
        bail!(usage(
            "power iteration wants all images in one process: take k-means"
        ));
    }
    clustered(context, features, |points| {
        let pic = pic::cluster(&points, options)?;
        if let Some(warning) = pic.loneliness(options.sigma) {
            context
                .monitor
                .warn(&format!("{warning} (--set sigma=...)"));
        }
        let record = LabelStepRecord {
            clusters: pic.sizes.len(),
            iterations: Some(pic.iterations),
            seconds: [(Phase::Cluster.name().into(), pic.seconds)].into(),
            ..LabelStepRecord::default()
        };
        Ok((Groups { points, pic }, record))
    })
}

/// Reduces `features`, lets `cluster` work on the points `[n, r] f32` (whitened, of unit length, on the
/// network's device), and completes its record.
fn clustered<C>(
    context: &Context,
    features: &Tensor,
    cluster: impl FnOnce(Tensor) -> Result<(C, LabelStepRecord)>,
) -> Result<Clustered<C>> {
    let started = std::time::Instant::now();
    let device = context.network.device();
    let work = || -> Result<Clustered<C>> {
        let components = context.config.cluster.components;
        let pca = match context.config.cluster.whiten {
            true => {
                let rounding = context.network.precision.rounding();
                Pca::whitening(device, context.comm, features, components, rounding)
            }
            false => Pca::of_directions(device, context.comm, features, components),
        };
        let pca = pca.context(
            "the network's features cannot be clustered (has the training diverged? a lower --lr helps)",
        )?;
        let points = points(&pca, features);
        let reduced = started.elapsed().as_secs_f64();
        let (clusters, mut record) = cluster(points)?;
        record.components = Some(pca.rank());
        record.seconds.insert("reduce".into(), reduced);
        Ok(Clustered {
            pca,
            clusters,
            record,
        })
    };
    let shape = features.size();
    let doing = || format!("while {} x {} features were clustered", shape[0], shape[1]);
    let cure = "fewer --components or --clusters take less, and so does --device cpu";
    context.monitor.begin(Phase::Cluster, "clustering", 0);
    let result = within_memory(device, doing, cure, || tch::no_grad(work));
    context.monitor.end();
    result?
}

/// What is clustered `[n, r] f32`: the features' components, of unit length.
pub(super) fn points(pca: &Pca, features: &Tensor) -> Tensor {
    l2_rows(&pca.apply(features, Kind::Float))
}

/// The means `[k, r] f32` of the points of all processes that share a label; a label that nobody has gets a
/// point, the one of that number among the first process's.
pub(super) fn means_of(
    comm: &dyn Comm,
    points: &Tensor,
    labels: &[u32],
    clusters: usize,
) -> Tensor {
    let labels = from_labels(labels);
    let on_cpu = points.to_device(Device::Cpu);
    let shape = [clusters as i64, points.size()[1]];
    let sums = Tensor::zeros(shape, (Kind::Float, Device::Cpu)).index_add(0, &labels, &on_cpu);
    let counts = labels.bincount(None::<Tensor>, clusters as i64);
    let (sums, counts) = (comm.sum_tensor(sums), comm.sum_tensor(counts));
    let counts = counts.to_kind(Kind::Float).unsqueeze(1);
    let few = on_cpu.narrow(0, 0, (clusters as i64).min(on_cpu.size()[0]));
    let first = comm.gather(&few).narrow(0, 0, clusters as i64);
    let means = sums / counts.clamp_min(1.0);
    means
        .where_self(&counts.gt(0.0), &first)
        .to_device(points.device())
}

/// Clusters the features of the network as it is and labels every image by its nearest centroid:
/// the last labels of every method whose labels are clusters.
///
/// # Errors
/// As [`cluster_features`], and [`Interrupted`](crate::monitor::Interrupted).
pub fn label_by_clusters(
    context: &Context,
    beginning: Beginning,
    empty: Empty,
) -> Result<Labelling> {
    let features = context.features(FeatureKind::Hidden, View::Plain)?;
    let single = singles(context, &features);
    let single = single.as_ref().unwrap_or(&features);
    let clustered = cluster_features(context, single, beginning, empty)?;
    let images = context.comm.sum_of(single.size()[0] as f64);
    let numbers = images * clustered.pca.rank() as f64;
    let mut assigner = Centroids {
        variance: clustered.record.objective.unwrap_or_default() / numbers,
        pca: clustered.pca.to_device(Device::Cpu),
        centroids: clustered.clusters.centroids.to_device(Device::Cpu),
        fit: None,
    };
    let there = assigner.to_device(context.network.device());
    let labels = there.assign(&features).labels.swap_remove(0);
    let clusters = assigner.clusters();
    let fit = || Fit::of(context.comm, &features, &labels, clusters);
    assigner.fit = Some(tch::no_grad(fit));
    Ok(labelled(context, &features, assigner, clustered.record))
}

/// The features without those of copies, which would make clusters of their own; `None` where there are no copies,
/// or too few others for the clusters that are asked for.
fn singles(context: &Context, features: &Tensor) -> Option<Tensor> {
    let first = without_copies(features)?;
    if first.len() < context.config.cluster.clusters {
        return None;
    }
    context.monitor.note(&format!(
        "{} images are copies of others: each picture counts once",
        features.size()[0] as usize - first.len()
    ));
    let first = from_labels(&first).to_device(features.device());
    Some(features.index_select(0, &first))
}

/// Labels every image by the clusters that power iteration finds for the network as it is.
///
/// # Errors
/// As [`label_by_clusters`].
pub fn label_by_groups(context: &Context, options: &PicOptions) -> Result<Labelling> {
    let features = context.features(FeatureKind::Hidden, View::Plain)?;
    let grouped = group_features(context, &features, options)?;
    let Groups { points, pic } = grouped.clusters;
    let points = points.to_device(Device::Cpu);
    let assigner = StoredPoints {
        pca: grouped.pca.to_device(Device::Cpu),
        centroids: means_of(context.comm, &points, &pic.labels, pic.sizes.len()),
        points,
        labels: from_labels(&pic.labels),
        sigma: options.sigma,
    };
    Ok(labelled(context, &features, assigner, grouped.record))
}

/// What an assigner that lies on the CPU makes of all images' features `[n, d]`.
pub fn labelled(
    context: &Context,
    features: &Tensor,
    assigner: impl Assigner + 'static,
    record: LabelStepRecord,
) -> Labelling {
    let there = assigner.to_device(context.network.device());
    Labelling {
        assignments: there.assign(features),
        assigner: Box::new(assigner),
        record,
    }
}
