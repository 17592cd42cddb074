//! What is used: every option of a run, resolved, as it is written to `config.toml`.
//!
//! [`Settings`] is the same with every field optional: what was typed, what `--config` says and a
//! method's preset are layers of it, of which the first that knows a field wins. [`defaults`] fills
//! in the rest to fit the data and the device.

pub mod defaults;
mod values;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::{DeviceChoice, PrecisionChoice};
pub use values::{
    CacheChoice, Init, Inputs, Interpolation, Keep, PlainView, Schedule, WeightsFile,
};

/// Defines a section twice: resolved, and with optional fields.
macro_rules! section {
    ($(#[$meta:meta])* $config:ident / $settings:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $config { $($(#[$field_meta])* pub $field: $type,)* }

        #[doc = concat!("A layer of [`", stringify!($config), "`]: what it does not know is left to the next.")]
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $settings { $(pub $field: Option<$type>,)* }

        impl $settings {
            /// These settings, and `below` where they are silent.
            pub fn over(self, below: Self) -> Self {
                Self { $($field: self.$field.or(below.$field),)* }
            }

            /// These settings with every gap filled from `defaults`.
            pub fn complete(self, defaults: $config) -> $config {
                $config { $($field: self.$field.unwrap_or(defaults.$field),)* }
            }
        }
    };
}

section! {
    /// The images and how they are varied.
    DataConfig / DataSettings {
        /// Side of the network's input, in pixels.
        size: usize,
        /// Side at which images are kept; the plain view is its centre, crops come from all of it.
        store: usize,
        /// Where images are kept at that size. Runs of earlier versions do not name it.
        #[serde(default)]
        cache: CacheChoice,
        /// Share of the area that a random crop covers, from, to.
        crop_scale: [f64; 2],
        /// Mirror left and right at random.
        flip: bool,
        /// Strength of colour jitter (brightness, contrast, saturation, hue alike); 0 is none.
        jitter: f64,
        /// Probability of greyscale.
        greyscale: f64,
        /// Probability of a Gaussian blur.
        #[serde(default)]
        blur: f64,
        /// Probability that bright values are turned to dark ones.
        #[serde(default)]
        solarise: f64,
        /// Edges instead of colours: two Sobel filters on the grey image.
        sobel: bool,
        /// The network sees the mean of the colours alone.
        #[serde(default)]
        grey: bool,
        /// What of a kept square features are taken from.
        #[serde(default)]
        plain: PlainView,
        /// How images are resized to be kept.
        #[serde(default)]
        interpolation: Interpolation,
    }
}

section! {
    /// The network.
    ModelConfig / ModelSettings {
        arch: String,
        /// What its weights begin as.
        #[serde(default)]
        init: Init,
        /// The file that they come from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weights: Option<WeightsFile>,
        /// The backbone whose features are joined to those of the network where they are clustered, or `none`.
        #[serde(default = "nothing")]
        beside: String,
        /// Length of its features, where those of the network have one of 1.
        #[serde(default)]
        beside_length: f64,
    }
}

section! {
    /// The training.
    TrainConfig / TrainSettings {
        method: String,
        epochs: usize,
        batch_size: usize,
        /// Parts in which a batch goes through the network, for devices with little memory.
        #[serde(default = "one")]
        accumulate: usize,
        lr: f64,
        schedule: Schedule,
        /// Epochs in which the learning rate rises from 0 at first.
        #[serde(default)]
        warmup: f64,
        momentum: f64,
        weight_decay: f64,
        seed: u64,
        device: DeviceChoice,
        /// Runs of earlier versions, which do not name it, computed in f32.
        #[serde(default = "f32_alone")]
        precision: PrecisionChoice,
        threads: usize,
    }
}

section! {
    /// The clusters.
    ClusterConfig / ClusterSettings {
        clusters: usize,
        /// K-means engine.
        engine: String,
        /// K-means iterations for each label step.
        iterations: usize,
        /// Principal components kept at most.
        components: usize,
        /// Whether they are scaled to equal variance; else directions are what is clustered.
        #[serde(default = "yes")]
        whiten: bool,
    }
}

section! {
    /// What is kept.
    OutputConfig / OutputSettings {
        keep_labels: Keep,
    }
}

fn f32_alone() -> PrecisionChoice {
    PrecisionChoice::F32
}

fn yes() -> bool {
    true
}

fn nothing() -> String {
    NOTHING.into()
}

fn one() -> usize {
    1
}

/// What stands beside a network where nothing does.
pub const NOTHING: &str = "none";

/// Largest side of the network's input, and of what is kept for it.
const MOST_PIXELS: usize = 4096;

impl DataConfig {
    /// Refuses values that cannot work, with the option to change.
    pub fn validate(&self) -> Result<(), String> {
        let data = self;
        if data.size == 0 || data.store > MOST_PIXELS {
            let most = MOST_PIXELS * 7 / 8;
            return Err(format!(
                "--size must lie between 1 and {most}, not {}",
                data.size
            ));
        }
        if data.grey && data.sobel {
            return Err(
                "grey and --sobel exclude each other: edges are those of the grey image".into(),
            );
        }
        let [low, high] = data.crop_scale;
        if !(0.0 < low && low <= high && high <= 1.0) {
            return Err(format!(
                "--crop-scale must lie in 0..1, not {low} to {high}"
            ));
        }
        let shares = [data.jitter, data.greyscale, data.blur, data.solarise];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            return Err(
                "--jitter, --greyscale, --blur and --solarise must lie between 0 and 1".into(),
            );
        }
        Ok(())
    }
}

impl TrainSettings {
    /// Whether something is to be learned: a method or epochs are asked for, and not 0 of them.
    pub fn asks_to_learn(&self) -> bool {
        self.epochs != Some(0) && (self.method.is_some() || self.epochs.is_some())
    }
}

impl TrainConfig {
    /// The learning rate at `t` of the run, 0 to 1.
    pub fn lr_at(&self, t: f64) -> f64 {
        self.lr * self.schedule.factor(t, self.epochs, self.warmup)
    }
}

/// Every resolved option of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub run: RunInfo,
    pub data: DataConfig,
    pub model: ModelConfig,
    pub train: TrainConfig,
    pub cluster: ClusterConfig,
    pub output: OutputConfig,
    /// Options of the method alone: its file in `method/` defines them.
    #[serde(default)]
    pub method: toml::Table,
}

/// Where a run comes from; not an option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    pub version: String,
    pub command: String,
    /// The working directory: what a list of paths is relative to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Data directories, lists, shards or images.
    pub input: Inputs,
    /// Images found in it.
    pub images: usize,
}

/// One layer of options; also what a `--config` file may hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Ignored: lets a run's `config.toml` serve as a `--config` file.
    pub run: Option<toml::Table>,
    pub data: DataSettings,
    pub model: ModelSettings,
    pub train: TrainSettings,
    pub cluster: ClusterSettings,
    pub output: OutputSettings,
    pub method: toml::Table,
}

impl Settings {
    /// These settings, and `below` where they are silent.
    pub fn over(self, below: Self) -> Self {
        let mut method = below.method;
        method.extend(self.method);
        Self {
            run: None,
            data: self.data.over(below.data),
            model: self.model.over(below.model),
            train: self.train.over(below.train),
            cluster: self.cluster.over(below.cluster),
            output: self.output.over(below.output),
            method,
        }
    }
}

impl Config {
    /// Refuses values that cannot work, with the option to change.
    pub fn validate(&self) -> Result<(), String> {
        let (data, train, cluster) = (&self.data, &self.train, &self.cluster);
        let positive = |name: &str, value: f64| {
            let ok = value > 0.0 && value.is_finite();
            if ok {
                Ok(())
            } else {
                Err(format!("--{name} must be positive, not {value}"))
            }
        };
        positive("batch-size", train.batch_size as f64)?;
        positive("accumulate", train.accumulate as f64)?;
        positive("lr", train.lr)?;
        positive("threads", train.threads as f64)?;
        positive("iterations", cluster.iterations as f64)?;
        positive("components", cluster.components as f64)?;
        if self.run.images < 2 {
            return Err("one image cannot be clustered: at least 2 are needed".into());
        }
        if cluster.clusters < 2 {
            return Err("--clusters must be at least 2".into());
        }
        if cluster.clusters > self.run.images {
            return Err(format!(
                "{} images cannot form {} clusters: use `--clusters {}` or fewer",
                self.run.images,
                cluster.clusters,
                (self.run.images / 4).max(2)
            ));
        }
        if !(0.0..train.epochs.max(1) as f64).contains(&train.warmup) {
            return Err(format!(
                "--warmup must lie between 0 and the {} epochs of the run, not {}",
                train.epochs, train.warmup
            ));
        }
        data.validate()?;
        if !(0.0..1.0).contains(&train.momentum) || train.weight_decay < 0.0 {
            return Err("momentum must lie in 0..1 and weight decay must not be negative".into());
        }
        Ok(())
    }

    /// `config.toml`.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}
