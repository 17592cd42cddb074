//! The chain of nearest neighbours: from any cluster to its nearest one, to that one's nearest, and so
//! on, until two are nearest to each other. They merge, and the chain goes on before them.
//!
//! A merge changes a column of the matrix, which lies across memory. It is written down instead, and a
//! row catches up when it is read: all it needs for the new column stands in the row itself.
//!
//! The matrix is in f32. Its error follows from where a distance comes from: with R, the mean distance
//! of the members of two clusters where D has that of their centroids, the update of Lance and Williams
//! mixes the R of the old clusters into that of the new one, with the same shares as their errors. So
//! |error| ≤ ε R, where ε grows by a few roundings with each merge on the way to either cluster, and
//! R ≤ D + 2 (scatter of one + scatter of the other).

use pulp::Arch;
use rayon::prelude::*;

use super::Points;
use super::distances::Distances;
use super::row::{self, BLOCK, Lowest, Step, Union};
use crate::cluster::ClusterError;

/// What ε grows by with a merge: eight roundings, each of at most 2 R, with room.
const ROUNDINGS: f64 = 10.0 * f32::EPSILON as f64;
/// Far above what underflow costs; distances below this are told apart in f64 alone.
const TINY: f64 = 1e-30;
/// Merges between two questions whether to stop.
const PATIENCE: usize = 64;

/// What is known of a cluster beside its row.
struct Cluster {
    /// The place of its first member, where its centroid stands.
    first: u32,
    /// Its sum of squared distances to the centroid, by weight.
    scatter: f64,
    weight: f64,
    /// Merges on the longest way from a member to it.
    depth: u32,
    /// Steps that its row has caught up with.
    seen: usize,
    /// Empty once it has become part of another one.
    row: Vec<f32>,
}

/// Merges of all points: the first members, and Ward's distance.
///
/// # Errors
/// [`ClusterError::Interrupted`]
pub fn follow(
    points: Points,
    distances: Distances,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<(u32, u32, f64)>, ClusterError> {
    let mut forest = Forest::new(points, distances);
    let mut merges = Vec::with_capacity(forest.living);
    // Columns, each with its distance to the one before.
    let mut chain: Vec<(usize, f64)> = Vec::new();
    while forest.living > 1 {
        let Some(&(last, distance)) = chain.last() else {
            chain.push((forest.any(), f64::INFINITY));
            continue;
        };
        let before = chain.len().checked_sub(2).map(|at| (chain[at].0, distance));
        let (nearest, distance) = forest.nearest(last, before);
        if before.is_none_or(|(before, _)| before != nearest) {
            chain.push((nearest, distance));
            continue;
        }
        chain.truncate(chain.len() - 2);
        merges.push(forest.merge(last, nearest, distance));
        if merges.len() % PATIENCE == 0 && stop() {
            return Err(ClusterError::Interrupted);
        }
        if let Some(columns) = forest.compact() {
            chain
                .iter_mut()
                .for_each(|(column, _)| *column = columns[*column]);
        }
    }
    Ok(merges)
}

/// The clusters so far, each in a column of its own.
struct Forest {
    arch: Arch,
    points: Points,
    /// The ε of points.
    error: f64,
    clusters: Vec<Cluster>,
    living: usize,
    /// Of the cluster in each column, as the loops over rows take them.
    weights: Vec<f32>,
    scatters: Vec<f32>,
    /// Merges since columns were last moved together.
    steps: Vec<Step>,
    /// The largest depth.
    deepest: u32,
    /// Of each block of the row that is looked at.
    lowest: Vec<f32>,
}

impl Forest {
    fn new(points: Points, distances: Distances) -> Self {
        let width = row::padded(distances.rows.len());
        let rows = (0..).zip(distances.rows);
        let clusters = rows
            .zip(&points.weights)
            .map(|((first, row), &weight)| Cluster {
                first,
                scatter: 0.0,
                weight,
                depth: 0,
                seen: 0,
                row,
            });
        let clusters: Vec<Cluster> = clusters.collect();
        let mut forest = Self {
            arch: Arch::new(),
            error: distances.error,
            living: clusters.len(),
            clusters,
            weights: vec![0.0; width],
            scatters: vec![0.0; width],
            steps: Vec::new(),
            deepest: 0,
            lowest: vec![0.0; width / BLOCK],
            points,
        };
        let weights = forest.weights.iter_mut().zip(&forest.points.weights);
        weights.for_each(|(weight, &exact)| *weight = exact as f32);
        forest
    }

    /// The first living cluster.
    fn any(&self) -> usize {
        let mut clusters = self.clusters.iter();
        clusters
            .position(|cluster| !cluster.row.is_empty())
            .unwrap_or(0)
    }

    /// Ward's distance of two clusters.
    fn distance(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (&self.clusters[a], &self.clusters[b]);
        let centroids = [a, b].map(|cluster| self.points.row(cluster.first as usize));
        let factor = 2.0 * (a.weight * b.weight) / (a.weight + b.weight);
        factor * row::squared_distance(centroids[0], centroids[1])
    }

    /// Lets the row of a cluster catch up.
    fn refresh(&mut self, column: usize) {
        let cluster = &mut self.clusters[column];
        row::replay(
            &mut cluster.row,
            self.weights[column],
            &self.steps[cluster.seen..],
        );
        cluster.seen = self.steps.len();
    }

    /// The cluster nearest to that in `column`, with its distance. `known` is one whose distance is
    /// known; it is kept unless another one is nearer.
    fn nearest(&mut self, column: usize, known: Option<(usize, f64)>) -> (usize, f64) {
        self.refresh(column);
        let cluster = &self.clusters[column];
        let error = self.error + ROUNDINGS * f64::from(cluster.depth + self.deepest);
        // Rounded up, as is the limit below.
        let share = (2.0 * error * 1.001) as f32;
        self.arch.dispatch(Lowest {
            row: &cluster.row,
            scatters: &self.scatters,
            share,
            lowest: &mut self.lowest,
        });
        let lower = |other: usize| row::lower(cluster.row[other], share, self.scatters[other]);
        let limit = |distance: f64| {
            let limit = distance * (1.0 + error) + 2.0 * error * cluster.scatter + TINY;
            (limit * (1.0 + 1e-6)) as f32
        };
        let smallest = |best: usize, at: usize| match self.lowest[at] < self.lowest[best] {
            true => at,
            false => best,
        };
        let block = (0..self.lowest.len()).fold(0, smallest);
        let mut others = block * BLOCK..(block + 1) * BLOCK;
        let likely = others.find(|&other| lower(other) == self.lowest[block]);
        let mut best = known;
        let look = |other: usize, best: &mut Option<(usize, f64)>| {
            let distance = self.distance(column, other);
            let nearer = best.is_none_or(|(best, least)| {
                let first = other < best && known.is_none_or(|(known, _)| known != best);
                distance < least || (distance == least && first)
            });
            if nearer {
                *best = Some((other, distance));
            }
        };
        let likely = likely.unwrap_or(0);
        look(likely, &mut best);
        for (block, &lowest) in self.lowest.iter().enumerate() {
            for other in block * BLOCK..(block + 1) * BLOCK {
                let most = best.map_or(f32::MAX, |(_, distance)| limit(distance));
                if lowest > most {
                    break;
                }
                if other != likely && lower(other) <= most {
                    look(other, &mut best);
                }
            }
        }
        best.unwrap_or((likely, f64::INFINITY))
    }

    /// Makes one cluster of two that are nearest to each other; returns their first members and the
    /// distance.
    fn merge(&mut self, a: usize, b: usize, distance: f64) -> (u32, u32, f64) {
        let (kept, gone) = (a.min(b), a.max(b));
        self.refresh(kept);
        self.refresh(gone);
        let step = Step {
            columns: [kept as u32, gone as u32],
            weights: [self.weights[kept], self.weights[gone]],
            distance: distance as f32,
        };
        let second = std::mem::take(&mut self.clusters[gone].row);
        let [first, other] = [kept, gone].map(|column| self.clusters[column].first);
        let shares = [kept, gone].map(|column| self.clusters[column].weight);
        self.points.move_to_mean(first, other, shares);
        let (scatter, depth) = (self.clusters[gone].scatter, self.clusters[gone].depth);
        let cluster = &mut self.clusters[kept];
        self.arch.dispatch(Union {
            step,
            first: &mut cluster.row,
            second: &second,
            weights: &self.weights,
        });
        cluster.row[kept] = f32::INFINITY;
        cluster.row[gone] = f32::INFINITY;
        cluster.scatter += scatter + distance / 2.0;
        cluster.weight = shares[0] + shares[1];
        cluster.depth = cluster.depth.max(depth) + 1;
        self.deepest = self.deepest.max(cluster.depth);
        self.weights[kept] = cluster.weight as f32;
        self.scatters[kept] = cluster.scatter as f32;
        self.steps.push(step);
        cluster.seen = self.steps.len();
        self.living -= 1;
        (first, other, distance)
    }

    /// Moves columns together once half of them are empty; returns where each one went.
    fn compact(&mut self) -> Option<Vec<usize>> {
        if self.living < BLOCK || 2 * self.living > self.clusters.len() {
            return None;
        }
        let alive = |&column: &usize| !self.clusters[column].row.is_empty();
        let kept: Vec<usize> = (0..self.clusters.len()).filter(alive).collect();
        let mut columns = vec![0; self.clusters.len()];
        kept.iter()
            .enumerate()
            .for_each(|(at, &column)| columns[column] = at);
        let width = row::padded(kept.len());
        self.clusters.retain(|cluster| !cluster.row.is_empty());
        let steps = &self.steps;
        self.clusters.par_iter_mut().for_each(|cluster| {
            let weight = cluster.weight as f32;
            row::replay(&mut cluster.row, weight, &steps[cluster.seen..]);
            cluster.seen = 0;
            gather(&mut cluster.row, &kept, width, f32::INFINITY);
        });
        gather(&mut self.weights, &kept, width, 0.0);
        gather(&mut self.scatters, &kept, width, 0.0);
        self.lowest.truncate(width / BLOCK);
        self.steps.clear();
        Some(columns)
    }
}

/// Moves the values at `kept`, which rise, to the front, and pads them.
fn gather(values: &mut Vec<f32>, kept: &[usize], width: usize, padding: f32) {
    for (at, &column) in kept.iter().enumerate() {
        values[at] = values[column];
    }
    values.truncate(width);
    values[kept.len()..].fill(padding);
}
