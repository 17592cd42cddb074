//! What can be typed for `cluster`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cluster::Empty;
use crate::cluster::sinkhorn::Solver;
use crate::commands::named::named;
use crate::commands::options::{Machine, at_least_one, engines};

/// Cluster any features.
#[derive(Debug, Args)]
#[command(after_help = CLUSTER_EXAMPLES)]
pub struct ClusterArgs {
    /// Features [n, d] (.npy, .safetensors, .csv, .jsonl; `-` is CSV or JSON arrays on stdin); with
    /// --method sinkhorn scores [n, k]
    pub features: PathBuf,
    /// Number of clusters (k-means, where --init does not tell)
    #[arg(long, short = 'k')]
    pub clusters: Option<usize>,
    /// K-means; labels of equal sizes by optimal transport; power iteration on the graph of nearest
    /// neighbours, which finds the number of clusters itself; Ward's linkage, exact up to 20,000 rows
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
    #[arg(long, value_parser = named::<Empty>())]
    pub empty: Option<Empty>,
    /// A weight for each row (k-means, Ward), in a file of one column
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
    #[arg(long, value_parser = named::<Solver>())]
    pub solver: Option<Solver>,
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
  ssl-cluster cluster features.npy --method ward -k 20 --l2

Each line on stdout is {\"index\":0,\"label\":17,\"distance\":0.41}; index counts the rows from 0, and
distance, which only k-means gives, is that to the centroid. With --pca, --whiten or --l2, centroids and
distances are those of the projected rows.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterMethod {
    Kmeans,
    Sinkhorn,
    Pic,
    Ward,
}

impl ClusterMethod {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kmeans => "kmeans",
            Self::Sinkhorn => "sinkhorn",
            Self::Pic => "pic",
            Self::Ward => "ward",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scores {
    Logits,
    Probabilities,
}
