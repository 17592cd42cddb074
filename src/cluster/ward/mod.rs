//! Ward's hierarchical clustering, exact: of all pairs of clusters, the pair whose union adds least to
//! the sum of squared distances to the centroids is merged first.
//!
//! Sources: Ward: Hierarchical Grouping to Optimize an Objective Function, JASA 1963; the chain of
//! nearest neighbours: Murtagh: A Survey of Recent Advances in Hierarchical Clustering Algorithms, 1983,
//! and Müllner: Modern hierarchical, agglomerative clustering algorithms, arXiv:1109.2378, 2011; the
//! update of distances: Lance and Williams, 1967.
//!
//! Decisions are made in f64, between centroids. A matrix of distances in f32, with a bound on its
//! error, only rules out whatever cannot be nearest:
//! - `product` inner products, `distances` the matrix at the start
//! - `row` loops over one row of it, `chain` the way to a single cluster
//! - `tree` what comes out

mod chain;
mod distances;
mod product;
mod row;
mod tree;

use std::cmp::Ordering;

use rayon::prelude::*;

use super::ClusterError;
pub use tree::{Merge, Tree};

/// More different points than this are refused: their matrix would take more than 4 GiB.
pub const MOST_POINTS: usize = 1 << 15;

/// The largest weight may be so many times the smallest one: single precision holds their squares.
const WEIGHT_RATIO: f64 = 1e12;

/// Merges `points` `[n, d] f32`, row by row, until one cluster is left. A point of weight w counts as
/// w points at the same place; each weighs 1 where `weights` `[n]` are not given. Copies of a point
/// merge first, at height 0. The tree is the same for any number of threads and any processor; of
/// clusters that are equally near, that with the first member is taken.
///
/// `stop` is asked now and then whether to end early.
///
/// Time: n² d/2 products, and some 10 n² steps. Memory for u different points: 4 u² bytes (1.6 GB for
/// 20,000) and 16 u d bytes; a merged cluster's row is freed.
///
/// # Errors
/// No points, another number of values than n·d, a row with NaN or infinity; weights that are not one
/// for each point, not positive, or more than 10^12 times each other; more than [`MOST_POINTS`]
/// different points; [`ClusterError::Interrupted`] once `stop` says so.
pub fn ward(
    points: &[f32],
    n: usize,
    d: usize,
    weights: Option<&[f64]>,
    stop: &dyn Fn() -> bool,
) -> Result<Tree, ClusterError> {
    check(points, n, d)?;
    let ones = vec![1.0; if weights.is_some() { 0 } else { n }];
    let weights = weights.unwrap_or(&ones);
    let heaviest = check_weights(weights, n)?;
    let places = places(points, n, d);
    if places.len() > MOST_POINTS {
        return Err(ClusterError::TooManyPoints {
            points: places.len(),
            most: MOST_POINTS,
        });
    }
    let copies = places.iter().flat_map(|members| {
        let pairs = members.iter().zip(&members[1..]);
        pairs.map(|(&before, &copy)| (before, copy, 0.0))
    });
    let mut merges: Vec<(u32, u32, f64)> = copies.collect();
    let (points, unit) = Points::new(points, d, weights, heaviest, &places);
    let matrix = distances::between(&points, stop)?;
    let found = chain::follow(points, matrix, stop)?;
    let first = |place: u32| places[place as usize][0];
    let scaled = found.into_iter().map(|(a, b, distance)| {
        let height = (distance * heaviest).sqrt() / unit;
        (first(a), first(b), height)
    });
    merges.extend(scaled);
    Ok(Tree::new(weights, merges))
}

fn check(points: &[f32], n: usize, d: usize) -> Result<(), ClusterError> {
    if n == 0 {
        return Err(ClusterError::NoPoints);
    }
    if d == 0 || n.checked_mul(d) != Some(points.len()) {
        return Err(ClusterError::Shape {
            expected: format!("a matrix [{n}, {d}], d > 0"),
            got: vec![points.len() as i64],
        });
    }
    // Members and merges are counted in u32.
    if n > i32::MAX as usize {
        return Err(ClusterError::TooManyPoints {
            points: n,
            most: i32::MAX as usize,
        });
    }
    match points.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(ClusterError::NotFinite { row: at / d }),
        None => Ok(()),
    }
}

/// The largest of `weights`.
fn check_weights(weights: &[f64], n: usize) -> Result<f64, ClusterError> {
    if weights.len() != n {
        return Err(ClusterError::Shape {
            expected: format!("a weight for each of {n} points"),
            got: vec![weights.len() as i64],
        });
    }
    let wrong = |weight: &f64| !(*weight > 0.0 && weight.is_finite());
    if let Some(row) = weights.iter().position(wrong) {
        return Err(ClusterError::Options(format!(
            "weight {row} is {}: Ward's weights are finite and positive",
            weights[row]
        )));
    }
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let smallest = weights.iter().copied().fold(f64::INFINITY, f64::min);
    if largest / smallest > WEIGHT_RATIO || !weights.iter().sum::<f64>().is_finite() {
        return Err(ClusterError::Options(format!(
            "weights from {smallest} to {largest} lie too far apart"
        )));
    }
    Ok(largest)
}

/// The members of each different place, by rising index, the place with the first one first.
fn places(points: &[f32], n: usize, d: usize) -> Vec<Vec<u32>> {
    let row = |i: u32| &points[i as usize * d..][..d];
    // Zeros of either sign are equal, and there is no NaN.
    let compare = |&i: &u32, &j: &u32| row(i).partial_cmp(row(j)).unwrap_or(Ordering::Equal);
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.par_sort_by(compare);
    let equal = order.chunk_by(|i, j| compare(i, j).is_eq());
    let mut places: Vec<Vec<u32>> = equal.map(<[u32]>::to_vec).collect();
    places.sort_unstable_by_key(|members| members[0]);
    places
}

/// Different points, ready for the search.
struct Points {
    d: usize,
    /// `[u, d]`, as given but for a power of two: differences of values of single precision are exact,
    /// and stay so to nine digits once they are means, wherever the points lie.
    values: Vec<f64>,
    /// `[d]`: the mean, from which no point is farther than 1.
    centre: Vec<f64>,
    /// `[u]`, in units of the heaviest point.
    weights: Vec<f64>,
}

impl Points {
    /// The first member of each place, with the weight of all, and by what values were multiplied.
    fn new(
        points: &[f32],
        d: usize,
        weights: &[f64],
        heaviest: f64,
        places: &[Vec<u32>],
    ) -> (Self, f64) {
        let row = |members: &Vec<u32>| &points[members[0] as usize * d..][..d];
        let mut values: Vec<f64> = Vec::with_capacity(places.len() * d);
        places
            .iter()
            .for_each(|members| values.extend(row(members).iter().map(|&x| f64::from(x))));
        // From the first point on, so that a value that all share is exact.
        let mut centre = vec![0.0; d];
        for row in values.chunks_exact(d) {
            let terms = centre.iter_mut().zip(row.iter().zip(&values));
            terms.for_each(|(sum, (x, first))| *sum += x - first);
        }
        for (sum, first) in centre.iter_mut().zip(&values) {
            *sum = first + *sum / places.len() as f64;
        }
        let squared = values.par_chunks_exact(d);
        let squared = squared.map(|row| row::squared_distance(row, &centre));
        let largest = squared.reduce(|| 0.0, f64::max);
        // A power of two, so that nothing is rounded.
        let unit = match largest > 0.0 {
            true => 2.0_f64.powi(-(largest.sqrt().log2().ceil() as i32)),
            false => 1.0,
        };
        values.par_iter_mut().for_each(|value| *value *= unit);
        centre.iter_mut().for_each(|value| *value *= unit);
        let of_place = |members: &Vec<u32>| {
            let weights = members.iter().map(|&i| weights[i as usize] / heaviest);
            weights.sum()
        };
        let points = Self {
            d,
            values,
            centre,
            weights: places.iter().map(of_place).collect(),
        };
        (points, unit)
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.d..][..self.d]
    }

    /// Moves point `i` to the mean of it and point `j`, which weigh so much.
    fn move_to_mean(&mut self, i: u32, j: u32, [of_i, of_j]: [f64; 2]) {
        let d = self.d;
        let (low, high) = (i.min(j) as usize, i.max(j) as usize);
        let (front, back) = self.values.split_at_mut(high * d);
        let (low, high) = (&mut front[low * d..][..d], &mut back[..d]);
        let (target, other) = if i < j { (low, high) } else { (high, low) };
        let share = of_j / (of_i + of_j);
        for (x, y) in target.iter_mut().zip(other) {
            *x += (*y - *x) * share;
        }
    }
}
