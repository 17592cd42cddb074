//! K-means by Lloyd's algorithm as DeepCluster runs it through faiss: L2 distance, random distinct
//! points as initial centroids, and empty clusters given a share of a large one.
//!
//! Source: facebookresearch/deepcluster `clustering.py`; facebookresearch/faiss `Clustering.cpp`.
//! What an iteration costs is decided in [`points`](super::points).

use std::collections::HashSet;
use std::time::Instant;

use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;
use tch::{Kind, Tensor};

use super::init::initial_centroids;
use super::points::{self, Found, Points, Sums};
use super::{
    Assignment, ClusterError, Clusterer, Clustering, Empty, Engine, KMeansOptions, Statistics,
    agreed,
};
use crate::cluster::one_thread::OneThread;
use crate::random::{Purpose, stream};
use crate::tensors::l2_rows;

/// The registry entry.
pub const ENGINE: Engine = Engine {
    name: "tensor",
    help: "exact, by 16-bit products on a CPU and matrix products on CUDA; empty clusters are reassigned",
    clusterer: &TensorKMeans { products: false },
};

/// Lloyd's algorithm on tensors.
#[derive(Debug)]
pub struct TensorKMeans {
    /// Takes matrix products on a CPU too, as on other devices.
    pub products: bool,
}

impl Clusterer for TensorKMeans {
    fn fit(&self, points: &Tensor, options: &KMeansOptions) -> Result<Clustering, ClusterError> {
        let started = Instant::now();
        let _one_thread = (!self.products).then(OneThread::new);
        let tensor = prepared(points, options.spherical);
        let device = options.device.unwrap_or(tensor.device());
        let points = points::points(
            &tensor,
            options.weights,
            options.clusters,
            device,
            self.products,
            options.comm,
        );
        let points = agreed(options.comm, points)?;
        let centroids = initial_centroids(&tensor, options)?;
        let mut run = Run {
            tensor: &tensor,
            points,
            centroids: Tensor::new(),
            options,
            rng: stream(options.seed, Purpose::Clustering, 1, 0),
            history: Vec::new(),
            empty: 0,
        };
        run.assign(centroids, 0, started);
        run.iterate();
        Ok(Clustering {
            labels: run.points.labels(),
            sizes: run.sizes(),
            centroids: run.centroids,
            statistics: Statistics {
                iterations: run.history.len() - 1,
                history: run.history,
                seconds: 0.0,
            },
        })
    }
}

/// Lloyd's algorithm under way.
struct Run<'a> {
    tensor: &'a Tensor,
    points: Box<dyn Points + 'a>,
    /// Those of the last assignment in `history`.
    centroids: Tensor,
    options: &'a KMeansOptions<'a>,
    rng: Xoshiro256PlusPlus,
    history: Vec<Assignment>,
    /// Clusters that the last assignment left empty.
    empty: usize,
}

impl Run<'_> {
    /// Assigns all points to `centroids`, before which `reassigned` clusters were filled.
    fn assign(&mut self, centroids: Tensor, reassigned: usize, since: Instant) -> Assignment {
        let Found {
            assignment: found,
            empty,
        } = self.points.assign(&centroids);
        let comm = self.options.comm;
        let mut sums = [found.objective, found.moved as f64];
        comm.sum(&mut sums);
        let assignment = Assignment {
            reassigned,
            seconds: since.elapsed().as_secs_f64(),
            objective: sums[0],
            moved: sums[1] as usize,
        };
        self.centroids = centroids;
        self.empty = match comm.size() {
            1 => empty,
            _ => self.sizes().iter().filter(|&&size| size == 0).count(),
        };
        self.history.push(assignment);
        assignment
    }

    /// Iterates until nothing changes any more, little enough, or often enough.
    fn iterate(&mut self) {
        for _ in 0..self.options.iterations {
            let since = Instant::now();
            let mut centroids = self.means();
            let reassigned = if self.fills() {
                self.fill(&mut centroids)
            } else {
                0
            };
            if self.options.spherical {
                centroids = l2_rows(&centroids);
            }
            let before = self.history.last().map_or(0.0, |last| last.objective);
            let now = self.assign(centroids, reassigned, since);
            let gain = before - now.objective;
            let slow = gain >= 0.0 && gain < self.options.tolerance * now.objective;
            if now.moved == 0 || slow {
                break;
            }
        }
    }

    /// The mean of the points of each cluster `[k, d] f32`, by weight, where the centroids are; a cluster that
    /// is empty, or weighs nothing, keeps its centroid.
    fn means(&self) -> Tensor {
        let Sums {
            sums,
            masses,
            origin,
        } = self.points.sums();
        let comm = self.options.comm;
        let (sums, masses) = (comm.sum_tensor(sums), comm.sum_tensor(masses));
        let some = masses.gt(0.0);
        let masses = masses.where_self(&some, &masses.ones_like());
        let means = sums / masses;
        let means = origin.map_or(means.shallow_clone(), |origin| means + origin);
        let kept = self.centroids.to_device(some.device());
        let means = means.to_kind(Kind::Float).where_self(&some, &kept);
        means.to_device(self.centroids.device())
    }

    /// Points in each cluster, over all processes.
    fn sizes(&self) -> Vec<usize> {
        self.options.comm.sum_counts(&self.points.sizes())
    }

    /// Whether empty clusters are to be filled now.
    fn fills(&self) -> bool {
        self.empty > 0 && self.options.empty != Empty::Keep
    }

    /// Gives empty clusters something to hold; returns how many.
    fn fill(&mut self, centroids: &mut Tensor) -> usize {
        match self.options.empty {
            Empty::Split => split_empty(centroids, self.sizes(), &mut self.rng),
            Empty::Farthest => fill_empty(centroids, self.points.as_ref(), self.tensor),
            Empty::Keep => 0,
        }
    }
}

/// Points as the search takes them: contiguous f32, of unit length where that is asked for.
pub(super) fn prepared(points: &Tensor, spherical: bool) -> Tensor {
    let points = points.to_kind(Kind::Float);
    if spherical {
        l2_rows(&points)
    } else {
        points.contiguous()
    }
}

/// Gives every empty cluster half of another one, chosen with probability
/// `(size − 1) / (n − k)`: the centroid is copied, and the two are moved apart by a factor
/// `1 ± 1/1024` with alternating sign (faiss `Clustering.cpp: split_clusters`; DeepCluster,
/// section 3.3). Returns how many were empty.
pub(crate) fn split_empty(
    centroids: &mut Tensor,
    mut counts: Vec<usize>,
    rng: &mut impl Rng,
) -> usize {
    const STEP: f64 = 1.0 / 1024.0;
    let empty: Vec<usize> = (0..counts.len())
        .filter(|&cluster| counts[cluster] == 0)
        .collect();
    if empty.is_empty() {
        return 0;
    }
    let spare = counts.iter().sum::<usize>().saturating_sub(counts.len());
    let d = centroids.size()[1];
    let signs = Tensor::arange(d, (Kind::Float, centroids.device())).remainder(2.0) * -2.0 + 1.0;
    // The factor alone would not move a centroid that lies on the origin.
    let nudge = &signs * (1e-3 * STEP) * centroids.abs().mean(Kind::Float);
    for &cluster in &empty {
        let donor = choose_donor(&counts, spare, rng);
        let mut source = centroids.get(donor as i64);
        let mut target = centroids.get(cluster as i64);
        target.copy_(&(&source * (&signs * STEP + 1.0) + &nudge));
        let moved = &source * (&signs * -STEP + 1.0) - &nudge;
        source.copy_(&moved);
        counts[cluster] = counts[donor] / 2;
        counts[donor] -= counts[cluster];
    }
    empty.len()
}

/// Gives every empty cluster the point that is farthest from its centroid, of another cluster each.
/// Returns how many were filled.
fn fill_empty(centroids: &mut Tensor, points: &dyn Points, tensor: &Tensor) -> usize {
    let sizes = points.sizes();
    let empty = (0..sizes.len()).filter(|&cluster| sizes[cluster] == 0);
    if empty.clone().next().is_none() {
        return 0;
    }
    let (squared, labels) = points.squared_distances();
    let mut rows: Vec<usize> = (0..squared.len())
        .filter(|&row| sizes[labels[row] as usize] > 1)
        .collect();
    rows.sort_by(|&a, &b| squared[b].total_cmp(&squared[a]).then(a.cmp(&b)));
    let mut donors = HashSet::new();
    rows.retain(|&row| donors.insert(labels[row]));
    let pairs = empty.zip(rows);
    pairs
        .map(|(cluster, row)| {
            let point = tensor.get(row as i64);
            centroids.get(cluster as i64).copy_(&point);
        })
        .count()
}

fn choose_donor(counts: &[usize], spare: usize, rng: &mut impl Rng) -> usize {
    let largest = (0..counts.len())
        .max_by_key(|&cluster| counts[cluster])
        .unwrap_or(0);
    // Weights of other than the original sizes no longer sum to `spare`; the walk wraps around, and
    // its end after a bounded number of steps is the largest cluster.
    let walk = (0..counts.len())
        .cycle()
        .take(counts.len().saturating_mul(64));
    walk.into_iter()
        .find(|&cluster| {
            counts[cluster] > 1
                && rng.gen_range(0.0..1.0) * (spare.max(1) as f64) < (counts[cluster] - 1) as f64
        })
        .unwrap_or(largest)
}
