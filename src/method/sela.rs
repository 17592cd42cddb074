//! SeLa: equally large clusters by optimal transport, learned together with the network.
//!
//! Asano, Rupprecht, Vedaldi: Self-labelling via simultaneous clustering and representation
//! learning, ICLR 2020, <https://arxiv.org/abs/1911.05371>; yukimasano/self-label `main.py`,
//! `sinkhornknopp.py`.

use anyhow::{Result, bail};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor, nn};

use super::balanced_labels::Balancing;
use super::features::labelled;
use super::label_panels::label_panels;
use super::label_schedule::{LabelSchedule, LabelTimes, default_label_steps};
use super::{
    Archive, Batch, Build, Context, Descriptors, FeatureRequest, FeatureSource, FeaturesFrom,
    FirstLabels, Flag, Kept, LabelStep, Labelling, Loss, Method, MethodEntry, Module, Panel, View,
    as_they_are, method_options, option_table, parse_options,
};
use crate::cluster::Empty;
use crate::cluster::assigner::{FeatureKind, Heads};
use crate::cluster::sinkhorn::{Solver, Transport};
use crate::config::defaults::{Choice, Facts};
use crate::config::{Config, DataSettings, Schedule, Settings, TrainSettings};
use crate::model::{MultiHead, store_on};
use crate::random::{Purpose, stream};
use crate::record::LabelStepRecord;
use crate::tensors::{correct, from_labels, to_labels};

/// The registry entry.
pub const ENTRY: MethodEntry = MethodEntry {
    name: "sela",
    help: "equally large clusters by optimal transport (Sinkhorn-Knopp), with one or several heads",
    paper: "Asano et al., Self-labelling via simultaneous clustering and representation learning, ICLR 2020, https://arxiv.org/abs/1911.05371",
    preset,
    first: |table| {
        let options = Options::parse(table).ok()?;
        options.first_labels.of_network(FeatureRequest {
            kind: FeatureKind::Activation,
            view: options.view(),
        })
    },
    items: as_they_are,
    options: OPTIONS,
    defaults: option_table::<Options>,
    resolve,
    build: |build| Ok(Box::new(Sela::new(build)?)),
    pretext: false,
};

/// Augmentation 3 of the authors' code: crop, jitter 0.4, greyscale 0.2, flip. For thumbnails λ is
/// that of their CIFAR code, and the label step looks at plain images: a crop of 28 pixels says
/// little of its image (2,000 images of Fashion-MNIST, 15 epochs, three seeds: kNN accuracy rises by
/// 2.3 points over the untrained network, with augmented images by 0.7). The tolerance, the weight
/// decay and the schedule of label steps stay those of ImageNet everywhere: their CIFAR code's 0.01,
/// 5e-4 and evenly spaced steps belong to runs of hundreds of epochs, and were not measured here.
fn preset(facts: &Facts) -> Settings {
    let mut method = toml::Table::new();
    if facts.thumbnails() {
        method.insert("lambda".into(), 10.0.into());
        method.insert("gather".into(), "plain".into());
    }
    Settings {
        data: DataSettings {
            jitter: Some(0.4),
            greyscale: Some(0.2),
            ..DataSettings::default()
        },
        train: TrainSettings {
            schedule: Some(Schedule::StepDecay),
            ..TrainSettings::default()
        },
        method,
        ..Settings::default()
    }
}

fn resolve(config: &Config, table: &mut toml::Table) -> Result<Vec<Choice>> {
    let options = Options::parse(table)?;
    if config.train.epochs == 0 {
        bail!(crate::error::usage(
            "sela's heads are what gives its labels, and --epochs 0 leaves them untrained: give some epochs, or \
             take --method deepcluster"
        ));
    }
    if options.label_steps > 0 {
        return Ok(Vec::new());
    }
    let steps = default_label_steps(config.train.epochs);
    table.insert("label_steps".into(), (steps as i64).into());
    Ok(vec![Choice {
        name: "label-steps",
        value: steps.to_string(),
        reason: format!("for {} epochs", config.train.epochs),
    }])
}

/// Which images the label step looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Gather {
    #[default]
    Augmented,
    Plain,
}

/// Which heads get new labels in a label step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Refresh {
    /// All (the authors' ImageNet code).
    #[default]
    All,
    /// One after the other (their CIFAR code).
    Turn,
}

method_options! {
    /// labelings that are learned at once, each by a head of its own
    heads: usize = 1, Flag::Value("HEADS");
    /// exponent of the probabilities: larger is nearer to the exact optimum and slower
    lambda: f64 = 25.0, Flag::Value("LAMBDA");
    /// where the solver stops: sum of the rows' relative changes
    tolerance: f64 = 0.1, Flag::Value("TOLERANCE");
    /// passes of the solver at most
    max_iterations: usize = 2_000, Flag::None;
    /// sinkhorn (published), newton (on its dual) or auto (whichever is cheaper)
    solver: Solver = Solver::Auto, Flag::None;
    /// gigabytes for a label step beside the features; scores that do not fit are computed when needed
    memory: f64 = 8.0, Flag::Value("GB");
    /// label steps over the training; 0 leaves the choice to the program
    label_steps: usize = 0, Flag::Value("STEPS");
    /// how they spread: quadratic (dense at first) or linear
    label_schedule: LabelSchedule = LabelSchedule::Quadratic, Flag::Value("SCHEDULE");
    /// images that a label step looks at: augmented or plain
    gather: Gather = Gather::Augmented, Flag::Value("VIEW");
    /// heads that a label step gives new labels: all, or one in turn
    refresh: Refresh = Refresh::All, Flag::None;
    /// what the first pseudo-labels come from: network (its features, random as they may be), or descriptors
    /// (visual words, and histograms of colours and gradients)
    first_labels: FirstLabels = FirstLabels::Network, Flag::Value("SOURCE");
    /// what is balanced: extraction (a pass over all images), or training (what the batches left behind)
    features_from: FeaturesFrom = FeaturesFrom::Extraction, Flag::Value("SOURCE");
}

impl Options {
    fn parse(table: &toml::Table) -> Result<Self> {
        let options: Self = parse_options(table)?;
        if options.heads == 0 {
            bail!(crate::error::usage("--heads must be at least 1"));
        }
        options.balancing().check()?;
        Ok(options)
    }

    fn balancing(&self) -> Balancing {
        Balancing {
            lambda: self.lambda,
            tolerance: self.tolerance,
            max_iterations: self.max_iterations,
            solver: self.solver,
            memory: self.memory,
        }
    }

    /// The images that a label step looks at.
    fn view(&self) -> View {
        match self.gather {
            Gather::Augmented => View::Augmented,
            Gather::Plain => View::Plain,
        }
    }
}

/// Of the cosines with clusters of descriptors: what SwAV's prototypes have.
const TEMPERATURE: f64 = 0.1;

struct Sela {
    options: Options,
    store: nn::VarStore,
    heads: MultiHead,
    /// For each head the label of each image.
    labels: Vec<Vec<u32>>,
    /// `[heads, n] i64` on the device.
    targets: Tensor,
    times: LabelTimes,
    features: FeatureSource,
}

impl Sela {
    fn new(build: &Build) -> Result<Self> {
        let options = Options::parse(build.options)?;
        let train = &build.config.train;
        let clusters = build.config.cluster.clusters;
        let (store, heads) = store_on(build.network.device(), |root| {
            let (heads, clusters) = (options.heads as i64, clusters as i64);
            MultiHead::new(root, build.network.dim(), heads, clusters)
        });
        let times = LabelTimes::new(
            options.label_schedule,
            options.label_steps,
            train.epochs,
            build.images,
        );
        let labels = (0..options.heads as u64)
            .map(|head| initial_labels(build.images, clusters, train.seed, head))
            .collect();
        let features = FeatureSource::new(options.features_from, build);
        let mut sela = Self {
            features,
            options,
            store,
            heads,
            labels: Vec::new(),
            targets: Tensor::new(),
            times,
        };
        sela.take_labels(labels);
        Ok(sela)
    }

    /// Labels for the heads that are due, from the network and the heads as they are.
    fn balance(&self, context: &Context) -> Result<(Vec<(usize, Transport)>, LabelStepRecord)> {
        let view = self.options.view();
        let features = self
            .features
            .features(context, FeatureKind::Activation, view)?;
        let heads = match self.options.refresh {
            Refresh::All => 0..self.options.heads,
            Refresh::Turn => {
                let head = context.position.label_steps as usize % self.options.heads;
                head..head + 1
            }
        };
        self.options
            .balancing()
            .solve(context, &self.heads, &features, heads)
    }

    /// Labels for all heads from clusters of descriptors, each head's from k-means of its own.
    fn describe(&self, context: &Context) -> Result<(Vec<(usize, Transport)>, LabelStepRecord)> {
        let descriptors = Descriptors::of(context)?;
        let heads = 0..self.options.heads;
        let clustered = heads
            .clone()
            .map(|head| descriptors.cluster(context, Empty::default(), head as u64))
            .collect::<Result<Vec<_>>>()?;
        let centroids = clustered.iter().map(|one| &one.clusters.centroids);
        let centroids = Tensor::stack(&centroids.collect::<Vec<_>>(), 0);
        let near = MultiHead::of_directions(&centroids, TEMPERATURE);
        let points = descriptors.points(&clustered[0].pca);
        self.options
            .balancing()
            .solve(context, &near, &points, heads)
    }

    fn take_labels(&mut self, labels: Vec<Vec<u32>>) {
        self.targets = stack(&labels).to_device(self.store.device());
        self.labels = labels;
    }
}

impl Method for Sela {
    fn next_label_step(&self) -> Option<u64> {
        self.times.next()
    }

    fn label_step(&mut self, context: &Context) -> Result<LabelStep> {
        let first = context.position.label_steps == 0;
        let (solved, record) = match self.options.first_labels {
            FirstLabels::Descriptors if first => self.describe(context)?,
            _ => self.balance(context)?,
        };
        let mut labels = std::mem::take(&mut self.labels);
        for (head, transport) in solved {
            labels[head] = transport.labels;
        }
        self.take_labels(labels);
        self.times.pass(context.position.images);
        Ok(LabelStep {
            labels: self.labels.clone(),
            record,
            reset: Vec::new(),
            new_order: false,
        })
    }

    fn loss(&self, context: &Context, batch: &Batch, _update: usize) -> Result<Loss> {
        let input = context.network.prepare(&context.view(batch, 0));
        let (activation, kept) = self.features.activation(context, &input);
        // [b, heads, k] and [heads, b]
        let logits = self.heads.forward(&activation);
        let targets = self.targets.index_select(1, &batch.index).transpose(0, 1);
        let clusters = self.heads.clusters();
        let value = logits
            .reshape([-1, clusters])
            .cross_entropy_for_logits(&targets.reshape([-1]));
        let asked = (batch.indices.len() * self.options.heads) as i64;
        Ok(Loss {
            correct: Some((correct(&logits, &targets), asked)),
            kept,
            ..Loss::of(value)
        })
    }

    fn after_update(&mut self, _context: &Context, _update: usize, kept: Vec<Kept>) -> Result<()> {
        kept.iter().for_each(|part| self.features.keep(part));
        Ok(())
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![Module::new("heads", &self.store)]
    }

    fn last_labels(&mut self, context: &Context) -> Result<Labelling> {
        let features = context.features(FeatureKind::Activation, View::Plain)?;
        let (solved, record) = self.options.balancing().solve(
            context,
            &self.heads,
            &features,
            0..self.options.heads,
        )?;
        let scalings: Vec<Tensor> = solved
            .iter()
            .map(|(_, transport)| Tensor::from_slice(&transport.log_scalings))
            .collect();
        let heads = 0..self.heads.heads();
        let gather = |part: &dyn Fn(i64) -> Tensor| {
            let parts: Vec<Tensor> = heads.clone().map(part).collect();
            Tensor::stack(&parts, 0).detach().to_device(Device::Cpu)
        };
        let assigner = Heads {
            weights: gather(&|head| self.heads.weight(head)),
            biases: gather(&|head| self.heads.bias(head)),
            log_scalings: Tensor::stack(&scalings, 0),
            lambda: self.options.lambda,
        };
        Ok(labelled(context, &features, assigner, record))
    }

    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>> {
        let labels: Vec<&[u32]> = self.labels.iter().map(Vec::as_slice).collect();
        let scores = |activation: &Tensor| self.heads.forward(activation);
        Ok(label_panels(context, batch, &labels, scores))
    }

    fn archive(&mut self, archive: &mut Archive) -> Result<()> {
        archive.tensor("labels", &mut self.targets)?;
        self.times.archive(archive)?;
        if archive.restores() {
            let heads = 0..self.heads.heads();
            let labels = heads.map(|head| to_labels(&self.targets.get(head)));
            self.take_labels(labels.collect());
        }
        self.features.archive(archive)
    }
}

/// i mod k, shuffled.
fn initial_labels(images: usize, clusters: usize, seed: u64, head: u64) -> Vec<u32> {
    let mut labels: Vec<u32> = (0..images).map(|image| (image % clusters) as u32).collect();
    labels.shuffle(&mut stream(seed, Purpose::Labels, head, 0));
    labels
}

/// `[heads, n] i64`
fn stack(labels: &[Vec<u32>]) -> Tensor {
    let rows: Vec<Tensor> = labels.iter().map(|labels| from_labels(labels)).collect();
    Tensor::stack(&rows, 0)
}
