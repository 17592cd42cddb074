//! K-means by Lloyd's algorithm as DeepCluster runs it through faiss: L2 distance, random distinct
//! points as initial centroids, and empty clusters given a share of a large one.
//!
//! Each iteration computes the squared distances `‖x‖² − 2 x·c + ‖c‖²` by one matrix product for
//! each block of rows (memory: 64 MiB beside the points, independent of n and k) and the means of
//! the points that chose each centroid. Source: facebookresearch/deepcluster `clustering.py`;
//! facebookresearch/faiss `Clustering.cpp`.

use rand::Rng;
use rand::seq::index;
use tch::{Device, Kind, Tensor};

use super::preprocess::l2_rows;
use super::{
    CHUNK_BYTES, ClusterError, Clusterer, Clustering, Engine, Init, KMeansOptions, Statistics,
    chunks, rows_per_chunk, sizes,
};
use crate::random::{Purpose, stream};

/// The registry entry.
pub const ENGINE: Engine = Engine {
    name: "tensor",
    help: "matrix products on libtorch, CPU and CUDA; empty clusters are reassigned",
    clusterer: &TensorKMeans,
};

/// Lloyd's algorithm on tensors.
#[derive(Debug)]
pub struct TensorKMeans;

impl Clusterer for TensorKMeans {
    fn fit(&self, points: &Tensor, options: &KMeansOptions) -> Result<Clustering, ClusterError> {
        let points = &if options.spherical {
            l2_rows(&points.to_kind(Kind::Float))
        } else {
            points.to_kind(Kind::Float)
        };
        let k = options.clusters;
        let mut rng = stream(options.seed, Purpose::Clustering, 1, 0);
        let mut centroids = initial_centroids(points, options)?;
        let mut statistics = Statistics::default();
        let mut nearest = assign(points, &centroids);
        for _ in 0..options.iterations {
            statistics.objective.push(nearest.objective);
            let counts = sizes(&nearest.labels, k);
            centroids = means(points, &nearest.labels, &centroids, &counts);
            statistics.reassigned += split_empty(&mut centroids, counts, &mut rng);
            if options.spherical {
                centroids = l2_rows(&centroids);
            }
            statistics.iterations += 1;
            let next = assign(points, &centroids);
            let settled = next.labels.equal(&nearest.labels);
            let gain = nearest.objective - next.objective;
            nearest = next;
            if settled || (gain >= 0.0 && gain < options.tolerance * nearest.objective) {
                break;
            }
        }
        statistics.objective.push(nearest.objective);
        let sizes = sizes(&nearest.labels, k);
        Ok(Clustering {
            labels: nearest.labels,
            centroids,
            sizes,
            statistics,
        })
    }
}

/// Initial centroids `[k, d] f32` as `options` say.
pub(super) fn initial_centroids(
    points: &Tensor,
    options: &KMeansOptions,
) -> Result<Tensor, ClusterError> {
    let centroids = match options.init {
        Init::Given(centroids) => centroids.to_kind(Kind::Float).to_device(points.device()),
        Init::PlusPlus => super::linfa::plus_plus(points, options.clusters, options.seed)?,
        Init::Random => random_rows(points, options.clusters, options.seed),
    };
    Ok(if options.spherical {
        l2_rows(&centroids)
    } else {
        centroids.copy()
    })
}

/// `count` different rows of `points`, drawn at random.
pub(super) fn random_rows(points: &Tensor, count: usize, seed: u64) -> Tensor {
    let mut rng = stream(seed, Purpose::Clustering, 0, 0);
    let rows: Vec<i64> = index::sample(&mut rng, points.size()[0] as usize, count)
        .into_iter()
        .map(|row| row as i64)
        .collect();
    points.index_select(0, &Tensor::from_slice(&rows).to_device(points.device()))
}

struct Nearest {
    /// `[n] i64`
    labels: Tensor,
    /// Sum of squared distances.
    objective: f64,
}

/// The nearest centroid of every point; ties go to the smaller index.
fn assign(points: &Tensor, centroids: &Tensor) -> Nearest {
    let k = centroids.size()[0] as usize;
    let half_norms = centroids.square().sum_dim_intlist(1, false, Kind::Float) * -0.5;
    let transposed = centroids.transpose(0, 1);
    let bytes = CHUNK_BYTES.min(rows_per_chunk(k, CHUNK_BYTES) * 8 * points.size()[1] as usize);
    let (mut labels, mut objective) = (
        Vec::new(),
        Tensor::zeros(1, (Kind::Double, points.device())),
    );
    for (_, rows) in chunks(points, bytes) {
        // argmin ‖x − c‖² = argmax (x·c − ‖c‖²/2)
        let (score, label) = half_norms.addmm(&rows, &transposed).max_dim(1, false);
        let squared = rows.square().sum_dim_intlist(1, false, Kind::Float) - score * 2.0;
        objective += squared.clamp_min(0.0).sum(Kind::Double);
        labels.push(label);
    }
    Nearest {
        labels: Tensor::cat(&labels, 0),
        objective: objective.double_value(&[0]),
    }
}

/// The mean of the points of each cluster `[k, d]`; an empty cluster keeps its centroid.
fn means(points: &Tensor, labels: &Tensor, centroids: &Tensor, counts: &[usize]) -> Tensor {
    let sums = match points.device() {
        Device::Cpu => centroids.zeros_like().index_add(0, labels, points),
        // CUDA's index_add adds in whatever order the threads arrive; products repeat exactly.
        _ => sums_by_products(points, labels, centroids),
    };
    let counts: Vec<f32> = counts.iter().map(|&count| count as f32).collect();
    let counts = Tensor::from_slice(&counts)
        .to_device(points.device())
        .unsqueeze(1);
    (sums / counts.clamp_min(1.0)).where_self(&counts.gt(0.0), centroids)
}

fn sums_by_products(points: &Tensor, labels: &Tensor, centroids: &Tensor) -> Tensor {
    let k = centroids.size()[0];
    let mut sums = centroids.zeros_like();
    let bytes =
        CHUNK_BYTES.min(rows_per_chunk(k as usize, CHUNK_BYTES) * 8 * points.size()[1] as usize);
    for (start, rows) in chunks(points, bytes) {
        let chosen = labels.narrow(0, start as i64, rows.size()[0]);
        sums += chosen
            .one_hot(k)
            .to_kind(Kind::Float)
            .transpose(0, 1)
            .matmul(&rows);
    }
    sums
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
