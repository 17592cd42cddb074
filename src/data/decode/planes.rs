//! The planes of a JPEG to a square of RGB.
//!
//! libjpeg brings the halved chroma planes to the size of the luma plane and mixes RGB from all three,
//! and only then is the image resized. All of that is linear but for rounding, so here each plane is
//! resized from where it lies, with libjpeg's filter for the chroma (each pixel takes 3/4 of the nearest
//! sample and 1/4 of the next one) worked into the weights, and RGB is mixed at the size that is wanted:
//! the pixels are those of the long way (and of Pillow's triangle filter) to within a grey level or two,
//! for a third of the work. Where chroma reaches over an edge between saturated and bright colours, RGB
//! leaves 0..255 and is clipped: there before the pixels are averaged, here after, which in a few pixels
//! (red letters on white) is worth some twenty levels.
//!
//! Both passes go over whole rows, which the compiler turns into vector instructions; between them the
//! planes, in 16 bits, are transposed.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use wide::i16x8;

/// One plane of a JPEG.
pub(super) struct Plane<'a> {
    pub values: &'a [u8],
    /// Samples from one row to the next.
    pub stride: usize,
}

/// Resizes the centre square of an image of `width` x `height` pixels, given as its planes Y, Cb, Cr,
/// to `side` x `side` and writes it as RGB, `[side, side, 3]`, into `target`. The chroma planes may have
/// `halved` columns, and rows.
///
/// # Panics
/// If a plane has fewer rows or columns than the image needs, or `target` another length.
pub(super) fn square_into(
    planes: &[Plane; 3],
    [width, height]: [usize; 2],
    halved: [bool; 2],
    side: usize,
    target: &mut [u8],
) {
    assert_eq!(target.len(), side * side * 3);
    let short = width.min(height);
    let luma = [width, height].map(|length| Taps::new(length, short, side));
    let chroma: [Taps; 2] = std::array::from_fn(|axis| {
        if halved[axis] {
            luma[axis].halves([width, height][axis])
        } else {
            luma[axis].clone()
        }
    });
    Arch::new().dispatch(Squaring {
        planes: [
            (&planes[0], &luma),
            (&planes[1], &chroma),
            (&planes[2], &chroma),
        ],
        side,
        target,
    });
}

/// A square to be made. A type of its own, because a closure would not be compiled for the wider
/// instruction sets.
struct Squaring<'a> {
    /// Each with its columns' and its rows' taps.
    planes: [(&'a Plane<'a>, &'a [Taps; 2]); 3],
    side: usize,
    target: &'a mut [u8],
}

/// Samples of a row that are worked on at a time, and rows of a strip.
const CHUNK: usize = 64;
/// Between the passes a grey level is this much.
const UNIT: f32 = 256.0;

impl WithSimd for Squaring<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            planes,
            side,
            target,
        } = self;
        let mut upright = Vec::new();
        let mut turned = [(); 3].map(|()| Vec::new());
        let mut mixed = [(); 3].map(|()| vec![0; side.next_multiple_of(8) * CHUNK]);
        let mut sums = [[0.0; CHUNK]; 3];
        // In strips of rows, which stay in the core's cache.
        for (index, strip) in target.chunks_mut(3 * side * CHUNK).enumerate() {
            let rows = index * CHUNK..index * CHUNK + strip.len() / (3 * side);
            for ((plane, [x, y]), turned) in planes.iter().zip(&mut turned) {
                let columns = x.reach();
                resize_rows(plane, y, rows.clone(), &columns, &mut upright);
                turned.resize(columns.len() * CHUNK, 0);
                transpose(&upright, columns.len(), turned);
            }
            for column in 0..side {
                for (sums, (values, (_, [x, _]))) in sums.iter_mut().zip(turned.iter().zip(planes))
                {
                    let (start, weights) = x.of(column);
                    let start = start - x.reach().start;
                    weighted(&values[start * CHUNK..], CHUNK, weights, sums);
                }
                mix(&sums, &mut mixed, column * CHUNK);
            }
            interleave(&mixed, side, strip);
        }
    }
}

/// Sums of Y, Cb, Cr in [`UNIT`]s to R, G, B, all values from 0 to 255 (JFIF 1.02, as in CCIR 601).
#[inline(always)]
fn mix([luma, blue, red]: &[[f32; CHUNK]; 3], mixed: &mut [Vec<u16>; 3], place: usize) {
    let [r, g, b] = mixed;
    let (r, g, b) = (
        &mut r[place..place + CHUNK],
        &mut g[place..place + CHUNK],
        &mut b[place..place + CHUNK],
    );
    const PART: f32 = 1.0 / UNIT;
    for i in 0..CHUNK {
        let (y, cb, cr) = (
            luma[i] * PART,
            blue[i] * PART - 128.0,
            red[i] * PART - 128.0,
        );
        r[i] = whole(y + 1.402 * cr, 255.0) as u16;
        g[i] = whole(y - 0.344_136 * cb - 0.714_136 * cr, 255.0) as u16;
        b[i] = whole(y + 1.772 * cb, 255.0) as u16;
    }
}

/// For each pixel of the square the samples of a plane that it is mixed from, along one axis.
#[derive(Clone)]
struct Taps {
    starts: Vec<usize>,
    /// `[side, count]`
    weights: Vec<f32>,
    count: usize,
}

impl Taps {
    /// Of the middle `short` of `length` pixels, scaled to `side` by Pillow's triangle filter.
    fn new(length: usize, short: usize, side: usize) -> Self {
        let scale = short as f64 / side as f64;
        let support = scale.max(1.0);
        let inverse = 1.0 / support;
        let count = ((2.0 * support).ceil() as usize).min(length);
        let mut taps = Self {
            starts: Vec::with_capacity(side),
            weights: vec![0.0; side * count],
            count,
        };
        let mut shares = Vec::with_capacity(count);
        for (pixel, weights) in taps.weights.chunks_exact_mut(count).enumerate() {
            let centre = (length - short) as f64 / 2.0 + (pixel as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(length);
            // All have as many samples, some of them without weight.
            let start = first.min(length - count);
            let of = |x: usize| (1.0 - (x as f64 + 0.5 - centre).abs() * inverse).max(0.0);
            shares.clear();
            shares.extend((first..last).map(of));
            let whole = 1.0 / shares.iter().sum::<f64>();
            for (weight, share) in weights[first - start..].iter_mut().zip(&shares) {
                *weight = (share * whole) as f32;
            }
            taps.starts.push(start);
        }
        taps
    }

    /// The same of a plane with a sample for two of the `length` pixels, each of which libjpeg makes 3/4 of
    /// its own sample and 1/4 of the next one on its side.
    fn halves(&self, length: usize) -> Self {
        let samples = length.div_ceil(2);
        let count = (self.count / 2 + 2).min(samples);
        let mut taps = Self {
            starts: Vec::with_capacity(self.starts.len()),
            weights: vec![0.0; self.starts.len() * count],
            count,
        };
        for (pixel, weights) in taps.weights.chunks_exact_mut(count).enumerate() {
            let (first, shares) = self.of(pixel);
            let start = (first / 2).saturating_sub(1 - first % 2);
            let start = start.min(samples - count);
            for (x, share) in (first..).zip(shares) {
                let own = x / 2;
                let next = if x % 2 == 0 {
                    own.saturating_sub(1)
                } else {
                    (own + 1).min(samples - 1)
                };
                weights[own - start] += 0.75 * share;
                weights[next - start] += 0.25 * share;
            }
            taps.starts.push(start);
        }
        taps
    }

    /// The first sample of a pixel, and the weights from there on.
    #[inline(always)]
    fn of(&self, pixel: usize) -> (usize, &[f32]) {
        let weights = &self.weights[pixel * self.count..][..self.count];
        (self.starts[pixel], weights)
    }

    /// The samples that have a part in some pixel.
    fn reach(&self) -> Range<usize> {
        let first = self.starts.first().copied().unwrap_or(0);
        let last = self.starts.last().copied().unwrap_or(0);
        first..last + self.count
    }
}

/// Mixes those `rows` of the square from a plane, of its `columns` alone: `[rows, columns]`, in [`UNIT`]s,
/// into `mixed`.
#[inline(always)]
fn resize_rows(
    plane: &Plane,
    taps: &Taps,
    rows: Range<usize>,
    columns: &Range<usize>,
    mixed: &mut Vec<u16>,
) {
    const LARGEST: f32 = 255.0 * UNIT;
    let width = columns.len();
    mixed.resize(rows.len() * width, 0);
    let mut sums = [0.0; CHUNK];
    for (row, mixed) in rows.zip(mixed.chunks_exact_mut(width)) {
        let (start, weights) = taps.of(row);
        let from = &plane.values[start * plane.stride + columns.start..];
        if width < CHUNK {
            for (x, value) in mixed.iter_mut().enumerate() {
                let mut sum = 0.0;
                for (row, weight) in weights.iter().enumerate() {
                    sum += weight * f32::from(from[row * plane.stride + x]);
                }
                *value = whole(sum * UNIT, LARGEST) as u16;
            }
            continue;
        }
        for first in (0..width).step_by(CHUNK) {
            // The last chunk may overlap with the one before.
            let first = first.min(width - CHUNK);
            weighted(&from[first..], plane.stride, weights, &mut sums);
            for (value, sum) in mixed[first..first + CHUNK].iter_mut().zip(&sums) {
                *value = whole(sum * UNIT, LARGEST) as u16;
            }
        }
    }
}

/// The weighted sums of the first [`CHUNK`] samples of rows.
#[inline(always)]
fn weighted<T: Copy + Into<f32>>(
    rows: &[T],
    stride: usize,
    weights: &[f32],
    sums: &mut [f32; CHUNK],
) {
    let mut all = [0.0; CHUNK];
    for (row, &weight) in weights.iter().enumerate() {
        let samples = &rows[row * stride..][..CHUNK];
        for i in 0..CHUNK {
            all[i] += weight * samples[i].into();
        }
    }
    *sums = all;
}

/// The nearest whole number from 0 to `most`, in the lowest bits, by operations that have vector
/// instructions, unlike `as`.
#[inline(always)]
fn whole(value: f32, most: f32) -> u32 {
    // From 2^23 on the lowest bits of an f32 are those of a whole number.
    const WHOLE: f32 = 8_388_608.0;
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < most { value } else { most };
    (value + WHOLE).to_bits()
}

/// `[rows, columns]` to `[columns, CHUNK]`, of which the first `rows` of each row are written.
#[inline(always)]
fn transpose(from: &[u16], columns: usize, to: &mut [u16]) {
    let rows = from.len() / columns;
    let (whole_rows, whole_columns) = (rows / 8 * 8, columns / 8 * 8);
    for top in (0..whole_rows).step_by(8) {
        for left in (0..whole_columns).step_by(8) {
            let block = transposed(&from[top * columns + left..], columns);
            for (x, column) in block.iter().enumerate() {
                to[(left + x) * CHUNK + top..][..8].copy_from_slice(column);
            }
        }
    }
    for y in 0..rows {
        let rest = if y < whole_rows { whole_columns } else { 0 };
        for x in rest..columns {
            to[x * CHUNK + y] = from[y * columns + x];
        }
    }
}

/// The block of eight by eight numbers at the beginning of rows of `stride`, with rows and columns swapped.
#[inline(always)]
fn transposed(rows: &[u16], stride: usize) -> [[u16; 8]; 8] {
    let mut block = [[0_u16; 8]; 8];
    for (y, row) in block.iter_mut().enumerate() {
        row.copy_from_slice(&rows[y * stride..][..8]);
    }
    bytemuck::cast(i16x8::transpose(bytemuck::cast(block)))
}

/// Three turned planes `[side, CHUNK]` to rows of RGB, `[rows, side, 3]`.
#[inline(always)]
fn interleave(planes: &[Vec<u16>; 3], side: usize, target: &mut [u8]) {
    let width = side.next_multiple_of(8);
    let mut strips = [(); 3].map(|()| vec![0; 8 * width]);
    for (index, rows) in target.chunks_mut(3 * side * 8).enumerate() {
        for (plane, strip) in planes.iter().zip(&mut strips) {
            for left in (0..width).step_by(8) {
                let block = transposed(&plane[left * CHUNK + 8 * index..], CHUNK);
                for (y, row) in block.iter().enumerate() {
                    strip[y * width + left..][..8].copy_from_slice(row);
                }
            }
        }
        for (y, row) in rows.chunks_exact_mut(3 * side).enumerate() {
            let place = y * width..y * width + side;
            let [r, g, b] = &strips;
            let (r, g, b) = (&r[place.clone()], &g[place.clone()], &b[place]);
            let pixels = row.as_chunks_mut::<3>().0.iter_mut();
            for (pixel, ((&r, &g), &b)) in pixels.zip(r.iter().zip(g).zip(b)) {
                *pixel = [r as u8, g as u8, b as u8];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Taps, transpose};

    #[test]
    fn matrices_are_transposed() {
        for (rows, columns) in [(1, 1), (8, 16), (5, 3), (13, 10)] {
            let matrix: Vec<u16> = (0..rows * columns)
                .map(|value| 7 * value + 60_000)
                .collect();
            let (rows, columns) = (usize::from(rows), usize::from(columns));
            let mut turned = vec![0; columns * CHUNK];
            transpose(&matrix, columns, &mut turned);
            for (row, column) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
                assert_eq!(turned[column * CHUNK + row], matrix[row * columns + column]);
            }
        }
    }

    #[test]
    fn weights_add_up_to_one_within_the_plane() {
        for (length, short, side) in [(1, 1, 8), (500, 375, 256), (37, 37, 64), (9, 5, 300)] {
            let all = Taps::new(length, short, side);
            let halves = all.halves(length);
            for (taps, samples) in [(all, length), (halves, length.div_ceil(2))] {
                assert!(taps.reach().end <= samples);
                for pixel in 0..side {
                    let (start, weights) = taps.of(pixel);
                    assert!(start + weights.len() <= samples);
                    let total: f32 = weights.iter().sum();
                    assert!(
                        (total - 1.0).abs() < 1e-6,
                        "{length} {short} {side}: {total}"
                    );
                }
            }
        }
    }
}
