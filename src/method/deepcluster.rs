//! DeepCluster: cluster the features, predict the clusters, again every epoch.
//!
//! Caron, Bojanowski, Joulin, Douze: Deep Clustering for Unsupervised Learning of Visual Features,
//! ECCV 2018, <https://arxiv.org/abs/1807.05520>; facebookresearch/deepcluster `main.py`.

use anyhow::{Result, bail};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor, nn};

use super::label_panels::label_panels;
use super::{
    Archive, Batch, Beginning, Build, Context, Descriptors, FeatureRequest, FeatureSource,
    FeaturesFrom, FirstLabels, Flag, Kept, LabelStep, Labelling, Loss, Method, MethodEntry, Module,
    Panel, Rule, View, as_they_are, cluster_features, group_features, label_by_clusters,
    label_by_groups, method_options, option_table, parse_options,
};
use crate::cluster::assigner::FeatureKind;
use crate::cluster::pic::PicOptions;
use crate::cluster::{Empty, linfa};
use crate::config::defaults::Choice;
use crate::config::{Config, Settings};
use crate::data::sampler::{inverse_size_weights, shuffled, uniform_over_labels};
use crate::model::{LinearHead, store_on};
use crate::random::Purpose;
use crate::record::LabelStepRecord;
use crate::tensors::{correct, from_labels, to_labels};

const HEAD: &str = "head";

/// The registry entry.
pub const ENTRY: MethodEntry = MethodEntry {
    name: "deepcluster",
    help: "k-means on the features gives the labels that the network then learns to predict",
    paper: "Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, ECCV 2018, https://arxiv.org/abs/1807.05520",
    preset: |_| Settings::default(),
    first: |table| {
        let options = Options::parse(table).ok()?;
        options.first_labels.of_network(FeatureRequest {
            kind: FeatureKind::Hidden,
            view: View::Plain,
        })
    },
    items: as_they_are,
    options: OPTIONS,
    defaults: option_table::<Options>,
    resolve,
    build: |build| Ok(Box::new(DeepCluster::new(build)?)),
    pretext: false,
};

/// How clusters of unequal size are kept from dominating (section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Balance {
    /// Images are drawn uniformly over the clusters.
    #[default]
    Sampler,
    /// The loss of an image is weighted by the inverse size of its cluster.
    Weights,
    None,
}

/// What divides the features among clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Clusterer {
    /// Ward where nothing more is learned from the clusters: they are better, and the same for every seed.
    #[default]
    Auto,
    Kmeans,
    /// K-means from the clusters of Ward's linkage, on points that are drawn to their neighbours, and TEMI from there.
    Ward,
    /// Power iteration on the graph of nearest neighbours (`clustering.py: PIC`).
    Pic,
}

method_options! {
    /// how large clusters are kept from dominating: sampler (draws from all equally), weights (in the
    /// loss) or none
    balance: Balance = Balance::Sampler, Flag::Value("BALANCE");
    /// epochs from one clustering to the next, fractions allowed; 0 leaves the choice to the program
    reassign: f64 = 0.0, Flag::Value("EPOCHS");
    /// kmeans; ward: k-means from the clusters of Ward's linkage, moved to where near neighbours agree; pic: power
    /// iteration on nearest neighbours, which finds the number of clusters itself; auto: kmeans, and ward for the
    /// last labels
    clusterer: Clusterer = Clusterer::Auto, Flag::Value("CLUSTERER");
    /// pic: edges from each image to its nearest others
    neighbours: usize = PicOptions::default().neighbours, Flag::None;
    /// pic: an edge weighs exp(-squared distance / sigma^2)
    sigma: f64 = PicOptions::default().sigma, Flag::None;
    /// what the first pseudo-labels come from: network (its features, random as they may be), or descriptors
    /// (visual words, and histograms of colours and gradients)
    first_labels: FirstLabels = FirstLabels::Network, Flag::Value("SOURCE");
    /// true: k-means starts from the clusters before
    warm_start: bool = false, Flag::Switch;
    /// what an empty cluster takes: split (half of another one), farthest (a point) or keep (nothing)
    empty: Empty = Empty::Split, Flag::Value("EMPTY");
    /// what is clustered: extraction (a pass over all images), or training (what the batches left behind)
    features_from: FeaturesFrom = FeaturesFrom::Extraction, Flag::Value("SOURCE");
}

impl Options {
    fn parse(table: &toml::Table) -> Result<Self> {
        let options: Self = parse_options(table)?;
        if !(options.reassign >= 0.0 && options.reassign.is_finite()) {
            bail!(crate::error::usage(format!(
                "--reassign must be a positive number of epochs (or 0: chosen), not {}",
                options.reassign
            )));
        }
        if let Err(error) = options.pic().check() {
            bail!(crate::error::usage(error.to_string()));
        }
        if !matches!(options.clusterer, Clusterer::Auto | Clusterer::Kmeans) && options.warm_start {
            bail!(crate::error::usage("--warm-start is for k-means"));
        }
        if options.clusterer == Clusterer::Pic && options.empty != Empty::Split {
            bail!(crate::error::usage("--empty is for k-means"));
        }
        let defaults = Self::default();
        let of_pic = options.neighbours != defaults.neighbours || options.sigma != defaults.sigma;
        if options.clusterer != Clusterer::Pic && of_pic {
            bail!(crate::error::usage(
                "neighbours and sigma are for --clusterer pic"
            ));
        }
        Ok(options)
    }

    fn pic(&self) -> PicOptions {
        PicOptions {
            neighbours: self.neighbours,
            sigma: self.sigma,
            ..PicOptions::default()
        }
    }
}

/// Steps for which a new head is trained at least, where the choice is ours. The paper clusters every
/// epoch, which is 5,000 steps on ImageNet; with few images a head that is thrown away after some 30
/// steps teaches the backbone little (2,000 images of Fashion-MNIST, 15 epochs, three seeds: kNN
/// accuracy rises by 0.3 points over the untrained network with one epoch, by 2.2 with five).
const STEPS_FOR_A_HEAD: usize = 150;

fn resolve(config: &Config, table: &mut toml::Table) -> Result<Vec<Choice>> {
    let options = Options::parse(table)?;
    if config.cluster.engine == linfa::ENGINE.name && options.empty != Empty::Split {
        bail!(crate::error::usage(
            "--empty is for `--engine tensor`: the linfa engine leaves no cluster empty"
        ));
    }
    let mut choices = Vec::new();
    if options.clusterer == Clusterer::Pic {
        choices.push(Choice {
            name: "clusters",
            value: "as found".into(),
            reason: "power iteration finds their number anew each time".into(),
        });
    }
    if options.reassign > 0.0 {
        return Ok(choices);
    }
    let steps = config
        .run
        .images
        .div_ceil(config.train.batch_size.max(1))
        .max(1);
    // At least once in the middle of the run the network's own features are clustered.
    let most = (config.train.epochs / 2).max(1) as f64;
    let epochs = (STEPS_FOR_A_HEAD as f64 / steps as f64)
        .round()
        .clamp(1.0, most);
    table.insert("reassign".into(), epochs.into());
    choices.push(Choice {
        name: "reassign",
        value: match epochs {
            1.0 => "1 epoch".into(),
            _ => format!("{epochs} epochs"),
        },
        reason: match epochs {
            1.0 => "the published one".into(),
            _ => format!(
                "an epoch has {steps} steps, a new head learns for {STEPS_FOR_A_HEAD} or so"
            ),
        },
    });
    Ok(choices)
}

struct DeepCluster {
    options: Options,
    store: nn::VarStore,
    head: LinearHead,
    /// The label of each image; empty before the first step.
    labels: Vec<u32>,
    /// `labels` as `[n] i64`, and each image's loss weight `[n] f32`, on the device.
    targets: Tensor,
    weights: Option<Tensor>,
    /// Images seen when the next step is due, and from one step to the next.
    next: u64,
    interval: u64,
    features: FeatureSource,
}

impl DeepCluster {
    fn new(build: &Build) -> Result<Self> {
        let options = Options::parse(build.options)?;
        let clusters = build.config.cluster.clusters as i64;
        let (store, head) = store_on(build.network.device(), |root| {
            LinearHead::new(root, build.network.dim(), clusters)
        });
        let interval = (options.reassign * build.images as f64).round().max(1.0) as u64;
        let features = FeatureSource::new(options.features_from, build);
        Ok(Self {
            features,
            options,
            store,
            head,
            labels: Vec::new(),
            targets: Tensor::new(),
            weights: None,
            next: 0,
            interval,
        })
    }

    fn take_labels(&mut self, labels: Vec<u32>) {
        let device = self.store.device();
        self.targets = from_labels(&labels).to_device(device);
        self.weights = (self.options.balance == Balance::Weights).then(|| {
            let clusters = self.head.bias().size()[0] as usize;
            let mut sizes = vec![0; clusters];
            labels.iter().for_each(|&label| sizes[label as usize] += 1);
            let of_cluster = inverse_size_weights(&sizes);
            let weights: Vec<f32> = labels
                .iter()
                .map(|&label| of_cluster[label as usize] as f32)
                .collect();
            Tensor::from_slice(&weights).to_device(device)
        });
        self.labels = labels;
    }

    /// A new head. K-means has as many clusters each time, power iteration as many as it finds.
    fn renew_head(&mut self, clusters: i64) {
        let before = self.head.weight().size();
        if before[0] == clusters {
            self.head.reset();
        } else {
            (self.store, self.head) = store_on(self.store.device(), |root| {
                LinearHead::new(root, before[1], clusters)
            });
        }
    }

    /// Labels for all images from the network as it is.
    fn cluster(&self, context: &Context) -> Result<(Vec<u32>, LabelStepRecord)> {
        if self.labels.is_empty() && self.options.first_labels == FirstLabels::Descriptors {
            let clustered = Descriptors::of(context)?.cluster(context, self.options.empty, 0)?;
            return Ok((to_labels(&clustered.clusters.labels), clustered.record));
        }
        let features = self
            .features
            .features(context, FeatureKind::Hidden, View::Plain)?;
        if self.options.clusterer == Clusterer::Pic {
            let grouped = group_features(context, &features, &self.options.pic())?;
            return Ok((grouped.clusters.pic.labels, grouped.record));
        }
        let beginning = match self.options.clusterer {
            Clusterer::Ward => Beginning::Ward,
            _ if self.options.warm_start && !self.labels.is_empty() => {
                Beginning::Labels(&self.labels)
            }
            _ => Beginning::Random,
        };
        let clustered = cluster_features(context, &features, beginning, self.options.empty)?;
        Ok((to_labels(&clustered.clusters.labels), clustered.record))
    }
}

impl Method for DeepCluster {
    fn next_label_step(&self) -> Option<u64> {
        Some(self.next)
    }

    fn label_step(&mut self, context: &Context) -> Result<LabelStep> {
        let (labels, record) = self.cluster(context)?;
        tch::manual_seed(context.step_seed(Purpose::Weights) as i64);
        self.renew_head(record.clusters as i64);
        self.take_labels(labels);
        while self.next <= context.position.images {
            self.next += self.interval;
        }
        Ok(LabelStep {
            labels: vec![self.labels.clone()],
            record,
            reset: vec![HEAD.into()],
            new_order: true,
        })
    }

    fn order(&self, images: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u32> {
        match self.options.balance {
            Balance::Sampler => uniform_over_labels(&self.labels, rng),
            Balance::Weights | Balance::None => shuffled(images, rng),
        }
    }

    fn loss(&self, context: &Context, batch: &Batch, _update: usize) -> Result<Loss> {
        let input = context.network.prepare(&context.view(batch, 0));
        let (activation, kept) = self.features.activation(context, &input);
        let logits = self.head.forward(&activation);
        let targets = self.targets.index_select(0, &batch.index);
        let value = match &self.weights {
            None => logits.cross_entropy_for_logits(&targets),
            Some(weights) => {
                let each =
                    logits.cross_entropy_loss(&targets, None::<Tensor>, Reduction::None, -100, 0.0);
                (each * weights.index_select(0, &batch.index)).mean(Kind::Float)
            }
        };
        Ok(Loss {
            correct: Some((correct(&logits, &targets), batch.indices.len() as i64)),
            kept,
            ..Loss::of(value)
        })
    }

    fn after_update(&mut self, _context: &Context, _update: usize, kept: Vec<Kept>) -> Result<()> {
        kept.iter().for_each(|part| self.features.keep(part));
        Ok(())
    }

    fn modules(&self) -> Vec<Module<'_>> {
        // main.py: the head's optimiser is made anew with every clustering, without momentum.
        vec![Module::new(HEAD, &self.store).by(Rule::Sgd { momentum: 0.0 })]
    }

    fn last_labels(&mut self, context: &Context) -> Result<Labelling> {
        match self.options.clusterer {
            Clusterer::Kmeans => label_by_clusters(context, Beginning::Best, self.options.empty),
            Clusterer::Ward => label_by_clusters(context, Beginning::Ward, self.options.empty),
            Clusterer::Auto => {
                let beginning = Beginning::for_last_labels(context);
                label_by_clusters(context, beginning, self.options.empty)
            }
            Clusterer::Pic => label_by_groups(context, &self.options.pic()),
        }
    }

    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>> {
        let scores = |activation: &Tensor| self.head.forward(activation).unsqueeze(1);
        Ok(label_panels(context, batch, &[&self.labels], scores))
    }

    fn archive(&mut self, archive: &mut Archive) -> Result<()> {
        let mut clusters = self.head.weight().size()[0];
        archive.value("clusters", &mut clusters)?;
        archive.labels("labels", &mut self.labels)?;
        archive.value("next", &mut self.next)?;
        if archive.restores() {
            self.renew_head(clusters);
            self.take_labels(self.labels.clone());
        }
        self.features.archive(archive)
    }
}
