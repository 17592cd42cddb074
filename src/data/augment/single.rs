//! Views of single images on the CPU, one after the other for each thread: an image stays in cache
//! from its crop to its last change, where operations on the whole batch would move it through
//! memory for each of them.

use pulp::{Arch, Simd, WithSimd};
use tch::Tensor;
use wide::f32x4;

use super::{Crop, GREY, LUMINANCE, NOISE, Operation, Recipe, SOLARISE_FROM, blur_weights, noise};
use crate::device::filled_rows;

/// See [`super::cook`].
pub(super) fn cook(images: &[&[u8]], side: usize, recipes: &[Recipe], size: i64) -> Tensor {
    let shape = [recipes.len() as i64, size, size, 3];
    let each = recipes.len() / images.len().max(1);
    // Compiled for each of the processor's instruction sets; the widest one runs.
    let arch = Arch::new();
    let views = filled_rows::<f32>(&shape, |row, view| {
        arch.dispatch(Cooking {
            image: images[row / each],
            side,
            recipe: &recipes[row],
            view,
            size: size as usize,
        });
    });
    views.permute([0, 3, 1, 2])
}

/// See [`super::centre`].
pub(super) fn centre(images: &[&[u8]], side: usize, size: usize) -> Tensor {
    let offset = (side - size) / 2;
    let shape = [images.len() as i64, size as i64, size as i64, 3];
    let views = filled_rows::<f32>(&shape, |row, view| {
        for (y, line) in view.chunks_exact_mut(3 * size).enumerate() {
            let pixels = &images[row][3 * ((offset + y) * side + offset)..][..3 * size];
            for (number, &pixel) in line.iter_mut().zip(pixels) {
                *number = f32::from(pixel) / 255.0;
            }
        }
    });
    views.permute([0, 3, 1, 2])
}

/// One view to be made. A type of its own, because a closure would not be compiled for the wider
/// instruction sets.
struct Cooking<'a> {
    /// `[side, side, 3]`
    image: &'a [u8],
    side: usize,
    recipe: &'a Recipe,
    /// `[size, size, 3]`
    view: &'a mut [f32],
    size: usize,
}

impl WithSimd for Cooking<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self {
            image,
            side,
            recipe,
            view,
            size,
        } = self;
        if recipe.crop.angle == 0.0 {
            sample(image, side, &recipe.crop, view, size);
        } else {
            sample_turned(image, side, &recipe.crop, view, size);
        }
        for &operation in &recipe.operations {
            change(view, size, operation);
        }
    }
}

/// Where one output pixel lies between two input pixels.
#[derive(Clone, Copy)]
struct Between {
    before: usize,
    after: usize,
    /// Share of `after`.
    share: f32,
}

/// The places of `size` output pixels on a line of `side` input pixels, of which `length` from
/// `start` on are shown.
fn places(start: f64, length: f64, size: usize, side: usize) -> Vec<Between> {
    (0..size)
        .map(|at| {
            let place = start + (at as f64 + 0.5) * length / size as f64 - 0.5;
            let place = place.clamp(0.0, (side - 1) as f64);
            let before = place as usize;
            Between {
                before,
                after: (before + 1).min(side - 1),
                share: (place - before as f64) as f32,
            }
        })
        .collect()
}

/// Bilinear samples of a crop of `image` `[side, side, 3]` in 0..1: `view` `[size, size, 3]`.
#[inline(always)]
fn sample(image: &[u8], side: usize, crop: &Crop, view: &mut [f32], size: usize) {
    let mut columns = places(crop.left, crop.width, size, side);
    if crop.mirror {
        columns.reverse();
    }
    let rows = places(crop.top, crop.height, size, side);
    let first = columns
        .iter()
        .map(|column| column.before)
        .min()
        .unwrap_or(0);
    let last = columns.iter().map(|column| column.after).max().unwrap_or(0);
    let shown = 3 * first..3 * (last + 1);
    // One number more, so that every pixel can be read, and written, as four.
    let mut line = vec![0.0_f32; 3 * side + 1];
    let width = 3 * size;
    for (number, row) in rows.iter().enumerate() {
        blend_lines(
            &mut line[shown.clone()],
            &image[row.before * side * 3..][shown.clone()],
            &image[row.after * side * 3..][shown.clone()],
            row.share,
        );
        let target = &mut view[number * width..];
        match target.get_mut(..width + 1) {
            // The first number of the next line is written too early; that line follows.
            Some(target) => blend_pixels(&line, &columns, target),
            None => {
                let mut last = vec![0.0; width + 1];
                blend_pixels(&line, &columns, &mut last);
                target.copy_from_slice(&last[..width]);
            }
        }
    }
}

/// The same of a crop that is turned.
fn sample_turned(image: &[u8], side: usize, crop: &Crop, view: &mut [f32], size: usize) {
    let (sin, cos) = crop.angle.sin_cos();
    let centre = (
        crop.left + crop.width / 2.0 - 0.5,
        crop.top + crop.height / 2.0 - 0.5,
    );
    let mirror = if crop.mirror { -1.0 } else { 1.0 };
    let most = (side - 1) as f64;
    for (at, pixel) in view.chunks_exact_mut(3).enumerate() {
        let off = |at: usize, length: f64| ((at as f64 + 0.5) / size as f64 - 0.5) * length;
        let (u, v) = (
            mirror * off(at % size, crop.width),
            off(at / size, crop.height),
        );
        let x = (centre.0 + u * cos - v * sin).clamp(0.0, most);
        let y = (centre.1 + u * sin + v * cos).clamp(0.0, most);
        let (left, top) = (x as usize, y as usize);
        let (right, below) = ((left + 1).min(side - 1), (top + 1).min(side - 1));
        let (across, down) = (x.fract() as f32, y.fract() as f32);
        for (channel, number) in pixel.iter_mut().enumerate() {
            let value = |x: usize, y: usize| f32::from(image[3 * (y * side + x) + channel]);
            let above = value(left, top) * (1.0 - across) + value(right, top) * across;
            let under = value(left, below) * (1.0 - across) + value(right, below) * across;
            *number = (above * (1.0 - down) + under * down) / 255.0;
        }
    }
}

/// A line between two others, in 0..1.
#[inline(always)]
fn blend_lines(line: &mut [f32], above: &[u8], below: &[u8], share: f32) {
    let (upper, lower) = ((1.0 - share) / 255.0, share / 255.0);
    for ((number, &a), &b) in line.iter_mut().zip(above).zip(below) {
        *number = f32::from(a) * upper + f32::from(b) * lower;
    }
}

/// A pixel of `line` for each of `columns`; `target` is one number longer than they are.
#[inline(always)]
fn blend_pixels(line: &[f32], columns: &[Between], target: &mut [f32]) {
    let four = |place: usize| line[3 * place..].first_chunk::<4>();
    for (at, column) in columns.iter().enumerate() {
        let (Some(before), Some(after)) = (four(column.before), four(column.after)) else {
            return;
        };
        let (before, after) = (f32x4::new(*before), f32x4::new(*after));
        let pixel = before + (after - before) * f32x4::splat(column.share);
        // The next pixel overwrites the fourth number.
        target[3 * at..3 * at + 4].copy_from_slice(pixel.as_array());
    }
}

/// Applies `operation` to an image `[size, size, 3]`.
#[inline(always)]
fn change(view: &mut [f32], size: usize, operation: Operation) {
    match operation {
        Operation::Brightness(factor) => {
            for number in view {
                *number = (*number * factor).clamp(0.0, 1.0);
            }
        }
        Operation::Contrast(factor) => {
            // By lines: a sum of 50,000 numbers in f32 would lose digits.
            let lines = view.chunks_exact(3 * size);
            let sum: f64 = lines
                .map(|line| f64::from(line.chunks_exact(3).map(luminance).sum::<f32>()))
                .sum();
            let mean = (sum / (size * size) as f64) as f32;
            for number in view {
                *number = (mean + (*number - mean) * factor).clamp(0.0, 1.0);
            }
        }
        Operation::Saturation(factor) => {
            for pixel in view.chunks_exact_mut(3) {
                let grey = luminance(pixel);
                for number in pixel {
                    *number = (grey + (*number - grey) * factor).clamp(0.0, 1.0);
                }
            }
        }
        Operation::Hue(turn) => {
            for pixel in view.chunks_exact_mut(3) {
                turn_hue(pixel, turn);
            }
        }
        Operation::Greyscale => {
            for pixel in view.chunks_exact_mut(3) {
                pixel.fill(luminance(pixel));
            }
        }
        Operation::Blur(sigma) => blur(view, size, sigma),
        Operation::Projection => {
            for pixel in view.chunks_exact_mut(3) {
                let off = (2.0 * pixel[1] - pixel[0] - pixel[2]) / 6.0;
                for (number, a) in pixel.iter_mut().zip([-1.0, 2.0, -1.0]) {
                    *number = (*number - off * a).clamp(0.0, 1.0);
                }
            }
        }
        Operation::DropColours { keep, seed } => drop_colours(view, usize::from(keep), seed),
        Operation::Coarse(side) => coarsen(view, size, side),
        Operation::Solarise => {
            for number in view {
                *number = if *number >= SOLARISE_FROM {
                    1.0 - *number
                } else {
                    *number
                };
            }
        }
    }
}

fn drop_colours(view: &mut [f32], keep: usize, seed: u64) {
    let count = view.len() / 3;
    let values = || {
        view.iter()
            .skip(keep)
            .step_by(3)
            .map(|&value| f64::from(value))
    };
    let mean = values().sum::<f64>() / count as f64;
    let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64;
    let deviation = NOISE * variance.sqrt() as f32;
    for channel in (0..3).filter(|&channel| channel != keep) {
        let numbers = view.iter_mut().skip(channel).step_by(3);
        for (number, noise) in numbers.zip(noise(seed, channel, count)) {
            *number = GREY + deviation * noise;
        }
    }
}

/// As libtorch's adaptive average pooling and bilinear interpolation.
fn coarsen(view: &mut [f32], size: usize, side: usize) {
    let bounds = |at: usize| (at * size / side, ((at + 1) * size).div_ceil(side));
    let mut small = vec![0.0_f32; 3 * side * side];
    for (at, pixel) in small.chunks_exact_mut(3).enumerate() {
        let ((left, right), (top, bottom)) = (bounds(at % side), bounds(at / side));
        for y in top..bottom {
            for x in left..right {
                for (sum, value) in pixel.iter_mut().zip(&view[3 * (y * size + x)..]) {
                    *sum += value;
                }
            }
        }
        let count = ((right - left) * (bottom - top)) as f32;
        pixel.iter_mut().for_each(|sum| *sum /= count);
    }
    let places = places(0.0, side as f64, size, side);
    for (at, pixel) in view.chunks_exact_mut(3).enumerate() {
        let (column, row) = (&places[at % size], &places[at / size]);
        for (channel, number) in pixel.iter_mut().enumerate() {
            let value = |x: usize, y: usize| small[3 * (y * side + x) + channel];
            let line = |y: usize| {
                value(column.before, y) * (1.0 - column.share)
                    + value(column.after, y) * column.share
            };
            *number = line(row.before) * (1.0 - row.share) + line(row.after) * row.share;
        }
    }
}

#[inline(always)]
fn luminance(pixel: &[f32]) -> f32 {
    pixel[0] * LUMINANCE[0] + pixel[1] * LUMINANCE[1] + pixel[2] * LUMINANCE[2]
}

/// Turns the hue of one pixel by a share of a full circle: to HSV and back, as torchvision does.
#[inline(always)]
fn turn_hue(pixel: &mut [f32], turn: f32) {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]];
    let value = r.max(g).max(b);
    let chroma = value - r.min(g).min(b);
    if chroma <= 0.0 {
        return;
    }
    // Hue in sixths of a turn; the largest channel decides the sector.
    let sector = if r == value {
        (g - b) / chroma
    } else if g == value {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    // Into 0..6, from at most one turn outside.
    let wrapped = |m: f32| m - 6.0 * (m / 6.0).floor();
    let turned = wrapped(sector + 6.0 * turn);
    // f(n) = V − C·max(0, min(m, 4 − m, 1)) with m = (n + H) mod 6, for R, G, B: n = 5, 3, 1.
    for (number, n) in pixel.iter_mut().zip([5.0, 3.0, 1.0]) {
        let m = wrapped(turned + n);
        *number = value - chroma * m.min(4.0 - m).clamp(0.0, 1.0);
    }
}

/// Two passes of a one-dimensional kernel, with the image mirrored at its border (without repeating
/// the border itself).
#[inline(always)]
fn blur(view: &mut [f32], size: usize, sigma: f32) {
    let weights = blur_weights(sigma, size as i64);
    let radius = weights.len() / 2;
    let mirrored = |at: usize| {
        let from_border = at.abs_diff(radius);
        from_border.min((2 * (size - 1)).saturating_sub(from_border))
    };
    let width = 3 * size;
    let mut padded = vec![0.0_f32; 3 * (size + 2 * radius)];
    for line in view.chunks_exact_mut(width) {
        for (at, pixel) in padded.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&line[3 * mirrored(at)..][..3]);
        }
        line.fill(0.0);
        for (tap, &weight) in weights.iter().enumerate() {
            for (number, &seen) in line.iter_mut().zip(&padded[3 * tap..]) {
                *number += weight * seen;
            }
        }
    }
    let across = view.to_vec();
    for (row, line) in view.chunks_exact_mut(width).enumerate() {
        line.fill(0.0);
        for (tap, &weight) in weights.iter().enumerate() {
            let seen = &across[width * mirrored(row + tap)..][..width];
            for (number, &seen) in line.iter_mut().zip(seen) {
                *number += weight * seen;
            }
        }
    }
}
