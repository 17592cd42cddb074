//! What a method of self-supervised learning must answer, and the table of all of them.
//!
//! The loop in `train` owns data, optimisers, schedule, checkpoints and metrics, and asks a
//! [`Method`]: when are the labels due again, what are they, in which order are images seen, what is
//! the loss of this batch, which modules does it train, what must be saved. Methods differ only there.
//!
//! To add a method: one file here that ends in a [`MethodEntry`], and one line in [`METHODS`]; see
//! `docs/extending.md`.

mod archive;
mod balanced_labels;
mod bank;
mod colorization;
mod context;
mod context_prediction;
mod deepcluster;
mod dictionary;
mod extraction;
mod features;
mod first_labels;
mod label_panels;
mod label_schedule;
mod last_clusters;
mod module;
mod multitask;
mod options;
mod room;
mod rotation;
mod sela;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use rand_xoshiro::Xoshiro256PlusPlus;
use tch::Tensor;

use crate::cluster::assigner::{Assigner, Assignments};
use crate::cluster::{Empty, kmeans};
use crate::config::defaults::{Choice, Facts, Registry};
use crate::config::{Config, Settings};
use crate::data::items::Items;
use crate::data::sampler;
use crate::data::source::ImageSet;
use crate::model::{self, network::Network};
use crate::record::LabelStepRecord;

pub use crate::picture::{Panel, Tile};
pub use archive::{Archive, State};
pub use bank::{FeatureSource, FeaturesFrom};
pub use context::{Aside, Batch, Context, Position, View};
pub use dictionary::{DICTIONARY_IMAGES, dictionary_input, learn_dictionary, learn_from};
pub use extraction::{
    FeaturePrefetch, FeatureRequest, PrefetchedFeatures, Seen, extract, extract_size,
};
pub use features::{
    Beginning, Clustered, cluster_features, group_features, label_by_clusters, label_by_groups,
};
pub use first_labels::{Descriptors, FirstLabels};
pub use module::{BACKBONE, Module, ModuleTraining, Rule, Update};
use options::method_options;
pub use options::{Flag, MethodOption, option_table, parse_options, tables_of};

/// A way to learn without labels. Everything random comes from the context's seed and position, so
/// that a resumed run goes on exactly as it would have.
pub trait Method {
    /// What must be known of all images before the first batch of a run (frequencies, seed patches); what
    /// it finds belongs to the state.
    fn begin(&mut self, _context: &Context) -> Result<()> {
        Ok(())
    }

    /// The number of images seen at which labels are next due; `None` when no step is to come.
    fn next_label_step(&self) -> Option<u64> {
        None
    }

    /// Makes new pseudo-labels. May look at the whole data set through the context.
    fn label_step(&mut self, _context: &Context) -> Result<LabelStep> {
        bail!("this method has no label step")
    }

    /// The order of the coming images, at the start of an epoch or after a label step that asks for
    /// a new one.
    fn order(&self, images: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u32> {
        sampler::shuffled(images, rng)
    }

    /// The updates that a batch makes at this place of the run, in turn: one of everything, or several
    /// where networks are trained against each other (a generator and its discriminator).
    fn updates(&self, _position: Position) -> Vec<Update> {
        vec![Update::default()]
    }

    /// The loss of a batch, or of a part of it, in the update of that number. Changes nothing: it runs once
    /// for each part, and again where memory did not suffice.
    fn loss(&self, context: &Context, batch: &Batch, update: usize) -> Result<Loss>;

    /// Takes over what the losses of an update have kept, a part of the batch after the other, once the
    /// update is made.
    fn after_update(&mut self, _context: &Context, _update: usize, _kept: Vec<Kept>) -> Result<()> {
        Ok(())
    }

    /// How the backbone is trained, where that differs from what the run's options say.
    fn backbone(&self) -> ModuleTraining {
        ModuleTraining::default()
    }

    /// What is trained beside the backbone (heads, a second network), with its optimiser's options.
    fn modules(&self) -> Vec<Module<'_>>;

    /// Labels that fit the network as it is, and the rule that gives them: after the last epoch.
    fn last_labels(&mut self, context: &Context) -> Result<Labelling> {
        label_by_clusters(
            context,
            Beginning::for_last_labels(context),
            Empty::default(),
        )
    }

    /// Correct predictions of the pretext task among those asked for, on images of any origin;
    /// `None` where the task has no answer for images that were not trained on.
    fn pretext_accuracy(&self, _context: &Context, _batch: &Batch) -> Option<(i64, i64)> {
        None
    }

    /// What the method sees of images and what it predicts, for people: a panel for each image or so.
    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>>;

    /// What a resumed run needs beside the modules' parameters, saved and restored by one function. A
    /// restored method may give other modules than before.
    fn archive(&mut self, _archive: &mut Archive) -> Result<()> {
        Ok(())
    }
}

/// What a label step came to.
#[derive(Debug)]
pub struct LabelStep {
    /// The labels of every image, for each head.
    pub labels: Vec<Vec<u32>>,
    /// The method's part of the record; the loop fills in the rest.
    pub record: LabelStepRecord,
    /// Modules whose optimiser starts afresh, because their parameters were drawn anew.
    pub reset: Vec<String>,
    /// Whether the images come in a new order from here on.
    pub new_order: bool,
}

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// A scalar with its graph.
    pub value: Tensor,
    /// Correct predictions (a scalar on the device, read later) among how many.
    pub correct: Option<(Tensor, i64)>,
    /// Other figures for `metrics.jsonl`, by name: scalars, of which the mean over the images counts.
    pub metrics: BTreeMap<String, Tensor>,
    /// Without graphs, for [`Method::after_update`].
    pub kept: BTreeMap<String, Tensor>,
}

impl Loss {
    /// A loss and nothing else.
    pub fn of(value: Tensor) -> Self {
        Self {
            value,
            correct: None,
            metrics: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }
}

/// What the loss of some images has kept.
#[derive(Debug)]
pub struct Kept {
    /// Which images.
    pub indices: Vec<u32>,
    pub tensors: BTreeMap<String, Tensor>,
}

/// Labels for all images and for those to come.
#[derive(Debug)]
pub struct Labelling {
    pub assignments: Assignments,
    pub assigner: Box<dyn Assigner>,
    pub record: LabelStepRecord,
}

/// What a method is built from; a method that has others as its tasks gives them options of their own.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    pub config: &'a Config,
    /// The method's own options, complete.
    pub options: &'a toml::Table,
    pub network: &'a Network,
    /// Images in the data set.
    pub images: usize,
}

/// One method of the registry.
#[derive(Debug)]
pub struct MethodEntry {
    pub name: &'static str,
    pub help: &'static str,
    pub paper: &'static str,
    /// Defaults that differ from the program's, for such images on such a device.
    pub preset: fn(&Facts) -> Settings,
    /// What the first label step begins with, where it comes before the first batch: features that can be
    /// extracted while images are decoded.
    pub first: fn(&toml::Table) -> Option<FeatureRequest>,
    /// What it learns from, made of the user's images: these themselves ([`as_they_are`]), or pieces, pairs,
    /// views of them. Labels are given for the same.
    pub items: fn(&toml::Table, Arc<ImageSet>) -> Arc<dyn Items>,
    /// The method's own options.
    pub options: &'static [MethodOption],
    /// Their defaults (`[method]` of the TOML).
    pub defaults: fn() -> toml::Table,
    /// Refuses values of these options that cannot work, and puts numbers in place of those that
    /// leave the choice to the program.
    pub resolve: fn(&Config, &mut toml::Table) -> Result<Vec<Choice>>,
    pub build: fn(&Build) -> Result<Box<dyn Method>>,
    /// Whether its pretext task has an answer for images that were not trained on:
    /// [`Method::pretext_accuracy`].
    pub pretext: bool,
}

/// The images themselves: [`MethodEntry::items`] of most methods.
pub fn as_they_are(_options: &toml::Table, images: Arc<ImageSet>) -> Arc<dyn Items> {
    images
}

/// All methods, the default first.
pub const METHODS: &[&MethodEntry] = &[
    &deepcluster::ENTRY,
    &sela::ENTRY,
    &rotation::ENTRY,
    &context_prediction::ENTRY,
    &colorization::ENTRY,
    &multitask::ENTRY,
    &transfer::ENTRY,
];

/// What the defaults of a run take from the registries.
pub const REGISTRY: Registry = Registry {
    method: deepcluster::ENTRY.name,
    engine: kmeans::ENGINE.name,
    arch: model::default_backbone,
    light: model::is_light,
};

/// The method of that name.
pub fn method(name: &str) -> Option<&'static MethodEntry> {
    METHODS.iter().copied().find(|entry| entry.name == name)
}

impl MethodEntry {
    /// Completes a method's own `options`: keys that the method does not have and values that cannot work
    /// are refused, what is missing or left open is chosen.
    pub fn complete(&self, config: &Config, options: &mut toml::Table) -> Result<Vec<Choice>> {
        let mut known = (self.defaults)();
        if let Some(key) = options.keys().find(|key| !known.contains_key(*key)) {
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            let own = if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            };
            return Err(crate::error::usage(format!(
                "method '{}' has no option '{key}'; its own are: {own}",
                self.name
            )));
        }
        known.extend(std::mem::take(options));
        *options = known;
        (self.resolve)(config, options)
    }

    /// Completes the `[method]` table of a run's options, as [`Self::complete`].
    pub fn complete_in(&self, config: &mut Config) -> Result<Vec<Choice>> {
        let mut options = std::mem::take(&mut config.method);
        let choices = self.complete(config, &mut options);
        config.method = options;
        choices
    }
}
