//! The search for a block of points, by products in 16-bit integers.
//!
//! The nearest centroid has the largest score `x·c − ‖c‖²/2`. With rows rounded to x̃ and c̃,
//! `|x·c − x̃·c̃| ≤ ‖x − x̃‖ ‖c‖ + ‖x̃‖ ‖c − c̃‖` (Cauchy and Schwarz), so every score is known between
//! two bounds, and only centroids whose upper bound reaches the largest lower bound can be the
//! nearest. Distances in f64 decide between them.

use super::centroids::{Centroids, Terms, distance, up};
use super::layout::{Layout, Unit};
use crate::cluster::kernel::{
    self, BITS, COLUMNS, Products, ROWS, Scale, Scored, Work, larger, padded,
};

/// What a pair of panels costs beside one (267 against 205 billion products a second on Zen 5).
const PAIR: f64 = 1.55;
/// Points between the one that is worked on and the one that is asked for.
const AHEAD: usize = 4;
/// Some points with what is known of them.
pub struct Block<'a> {
    pub points: &'a [f32],
    /// The points in 16 bits, where they are kept.
    pub scaled: Option<&'a [i16]>,
    pub norms: &'a [f64],
    pub labels: &'a mut [u32],
    /// Each point is no farther than this from its label's centroid, in units.
    pub own: &'a mut [u16],
    /// `[points, groups]`
    pub bounds: &'a mut [u16],
    /// What has moved; `None` where there are no bounds yet.
    pub moves: Option<&'a Moves>,
    pub centroids: &'a Centroids<'a>,
    pub layout: &'a Layout,
    pub unit: Unit,
    pub scratch: &'a mut Scratch,
}

/// How far centroids have moved since the last search.
pub struct Moves {
    /// In units, the largest of each group: by so much its bounds fall.
    pub of_groups: Vec<u16>,
    /// In units, of each centroid: by so much its points may be farther from it.
    pub of_each: Vec<u16>,
}

/// Memory that one block leaves to the next.
#[derive(Default)]
pub struct Scratch {
    rows: Vec<Row>,
    /// Points whose nearest centroid the bounds leave open.
    asking: Vec<u16>,
    lists: Lists,
    /// Points in 16 bits, `[points, d]` padded, where they are not kept; only those that take part are
    /// renewed.
    scaled: Vec<i16>,
    /// Of the points of a list: the upper bound on the scores of a group, the norms, and what both make
    /// of the distances.
    tops: [Vec<f32>; 2],
    norms: Vec<f64>,
    lowest: Vec<u16>,
    open: Vec<Open>,
}

/// What is known of a point during a search.
#[derive(Clone)]
struct Row {
    factor: f32,
    rounding: f32,
    norm: f32,
    /// A score that some centroid has at least.
    floor: f32,
    /// Panel and column of the point's own centroid.
    place: (usize, usize),
    /// The score of its own centroid, and the score and the index of the nearest one so far; `None` while
    /// nothing competes.
    exact: Option<(f64, (f64, u32))>,
}

/// A centroid whose upper bound on the score reached the floor of its time.
struct Open {
    point: u16,
    bound: f32,
    centroid: u32,
}

/// Points that must be compared with each group.
#[derive(Default)]
struct Lists {
    size: usize,
    counts: Vec<u32>,
    /// `[groups, size]`
    points: Vec<u16>,
    /// All points, where each group is compared with all.
    all: Option<Vec<u16>>,
    union: Vec<u16>,
}

impl Work for Block<'_> {
    /// Labels that changed, and groups that were searched, for all points together.
    type Output = (usize, usize);

    #[inline(always)]
    fn run<P: Products>(mut self) -> Self::Output {
        let mut scratch = std::mem::take(self.scratch);
        self.prepare::<P>(&mut scratch);
        let (groups, width) = (self.layout.groups(), self.layout.width);
        let mut searched = 0;
        let mut group = 0;
        while group < groups {
            // Two groups of a panel each that are compared with much the same points are taken together.
            let together = width == 1 && group + 1 < groups && scratch.lists.unite(group);
            if together {
                searched += self.search::<P, 2>([group, group + 1], &mut scratch);
            } else {
                searched += self.search::<P, 1>([group], &mut scratch);
            }
            group += 1 + usize::from(together);
        }
        let changed = self.decide::<P>(&mut scratch);
        *self.scratch = scratch;
        (changed, searched)
    }
}

impl Block<'_> {
    /// Lowers the bounds, finds what must be compared, and scales the points that take part.
    #[inline(always)]
    fn prepare<P: Products>(&mut self, scratch: &mut Scratch) {
        let (d, groups, count) = (self.centroids.d, self.layout.groups(), self.norms.len());
        let width = padded(d);
        scratch.lists.clear(groups, count);
        if self.scaled.is_none() {
            scratch.scaled.resize(count * width, 0);
        }
        for tops in &mut scratch.tops {
            tops.resize(count.next_multiple_of(ROWS), 0.0);
        }
        scratch.open.clear();
        scratch.norms.resize(count, 0.0);
        scratch.lowest.resize(count, 0);
        scratch.rows.clear();
        scratch.rows.resize(count, Row::settled());
        scratch.asking.clear();
        match self.moves {
            None => {
                scratch.asking.extend(0..count as u16);
                scratch.lists.all = Some(scratch.asking.clone());
            }
            Some(moves) => {
                for (i, bounds) in self.bounds.chunks_exact_mut(groups).enumerate() {
                    let drift = moves.of_each[self.labels[i] as usize];
                    self.own[i] = self.own[i].saturating_add(drift);
                    lower(bounds, &moves.of_groups);
                    if some_at_most::<P>(bounds, self.own[i]) {
                        scratch.asking.push(i as u16);
                    }
                }
            }
        }
        for (at, &i) in scratch.asking.iter().enumerate() {
            let ahead = scratch.asking.get(at + AHEAD).map(|&i| usize::from(i));
            let i = usize::from(i);
            let (norm, label) = (self.norms[i], self.labels[i]);
            let scale = Scale::new(norm, d);
            let point = match self.scaled {
                Some(scaled) => {
                    if let Some(next) = ahead {
                        P::prefetch(&scaled[next * width..][..width]);
                    }
                    &scaled[i * width..][..width]
                }
                None => {
                    if let Some(next) = ahead {
                        P::prefetch(&self.points[next * d..][..d]);
                    }
                    let scaled = &mut scratch.scaled[i * width..][..width];
                    scale.quantise(&self.points[i * d..][..d], scaled);
                    scaled
                }
            };
            let place = self.layout.panel_of(label);
            let terms = &self.centroids.terms[place.0];
            let mut row = Row {
                factor: scale.factor as f32,
                rounding: up(scale.rounding),
                norm: up(norm + scale.rounding),
                floor: 0.0,
                place,
                exact: None,
            };
            let product = P::one(point, self.centroids.scaled(label)) as f32;
            let own = product * (row.factor * terms.factor[place.1]) + terms.shift[place.1];
            row.floor = own - 1.001 * terms.error(row.rounding, row.norm) - f32::MIN_POSITIVE;
            if self.moves.is_some() {
                self.own[i] = self.unit.above(distance(norm, f64::from(row.floor)));
                let bounds = &self.bounds[i * groups..][..groups];
                scratch.lists.add::<P>(i, bounds, self.own[i]);
            }
            scratch.rows[i] = row;
        }
    }

    /// Compares the points of the first group's list with these groups, and renews their bounds.
    /// Returns how many comparisons of a point with a group that were.
    #[inline(always)]
    fn search<P: Products, const N: usize>(
        &mut self,
        these: [usize; N],
        scratch: &mut Scratch,
    ) -> usize {
        let Scratch {
            rows,
            lists,
            scaled: renewed,
            tops,
            norms,
            lowest,
            open,
            ..
        } = scratch;
        let points = lists.of(these[0]);
        let scaled = self.scaled.unwrap_or(renewed);
        for (at, few) in points.chunks(ROWS).enumerate() {
            let found = self.compare::<P, N>(these, few, scaled, rows, open);
            for (tops, found) in tops.iter_mut().zip(found) {
                tops[at * ROWS..][..ROWS].copy_from_slice(&found);
            }
        }
        let groups = self.layout.groups();
        for (group, tops) in these.into_iter().zip(tops) {
            for (norm, &i) in norms.iter_mut().zip(points) {
                *norm = self.norms[usize::from(i)];
            }
            // A loop without gaps, of which the compiler makes vector instructions.
            let pairs = norms.iter().zip(&*tops);
            for (bound, (&norm, &top)) in lowest[..points.len()].iter_mut().zip(pairs) {
                *bound = self.unit.below(distance(norm, f64::from(top)));
            }
            for (&i, &bound) in points.iter().zip(&*lowest) {
                self.bounds[usize::from(i) * groups + group] = bound;
            }
        }
        N * points.len()
    }

    /// Compares up to [`ROWS`] points with groups: upper bounds on the scores of each with other
    /// centroids than its own.
    #[inline(always)]
    fn compare<P: Products, const N: usize>(
        &self,
        groups: [usize; N],
        few: &[u16],
        scaled: &[i16],
        rows: &mut [Row],
        open: &mut Vec<Open>,
    ) -> [[f32; ROWS]; N] {
        let width = padded(self.centroids.d);
        // The first point fills the tile up.
        let index: [usize; ROWS] =
            std::array::from_fn(|r| usize::from(*few.get(r).unwrap_or(&few[0])));
        let points = index.map(|i| &scaled[i * width..][..width]);
        let mut tops = [[f32::NEG_INFINITY; ROWS]; N];
        let panels = self.centroids.panels.count();
        let last = (self.layout.width * (groups[0] + 1)).min(panels);
        // Several groups are of one panel each.
        for first in self.layout.width * groups[0]..last {
            let these: [usize; N] = std::array::from_fn(|n| first + n);
            let tiles = P::tiles(
                points,
                few.len(),
                these.map(|panel| self.centroids.panels.panel(panel)),
            );
            for n in 0..N {
                let (panel, terms) = (these[n], &self.centroids.terms[these[n]]);
                for r in 0..few.len() {
                    let row = &mut rows[index[r]];
                    let own = if row.place.0 == panel {
                        row.place.1
                    } else {
                        COLUMNS
                    };
                    let products = (&tiles[n][r], row.factor, &terms.factor, &terms.shift);
                    let upper = P::highest(products, own) + terms.error(row.rounding, row.norm);
                    tops[n][r] = larger(tops[n][r], upper);
                    if upper >= row.floor {
                        let order = &self.layout.order[panel * COLUMNS..];
                        row.note(few[r], products, own, terms, order, open);
                    }
                }
            }
        }
        tops
    }

    /// Settles which centroid is the nearest, ties to the smaller index. Returns how many labels changed.
    #[inline(always)]
    fn decide<P: Products>(&mut self, scratch: &mut Scratch) -> usize {
        let (d, groups) = (self.centroids.d, self.layout.groups());
        let point = |i: u16| &self.points[usize::from(i) * d..][..d];
        let Scratch {
            rows, open, asking, ..
        } = scratch;
        open.retain(|open| open.bound >= rows[usize::from(open.point)].floor);
        for (
            at,
            &Open {
                point: i, centroid, ..
            },
        ) in open.iter().enumerate()
        {
            if let Some(next) = open.get(at + AHEAD) {
                P::prefetch(point(next.point));
            }
            let (point, i) = (point(i), usize::from(i));
            let score = self.centroids.exact_score::<P>(point, centroid);
            let (_, best) = rows[i].exact.get_or_insert_with(|| {
                let label = self.labels[i];
                let own = self.centroids.exact_score::<P>(point, label);
                (own, (own, label))
            });
            if score > best.0 || (score == best.0 && centroid < best.1) {
                *best = (score, centroid);
            }
        }
        let mut changed = 0;
        for i in asking.iter().map(|&i| usize::from(i)) {
            let (before, norm) = (self.labels[i], self.norms[i]);
            let Some((own, (score, nearest))) = rows[i].exact else {
                if self.moves.is_none() {
                    let floor = f64::from(rows[i].floor);
                    self.own[i] = self.unit.above(distance(norm, floor));
                }
                continue;
            };
            self.own[i] = self.unit.above(distance(norm, score));
            if nearest != before {
                // The centroid that was its own is one of the others now.
                let bound = &mut self.bounds[i * groups + self.layout.group_of(before)];
                *bound = (*bound).min(self.unit.below(distance(norm, own)));
                self.labels[i] = nearest;
                changed += 1;
            }
        }
        changed
    }
}

/// Lets bounds fall.
#[inline(always)]
fn lower(bounds: &mut [u16], drifts: &[u16]) {
    for (bound, &drift) in bounds.iter_mut().zip(drifts) {
        *bound = bound.saturating_sub(drift);
    }
}

/// Whether some bound does not exceed `own`.
#[inline(always)]
fn some_at_most<P: Products>(bounds: &[u16], own: u16) -> bool {
    bounds
        .chunks(BITS)
        .any(|bounds| P::at_most(bounds, own) != 0)
}

impl Lists {
    /// Empty lists for `size` points.
    fn clear(&mut self, groups: usize, size: usize) {
        self.size = size;
        self.all = None;
        self.counts.clear();
        self.counts.resize(groups, 0);
        self.points.resize(groups * size, 0);
    }

    /// Makes the lists of a group and the next one the same where that is cheaper: a pair of panels takes
    /// [`PAIR`] times as long as one.
    #[inline(always)]
    fn unite(&mut self, group: usize) -> bool {
        if self.all.is_some() {
            return true;
        }
        let (a, b) = (self.of(group), self.of(group + 1));
        let apart = a.len() + b.len();
        // The union is not smaller than the larger of the two.
        if PAIR * a.len().max(b.len()) as f64 >= apart as f64 {
            return false;
        }
        let mut union = std::mem::take(&mut self.union);
        union.clear();
        let (a, b) = (self.of(group), self.of(group + 1));
        let (mut i, mut j) = (0, 0);
        while i < a.len() && j < b.len() {
            let (x, y) = (a[i], b[j]);
            union.push(x.min(y));
            i += usize::from(x <= y);
            j += usize::from(y <= x);
        }
        union.extend_from_slice(&a[i..]);
        union.extend_from_slice(&b[j..]);
        let pays = PAIR * (union.len() as f64) < apart as f64;
        if pays {
            self.counts[group] = union.len() as u32;
            self.points[group * self.size..][..union.len()].copy_from_slice(&union);
        }
        self.union = union;
        pays
    }

    fn of(&self, group: usize) -> &[u16] {
        if let Some(all) = &self.all {
            return all;
        }
        &self.points[group * self.size..][..self.counts[group] as usize]
    }

    #[inline(always)]
    fn push(&mut self, group: usize, point: usize) {
        let count = &mut self.counts[group];
        self.points[group * self.size + *count as usize] = point as u16;
        *count += 1;
    }

    /// Adds a point to the groups whose bound does not exceed `own`.
    #[inline(always)]
    fn add<P: Products>(&mut self, point: usize, bounds: &[u16], own: u16) {
        for (part, bounds) in bounds.chunks(BITS).enumerate() {
            let mut open = P::at_most(bounds, own);
            while open != 0 {
                self.push(part * BITS + open.trailing_zeros() as usize, point);
                open &= open - 1;
            }
        }
    }
}

impl Row {
    /// A point that is compared with nothing.
    #[inline(always)]
    fn settled() -> Self {
        Self {
            factor: 0.0,
            rounding: 0.0,
            norm: 0.0,
            floor: f32::INFINITY,
            place: (0, 0),
            exact: None,
        }
    }

    /// Notes the centroids of a panel that reach the floor, and raises it.
    #[cold]
    #[inline(never)]
    fn note(
        &mut self,
        point: u16,
        products: Scored,
        own: usize,
        terms: &Terms,
        order: &[u32],
        open: &mut Vec<Open>,
    ) {
        let error = terms.error(self.rounding, self.norm);
        let scores = kernel::scores(products, own);
        for (&score, &centroid) in scores.iter().zip(order) {
            let bound = score + error;
            if bound >= self.floor {
                open.push(Open {
                    point,
                    bound,
                    centroid,
                });
                // Twice the error, and its rounding, below the upper bound.
                self.floor = self.floor.max(bound - 2.001 * error);
            }
        }
    }
}
