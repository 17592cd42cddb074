//! Products for any processor, on vectors of 128 bits (SSE2, NEON, and what `wide` makes of others): as
//! `avx2.rs`, with fewer points at a time, because there are 16 registers.

use wide::{i16x8, i32x4};

use super::{COLUMNS, Products, ROWS, Tile};

pub struct Portable;

/// Points that are taken together, and vectors of a panel's row.
const FEW: usize = 2;
const PARTS: usize = COLUMNS / 4;

impl Products for Portable {
    #[inline(always)]
    fn tiles<const N: usize>(
        points: [&[i16]; ROWS],
        count: usize,
        panels: [&[i16]; N],
    ) -> [Tile; N] {
        panels.map(|panel| {
            let mut tile = [[0; COLUMNS]; ROWS];
            let few = points.as_chunks::<FEW>().0.iter();
            let parts = few.zip(tile.as_chunks_mut::<FEW>().0);
            for (points, tile) in parts.take(count.div_ceil(FEW)) {
                *tile = products(points, panel);
            }
            tile
        })
    }

    #[inline(always)]
    fn inner(a: &[f32], b: &[f32]) -> f64 {
        super::product(a, b)
    }

    #[inline(always)]
    fn dot(a: &[f32], b: &[f64]) -> f64 {
        super::product(a, b)
    }

    #[inline(always)]
    fn largest(values: &[f64]) -> f64 {
        super::largest(values)
    }
}

#[inline(always)]
fn repeated([a, b]: [i16; 2]) -> i16x8 {
    i16x8::new([a, b, a, b, a, b, a, b])
}

#[inline(always)]
fn products(points: &[&[i16]; FEW], panel: &[i16]) -> [[i32; COLUMNS]; FEW] {
    let mut sums = [[i32x4::ZERO; PARTS]; FEW];
    let [first, second] = points.map(|point| point.as_chunks::<2>().0.iter());
    let panel = panel.as_chunks::<{ 2 * COLUMNS }>().0;
    for (panel, pairs) in panel.iter().zip(first.zip(second)) {
        for (part, &c) in panel.as_chunks::<8>().0.iter().enumerate() {
            let c = i16x8::new(c);
            sums[0][part] += c.dot(repeated(*pairs.0));
            sums[1][part] += c.dot(repeated(*pairs.1));
        }
    }
    sums.map(|sums| {
        let mut row = [0; COLUMNS];
        for (row, sum) in row.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            *row = sum.to_array();
        }
        row
    })
}
