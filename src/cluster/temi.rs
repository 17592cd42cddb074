//! Clusters on which near neighbours agree: the objective of TEMI, for directions of clusters that a clustering has
//! begun.
//!
//! Adaloglou, Michels, Kalisch, Kollmann: Exploring the Limits of Deep Image Clustering using Pretrained Models,
//! BMVC 2023, <https://arxiv.org/abs/2303.17896>. There heads begin at random and are trained by Adam with a
//! teacher that follows them slowly; here they are the unit means of a clustering's clusters, which are far better
//! where images are few, and each step is the gradient over many points at once, divided by the weight of its
//! cluster, so that nothing is drawn and no rate has to be chosen.

use std::collections::HashSet;

use tch::{Device, Kind, Tensor};

use super::neighbours::Neighbours;
use super::{CHUNK_BYTES, ClusterError, matrix_size, rows_per_chunk};
use crate::tensors::{from_labels, l2_rows, to_labels};

/// Of each point's nearest others, those that it should agree with.
const PARTNERS: usize = 3;
/// Temperatures of the student's and of the sharper teacher's probabilities.
const STUDENT: f64 = 0.1;
const TEACHER: f64 = 0.05;
/// The paper's β: below 1, clusters need not become equally large.
const BETA: f64 = 0.6;
const STEPS: usize = 300;
/// Points of a step, and scores at most: of more points each step takes others.
const POINTS: usize = 4_096;
const SCORES: usize = 1 << 22;
/// Of the clusters' shares, where a step does not see all points.
const SHARES_MOMENTUM: f64 = 0.9;
/// How much more often neighbours have to agree before clusters are taken for better.
const GAIN: f64 = 0.01;

/// Clusters as they were moved.
#[derive(Debug)]
pub struct Agreed {
    /// `[k, r] f32`: all of one length, so that the nearest is that of the largest cosine.
    pub centroids: Tensor,
    /// The [`agreement`] before, and with these.
    pub before: f64,
    pub after: f64,
}

/// Moves the clusters of `labels` (below `clusters`) to where `points` `[n, r] f32` of unit length and their nearest
/// others agree, and says how well they do. `None` where that is hardly better, for then clusters that were moved are
/// as often worse as better (docs/photographs.md), and where a cluster would be lost.
///
/// # Errors
/// Not a matrix; [`ClusterError::Interrupted`] once `stop` says so.
pub fn agreed(
    points: &Tensor,
    labels: &[u32],
    clusters: usize,
    neighbours: &Neighbours,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Agreed>, ClusterError> {
    matrix_size(points)?;
    if clusters < 2 || neighbours.count == 0 {
        return Ok(None);
    }
    tch::no_grad(|| {
        let directions = directions(points, labels, clusters, neighbours, stop)?;
        let (moved, cosine) = nearest(points, &directions);
        let (before, after) = (
            agreement(labels, clusters, neighbours),
            agreement(&moved, clusters, neighbours),
        );
        let better = after > before + GAIN && used(&moved) >= used(labels);
        Ok(better.then(|| Agreed {
            centroids: directions * cosine,
            before,
            after,
        }))
    })
}

/// Share of pairs of neighbours with the same label, of those that chance leaves: 0 where labels of these sizes are
/// given at random, 1 where all agree (Cohen's κ).
pub fn agreement(labels: &[u32], clusters: usize, neighbours: &Neighbours) -> f64 {
    let n = labels.len() as f64;
    let mut sizes = vec![0.0; clusters];
    labels
        .iter()
        .for_each(|&label| sizes[label as usize] += 1.0);
    let chance: f64 = sizes.iter().map(|size| (size / n) * (size / n)).sum();
    let same =
        |(place, &other): (usize, &u32)| labels[place / neighbours.count] == labels[other as usize];
    let pairs = neighbours.index.iter().enumerate();
    let share = pairs.filter(|&pair| same(pair)).count() as f64 / neighbours.index.len() as f64;
    (share - chance) / (1.0 - chance).max(f64::EPSILON)
}

/// How many labels there are.
fn used(labels: &[u32]) -> usize {
    labels.iter().collect::<HashSet<_>>().len()
}

/// `[k, r]`, of unit length.
fn directions(
    points: &Tensor,
    labels: &[u32],
    clusters: usize,
    neighbours: &Neighbours,
    stop: &dyn Fn() -> bool,
) -> Result<Tensor, ClusterError> {
    let device = points.device();
    let (n, k) = (labels.len(), clusters as i64);
    let first = from_labels(labels).to_device(device);
    let sums = Tensor::zeros([k, points.size()[1]], (Kind::Float, device));
    let mut directions = l2_rows(&sums.index_add(0, &first, points));
    let partners = from_labels(&neighbours.index)
        .to_device(device)
        .view([n as i64, -1]);
    let count = PARTNERS.min(neighbours.count) as i64;
    // Every so many-th point, beginning at another one in each step.
    let stride = n.div_ceil((SCORES / clusters).clamp(1, POINTS)) as i64;
    let mut shares: Option<Tensor> = None;
    for step in 0..STEPS as i64 {
        if stop() {
            return Err(ClusterError::Interrupted);
        }
        let rows =
            Tensor::arange_start_step(step % stride, n as i64, stride, (Kind::Int64, device));
        let own = points.index_select(0, &rows);
        let cosines = own.matmul(&directions.transpose(0, 1));
        let student = (&cosines / STUDENT).log_softmax(1, Kind::Float);
        let teacher = (&cosines / TEACHER).log_softmax(1, Kind::Float);
        let teacher_shares = teacher.exp();
        let here = teacher_shares.mean_dim(0, false, Kind::Float);
        let share = match shares.take() {
            Some(before) if stride > 1 => before * SHARES_MOMENTUM + here * (1.0 - SHARES_MOMENTUM),
            _ => here,
        };
        let log_shares = share.clamp_min(f64::from(f32::MIN_POSITIVE)).log();
        shares = Some(share);
        let of_student = &student * BETA - log_shares;
        let mut wanted = cosines.zeros_like();
        let mut weights = Tensor::zeros([rows.size()[0], 1], (Kind::Float, device));
        for partner in 0..count {
            let partner = partners.select(1, partner).index_select(0, &rows);
            let near = points.index_select(0, &partner);
            let near = near.matmul(&directions.transpose(0, 1)) / TEACHER;
            let near = near.log_softmax(1, Kind::Float);
            let alike = (near.exp() * &teacher_shares).sum_dim_intlist(1, true, Kind::Float);
            wanted += (&of_student + near * BETA).softmax(1, Kind::Float) * &alike;
            weights += alike;
        }
        // The gradient of the objective in the cosines, up to a factor.
        let pull = &wanted - student.exp() * weights;
        let mass = wanted.sum_dim_intlist(0, false, Kind::Float).unsqueeze(1);
        let moves = pull.transpose(0, 1).matmul(&own) / mass.clamp_min(f64::from(f32::EPSILON));
        directions = l2_rows(&(directions + moves));
    }
    Ok(directions)
}

/// The direction nearest to each point, and the mean cosine with it.
fn nearest(points: &Tensor, directions: &Tensor) -> (Vec<u32>, f64) {
    let (n, k) = (points.size()[0], directions.size()[0]);
    let rows = rows_per_chunk(k as usize, CHUNK_BYTES) as i64;
    let (mut labels, mut cosines) = (Vec::with_capacity(n as usize), 0.0);
    for start in (0..n).step_by(rows as usize) {
        let block = points.narrow(0, start, rows.min(n - start));
        let (cosine, label) = block.matmul(&directions.transpose(0, 1)).max_dim(1, false);
        labels.extend(to_labels(&label.to_device(Device::Cpu)));
        cosines += cosine.sum(Kind::Double).double_value(&[]);
    }
    (labels, cosines / n as f64)
}
