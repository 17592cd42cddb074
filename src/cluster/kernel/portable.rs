//! Products in plain loops.

use super::{COLUMNS, Products, ROWS, Tile};

pub struct Portable;

impl Products for Portable {
    #[inline(always)]
    fn tile(points: &[i16], panel: &[i16], pairs: usize) -> Tile {
        let mut tile = [[0; COLUMNS]; ROWS];
        let (points, panel) = (
            points.chunks_exact(2 * ROWS),
            panel.chunks_exact(2 * COLUMNS),
        );
        for (x, c) in points.zip(panel).take(pairs) {
            for (sums, x) in tile.iter_mut().zip(x.chunks_exact(2)) {
                for (sum, c) in sums.iter_mut().zip(c.chunks_exact(2)) {
                    *sum += i32::from(x[0]) * i32::from(c[0]) + i32::from(x[1]) * i32::from(c[1]);
                }
            }
        }
        tile
    }
}
