//! DeepCluster: cluster the features, predict the clusters, again every epoch.
//!
//! Caron, Bojanowski, Joulin, Douze: Deep Clustering for Unsupervised Learning of Visual Features,
//! ECCV 2018, <https://arxiv.org/abs/1807.05520>; facebookresearch/deepcluster `main.py`.

use anyhow::{Result, bail};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor, nn};

use super::{
    Batch, Build, Context, LabelStep, Labelling, Loss, Method, MethodEntry, Module, State, View,
    cluster_features, label_by_clusters, option_table, parse_options,
};
use crate::cluster::assigner::FeatureKind;
use crate::config::defaults::Choice;
use crate::config::{Config, Settings};
use crate::data::sampler::{inverse_size_weights, shuffled, uniform_over_labels};
use crate::model::LinearHead;
use crate::random::Purpose;

/// The registry entry.
pub const ENTRY: MethodEntry = MethodEntry {
    name: "deepcluster",
    help: "k-means on the features gives the labels that the network then learns to predict",
    paper: "Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, ECCV 2018, https://arxiv.org/abs/1807.05520",
    preset: |_| Settings::default(),
    options: option_table::<Options>,
    option_help: &[
        (
            "balance",
            "how large clusters are kept from dominating: sampler (draws from all equally), weights (in the loss) or none",
        ),
        (
            "reassign",
            "epochs from one clustering to the next, fractions allowed; 0 leaves the choice to the program",
        ),
        (
            "warm_start",
            "true: k-means starts from the clusters before",
        ),
    ],
    resolve,
    build: |build| Ok(Box::new(DeepCluster::new(build)?)),
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

/// DeepCluster's own options.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    balance: Balance,
    /// Epochs from one clustering to the next; fractions are allowed, and 0 leaves the choice to
    /// [`resolve`].
    reassign: f64,
    /// Start k-means from the means of the previous clusters.
    warm_start: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            balance: Balance::Sampler,
            reassign: 0.0,
            warm_start: false,
        }
    }
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
        Ok(options)
    }
}

/// Steps for which a new head is trained at least, where the choice is ours. The paper clusters every
/// epoch, which is 5,000 steps on ImageNet; with few images a head that is thrown away after some 30
/// steps teaches the backbone little (2,000 images of Fashion-MNIST, 15 epochs, three seeds: kNN
/// accuracy rises by 0.3 points over the untrained network with one epoch, by 2.2 with five).
const STEPS_FOR_A_HEAD: usize = 150;

fn resolve(config: &mut Config) -> Result<Vec<Choice>> {
    let options = Options::parse(&config.method)?;
    if options.reassign > 0.0 {
        return Ok(Vec::new());
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
    config.method.insert("reassign".into(), epochs.into());
    Ok(vec![Choice {
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
    }])
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
}

impl DeepCluster {
    fn new(build: &Build) -> Result<Self> {
        let options = Options::parse(&build.config.method)?;
        let store = nn::VarStore::new(build.network.device());
        let clusters = build.config.cluster.clusters as i64;
        let head = LinearHead::new(&store.root(), build.network.dim(), clusters);
        let interval = (options.reassign * build.images as f64).round().max(1.0) as u64;
        Ok(Self {
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
        let targets: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        self.targets = Tensor::from_slice(&targets).to_device(device);
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
}

impl Method for DeepCluster {
    fn next_label_step(&self) -> Option<u64> {
        Some(self.next)
    }

    fn label_step(&mut self, context: &Context) -> Result<LabelStep> {
        let features = context.features(FeatureKind::Hidden, View::Plain)?;
        let previous =
            (self.options.warm_start && !self.labels.is_empty()).then_some(&self.labels[..]);
        let clustered = cluster_features(context, &features, previous)?;
        let labels: Vec<i64> = Vec::try_from(&clustered.clustering.labels)?;
        self.take_labels(labels.into_iter().map(|label| label as u32).collect());
        tch::manual_seed(context.step_seed(Purpose::Weights) as i64);
        self.head.reset();
        while self.next <= context.position.images {
            self.next += self.interval;
        }
        Ok(LabelStep {
            labels: vec![self.labels.clone()],
            record: clustered.record,
            fresh: vec!["head"],
            new_order: true,
        })
    }

    fn order(&self, images: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u32> {
        match self.options.balance {
            Balance::Sampler => uniform_over_labels(&self.labels, rng),
            Balance::Weights | Balance::None => shuffled(images, rng),
        }
    }

    fn loss(&mut self, context: &Context, batch: &Batch, _phase: usize) -> Result<Loss> {
        let input = context.network.prepare(&context.view(batch, 0));
        let logits = self.head.forward(&context.network.activation(&input, true));
        let targets = self.targets.index_select(0, &batch.index);
        let value = match &self.weights {
            None => logits.cross_entropy_for_logits(&targets),
            Some(weights) => {
                let each =
                    logits.cross_entropy_loss(&targets, None::<Tensor>, Reduction::None, -100, 0.0);
                (each * weights.index_select(0, &batch.index)).mean(Kind::Float)
            }
        };
        let correct = logits.argmax(1, false).eq_tensor(&targets).sum(Kind::Int64);
        Ok(Loss {
            value,
            trains: &[],
            correct: Some((correct, batch.rows.len() as i64)),
        })
    }

    fn modules(&self) -> Vec<Module<'_>> {
        // main.py: the head's optimiser is made anew with every clustering, without momentum.
        vec![Module {
            name: "head",
            store: &self.store,
            momentum: Some(0.0),
        }]
    }

    fn last_labels(&mut self, context: &Context) -> Result<Labelling> {
        label_by_clusters(context)
    }

    fn state(&self) -> State {
        let labels: Vec<i64> = self.labels.iter().map(|&label| i64::from(label)).collect();
        State {
            tensors: vec![("labels".into(), Tensor::from_slice(&labels))],
            values: [("next".to_string(), self.next.into())].into(),
        }
    }

    fn restore(&mut self, mut state: State) -> Result<()> {
        let labels: Vec<i64> = Vec::try_from(&state.tensor("labels")?)?;
        self.take_labels(labels.into_iter().map(|label| label as u32).collect());
        self.next = state.value("next")?;
        Ok(())
    }
}
