//! What can be typed.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::cluster::sinkhorn::Solver;
use crate::cluster::{ENGINES, Empty};
use crate::config::{CacheChoice, Keep, Schedule};
use crate::device::{DeviceChoice, PrecisionChoice};
use crate::labels::FORMATS;
use crate::method::{Flag, METHODS, MethodOption};
use crate::model::BACKBONES;

/// Learn image features and labels without any human label.
#[derive(Debug, Parser)]
#[command(name = "ssl-cluster", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Print nothing but warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  ssl-cluster train photos/ --out runs/photos          learn from a folder of images
  ssl-cluster train --resume runs/photos               go on where it stopped
  ssl-cluster assign runs/photos new/ | jq -r 'select(.label==17).path'
  ssl-cluster eval runs/photos test/                   kNN accuracy, NMI, ARI where folders are classes
  ssl-cluster report runs/photos                       one HTML file to look at

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
3 inputs were skipped and --strict was given, 130 interrupted after saving.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Learn from a directory of images
    Train(Box<Train>),
    /// Label images with a trained run
    Assign(Assign),
    /// Extract features of images to a .npy file
    Features(Features),
    /// Cluster any features, from a file or stdin
    Cluster(Box<Cluster>),
    /// Optimal transport: what goes from where to where at the least cost
    Transport(Transport),
    /// Show what train would see of a folder: formats, sizes, copies, unreadable files, speed
    Inspect(Inspect),
    /// Measure features and labels where folder names are classes
    Eval(Eval),
    /// Write a run's HTML report
    Report(Report),
    /// Draw what a method sees of images and what it predicts
    Preview(Preview),
    /// List the methods with their papers and options
    Methods,
    /// Show what this machine offers: libtorch, CUDA, threads, memory
    Doctor(Doctor),
    /// Show, or clear, the decoded images that are kept on disk
    Cache(CacheArgs),
    /// Print a completion script for your shell
    Completions(Completions),
}

/// Learn from a directory of images.
#[derive(Debug, Args)]
#[command(after_help = TRAIN_EXAMPLES)]
pub struct Train {
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
    /// Start from these weights (.safetensors)
    #[arg(long, value_name = "WEIGHTS")]
    pub init: Option<PathBuf>,
    /// Passes over the images
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
    /// How the learning rate falls
    #[arg(long, value_enum)]
    pub schedule: Option<ScheduleArg>,
    /// Side of the network's input in pixels
    #[arg(long)]
    pub size: Option<usize>,
    /// Smallest share of the area that a random crop covers
    #[arg(long, value_name = "SHARE")]
    pub crop_scale: Option<f64>,
    /// Where decoded images are kept: auto (in memory where they fit, else on disk), ram, disk, off
    #[arg(long)]
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
    /// Principal components that k-means sees at most
    #[arg(long)]
    pub components: Option<usize>,
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

/// The flags of single methods, which come from the tables in their files.
#[derive(Debug, Default)]
pub struct MethodFlags(pub toml::Table);

impl MethodFlags {
    /// Each option that has a flag, with the methods that have it.
    fn flags() -> Vec<(&'static MethodOption, Vec<&'static str>)> {
        let mut flags: Vec<(&MethodOption, Vec<&str>)> = Vec::new();
        for entry in METHODS {
            for option in entry
                .options
                .iter()
                .filter(|option| option.flag != Flag::None)
            {
                match flags.iter_mut().find(|(known, _)| known.key == option.key) {
                    Some((_, methods)) => methods.push(entry.name),
                    None => flags.push((option, vec![entry.name])),
                }
            }
        }
        flags
    }
}

impl FromArgMatches for MethodFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut table = toml::Table::new();
        for (option, _) in Self::flags() {
            match option.flag {
                Flag::Switch if matches.get_flag(option.key) => {
                    table.insert(option.key.into(), true.into());
                }
                Flag::Value(_) => {
                    if let Some(text) = matches.get_one::<String>(option.key) {
                        table.insert(option.key.into(), toml_value(text));
                    }
                }
                Flag::Switch | Flag::None => {}
            }
        }
        Ok(Self(table))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

impl Args for MethodFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        Self::flags()
            .into_iter()
            .fold(command, |command, (option, methods)| {
                let flag = Arg::new(option.key)
                    .long(option.key.replace('_', "-"))
                    .help(format!("{}: {}", methods.join(", "), option.help));
                command.arg(match option.flag {
                    Flag::Value(name) => flag.value_name(name).allow_negative_numbers(true),
                    Flag::Switch | Flag::None => flag.action(ArgAction::SetTrue),
                })
            })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// Numbers and booleans as TOML reads them; anything else is text.
pub fn toml_value(text: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"));
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| text.into())
}

const TRAIN_EXAMPLES: &str = "\
Examples:
  ssl-cluster train photos/
  ssl-cluster train photos/ --method sela --clusters 500 --heads 3 --epochs 100
  ssl-cluster train photos/ --arch alexnet --sobel --size 224 --device cuda
  ssl-cluster train photos/ --epochs 5 --size 64          a quick look on a laptop
  ssl-cluster train --resume runs/photos";

fn listed(what: &str, names: impl IntoIterator<Item = &'static str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    format!("{what}: {}", names.join(", "))
}

fn backbones() -> String {
    listed("Backbone: auto", BACKBONES.iter().map(|entry| entry.name)).replacen("auto:", "auto,", 1)
}

fn engines() -> String {
    listed(
        "K-means engine, the first by default",
        ENGINES.iter().map(|engine| engine.name),
    )
}

fn formats() -> String {
    listed(
        "Format, the first by default",
        FORMATS.iter().map(|format| format.name),
    )
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("it must be a whole number".into()),
    }
}

/// Where to compute.
#[derive(Debug, Args)]
pub struct Machine {
    /// auto, cpu, cuda or cuda:INDEX
    #[arg(long, env = "SSL_CLUSTER_DEVICE")]
    pub device: Option<DeviceChoice>,
    /// CPU threads [default: one for each core]
    #[arg(long, value_parser = at_least_one)]
    pub threads: Option<usize>,
}

/// What networks compute in.
#[derive(Debug, Args)]
pub struct Numbers {
    /// f32, bf16, or auto: bf16 where the processor multiplies in it (`doctor` tells)
    /// [default: auto, or the run's]
    #[arg(long)]
    pub precision: Option<PrecisionChoice>,
}

/// See what train would see, before a night is spent on it.
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub struct Inspect {
    /// Directories, images, .tar shards, lists of paths, or `-` for a list on stdin
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Side of the network's input in pixels [default: train's]
    #[arg(long, value_parser = at_least_one)]
    pub size: Option<usize>,
    /// Passes of the loader, without a network, whose speed is measured; the first one decodes
    #[arg(long, default_value_t = 1)]
    pub epochs: usize,
    /// Make random views, as training does
    #[arg(long)]
    pub augment: bool,
    /// Strength of random brightness, contrast, saturation and hue, 0 to 1
    #[arg(long, requires = "augment")]
    pub jitter: Option<f64>,
    /// Where decoded images are kept: auto, ram, disk, off
    #[arg(long)]
    pub cache: Option<CacheChoice>,
    /// JSON on a terminal too
    #[arg(long)]
    pub json: bool,
    /// Fail with exit code 3 where images cannot be read
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub machine: Machine,
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  ssl-cluster inspect photos/
  ssl-cluster inspect photos/ --json | jq -r '.unreadable[].path'
  ssl-cluster inspect photos/ --json | jq -r '.duplicates[][1:][]'      all copies but the first
  ssl-cluster inspect shards/ --size 224 --epochs 3 --augment           how fast images come in";

/// Decoded images on disk.
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    pub action: Option<CacheAction>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum CacheAction {
    /// Remove them; runs decode anew
    Clear,
}

/// Label images with a trained run.
#[derive(Debug, Args)]
#[command(after_help = ASSIGN_EXAMPLES)]
pub struct Assign {
    /// The run that gives the labels
    pub run: PathBuf,
    /// Directories, images, .tar shards, lists of paths, or `-` for a list on stdin
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Write to a file instead of stdout; a .csv, .json or .jsonl name chooses the format
    #[arg(long, short)]
    pub out: Option<PathBuf>,
    #[arg(long, help = formats())]
    pub format: Option<String>,
    /// Use the backbone weights of this file instead of the run's
    #[arg(long, value_name = "WEIGHTS")]
    pub init: Option<PathBuf>,
    /// Fail with exit code 3 where images cannot be read
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub numbers: Numbers,
}

const ASSIGN_EXAMPLES: &str = "\
Examples:
  ssl-cluster assign runs/photos new/ > labels.jsonl
  ssl-cluster assign runs/photos new/ | jq -r 'select(.label==17).path'
  find . -name '*.jpg' | ssl-cluster assign runs/photos - --format csv > labels.csv
  ssl-cluster assign runs/photos one.jpg";

/// Extract features of images.
#[derive(Debug, Args)]
#[command(after_help = FEATURES_EXAMPLES)]
pub struct Features {
    /// A run and inputs (as for assign); with --arch only inputs
    #[arg(required = true, num_args = 1.., value_names = ["RUN", "INPUT"])]
    pub places: Vec<PathBuf>,
    /// Where to write the features [n, d] f32; paths go to the same name with .paths.txt
    #[arg(long, short)]
    pub out: PathBuf,
    /// Backbone, in place of a run
    #[arg(long)]
    pub arch: Option<String>,
    /// Its weights (.safetensors)
    #[arg(long, value_name = "WEIGHTS", requires = "arch")]
    pub init: Option<PathBuf>,
    /// Side of the network's input in pixels, with --arch [default: what the backbone was made for]
    #[arg(long, requires = "arch")]
    pub size: Option<usize>,
    /// Fail with exit code 3 where images cannot be read
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub numbers: Numbers,
}

const FEATURES_EXAMPLES: &str = "\
Examples:
  ssl-cluster features runs/photos new/ -o new.npy
  ssl-cluster features --arch resnet50 --init resnet50.safetensors photos/ -o photos.npy
  ssl-cluster cluster photos.npy --clusters 100 --pca 256 --whiten --l2";

/// Cluster any features.
#[derive(Debug, Args)]
#[command(after_help = CLUSTER_EXAMPLES)]
pub struct Cluster {
    /// Features [n, d] (.npy, .safetensors, .csv, .jsonl; `-` is CSV or JSON arrays on stdin); with
    /// --method sinkhorn scores [n, k]
    pub features: PathBuf,
    /// Number of clusters (k-means, where --init does not tell)
    #[arg(long, short = 'k')]
    pub clusters: Option<usize>,
    /// K-means; labels of equal sizes by optimal transport; power iteration on the graph of nearest
    /// neighbours, which finds the number of clusters itself
    #[arg(long, value_enum, default_value_t = ClusterMethod::Kmeans)]
    pub method: ClusterMethod,
    #[arg(long, help = engines())]
    pub engine: Option<String>,
    /// random, kmeans++, kmeans-par, or a file with centroids [k, d] [default: random]
    #[arg(long)]
    pub init: Option<String>,
    /// Runs from other random starts, of which the best is taken [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub restarts: Option<usize>,
    /// What an empty cluster gets: half of another one, the farthest point, or nothing
    /// [default: split]
    #[arg(long, value_enum)]
    pub empty: Option<EmptyArg>,
    /// A weight for each row (k-means), in a file of one column
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Learn from so many points for each cluster at most, drawn at random (all are labelled)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_points_per_centroid: Option<usize>,
    /// Iterations at most [default: 20; sinkhorn: 2000; pic: 200]
    #[arg(long)]
    pub iterations: Option<usize>,
    /// When to stop: relative gain of the objective (k-means), the authors' criterion (sinkhorn)
    /// [default: 0; sinkhorn: 0.1]
    #[arg(long)]
    pub tolerance: Option<f64>,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Cluster directions: points and centroids on the unit sphere
    #[arg(long)]
    pub spherical: bool,
    /// Reduce to this many principal components first
    #[arg(long, value_name = "D", value_parser = at_least_one)]
    pub pca: Option<usize>,
    /// Scale components to unit variance (with --pca, or keeping all)
    #[arg(long)]
    pub whiten: bool,
    /// Scale rows to unit length, after the projection
    #[arg(long)]
    pub l2: bool,
    /// Write the centroids [k, d] (.npy)
    #[arg(long, value_name = "FILE")]
    pub centroids: Option<PathBuf>,
    /// Write statistics (JSON)
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
    /// Sinkhorn: sizes that differ by one at most, at the least cost
    #[arg(long)]
    pub exact_balance: bool,
    /// Sinkhorn: what the scores are [default: logits]
    #[arg(long, value_enum)]
    pub input: Option<Scores>,
    /// Sinkhorn: exponent of the probabilities [default: 25]
    #[arg(long)]
    pub lambda: Option<f64>,
    /// Sinkhorn: the published algorithm, Newton's method on its dual, or whichever is cheaper
    /// [default: auto]
    #[arg(long, value_enum)]
    pub solver: Option<SolverArg>,
    /// Sinkhorn: gigabytes that the solver may take beside the scores [default: 8]
    #[arg(long, value_name = "GB")]
    pub memory: Option<f64>,
    /// Pic: edges from each row to its nearest others [default: 5]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub neighbours: Option<usize>,
    /// Pic: an edge weighs exp(-squared distance / sigma^2) [default: 0.2]
    #[arg(long)]
    pub sigma: Option<f64>,
    /// Pic: share of the density that comes along the edges [default: 0.001]
    #[arg(long)]
    pub alpha: Option<f64>,
    #[command(flatten)]
    pub machine: Machine,
}

const CLUSTER_EXAMPLES: &str = "\
Examples:
  ssl-cluster cluster features.npy --clusters 1000 > labels.jsonl
  ssl-cluster cluster features.npy -k 100 --pca 256 --whiten --l2 --centroids centroids.npy
  ssl-cluster cluster scores.npy --method sinkhorn --lambda 25 --stats stats.json
  ssl-cluster cluster features.npy --method pic --pca 256 --whiten --l2

Each line on stdout is {\"index\":0,\"label\":17,\"distance\":0.41}; index counts the rows from 0, and
distance, which only k-means gives, is that to the centroid. With --pca, --whiten or --l2, centroids and
distances are those of the projected rows.";

/// Optimal transport: what goes from where to where at the least cost.
#[derive(Debug, Args)]
#[command(after_help = TRANSPORT_EXAMPLES)]
pub struct Transport {
    /// Costs, a row for each supplier and a column for each consumer (.csv, .npy, .jsonl; `-`: stdin)
    pub costs: PathBuf,
    /// What each supplier has, separated by commas [default: equal shares of 1]
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub supply: Option<Vec<f64>>,
    /// What each consumer wants, separated by commas [default: equal shares of 1]
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub demand: Option<Vec<f64>>,
    /// Spread the plan by entropy: smaller values spread more
    #[arg(long)]
    pub lambda: Option<f64>,
    /// Solve exactly even where there are more than 10,000 entries
    #[arg(long, conflicts_with = "lambda")]
    pub exact: bool,
}

const TRANSPORT_EXAMPLES: &str = "\
Two warehouses hold 25 laptops each, two shops want 25 each; a laptop costs 1 from the first
warehouse to the first shop and 3 to the second, 2 and 1 from the second warehouse:
  printf '1,3\\n2,1\\n' | ssl-cluster transport - --supply 25,25 --demand 25,25
  {\"cost\":50.0,\"exact\":true,\"plan\":[[25.0,0.0],[0.0,25.0]]}

With entropy, some laptops go the longer way:
  printf '1,3\\n2,1\\n' | ssl-cluster transport - --supply 25,25 --demand 25,25 --lambda 1";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterMethod {
    Kmeans,
    Sinkhorn,
    Pic,
}

impl ClusterMethod {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kmeans => "kmeans",
            Self::Sinkhorn => "sinkhorn",
            Self::Pic => "pic",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmptyArg {
    Split,
    Farthest,
    Keep,
}

impl From<EmptyArg> for Empty {
    fn from(typed: EmptyArg) -> Self {
        match typed {
            EmptyArg::Split => Self::Split,
            EmptyArg::Farthest => Self::Farthest,
            EmptyArg::Keep => Self::Keep,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scores {
    Logits,
    Probabilities,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SolverArg {
    Auto,
    Sinkhorn,
    Newton,
}

impl From<SolverArg> for Solver {
    fn from(typed: SolverArg) -> Self {
        match typed {
            SolverArg::Auto => Self::Auto,
            SolverArg::Sinkhorn => Self::Sinkhorn,
            SolverArg::Newton => Self::Newton,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScheduleArg {
    Constant,
    Linear,
    Cosine,
    Steps,
    Drops,
}

impl From<ScheduleArg> for Schedule {
    fn from(typed: ScheduleArg) -> Self {
        match typed {
            ScheduleArg::Constant => Self::Constant,
            ScheduleArg::Linear => Self::Linear,
            ScheduleArg::Cosine => Self::Cosine,
            ScheduleArg::Steps => Self::Steps,
            ScheduleArg::Drops => Self::Drops,
        }
    }
}

/// Measure features and labels.
#[derive(Debug, Args)]
#[command(after_help = EVAL_EXAMPLES)]
pub struct Eval {
    /// The run to measure
    pub run: PathBuf,
    /// Images in class folders
    pub input: PathBuf,
    /// Images in class folders whose features vote [default: those of the training]
    #[arg(long, value_name = "DIR")]
    pub train: Option<PathBuf>,
    /// Neighbours that vote
    #[arg(long, default_value_t = 20)]
    pub neighbours: usize,
    /// A vote weighs exp(similarity / temperature)
    #[arg(long, default_value_t = 0.07)]
    pub temperature: f64,
    /// Also measure the features of the same network before training
    #[arg(long)]
    pub untrained: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub numbers: Numbers,
}

const EVAL_EXAMPLES: &str = "\
Examples:
  ssl-cluster eval runs/photos test/ --train photos/
  ssl-cluster eval runs/photos test/ --untrained | jq '.knn_accuracy - .knn_untrained'

A table on a terminal, JSON in a pipe.";

/// Write a run's HTML report.
#[derive(Debug, Args)]
pub struct Report {
    pub run: PathBuf,
    /// Where to write it [default: RUN/report.html]
    #[arg(long, short)]
    pub out: Option<PathBuf>,
    /// Also write the clusters as one picture (.png)
    #[arg(long, value_name = "FILE")]
    pub contact_sheet: Option<PathBuf>,
}

/// Draw what a method sees and predicts.
#[derive(Debug, Args)]
#[command(after_help = PREVIEW_EXAMPLES)]
pub struct Preview {
    /// A run, or a directory of images to see a method untrained
    #[arg(value_name = "RUN|DIR")]
    pub place: PathBuf,
    /// The method, for a directory
    #[arg(long, short)]
    pub method: Option<String>,
    /// Images for a run [default: those that it was trained on]
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Where to write the picture (.png)
    #[arg(long, short)]
    pub out: PathBuf,
    /// Images that are shown
    #[arg(long, default_value_t = 8, value_parser = at_least_one)]
    pub count: usize,
    /// An option of the method, for a directory
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub machine: Machine,
}

const PREVIEW_EXAMPLES: &str = "\
Examples:
  ssl-cluster preview photos/ --method context -o patches.png        before a night is spent on it
  ssl-cluster preview runs/photos -o seen.png                        what it has learned
  ssl-cluster preview runs/photos --images new/ --count 20 -o new.png";

/// Show what this machine offers.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Compute a little of everything on the device and compare it with the CPU
    #[arg(long)]
    pub check: bool,
    /// The device to check: auto, cpu, cuda or cuda:INDEX
    #[arg(long, requires = "check")]
    pub device: Option<DeviceChoice>,
}

/// Print a completion script.
#[derive(Debug, Args)]
pub struct Completions {
    pub shell: clap_complete::Shell,
}
