//! Power iteration clustering on the graph of nearest neighbours: the number of clusters follows from
//! the data.
//!
//! Source: facebookresearch/deepcluster `clustering.py: PIC`; Lin and Cohen: Power Iteration
//! Clustering, ICML 2010. A walk on the graph, damped towards the uniform distribution, gives each
//! point a density; every point climbs along the edge that gains the most, and the tops are the
//! clusters.

use std::time::Instant;

use rayon::prelude::*;
use tch::Tensor;

use super::ClusterError;
use super::neighbours::Neighbours;

/// How the graph is made and walked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PicOptions {
    /// Edges from each point.
    pub neighbours: usize,
    /// An edge weighs exp(−squared distance / sigma²).
    pub sigma: f64,
    /// How much of the density comes along the edges, above 0 and up to 1.
    pub alpha: f64,
    pub iterations: usize,
}

impl Default for PicOptions {
    /// The authors'.
    fn default() -> Self {
        Self {
            neighbours: 5,
            sigma: 0.2,
            alpha: 0.001,
            iterations: 200,
        }
    }
}

impl PicOptions {
    /// # Errors
    /// Values that no graph can have.
    pub fn check(&self) -> Result<(), ClusterError> {
        let wrong = |text: String| Err(ClusterError::Options(text));
        if self.neighbours == 0 {
            return wrong("power iteration needs at least one neighbour".into());
        }
        // Its square must not vanish either.
        if !(self.sigma > 0.0 && self.sigma.is_finite() && self.sigma * self.sigma > 0.0) {
            return wrong(format!("sigma must be positive, not {}", self.sigma));
        }
        if !(self.alpha > 0.0 && self.alpha <= 1.0) {
            return wrong(format!(
                "alpha must be above 0 and not above 1, not {}",
                self.alpha
            ));
        }
        if self.iterations == 0 {
            return wrong("power iteration needs at least one iteration".into());
        }
        Ok(())
    }
}

/// Points divided among the tops of their density.
#[derive(Debug, Clone, PartialEq)]
pub struct Pic {
    /// `[n]`, from 0, by the index of the first point of each cluster.
    pub labels: Vec<u32>,
    /// Points in each cluster.
    pub sizes: Vec<usize>,
    /// Power iterations until nothing changed any more.
    pub iterations: usize,
    /// Seconds spent, without input and output.
    pub seconds: f64,
}

impl Pic {
    /// What to tell where most points have found no company: their number, and the cure.
    pub fn loneliness(&self, sigma: f64) -> Option<String> {
        let (alone, n) = (
            self.sizes.iter().filter(|&&size| size == 1).count(),
            self.labels.len(),
        );
        (n > 1 && 2 * alone > n).then(|| {
            format!(
                "{alone} of {n} points are clusters of their own, because distances are large beside \
                 sigma = {sigma}: a larger sigma, or points of unit length, bring them together"
            )
        })
    }
}

/// Clusters `points` `[n, d]`, whose distances should be of the order of `sigma` (the authors take
/// features that are whitened and of unit length).
///
/// # Errors
/// Not a matrix, no points, a row with NaN or infinity, options out of range.
pub fn cluster(points: &Tensor, options: &PicOptions) -> Result<Pic, ClusterError> {
    options.check()?;
    let started = Instant::now();
    let neighbours = Neighbours::find(points, options.neighbours)?;
    let n = points.size()[0] as usize;
    if n == 0 {
        return Err(ClusterError::NoPoints);
    }
    let graph = Graph::new(&neighbours, n, options.sigma);
    let (density, iterations) = graph.walk(options);
    let mut labels = graph.climb(&density);
    join_singletons(&mut labels, &neighbours);
    let sizes = renumber(&mut labels);
    Ok(Pic {
        labels,
        sizes,
        iterations,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// A symmetric matrix with few entries in a row.
struct Graph {
    /// Where each row begins in `edges`, and where the last one ends.
    starts: Vec<usize>,
    /// Columns, rising within a row, with their weights.
    edges: Vec<(u32, f64)>,
}

impl Graph {
    /// A + Aᵀ, where A holds the weights of the edges to neighbours.
    fn new(neighbours: &Neighbours, n: usize, sigma: f64) -> Self {
        let mut all: Vec<(u32, u32, f64)> = (0..n)
            .flat_map(|i| {
                let weight = move |squared: f64| (-squared / (sigma * sigma)).exp();
                neighbours.of(i).flat_map(move |(j, squared)| {
                    let (i, weight) = (i as u32, weight(squared));
                    [(i, j, weight), (j, i, weight)]
                })
            })
            .collect();
        all.par_sort_unstable_by_key(|&(i, j, _)| (i, j));
        // Two points that are neighbours of each other have twice the weight.
        all.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            if same {
                kept.2 += next.2;
            }
            same
        });
        Self {
            starts: (0..=n as u32)
                .map(|i| all.partition_point(|edge| edge.0 < i))
                .collect(),
            edges: all.into_iter().map(|(_, j, weight)| (j, weight)).collect(),
        }
    }

    fn row(&self, i: usize) -> &[(u32, f64)] {
        &self.edges[self.starts[i]..self.starts[i + 1]]
    }

    /// The density of each point, and the number of steps: v ← α W v + (1 − α)/n, of sum 1.
    fn walk(&self, options: &PicOptions) -> (Vec<f64>, usize) {
        let n = self.starts.len() - 1;
        let rest = (1.0 - options.alpha) / n as f64;
        let mut density = vec![1.0 / n as f64; n];
        for step in 1..=options.iterations {
            let mut next: Vec<f64> = (0..n)
                .into_par_iter()
                .map(|i| {
                    let terms = self.row(i).iter().map(|&(j, w)| w * density[j as usize]);
                    options.alpha * terms.sum::<f64>() + rest
                })
                .collect();
            let sum: f64 = next.iter().sum();
            if sum > 0.0 {
                next.iter_mut().for_each(|value| *value /= sum);
            }
            if next == density {
                return (density, step);
            }
            density = next;
        }
        (density, options.iterations)
    }

    /// The point at which each one ends that climbs along the edge with the largest gain, weight
    /// times difference, as long as there is any.
    fn climb(&self, density: &[f64]) -> Vec<u32> {
        let mut tops: Vec<u32> = (0..density.len())
            .map(|i| {
                let mut best = (0.0, i as u32);
                for &(j, weight) in self.row(i) {
                    let gain = weight * (density[j as usize] - density[i]);
                    if gain > best.0 {
                        best = (gain, j);
                    }
                }
                best.1
            })
            .collect();
        // Each step goes up, so there are no circles; a path is walked once and then shortened.
        for i in 0..tops.len() {
            let mut top = tops[i];
            while tops[top as usize] != top {
                top = tops[top as usize];
            }
            let mut at = i;
            while tops[at] != top {
                at = std::mem::replace(&mut tops[at], top) as usize;
            }
        }
        tops
    }
}

/// A point alone in its cluster joins that of its nearest neighbour that is not.
fn join_singletons(labels: &mut [u32], neighbours: &Neighbours) {
    let mut sizes = vec![0_usize; labels.len()];
    labels.iter().for_each(|&label| sizes[label as usize] += 1);
    let before = labels.to_vec();
    let alone = |i: usize| sizes[before[i] as usize] == 1;
    for (i, label) in labels.iter_mut().enumerate() {
        if alone(i) {
            let company = neighbours.of(i).find(|&(j, _)| !alone(j as usize));
            if let Some((j, _)) = company {
                *label = before[j as usize];
            }
        }
    }
}

/// Numbers labels from 0 in the order in which they come; returns the clusters' sizes.
fn renumber(labels: &mut [u32]) -> Vec<usize> {
    let mut numbers = vec![None; labels.len()];
    let mut sizes = Vec::new();
    for label in labels {
        let number = *numbers[*label as usize].get_or_insert_with(|| {
            sizes.push(0);
            sizes.len() as u32 - 1
        });
        sizes[number as usize] += 1;
        *label = number;
    }
    sizes
}
