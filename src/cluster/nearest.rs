//! The nearest centroid of every point, exactly, by products in 16-bit integers.
//!
//! The nearest centroid has the largest score `x·c − ‖c‖²/2`. With rows rounded to x̃ and c̃,
//! `|x·c − x̃·c̃| ≤ ‖x − x̃‖ ‖c‖ + ‖x̃‖ ‖c − c̃‖` (Cauchy and Schwarz), so every score is known between
//! two bounds, and only centroids whose upper bound reaches the largest lower bound can be the
//! nearest. Where more than one is left, distances in f64 decide. The result is that of a brute-force
//! search in f64, for every instruction set.

use rayon::prelude::*;

use super::kernel::{COLUMNS, Panels, Path, Products, ROWS, Work, interleave, tile};

/// Points that one thread scales at a time; their 16-bit copies stay in its cache.
const BLOCK: usize = 8 * ROWS;
/// Single precision rounds the arithmetic on scores by less than this share of their parts.
const ROUNDING: f64 = 1e-6;

/// Centroids, ready for the search.
pub struct Centroids<'a> {
    values: &'a [f32],
    d: usize,
    panels: Panels,
    bounds: Vec<Bounds>,
    /// ‖c‖²/2
    half: Vec<f64>,
}

/// What turns the products of a panel into bounds on scores. The padding scores −∞.
#[derive(Clone)]
struct Bounds {
    /// Scales a product back.
    factor: [f32; COLUMNS],
    /// Parts of the error that go with the rounding of a point, and with its norm.
    with_rounding: [f32; COLUMNS],
    with_norm: [f32; COLUMNS],
    /// −‖c‖²/2, and the part of the error that goes with neither.
    shift: [f32; COLUMNS],
    alone: [f32; COLUMNS],
}

impl Bounds {
    /// Upper bounds on the scores of a point's `products`.
    #[inline(always)]
    fn upper(&self, row: &Row, products: &[i32; COLUMNS]) -> [f32; COLUMNS] {
        let mut upper = [0.0; COLUMNS];
        for j in 0..COLUMNS {
            let score = products[j] as f32 * (row.factor * self.factor[j]) + self.shift[j];
            upper[j] = score + self.error(row, j);
        }
        upper
    }

    /// By how much a score may be off.
    #[inline(always)]
    fn error(&self, row: &Row, j: usize) -> f32 {
        row.rounding * self.with_rounding[j] + row.norm * self.with_norm[j] + self.alone[j]
    }
}

impl<'a> Centroids<'a> {
    /// Prepares `values` `[k, d]`.
    pub fn new(values: &'a [f32], d: usize) -> Self {
        let norms = norms(values, d);
        let (panels, scales) = Panels::pack(values, d, &norms);
        let padding = Bounds {
            factor: [0.0; COLUMNS],
            with_rounding: [0.0; COLUMNS],
            with_norm: [0.0; COLUMNS],
            shift: [f32::NEG_INFINITY; COLUMNS],
            alone: [0.0; COLUMNS],
        };
        let mut bounds = vec![padding; panels.count()];
        let half: Vec<f64> = norms.iter().map(|norm| 0.5 * norm * norm).collect();
        for (j, (&norm, scale)) in norms.iter().zip(&scales).enumerate() {
            let (of_panel, lane) = (&mut bounds[j / COLUMNS], j % COLUMNS);
            of_panel.factor[lane] = scale.factor as f32;
            of_panel.with_rounding[lane] = up(norm);
            of_panel.with_norm[lane] = up(scale.rounding + ROUNDING * norm);
            of_panel.shift[lane] = -half[j] as f32;
            of_panel.alone[lane] = up(ROUNDING * half[j]);
        }
        Self {
            values,
            d,
            panels,
            bounds,
            half,
        }
    }
}

/// The next f32 that is certainly not smaller.
fn up(value: f64) -> f32 {
    (value * (1.0 + 1e-6)) as f32 + f32::MIN_POSITIVE
}

/// The Euclidean norms of `rows` `[n, d]`.
pub fn norms(rows: &[f32], d: usize) -> Vec<f64> {
    rows.par_chunks_exact(d)
        .with_min_len(BLOCK)
        .map(|row| inner(row, row).sqrt())
        .collect()
}

/// An inner product in f64, in eight lanes, so that the compiler may use vector instructions.
#[inline(always)]
fn inner(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (eights, rest) = (a.chunks_exact(8), a.len() / 8 * 8);
    for (a, b) in eights.zip(b.chunks_exact(8)) {
        for lane in 0..8 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    for (lane, (&a, &b)) in a[rest..].iter().zip(&b[rest..]).enumerate() {
        sums[lane] += f64::from(a) * f64::from(b);
    }
    sums.iter().sum()
}

/// The index of the nearest of `centroids` for each of `points` `[n, d]` with these `norms`, ties to
/// the smaller index, into `labels`, which hold a guess (a search is faster after a good one).
/// Returns how many guesses were wrong.
pub fn search(
    path: Path,
    points: &[f32],
    norms: &[f64],
    centroids: &Centroids,
    labels: &mut [u32],
) -> usize {
    let d = centroids.d;
    points
        .par_chunks(BLOCK * d)
        .zip(norms.par_chunks(BLOCK))
        .zip(labels.par_chunks_mut(BLOCK))
        .map(|((points, norms), labels)| {
            path.run(Search {
                points,
                norms,
                centroids,
                labels,
            })
        })
        .sum()
}

struct Search<'a> {
    points: &'a [f32],
    norms: &'a [f64],
    centroids: &'a Centroids<'a>,
    labels: &'a mut [u32],
}

/// What is known of a point during a search.
struct Row {
    factor: f32,
    rounding: f32,
    norm: f32,
    /// A score that some centroid has at least.
    floor: f32,
    /// Centroids whose upper bound reached the floor of their time, with that bound.
    open: Vec<(f32, u32)>,
}

impl Work for Search<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<P: Products>(self) -> usize {
        let (d, centroids) = (self.centroids.d, self.centroids);
        let (scaled, scales) = interleave::<ROWS>(self.points, d, self.norms);
        let mut rows = Vec::with_capacity(scales.len().next_multiple_of(ROWS));
        for ((point, scale), (&norm, &label)) in self
            .points
            .chunks_exact(d)
            .zip(&scales)
            .zip(self.norms.iter().zip(&*self.labels))
        {
            // The guess sets the floor, so that little else reaches it.
            let guess = exact_score(point, centroids, label as usize);
            rows.push(Row {
                factor: scale.factor as f32,
                rounding: up(scale.rounding),
                norm: up(norm + scale.rounding),
                floor: (guess - guess.abs() * ROUNDING) as f32 - f32::MIN_POSITIVE,
                open: Vec::new(),
            });
        }
        rows.resize_with(rows.len().next_multiple_of(ROWS), Row::padding);
        let six_rows = 2 * ROWS * centroids.panels.pairs;
        for (panel, of_panel) in centroids.bounds.iter().enumerate() {
            for (six, of_rows) in scaled
                .chunks_exact(six_rows)
                .zip(rows.chunks_exact_mut(ROWS))
            {
                let products = tile::<P>(six, &centroids.panels, panel);
                for (row, products) in of_rows.iter_mut().zip(&products) {
                    let upper = of_panel.upper(row, products);
                    let mut reached = false;
                    for bound in upper {
                        reached |= bound >= row.floor;
                    }
                    if reached {
                        row.note(panel, &upper, of_panel);
                    }
                }
            }
        }
        let mut wrong = 0;
        for (i, point) in self.points.chunks_exact(d).enumerate() {
            let nearest = rows[i].decide(point, centroids);
            wrong += usize::from(nearest != self.labels[i]);
            self.labels[i] = nearest;
        }
        wrong
    }
}

impl Row {
    /// Fills up a tile; nothing reaches its floor.
    fn padding() -> Self {
        Self {
            factor: 0.0,
            rounding: 0.0,
            norm: 0.0,
            floor: f32::INFINITY,
            open: Vec::new(),
        }
    }

    /// Notes the centroids of a panel that reach the floor, and raises it.
    #[cold]
    #[inline(never)]
    fn note(&mut self, panel: usize, upper: &[f32; COLUMNS], bounds: &Bounds) {
        for (j, &bound) in upper.iter().enumerate() {
            if bound >= self.floor {
                self.open.push((bound, (panel * COLUMNS + j) as u32));
                // Twice the error, and its rounding, below the upper bound.
                self.floor = self.floor.max(bound - 2.001 * bounds.error(self, j));
            }
        }
    }

    fn decide(&mut self, point: &[f32], centroids: &Centroids) -> u32 {
        let floor = self.floor;
        self.open.retain(|(upper, _)| *upper >= floor);
        match self.open[..] {
            [(_, only)] => only,
            _ => {
                let mut best = (f64::NEG_INFINITY, 0);
                for &(_, j) in &self.open {
                    let score = exact_score(point, centroids, j as usize);
                    if score > best.0 {
                        best = (score, j);
                    }
                }
                best.1
            }
        }
    }
}

/// `x·c − ‖c‖²/2` in f64.
fn exact_score(point: &[f32], centroids: &Centroids, j: usize) -> f64 {
    let centroid = &centroids.values[j * centroids.d..][..centroids.d];
    inner(point, centroid) - centroids.half[j]
}
