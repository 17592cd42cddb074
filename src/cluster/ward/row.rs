//! Loops over one row of the matrix, or one centroid, compiled for each of the processor's instruction
//! sets: types of their own, because a closure would not be.

use pulp::{Arch, Simd, WithSimd};

/// Columns that are looked at together. Rows are padded to a multiple of it.
pub const BLOCK: usize = 128;
/// Numbers that are kept apart, so that vector instructions may work on all of them.
const LANES: usize = 16;

/// The length of a row for so many columns.
pub fn padded(columns: usize) -> usize {
    columns.next_multiple_of(BLOCK)
}

/// The squared distance of two points `[d]`: the same number in either order, and on any processor.
pub fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    Arch::new().dispatch(SquaredDistance(a, b))
}

struct SquaredDistance<'a>(&'a [f64], &'a [f64]);

impl WithSimd for SquaredDistance<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> f64 {
        let Self(a, b) = self;
        let ((a, rest_of_a), (b, rest_of_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let mut sums = [0.0; LANES];
        for (a, b) in a.iter().zip(b) {
            sums = std::array::from_fn(|lane| {
                let difference = a[lane] - b[lane];
                sums[lane] + difference * difference
            });
        }
        for (sum, (a, b)) in sums.iter_mut().zip(rest_of_a.iter().zip(rest_of_b)) {
            *sum += (a - b) * (a - b);
        }
        sums.iter().sum()
    }
}

/// What a distance is at least: itself, less `share` of the other cluster's scatter.
#[inline(always)]
pub fn lower(distance: f32, share: f32, scatter: f32) -> f32 {
    distance - share * scatter
}

/// The smallest [`lower`] of each block of a row.
pub struct Lowest<'a> {
    pub row: &'a [f32],
    pub scatters: &'a [f32],
    pub share: f32,
    /// One for each block.
    pub lowest: &'a mut [f32],
}

impl WithSimd for Lowest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let rows = self.row.as_chunks::<BLOCK>().0.iter();
        let scatters = self.scatters.as_chunks::<BLOCK>().0;
        for ((row, scatters), target) in rows.zip(scatters).zip(self.lowest) {
            let mut lanes = [f32::INFINITY; LANES];
            let parts = row.as_chunks::<LANES>().0.iter();
            for (row, scatters) in parts.zip(scatters.as_chunks::<LANES>().0) {
                lanes = std::array::from_fn(|lane| {
                    let value = lower(row[lane], self.share, scatters[lane]);
                    if value < lanes[lane] {
                        value
                    } else {
                        lanes[lane]
                    }
                });
            }
            *target = lanes.into_iter().fold(f32::INFINITY, f32::min);
        }
    }
}

/// Two clusters that became one, as a row sees it: columns, weights, and their distance.
#[derive(Clone, Copy)]
pub struct Step {
    pub columns: [u32; 2],
    pub weights: [f32; 2],
    pub distance: f32,
}

impl Step {
    /// The distance to the new cluster from one of `weight` that had these distances to the old ones
    /// (Lance and Williams).
    #[inline(always)]
    pub fn distance(&self, weight: f32, [a, b]: [f32; 2]) -> f32 {
        let [of_a, of_b] = self.weights;
        ((of_a + weight) * a + (of_b + weight) * b - weight * self.distance)
            / (of_a + of_b + weight)
    }
}

/// The row of a new cluster, in place of the first one's.
pub struct Union<'a> {
    pub step: Step,
    pub first: &'a mut [f32],
    pub second: &'a [f32],
    /// Of the cluster in each column.
    pub weights: &'a [f32],
}

impl WithSimd for Union<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let others = self.second.iter().zip(self.weights);
        for (a, (&b, &weight)) in self.first.iter_mut().zip(others) {
            *a = self.step.distance(weight, [*a, b]);
        }
    }
}

/// Brings the row of a cluster of `weight` up to date.
pub fn replay(row: &mut [f32], weight: f32, steps: &[Step]) {
    for step in steps {
        let [a, b] = step.columns.map(|column| column as usize);
        row[a] = step.distance(weight, [row[a], row[b]]);
        row[b] = f32::INFINITY;
    }
}
