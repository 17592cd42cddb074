//! What can be typed for `train`.

use std::path::PathBuf;

use clap::Args;

use super::method_flags::MethodFlags;
use crate::commands::named::named;
use crate::commands::options::{Machine, Numbers, at_least_one, engines, init, listed};
use crate::config::{CacheChoice, Init, Keep, Schedule};
use crate::model::BACKBONES;

/// Learn from a directory of images.
#[derive(Debug, Args)]
#[command(after_help = TRAIN_EXAMPLES, allow_negative_numbers = true)]
pub struct TrainArgs {
    /// Directories of images (searched recursively), .tar shards, or text files with one path a line
    #[arg(required_unless_present = "resume", value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Run directory to make [default: runs/NAME, after the input]
    #[arg(long, short)]
    pub out: Option<PathBuf>,
    /// Go on with a run where it stopped
    #[arg(long, value_name = "RUN", conflicts_with_all = ["inputs", "out", "print_config"])]
    pub resume: Option<PathBuf>,
    /// Method: see `ssl-cluster methods`
    #[arg(long, short)]
    pub method: Option<String>,
    /// Number of clusters
    #[arg(long, short = 'k')]
    pub clusters: Option<usize>,
    #[arg(long, help = backbones())]
    pub arch: Option<String>,
    /// What the network starts from: auto (published weights where they are found, unless a method or epochs are
    /// asked for), none, imagenet (published weights), a file (.safetensors, .pth, .pt), or a run [default: auto]
    #[arg(long, value_name = "WEIGHTS", value_parser = init())]
    pub init: Option<Init>,
    /// A backbone whose features are joined to the network's where they are clustered: vlad, descriptors, any that has
    /// nothing to learn by gradients, or none [default: vlad beside a small network that is not trained further]
    #[arg(long, value_name = "BACKBONE")]
    pub beside: Option<String>,
    /// Passes over the images; 0 clusters the features of the network as it is
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Images a step
    #[arg(long)]
    pub batch_size: Option<usize>,
    /// Parts in which a batch goes through the network: less memory, the same gradient but for batch
    /// norm, whose statistics are those of a part [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub accumulate: Option<usize>,
    /// Learning rate
    #[arg(long)]
    pub lr: Option<f64>,
    /// How the learning rate falls: not at all, linear from 60 % of the run on, by a cosine, in steps (to a
    /// fifth at 30, 60 and 80 %), or by step-decay (to a tenth every 150 epochs) [default: the method's]
    #[arg(long, value_parser = named::<Schedule>())]
    pub schedule: Option<Schedule>,
    /// Epochs, fractions allowed, in which the learning rate rises from 0 at first [default: 0]
    #[arg(long, value_name = "EPOCHS")]
    pub warmup: Option<f64>,
    /// Side of the network's input in pixels
    #[arg(long)]
    pub size: Option<usize>,
    /// Smallest share of the area that a random crop covers
    #[arg(long, value_name = "SHARE")]
    pub crop_scale: Option<f64>,
    /// Where decoded images are kept: auto (in memory where they fit, else on disk), ram, disk, off
    #[arg(long, value_parser = named::<CacheChoice>())]
    pub cache: Option<CacheChoice>,
    /// Strength of random brightness, contrast, saturation and hue, 0 to 1
    #[arg(long)]
    pub jitter: Option<f64>,
    /// Share of the views that lose their colours
    #[arg(long, value_name = "SHARE")]
    pub greyscale: Option<f64>,
    /// Share of the views that are blurred
    #[arg(long, value_name = "SHARE")]
    pub blur: Option<f64>,
    /// Share of the views whose bright values are turned to dark ones
    #[arg(long, value_name = "SHARE")]
    pub solarise: Option<f64>,
    /// Do not mirror images (for text, or where left and right differ)
    #[arg(long)]
    pub no_flip: bool,
    /// Edges instead of colours (two Sobel filters)
    #[arg(long)]
    pub sobel: bool,
    /// Label files of past steps to keep: a number or `all`
    #[arg(long, value_name = "N|all")]
    pub keep_labels: Option<Keep>,
    #[arg(long, help = engines())]
    pub engine: Option<String>,
    /// Principal components that are clustered at most
    #[arg(long)]
    pub components: Option<usize>,
    /// Whether components are scaled to equal variance: true suits networks that learned from nothing, false
    /// features of trained ones
    #[arg(long, value_name = "BOOL")]
    pub whiten: Option<bool>,
    #[command(flatten)]
    pub own: MethodFlags,
    /// Any option of the method: see `ssl-cluster methods`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Options from a TOML file; a run's config.toml will do
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the resolved options as TOML and stop
    #[arg(long)]
    pub print_config: bool,
    /// Seed of everything random
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub numbers: Numbers,
    /// Measure where the time goes: a table at the end, and `profile` in metrics.jsonl
    #[arg(long)]
    pub profile: bool,
    /// Do not train, but fail with exit code 3, where images cannot be read
    #[arg(long)]
    pub strict: bool,
}

const TRAIN_EXAMPLES: &str = "\
Examples:
  ssl-cluster train photos/
  ssl-cluster train photos/ --method sela --clusters 500 --heads 3 --epochs 100
  ssl-cluster train photos/ --arch alexnet --sobel --size 224 --device cuda
  ssl-cluster train photos/ --epochs 5 --size 64          a quick look on a laptop
  ssl-cluster train --resume runs/photos";

fn backbones() -> String {
    listed("Backbone: auto", BACKBONES.iter().map(|entry| entry.name)).replacen("auto:", "auto,", 1)
}
