//! The records of `metrics.jsonl`: one for each epoch and one for each label step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of `metrics.jsonl`. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    Epoch(EpochRecord),
    Labels(LabelStepRecord),
}

/// What an epoch of training came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1 on.
    pub epoch: u64,
    /// Images seen since the start of the run.
    pub images_seen: u64,
    /// Mean over the epoch's batches.
    pub loss: f64,
    /// Share of training views whose pretext label was predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Other figures of the method, means over the epoch's images.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Learning rate at the end of the epoch.
    pub lr: f64,
    pub images_per_second: f64,
    /// Seconds by phase, label steps within the epoch included.
    pub seconds: BTreeMap<String, f64>,
    /// Seconds by part of the work since the record before (`--profile`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<BTreeMap<String, f64>>,
}

/// What a label step came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelStepRecord {
    /// From 1 on.
    pub step: u64,
    /// Epochs done, with fractions.
    pub epoch: f64,
    pub images_seen: u64,
    pub clusters: usize,
    pub nonempty: usize,
    pub size_min: usize,
    pub size_max: usize,
    /// Empty clusters that were given points (k-means).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reassigned: Option<usize>,
    /// Sum of squared distances (k-means).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<f64>,
    /// Principal components kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<usize>,
    /// Convergence error (Sinkhorn).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// Transport cost (Sinkhorn).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// How often nearest neighbours among the images have the same label, without what chance gives: 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Normalised mutual information with the labels of the step before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nmi_previous: Option<f64>,
    /// ... and with the folder names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nmi_classes: Option<f64>,
    pub seconds: BTreeMap<String, f64>,
}
