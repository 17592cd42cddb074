//! Knowledge transfer: a network learns the clusters of features that stand beside it, and joins them.
//!
//! Christlein, Gropp, Fiel, Maier: Unsupervised Feature Learning for Writer Identification and Writer Retrieval, ICDAR
//! 2017, <https://arxiv.org/abs/1705.09369> (clusters of hand-made descriptors are surrogate classes for a network);
//! Noroozi, Vinjimoor, Favaro, Pirsiavash: Boosting Self-Supervised Learning via Knowledge Transfer, CVPR 2018,
//! <https://arxiv.org/abs/1805.00385>. The clusters are many and small, so that they say which images are alike and
//! not which class there is, and they are made once: what has learned them is better than they are.

use anyhow::{Result, bail};
use tch::{Reduction, Tensor, nn};

use super::label_panels::label_panels;
use super::{
    Archive, Batch, Beginning, Build, Context, Flag, LabelStep, Loss, Method, MethodEntry, Module,
    ModuleTraining, Panel, Rule, View, as_they_are, cluster_features, method_options, option_table,
    parse_options,
};
use crate::cluster::Empty;
use crate::cluster::assigner::FeatureKind;
use crate::config::defaults::{Choice, Facts, READY_COMPONENTS};
use crate::config::{
    ClusterSettings, Config, DataSettings, ModelSettings, NOTHING, PlainView, Schedule, Settings,
    TrainSettings,
};
use crate::error::usage;
use crate::model::{self, LinearHead, store_on};
use crate::tensors::{correct, from_labels, to_labels};

const HEAD: &str = "head";

/// The registry entry.
pub const ENTRY: MethodEntry = MethodEntry {
    name: "transfer",
    help: "a small network learns many small clusters of visual words, and joins them: for folders that nothing was learned for",
    paper: "Noroozi et al., Boosting Self-Supervised Learning via Knowledge Transfer, CVPR 2018, https://arxiv.org/abs/1805.00385",
    preset,
    first: |_| None,
    items: as_they_are,
    options: OPTIONS,
    defaults: option_table::<Options>,
    resolve,
    build: |build| Ok(Box::new(Transfer::new(build)?)),
    pretext: false,
};

method_options! {
    /// images for each of the clusters that are learned
    images_per_cluster: f64 = 8.0, Flag::None;
    /// what the labels give away to all other clusters
    smoothing: f64 = 0.1, Flag::None;
}

impl Options {
    fn parse(table: &toml::Table) -> Result<Self> {
        let options: Self = parse_options(table)?;
        if !(options.images_per_cluster >= 1.0 && options.images_per_cluster.is_finite()) {
            bail!(usage("images_per_cluster must be at least 1"));
        }
        if !(0.0..1.0).contains(&options.smoothing) {
            bail!(usage("smoothing must lie in 0..1, without 1"));
        }
        Ok(options)
    }
}

/// Side of the network's input and of what is kept for the words, in pixels.
const SIZE: usize = 48;
const KEPT: usize = 96;
/// Length of the words' features, where the network's have one of 1.
const WORDS_LENGTH: f64 = 2.0;
/// Images that are seen in all, and epochs at least and at most.
const SEEN: usize = 40_000;
const EPOCHS: [usize; 2] = [20, 60];
const BETAS: [f64; 2] = [0.9, 0.999];

fn preset(facts: &Facts) -> Settings {
    let short = facts.width.min(facts.height) as usize;
    Settings {
        data: DataSettings {
            size: Some(short.clamp(16, SIZE)),
            store: Some(short.clamp(16, KEPT)),
            plain: Some(PlainView::Whole),
            crop_scale: Some([0.4, 1.0]),
            jitter: Some(0.1),
            ..DataSettings::default()
        },
        model: ModelSettings {
            arch: Some(model::small_backbone().into()),
            beside: Some(model::unlearned_backbone().into()),
            beside_length: Some(WORDS_LENGTH),
            ..ModelSettings::default()
        },
        train: TrainSettings {
            epochs: Some((SEEN / facts.images.max(1)).clamp(EPOCHS[0], EPOCHS[1])),
            batch_size: Some((facts.images / 20).clamp(16, 128)),
            lr: Some(2e-3),
            weight_decay: Some(0.05),
            schedule: Some(Schedule::Cosine),
            ..TrainSettings::default()
        },
        cluster: ClusterSettings {
            components: Some(READY_COMPONENTS),
            whiten: Some(false),
            ..ClusterSettings::default()
        },
        ..Settings::default()
    }
}

fn resolve(config: &Config, table: &mut toml::Table) -> Result<Vec<Choice>> {
    Options::parse(table)?;
    if config.model.beside == NOTHING {
        bail!(usage(
            "the method learns from what stands beside the network: give --beside a backbone"
        ));
    }
    Ok(Vec::new())
}

struct Transfer {
    options: Options,
    store: nn::VarStore,
    head: LinearHead,
    /// The label of each image; empty before the first step.
    labels: Vec<u32>,
    /// `labels` as `[n] i64` on the device.
    targets: Tensor,
}

impl Transfer {
    fn new(build: &Build) -> Result<Self> {
        let options = Options::parse(build.options)?;
        let clusters = (build.images as f64 / options.images_per_cluster).ceil() as i64;
        let clusters = clusters.max(2).min(build.images as i64);
        let (store, head) = store_on(build.network.device(), |root| {
            LinearHead::new(root, build.network.dim(), clusters)
        });
        Ok(Self {
            options,
            store,
            head,
            labels: Vec::new(),
            targets: Tensor::new(),
        })
    }

    fn take_labels(&mut self, labels: Vec<u32>) {
        self.targets = from_labels(&labels).to_device(self.store.device());
        self.labels = labels;
    }
}

impl Method for Transfer {
    fn next_label_step(&self) -> Option<u64> {
        self.labels.is_empty().then_some(0)
    }

    fn label_step(&mut self, context: &Context) -> Result<LabelStep> {
        let joined = context.features(FeatureKind::Hidden, View::Plain)?;
        let own = context.network.dim();
        let beside = joined.narrow(1, own, joined.size()[1] - own);
        let mut config = context.config.clone();
        config.cluster.clusters = self.head.bias().size()[0] as usize;
        let context = Context {
            config: &config,
            ..*context
        };
        let clustered = cluster_features(&context, &beside, Beginning::Random, Empty::default())?;
        self.take_labels(to_labels(&clustered.clusters.labels));
        Ok(LabelStep {
            labels: vec![self.labels.clone()],
            record: clustered.record,
            reset: Vec::new(),
            new_order: true,
        })
    }

    fn loss(&self, context: &Context, batch: &Batch, _update: usize) -> Result<Loss> {
        let input = context.network.prepare(&context.view(batch, 0));
        let logits = self.head.forward(&context.network.activation(&input, true));
        let targets = self.targets.index_select(0, &batch.index);
        let smoothing = self.options.smoothing;
        let value =
            logits.cross_entropy_loss(&targets, None::<Tensor>, Reduction::Mean, -100, smoothing);
        Ok(Loss {
            correct: Some((correct(&logits, &targets), batch.indices.len() as i64)),
            ..Loss::of(value)
        })
    }

    fn backbone(&self) -> ModuleTraining {
        ModuleTraining {
            rule: Some(Rule::AdamW { betas: BETAS }),
            ..ModuleTraining::default()
        }
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![Module::new(HEAD, &self.store).by(Rule::AdamW { betas: BETAS })]
    }

    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>> {
        let scores = |activation: &Tensor| self.head.forward(activation).unsqueeze(1);
        Ok(label_panels(context, batch, &[&self.labels], scores))
    }

    fn archive(&mut self, archive: &mut Archive) -> Result<()> {
        archive.labels("labels", &mut self.labels)?;
        if archive.restores() {
            self.take_labels(self.labels.clone());
        }
        Ok(())
    }
}
