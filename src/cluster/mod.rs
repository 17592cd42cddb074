//! Clustering by itself: features in, labels out. No network, disk or terminal in sight.
//!
//! - [`preprocess`]: PCA, whitening, L2 (what DeepCluster does to features before k-means)
//! - [`kmeans`]: Lloyd's algorithm with empty-cluster reassignment
//! - [`nearest`]: its exact search for the nearest centroids on a CPU, on the products of [`kernel`]
//! - [`linfa`]: the same through `linfa-clustering`, as a reference
//! - [`init`]: where the centroids of either start
//! - [`sinkhorn`]: equal-sized labels as an optimal-transport problem (SeLa's label step)
//! - [`pic`]: power iteration on the graph of nearest [`neighbours`]
//! - [`ward`]: Ward's hierarchical clustering, and [`linkage`], which cuts it
//! - [`copies`]: points that are there more than once
//! - [`transport`]: optimal transport by itself, exact for small problems
//! - [`assigner`]: labels for new points from what clustering learned
//! - [`metrics`]: NMI, ARI, matched accuracy, purity

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::comm::{Comm, OneProcess};
use crate::monitor::Interrupted;
use crate::random::{self, Purpose};
use crate::tensors::to_f64;
pub use init::Init;

mod arrays;
pub mod assigner;
pub mod copies;
mod init;
pub mod kernel;
pub mod kmeans;
pub mod linfa;
pub mod linkage;
pub mod metrics;
pub mod nearest;
pub mod neighbours;
mod one_thread;
pub mod pic;
pub mod points;
pub mod preprocess;
pub mod sinkhorn;
pub mod temi;
pub mod transport;
pub mod ward;

/// Why points could not be clustered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClusterError {
    #[error("{points} points cannot form {clusters} clusters: ask for at most {points}")]
    TooFewPoints { points: usize, clusters: usize },
    #[error("there are no points")]
    NoPoints,
    #[error("{points} points are too many for Ward's linkage, which takes {most}")]
    TooManyPoints { points: usize, most: usize },
    #[error("interrupted")]
    Interrupted,
    #[error("at least one cluster is needed")]
    NoClusters,
    #[error("row {row} holds NaN or infinity")]
    NotFinite { row: usize },
    #[error("row {row} holds values too large for single precision: scale the features down")]
    TooLarge { row: usize },
    #[error("expected {expected}, got shape {got:?}")]
    Shape { expected: String, got: Vec<i64> },
    #[error("{0}")]
    Options(String),
    #[error("linfa: {0}")]
    Linfa(String),
    #[error("another process could not go on")]
    OtherProcess,
}

impl ClusterError {
    /// The failure as it travels: what the user has stopped is [`Interrupted`], wherever that was noticed.
    pub fn or_interrupted(self) -> anyhow::Error {
        match self {
            Self::Interrupted => Interrupted.into(),
            other => other.into(),
        }
    }
}

/// An assignment of all points to their nearest centroids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Assignment {
    /// Sum of squared distances to the nearest centroid, by weight where points have weights.
    pub objective: f64,
    /// Points whose label changed.
    pub moved: usize,
    /// Empty clusters that were filled just before.
    pub reassigned: usize,
    /// Seconds spent, with the means before it.
    pub seconds: f64,
}

/// What a clusterer says of its work.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Every assignment: the first, to the initial centroids, and one for each iteration. An engine
    /// that does not tell gives the last one alone.
    pub history: Vec<Assignment>,
    pub iterations: usize,
    /// Seconds spent, without input and output.
    pub seconds: f64,
}

impl Statistics {
    /// Sum of squared distances to the nearest centroid for the labels that are returned.
    pub fn objective(&self) -> f64 {
        self.history.last().map_or(0.0, |last| last.objective)
    }

    /// Empty clusters that were filled, over all iterations.
    pub fn reassigned(&self) -> usize {
        self.history.iter().map(|step| step.reassigned).sum()
    }
}

/// Points divided among clusters by k-means.
#[derive(Debug)]
pub struct Clustering {
    /// `[n] i64`, on the device of the points.
    pub labels: Tensor,
    /// `[k, d] f32`, on the device of the points.
    pub centroids: Tensor,
    /// Points in each of the `k` clusters.
    pub sizes: Vec<usize>,
    pub statistics: Statistics,
}

/// What becomes of a cluster that no point chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Empty {
    /// It takes half of another one, drawn by size (DeepCluster, section 3.3; faiss).
    #[default]
    Split,
    /// It takes the point that is farthest from its own centroid.
    Farthest,
    /// It stays where it is, empty.
    Keep,
}

/// What every k-means engine is told.
#[derive(Debug, Clone, Copy)]
pub struct KMeansOptions<'a> {
    pub clusters: usize,
    pub iterations: usize,
    /// Stop once the objective falls by less than this share of itself; 0 stops only when no
    /// label changes.
    pub tolerance: f64,
    pub seed: u64,
    /// Points and centroids on the unit sphere: assignment by largest dot product.
    pub spherical: bool,
    pub init: Init<'a>,
    pub empty: Empty,
    /// Runs from other random starts, of which the best is taken.
    pub restarts: usize,
    /// Learn from so many points for each cluster at most, drawn at random; all are labelled.
    pub max_points_per_centroid: Option<usize>,
    /// How much each point counts, `[n]`, none negative; each 1 where not given. Random and spread
    /// initial centroids do not look at it.
    pub weights: Option<&'a Tensor>,
    /// Where the work is done, if not where the points lie: those that a device has no room for come to it
    /// block by block.
    pub device: Option<Device>,
    /// The processes that hold the points. Several start from [`Init::Random`] or given centroids, the same in
    /// each, look at all points, and do not know [`Empty::Farthest`].
    pub comm: &'static dyn Comm,
}

impl Default for KMeansOptions<'_> {
    /// DeepCluster's: 20 iterations from random points (`clustering.py: run_kmeans`).
    fn default() -> Self {
        Self {
            clusters: 2,
            iterations: 20,
            tolerance: 0.0,
            seed: 0,
            spherical: false,
            init: Init::Random,
            empty: Empty::Split,
            restarts: 1,
            max_points_per_centroid: None,
            weights: None,
            device: None,
            comm: &OneProcess,
        }
    }
}

/// Divides features `[n, d] f32` among clusters. Implementations are called with checked points
/// only: see [`cluster`].
pub trait Clusterer: std::fmt::Debug + Sync {
    /// Clusters `points` `[n, d] f32`, all finite, with `clusters <= n`.
    fn fit(&self, points: &Tensor, options: &KMeansOptions) -> Result<Clustering, ClusterError>;
}

/// One k-means engine of the registry.
#[derive(Debug)]
pub struct Engine {
    pub name: &'static str,
    pub help: &'static str,
    pub clusterer: &'static dyn Clusterer,
}

/// The k-means engines, the default first.
pub const ENGINES: &[&Engine] = &[&kmeans::ENGINE, &linfa::ENGINE];

/// The engine of that name.
pub fn engine(name: &str) -> Option<&'static Engine> {
    ENGINES.iter().copied().find(|engine| engine.name == name)
}

/// Checks `points` and `options`, then clusters with `engine`.
///
/// # Errors
/// Points that are not `[n, d]`, hold NaN or infinity (the first such row is named), or are fewer
/// than the clusters asked for; initial centroids of another shape; weights that are not one number
/// for each point, or none of them positive.
pub fn cluster(
    engine: &Engine,
    points: &Tensor,
    options: &KMeansOptions,
) -> Result<Clustering, ClusterError> {
    let (n, d) = matrix_size(points)?;
    if options.clusters == 0 {
        return Err(ClusterError::NoClusters);
    }
    let comm = options.comm;
    // Of several processes each has some.
    agreed(comm, some(n))?;
    let all = comm.sum_of(n as f64) as usize;
    if all < options.clusters {
        return Err(ClusterError::TooFewPoints {
            points: all,
            clusters: options.clusters,
        });
    }
    let drawn = matches!(options.init, Init::PlusPlus | Init::Parallel);
    let sampled = options.max_points_per_centroid.is_some();
    if comm.size() > 1 && (drawn || sampled || options.empty == Empty::Farthest) {
        return Err(ClusterError::Options(
            "several processes start from random or given centroids, look at all points, and split \
             clusters"
                .into(),
        ));
    }
    agreed(comm, check_finite(points))?;
    if let Init::Given(centroids) = options.init {
        let expected = [options.clusters as i64, d as i64];
        if centroids.size() != expected {
            return Err(ClusterError::Shape {
                expected: format!("initial centroids of shape {expected:?}"),
                got: centroids.size(),
            });
        }
        check_finite(centroids)?;
        let norms = centroids
            .to_kind(Kind::Double)
            .norm_scalaropt_dim(2, [1], false);
        if norms.max().double_value(&[]) > points::LARGEST {
            let row = norms.argmax(0, false).int64_value(&[]) as usize;
            return Err(ClusterError::Options(format!(
                "initial centroid {row} holds values too large for single precision"
            )));
        }
    }
    if let Some(weights) = options.weights {
        agreed(comm, check_weights(weights, n))?;
        check_total(comm.sum_of(total(weights)))?;
    }
    let started = std::time::Instant::now();
    let mut clustering = tch::no_grad(|| best_of(engine, points, options))?;
    clustering.statistics.seconds = started.elapsed().as_secs_f64();
    Ok(clustering)
}

/// A result of this process, unless another one has failed: then all of them end.
pub(crate) fn agreed<T>(
    comm: &dyn Comm,
    result: Result<T, ClusterError>,
) -> Result<T, ClusterError> {
    match comm.any(result.is_err()) {
        false => result,
        true => result.and(Err(ClusterError::OtherProcess)),
    }
}

/// That there are rows.
pub(crate) fn some(rows: usize) -> Result<(), ClusterError> {
    match rows {
        0 => Err(ClusterError::NoPoints),
        _ => Ok(()),
    }
}

/// The sum of weights.
pub(crate) fn total(weights: &Tensor) -> f64 {
    weights.sum(Kind::Double).double_value(&[])
}

/// Not all weights are 0.
pub(crate) fn check_total(total: f64) -> Result<(), ClusterError> {
    if total > 0.0 {
        return Ok(());
    }
    Err(ClusterError::Options("all weights are 0".into()))
}

/// One weight for each of `n` points, none negative.
pub(crate) fn check_weights(weights: &Tensor, n: usize) -> Result<(), ClusterError> {
    if weights.size() != [n as i64] {
        return Err(ClusterError::Shape {
            expected: format!("a weight for each of {n} points"),
            got: weights.size(),
        });
    }
    let values = to_f64(weights);
    let wrong = |weight: &f64| !(*weight >= 0.0 && weight.is_finite());
    match values.iter().position(wrong) {
        Some(row) => Err(ClusterError::Options(format!(
            "weight {row} is {}: weights are finite and not negative",
            values[row]
        ))),
        None => Ok(()),
    }
}

/// The best of `options.restarts` runs, by the objective.
fn best_of(
    engine: &Engine,
    points: &Tensor,
    options: &KMeansOptions,
) -> Result<Clustering, ClusterError> {
    let mut best = fit(engine, points, options)?;
    for restart in 1..options.restarts as u64 {
        let seed = random::key(options.seed, Purpose::Clustering, 3, restart);
        let next = fit(engine, points, &KMeansOptions { seed, ..*options })?;
        if next.statistics.objective() < best.statistics.objective() {
            best = next;
        }
    }
    Ok(best)
}

/// A run on all points, or on a sample where that is asked for.
fn fit(
    engine: &Engine,
    points: &Tensor,
    options: &KMeansOptions,
) -> Result<Clustering, ClusterError> {
    let n = points.size()[0] as usize;
    let most = options
        .max_points_per_centroid
        .map_or(n, |most| options.clusters.saturating_mul(most.max(1)));
    if n <= most {
        return engine.clusterer.fit(points, options);
    }
    let rows = init::random_rows(points, most, options.seed);
    let sample = points.index_select(0, &rows);
    let weights = options
        .weights
        .map(|weights| weights.index_select(0, &rows.to_device(weights.device())));
    let of_sample = KMeansOptions {
        weights: weights.as_ref(),
        ..*options
    };
    let mut clustering = engine.clusterer.fit(&sample, &of_sample)?;
    let started = std::time::Instant::now();
    let points = kmeans::prepared(points, options.spherical);
    let device = options.device.unwrap_or(points.device());
    let mut all = points::points(
        &points,
        options.weights,
        options.clusters,
        device,
        false,
        options.comm,
    )?;
    let last = all.assign(&clustering.centroids).assignment;
    (clustering.labels, clustering.sizes) = (all.labels(), all.sizes());
    clustering.statistics.history.push(Assignment {
        seconds: started.elapsed().as_secs_f64(),
        ..last
    });
    Ok(clustering)
}

/// `(rows, columns)` of a matrix.
pub(crate) fn matrix_size(matrix: &Tensor) -> Result<(usize, usize), ClusterError> {
    match matrix.size()[..] {
        [rows, columns] if columns > 0 => Ok((rows as usize, columns as usize)),
        _ => Err(ClusterError::Shape {
            expected: "a matrix [n, d]".into(),
            got: matrix.size(),
        }),
    }
}

/// Names the first row of `matrix` that holds NaN or infinity.
pub(crate) fn check_finite(matrix: &Tensor) -> Result<(), ClusterError> {
    for (start, rows) in chunks(matrix, CHUNK_BYTES) {
        let bad = rows.isfinite().logical_not().any_dim(1, false);
        if bad.any().int64_value(&[]) != 0 {
            let row = bad.to_kind(Kind::Int).argmax(0, false).int64_value(&[]);
            return Err(ClusterError::NotFinite {
                row: start + row as usize,
            });
        }
    }
    Ok(())
}

/// Intermediate results are kept below this size, so that memory does not grow with `n * k`.
pub(crate) const CHUNK_BYTES: usize = 64 << 20;

/// `matrix` in blocks of rows, each at most `bytes` large in f64, with the first row's index.
pub(crate) fn chunks(matrix: &Tensor, bytes: usize) -> impl Iterator<Item = (usize, Tensor)> + '_ {
    let n = matrix.size()[0];
    let width: i64 = matrix.size()[1..].iter().product();
    let rows = rows_per_chunk(width as usize, bytes) as i64;
    (0..n)
        .step_by(rows as usize)
        .map(move |start| (start as usize, matrix.narrow(0, start, rows.min(n - start))))
}

/// Rows of `width` doubles that fit into `bytes`, at least one.
pub(crate) fn rows_per_chunk(width: usize, bytes: usize) -> usize {
    (bytes / (8 * width.max(1))).max(1)
}

/// Points in each of `k` clusters, from labels `[n] i64`.
pub fn sizes(labels: &Tensor, k: usize) -> Vec<usize> {
    let counts = labels.bincount(None::<Tensor>, k as i64);
    Vec::<i64>::try_from(&counts)
        .unwrap_or_default()
        .into_iter()
        .map(|c| c as usize)
        .collect()
}
