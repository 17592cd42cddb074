//! The nearest centroid of every point, exactly, and again after the centroids have moved.
//!
//! Products in 16-bit integers name the few centroids that can be the nearest, and f64 decides
//! (`block.rs`). What they tell of the others is kept: for each point a lower bound on its distance
//! to each *group* of centroids. When centroids move, a bound falls by the largest movement of the
//! group, and only groups that can then hold a centroid nearer than the point's own are searched
//! (Elkan, ICML 2003; with groups: Ding et al., Yinyang K-Means, ICML 2015). A group is a panel of
//! the kernel, or a few where memory is short. Centroids that move alike are put together where that
//! pays: those at rest, soon the most of them, then have groups whose bounds stay.
//!
//! Labels are those of a brute-force search in f64, whatever was skipped. Memory: 2 bytes for each
//! point and group, and the points in 16 bits where they fit beside these, at most a quarter of the points'
//! own memory and 80 MiB; the centroids twice in 16 bits and once more in f32; 14 bytes for each point; where
//! there is no copy, a block of scaled points for each thread.

mod block;
mod centroids;
mod layout;

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::cluster::kernel::{Isa, Portable, Products, Scale, Work, padded};
use block::{Block, Moves, Scratch};
use centroids::{Centroids, distance, squared_distance};
use layout::{Layout, Unit};

/// What bounds and the copy of the points take at most, beside a byte for each number of the points.
const MEMORY: usize = 80 << 20;
/// Points that one thread handles at a time; their scaled copies stay in its cache.
const BLOCK: usize = 256;
/// Centroids are put into other groups where that leaves at most this share of the work, as seen by
/// so many points.
const SAVING: f64 = 0.75;
const SAMPLE: usize = 500;

/// Points with their labels, and what is known of their distances.
#[derive(Debug)]
pub struct Search<'a> {
    isa: Isa,
    points: &'a [f32],
    d: usize,
    norms: Vec<f64>,
    /// `[n, d]` padded, in 16 bits, where memory allows.
    scaled: Option<Vec<i16>>,
    labels: Vec<u32>,
    /// Each point was no farther than this from its label's centroid, in units.
    own: Vec<u16>,
    /// The centroids of the last assignment; empty before the first.
    centroids: Vec<f32>,
    layout: Layout,
    /// Chosen at the first assignment, which knows the centroids.
    unit: Unit,
    /// `[n, groups]`: no centroid of the group but the point's own is nearer, in units.
    bounds: Vec<u16>,
    /// The share of points and groups that the last assignment searched.
    searched: f64,
}

impl<'a> Search<'a> {
    /// `points` `[n, d]` to be divided among `k` centroids, with the instruction set `isa`.
    pub fn new(isa: Isa, points: &'a [f32], d: usize, k: usize) -> Self {
        Self::with_memory(isa, points, d, k, MEMORY)
    }

    /// The same where bounds and a copy of the points may take so many bytes beside one for each number
    /// of the points.
    pub fn with_memory(isa: Isa, points: &'a [f32], d: usize, k: usize, memory: usize) -> Self {
        let mut norms = squares(isa, points, d);
        norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
        let layout = Layout::new(norms.len(), d, k, memory);
        let copy = layout.leaves_room(norms.len(), d, memory);
        Self {
            isa,
            points,
            d,
            scaled: copy.then(|| scaled(isa, points, &norms, d)),
            labels: vec![0; norms.len()],
            own: vec![0; norms.len()],
            centroids: Vec::new(),
            unit: Unit::new(0.0),
            bounds: vec![0; norms.len() * layout.groups()],
            layout,
            norms,
            searched: 1.0,
        }
    }

    /// Euclidean norms of the points.
    pub fn norms(&self) -> &[f64] {
        &self.norms
    }

    /// The index of each point's nearest centroid at the last assignment, ties to the smaller one.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Squared distance of each point to its label's centroid.
    pub fn squared_distances(&self) -> Vec<f64> {
        let centroids = Centroids::new(self.isa, &self.centroids, self.d);
        let mut squared = vec![0.0; self.norms.len()];
        let blocks = squared
            .par_chunks_mut(BLOCK)
            .zip(self.norms.par_chunks(BLOCK))
            .zip(self.points.par_chunks(BLOCK * self.d))
            .zip(self.labels.par_chunks(BLOCK));
        blocks.for_each(|(((squared, norms), points), labels)| {
            self.isa.run(Squared {
                squared,
                norms,
                points,
                labels,
                centroids: &centroids,
            });
        });
        squared
    }

    /// The share of distances to groups of centroids that the last assignment had to look at.
    pub fn searched(&self) -> f64 {
        self.searched
    }

    /// Finds the nearest of `centroids` `[k, d]` for each point. Returns how many labels changed.
    ///
    /// # Panics
    /// If there are not `k` centroids.
    pub fn assign(&mut self, centroids: &[f32]) -> usize {
        assert_eq!(centroids.len(), self.layout.order.len() * self.d);
        let drifts = self.drifts(centroids);
        let mut prepared = Centroids::new(self.isa, centroids, self.d);
        if let Some(drifts) = &drifts {
            self.regroup(drifts, &prepared);
        }
        let moves = drifts.map(|drifts| Moves {
            of_groups: self.layout.largest(&drifts, self.unit),
            of_each: drifts.iter().map(|&drift| self.unit.up_to(drift)).collect(),
        });
        prepared.pack(&self.layout);
        if moves.is_none() {
            self.unit = Unit::new(largest(&prepared.norms).max(largest(&self.norms)));
        }
        let (d, groups, unit, isa) = (self.d, self.layout.groups(), self.unit, self.isa);
        let size = block_size(self.norms.len());
        let layout = &self.layout;
        let copies = self.scaled.as_deref();
        let tallies = self
            .points
            .par_chunks(size * d)
            .zip(self.norms.par_chunks(size))
            .zip(self.labels.par_chunks_mut(size))
            .zip(self.own.par_chunks_mut(size))
            .zip(self.bounds.par_chunks_mut(size * groups))
            .enumerate()
            .map_init(Scratch::default, |scratch, (index, block)| {
                let ((((points, norms), labels), own), bounds) = block;
                let first = index * size * padded(d);
                isa.run(Block {
                    points,
                    scaled: copies.map(|all| &all[first..][..norms.len() * padded(d)]),
                    norms,
                    labels,
                    own,
                    bounds,
                    moves: moves.as_ref(),
                    centroids: &prepared,
                    layout,
                    unit,
                    scratch,
                })
            });
        let (changed, searched) = tallies.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        self.searched = searched as f64 / (self.norms.len() * groups).max(1) as f64;
        self.centroids.clear();
        self.centroids.extend_from_slice(centroids);
        changed
    }

    /// How far each centroid has moved since the last assignment; `None` before the first.
    fn drifts(&self, centroids: &[f32]) -> Option<Vec<f64>> {
        let moved = |(now, before): (&[f32], &[f32])| {
            let terms = now.iter().zip(before).map(|(&now, &before)| {
                let step = f64::from(now) - f64::from(before);
                step * step
            });
            terms.sum::<f64>().sqrt()
        };
        let pairs = centroids
            .par_chunks_exact(self.d)
            .zip(self.centroids.par_chunks_exact(self.d));
        (!self.centroids.is_empty()).then(|| pairs.map(moved).collect())
    }

    /// Puts centroids that have moved alike into the same groups, where a sample of the points says that
    /// this saves work.
    fn regroup(&mut self, drifts: &[f64], centroids: &Centroids) {
        let mut order: Vec<u32> = (0..drifts.len() as u32).collect();
        order.sort_by(|&a, &b| drifts[b as usize].total_cmp(&drifts[a as usize]));
        let next = self.layout.reordered(order);
        let sources = sources(&self.layout, &next);
        let (now, then) = (
            self.layout.largest(drifts, self.unit),
            next.largest(drifts, self.unit),
        );
        let (mut stay, mut change) = (0, 0);
        let groups = self.layout.groups();
        for row in (0..self.norms.len()).step_by((self.norms.len() / SAMPLE).max(1)) {
            let point = &self.points[row * self.d..][..self.d];
            let own = centroids.exact_score::<Portable>(point, self.labels[row]);
            let own = self.unit.above(distance(self.norms[row], own));
            let bounds = &self.bounds[row * groups..][..groups];
            let open = |bounds: &[u16], drifts: &[u16]| {
                let pairs = bounds.iter().zip(drifts);
                pairs.filter(|(b, d)| b.saturating_sub(**d) <= own).count()
            };
            stay += open(bounds, &now);
            change += open(&transferred(bounds, &sources), &then);
        }
        if change as f64 > SAVING * stay as f64 {
            return;
        }
        self.bounds
            .par_chunks_exact_mut(groups)
            .for_each(|bounds| bounds.copy_from_slice(&transferred(bounds, &sources)));
        self.layout = next;
    }
}

/// The groups that members of each new group were in.
fn sources(before: &Layout, next: &Layout) -> Vec<Vec<usize>> {
    let of_group = |members: &[u32]| {
        let groups = members.iter().map(|&centroid| before.group_of(centroid));
        groups.collect::<BTreeSet<usize>>().into_iter().collect()
    };
    next.members().map(of_group).collect()
}

/// A new group's bound is the least of those that its members had.
fn transferred(bounds: &[u16], sources: &[Vec<usize>]) -> Vec<u16> {
    let least = |groups: &Vec<usize>| groups.iter().map(|&group| bounds[group]).min();
    sources
        .iter()
        .map(|groups| least(groups).unwrap_or(0))
        .collect()
}

/// Blocks of equal work for a few times as many tasks as threads.
fn block_size(n: usize) -> usize {
    let tasks = 4 * rayon::current_num_threads();
    n.div_ceil(tasks).clamp(16, BLOCK)
}

fn largest(norms: &[f64]) -> f64 {
    norms.iter().copied().fold(0.0, f64::max)
}

/// The squared Euclidean norms of `rows` `[n, d]`.
pub fn squares(isa: Isa, rows: &[f32], d: usize) -> Vec<f64> {
    let mut squares = vec![0.0; rows.len() / d];
    rows.par_chunks(BLOCK * d)
        .zip(squares.par_chunks_mut(BLOCK))
        .for_each(|(rows, squares)| isa.run(SquaredNorms { rows, d, squares }));
    squares
}

/// Squared distances of some points to their labels' centroids.
struct Squared<'a> {
    squared: &'a mut [f64],
    norms: &'a [f64],
    points: &'a [f32],
    labels: &'a [u32],
    centroids: &'a Centroids<'a>,
}

impl Work for Squared<'_> {
    type Output = ();

    #[inline(always)]
    fn run<P: Products>(self) {
        let points = self.points.chunks_exact(self.centroids.d);
        let rows = points.zip(self.norms).zip(self.labels);
        for (squared, ((point, &norm), &label)) in self.squared.iter_mut().zip(rows) {
            let score = self.centroids.exact_score::<P>(point, label);
            *squared = squared_distance(norm, score);
        }
    }
}

/// Rows `[n, d]` of these norms in 16 bits, padded.
fn scaled(isa: Isa, rows: &[f32], norms: &[f64], d: usize) -> Vec<i16> {
    let width = padded(d);
    let mut scaled = vec![0; norms.len() * width];
    scaled
        .par_chunks_mut(BLOCK * width)
        .zip(rows.par_chunks(BLOCK * d))
        .zip(norms.par_chunks(BLOCK))
        .for_each(|((scaled, rows), norms)| {
            isa.run(Quantise {
                rows,
                norms,
                d,
                scaled,
            });
        });
    scaled
}

struct Quantise<'a> {
    rows: &'a [f32],
    norms: &'a [f64],
    d: usize,
    scaled: &'a mut [i16],
}

impl Work for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<P: Products>(self) {
        let rows = self.rows.chunks_exact(self.d).zip(self.norms);
        let scaled = self.scaled.chunks_exact_mut(padded(self.d));
        for ((row, &norm), scaled) in rows.zip(scaled) {
            Scale::new(norm, self.d).quantise(row, scaled);
        }
    }
}

struct SquaredNorms<'a> {
    rows: &'a [f32],
    d: usize,
    squares: &'a mut [f64],
}

impl Work for SquaredNorms<'_> {
    type Output = ();

    #[inline(always)]
    fn run<P: Products>(self) {
        for (square, row) in self.squares.iter_mut().zip(self.rows.chunks_exact(self.d)) {
            *square = P::inner(row, row);
        }
    }
}
