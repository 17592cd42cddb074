//! Products in plain loops.

use super::{COLUMNS, Products, ROWS, Tile};

pub struct Portable;

impl Products for Portable {
    #[inline(always)]
    fn tiles<const N: usize>(
        points: [&[i16]; ROWS],
        count: usize,
        panels: [&[i16]; N],
    ) -> [Tile; N] {
        panels.map(|panel| tile(&points[..count], panel))
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
fn tile(points: &[&[i16]], panel: &[i16]) -> Tile {
    let mut tile = [[0; COLUMNS]; ROWS];
    for (pair, panel) in panel.chunks_exact(2 * COLUMNS).enumerate() {
        for (sums, point) in tile.iter_mut().zip(points) {
            let (a, b) = (i32::from(point[2 * pair]), i32::from(point[2 * pair + 1]));
            for (sum, c) in sums.iter_mut().zip(panel.chunks_exact(2)) {
                *sum += a * i32::from(c[0]) + b * i32::from(c[1]);
            }
        }
    }
    tile
}
