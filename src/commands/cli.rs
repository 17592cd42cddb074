//! The commands that can be typed; what each of them takes stands beside it.

use clap::{Parser, Subcommand};

use super::assign::AssignArgs;
use super::cache::CacheArgs;
use super::cluster::ClusterArgs;
use super::completions::CompletionsArgs;
use super::doctor::DoctorArgs;
use super::eval::EvalArgs;
use super::features::FeaturesArgs;
use super::inspect::InspectArgs;
use super::preview::PreviewArgs;
use super::report::ReportArgs;
use super::train::TrainArgs;
use super::transport::TransportArgs;

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
    Train(Box<TrainArgs>),
    /// Label images with a trained run
    Assign(AssignArgs),
    /// Extract features of images to a .npy file
    Features(FeaturesArgs),
    /// Cluster any features, from a file or stdin
    Cluster(Box<ClusterArgs>),
    /// Optimal transport: what goes from where to where at the least cost
    Transport(TransportArgs),
    /// Show what train would see of a folder: formats, sizes, copies, unreadable files, speed
    Inspect(InspectArgs),
    /// Measure features and labels where folder names are classes
    Eval(EvalArgs),
    /// Write a run's HTML report
    Report(ReportArgs),
    /// Draw what a method sees of images and what it predicts
    Preview(PreviewArgs),
    /// List the methods with their papers and options
    Methods,
    /// List the published weights that were found on this machine, for which --arch, and where
    Weights,
    /// Show what this machine offers: libtorch, CUDA, threads, memory
    Doctor(DoctorArgs),
    /// Show, or clear, the decoded images that are kept on disk
    Cache(CacheArgs),
    /// Print a completion script for your shell
    Completions(CompletionsArgs),
}
