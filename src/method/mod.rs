//! What a method of self-supervised learning must answer, and the table of all of them.
//!
//! The loop in `train` owns data, optimiser, schedule, checkpoints and metrics, and asks a
//! [`Method`]: when are the labels due again, what are they, in which order are images seen, what is
//! the loss of this batch, what must be saved. DeepCluster, SeLa and rotation differ only there.
//!
//! To add a method: one file here that ends in a [`MethodEntry`], and one line in [`METHODS`].

mod bank;
mod context;
mod deepcluster;
mod extraction;
mod features;
mod room;
mod rotation;
mod sela;

use std::collections::BTreeMap;

use anyhow::Result;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Tensor, nn};

use crate::cluster::assigner::{Assigner, Assignments};
use crate::config::defaults::{Choice, Facts};
use crate::config::{Config, Settings};
use crate::data::sampler;
use crate::model::network::Network;
use crate::record::LabelStepRecord;

pub use bank::{FeatureSource, FeaturesFrom};
pub use context::{Batch, Context, Position, View};
pub use extraction::{Ahead, Ready, Wanted, extract, extract_size};
pub use features::{cluster_features, group_features, label_by_clusters, label_by_groups};

/// A way to learn without labels. Everything random comes from the context's seed and position, so
/// that a resumed run goes on exactly as it would have.
pub trait Method {
    /// The number of images seen at which labels are next due; `None` when no step is to come.
    fn next_label_step(&self) -> Option<u64>;

    /// Makes new pseudo-labels. May look at the whole data set through the context.
    fn label_step(&mut self, context: &Context) -> Result<LabelStep>;

    /// The order of the coming images, at the start of an epoch or after a label step that asks for
    /// a new one.
    fn order(&self, images: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u32> {
        sampler::shuffled(images, rng)
    }

    /// Updates made for each batch: 1, or more where networks are trained in turn (a generator and
    /// its discriminator).
    fn phases(&self) -> usize {
        1
    }

    /// The loss of a batch in a phase.
    fn loss(&mut self, context: &Context, batch: &Batch, phase: usize) -> Result<Loss>;

    /// What is trained beside the backbone (heads, a second network), with its optimiser's options.
    fn modules(&self) -> Vec<Module<'_>>;

    /// Labels that fit the network as it is, and the rule that gives them: after the last epoch.
    fn last_labels(&mut self, context: &Context) -> Result<Labelling>;

    /// Correct predictions of the pretext task among those asked for, on images of any origin;
    /// `None` where the task has no answer for images that were not trained on.
    fn pretext_accuracy(&self, _context: &Context, _batch: &Batch) -> Option<(i64, i64)> {
        None
    }

    /// What a resumed run needs beside the modules' parameters.
    fn state(&self) -> State;

    /// Takes over what [`Self::state`] gave.
    fn restore(&mut self, state: State) -> Result<()>;
}

/// What a label step came to.
#[derive(Debug)]
pub struct LabelStep {
    /// The labels of every image, for each head.
    pub labels: Vec<Vec<u32>>,
    /// The method's part of the record; the loop fills in the rest.
    pub record: LabelStepRecord,
    /// Modules whose optimiser starts afresh, because their parameters were drawn anew.
    pub fresh: Vec<&'static str>,
    /// Whether the images come in a new order from here on.
    pub new_order: bool,
}

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// A scalar with its graph.
    pub value: Tensor,
    /// Names of the modules that this loss trains; empty for all, with the backbone.
    pub trains: &'static [&'static str],
    /// Correct predictions (a scalar on the device, read later) among how many.
    pub correct: Option<(Tensor, i64)>,
}

/// Parameters with the options of their optimiser.
#[derive(Debug)]
pub struct Module<'a> {
    pub name: &'static str,
    pub store: &'a nn::VarStore,
    /// Differs from the run's momentum where given.
    pub momentum: Option<f64>,
}

/// The name under which the backbone is trained beside the methods' modules.
pub const BACKBONE: &str = "backbone";

/// Labels for all images and for those to come.
#[derive(Debug)]
pub struct Labelling {
    pub assignments: Assignments,
    pub assigner: Assigner,
    pub record: LabelStepRecord,
}

/// What a method keeps between steps.
#[derive(Debug, Default)]
pub struct State {
    pub tensors: Vec<(String, Tensor)>,
    pub values: BTreeMap<String, serde_json::Value>,
}

impl State {
    /// Takes a tensor out.
    pub fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let index = self.tensors.iter().position(|(have, _)| have == name);
        index
            .map(|index| self.tensors.swap_remove(index).1)
            .ok_or_else(|| anyhow::anyhow!("the checkpoint has no '{name}'"))
    }

    /// Reads a value.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.values.get(name).cloned();
        let value = value.ok_or_else(|| anyhow::anyhow!("the checkpoint has no '{name}'"))?;
        Ok(serde_json::from_value(value)?)
    }
}

/// What a method is built from.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    pub config: &'a Config,
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
    pub first: fn(&Config) -> Option<Wanted>,
    /// The method's own options (`--set key=value`, `[method]` of the TOML) with their defaults.
    pub options: fn() -> toml::Table,
    /// What each of them means, with its values.
    pub option_help: &'static [(&'static str, &'static str)],
    /// Refuses values of these options that cannot work, and puts numbers in place of those that
    /// leave the choice to the program.
    pub resolve: fn(&mut Config) -> Result<Vec<Choice>>,
    pub build: fn(&Build) -> Result<Box<dyn Method>>,
    /// Whether its pretext task has an answer for images that were not trained on:
    /// [`Method::pretext_accuracy`].
    pub pretext: bool,
}

/// All methods, the default first.
pub const METHODS: &[&MethodEntry] = &[&deepcluster::ENTRY, &sela::ENTRY, &rotation::ENTRY];

/// The method of that name.
pub fn method(name: &str) -> Option<&'static MethodEntry> {
    METHODS.iter().copied().find(|entry| entry.name == name)
}

impl MethodEntry {
    /// Completes `config.method`: keys that the method does not have and values that cannot work
    /// are refused, what is missing or left open is chosen.
    pub fn complete_options(&self, config: &mut Config) -> Result<Vec<Choice>> {
        let mut known = (self.options)();
        if let Some(key) = config.method.keys().find(|key| !known.contains_key(*key)) {
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
        known.extend(std::mem::take(&mut config.method));
        config.method = known;
        (self.resolve)(config)
    }
}

/// A method's options from the `[method]` table, defaults where it is silent.
fn parse_options<T: DeserializeOwned + Serialize + Default>(given: &toml::Table) -> Result<T> {
    let mut table = option_table::<T>();
    table.extend(given.clone());
    toml::Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| {
            let text = error.to_string().trim_end().replace('\n', " ");
            crate::error::usage(format!("method options: {text}"))
        })
}

/// The defaults of a method's options as a table.
fn option_table<T: Serialize + Default>() -> toml::Table {
    toml::Table::try_from(T::default()).unwrap_or_default()
}
