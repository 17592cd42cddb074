//! Images with something to see: shapes of colours that go with their brightness.

use std::ops::Range;
use std::path::Path;

use image::{Rgb, RgbImage};

/// By how much of the distance to the middle.
const FRINGE: f64 = 0.05;

/// Numbers that look random, from a counter.
pub fn chance(seed: u32) -> f64 {
    let mut x = seed.wrapping_mul(0x9e37_79b1) ^ 0x5bd1_e995;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    f64::from(x ^ (x >> 16)) / f64::from(u32::MAX)
}

/// `count` images of `side` pixels: a dark blue ground, and a disc that is brighter the redder it is.
pub fn discs(folder: &Path, count: u32, side: u32) {
    for number in 0..count {
        let of = |what: u32| chance(number * 16 + what);
        let (x0, y0) = (of(0) * f64::from(side), of(1) * f64::from(side));
        let radius = (0.2 + 0.3 * of(2)) * f64::from(side);
        let warmth = of(3);
        let image = RgbImage::from_fn(side, side, |x, y| {
            let (dx, dy) = (f64::from(x) - x0, f64::from(y) - y0);
            let grain = 12.0 * chance(number * 7919 + y * side + x);
            let colour = if dx.hypot(dy) < radius {
                [90.0 + 150.0 * warmth, 60.0 + 60.0 * warmth, 40.0]
            } else {
                [20.0, 35.0, 90.0 + 30.0 * of(4)]
            };
            Rgb(colour.map(|value| (value + grain) as u8))
        });
        image.save(folder.join(format!("{number:04}.png"))).unwrap();
    }
}

/// Images `numbers` of noise whose red and blue lie a little outwards of the green, as a simple lens has it.
pub fn fringed_noise(folder: &Path, numbers: Range<u32>, side: u32) {
    let cells = 2.0;
    for number in numbers {
        // Smooth noise: chance at the corners of cells, blended.
        let value = |x: f64, y: f64| {
            let (cx, cy) = ((x / cells).floor(), (y / cells).floor());
            let corner = |i: f64, j: f64| {
                let place = ((cy + j) as i32 * 131 + (cx + i) as i32) as u32;
                chance(number.wrapping_mul(92_821) ^ place.wrapping_mul(31))
            };
            let (u, v) = (x / cells - cx, y / cells - cy);
            let above = corner(0.0, 0.0) * (1.0 - u) + corner(1.0, 0.0) * u;
            let below = corner(0.0, 1.0) * (1.0 - u) + corner(1.0, 1.0) * u;
            above * (1.0 - v) + below * v
        };
        let middle = f64::from(side) / 2.0;
        let image = RgbImage::from_fn(side, side, |x, y| {
            let at = |scale: f64| {
                let place = |p: u32| middle + (f64::from(p) - middle) * scale + 100.0;
                (255.0 * value(place(x), place(y))) as u8
            };
            let magenta = at(1.0 - FRINGE);
            Rgb([magenta, at(1.0), magenta])
        });
        image.save(folder.join(format!("{number:04}.png"))).unwrap();
    }
}
