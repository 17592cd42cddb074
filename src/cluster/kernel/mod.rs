//! What clustering computes most of the time, one file for each instruction set, chosen at run time:
//! inner products of many points with all centroids in 16-bit integers, and sums and maxima of rows in
//! f64 whose order of additions is the same everywhere.
//!
//! A row is scaled to a norm of [`NORM`] and rounded, so that any inner product of two rows fits
//! into an i32. What rounding costs is bounded by the caller (`nearest/`), which decides the few
//! cases that the bound leaves open in f64: every instruction set gives the same labels.
//!
//! `unsafe` is needed here for the instruction sets and for reading a tensor's memory as a slice.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

pub use portable::Portable;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Points of a tile.
pub const ROWS: usize = 8;
/// Centroids of a tile, and of a panel.
pub const COLUMNS: usize = 16;
/// Norm of a scaled row: `NORM²` and all partial sums stay below 2^31.
pub const NORM: f64 = 32_000.0;

/// Products of a tile.
pub type Tile = [[i32; COLUMNS]; ROWS];

/// Sums of an inner product that are kept apart, so that vector instructions may add to all of them
/// in any order.
pub const LANES: usize = 16;

/// `Σ a_j b_j` in f64, in plain loops.
#[inline(always)]
fn product<B: Copy + Into<f64>>(a: &[f32], b: &[B]) -> f64 {
    let (chunks, rest) = a.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in chunks.iter().zip(b.as_chunks::<LANES>().0) {
        sums = std::array::from_fn(|lane| sums[lane] + f64::from(a[lane]) * b[lane].into());
    }
    total(sums, rest, &b[a.len() - rest.len()..])
}

/// The sum of all lanes, after the products of what is left over have gone into the first of them.
#[inline(always)]
fn total<B: Copy + Into<f64>>(mut sums: [f64; LANES], a: &[f32], b: &[B]) -> f64 {
    for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
        *sum += f64::from(a) * b.into();
    }
    sums.iter().sum()
}

#[inline(always)]
fn largest(values: &[f64]) -> f64 {
    values
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, |a, b| if a > b { a } else { b })
}

/// Values that [`Products::at_most`] compares at a time.
pub const BITS: usize = 32;

/// A row of a tile, the point's factor, the factors of the columns, and what is added to each.
pub type Scored<'a> = (
    &'a [i32; COLUMNS],
    f32,
    &'a [f32; COLUMNS],
    &'a [f32; COLUMNS],
);

/// Products scaled back and shifted; −∞ in column `own`, where that is one.
#[inline(always)]
pub fn scores((row, factor, factors, shifts): Scored, own: usize) -> [f32; COLUMNS] {
    let mut scores = std::array::from_fn(|j| row[j] as f32 * (factor * factors[j]) + shifts[j]);
    if let Some(score) = scores.get_mut(own) {
        *score = f32::NEG_INFINITY;
    }
    scores
}

/// The larger number; one instruction, unlike `f32::max`, because there is no NaN here.
#[inline(always)]
pub fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Scaled rows of a matrix `[k, d]` in panels of [`COLUMNS`] rows, in which two dimensions of all
/// rows lie side by side: `[panels][d / 2][COLUMNS][2]`, padded with zeros.
#[derive(Debug, Default)]
pub struct Panels {
    values: Vec<i16>,
    /// i16 of a panel.
    size: usize,
}

impl Panels {
    /// Packs those of the scaled `rows` `[.., width]` that `order` names.
    pub fn pack(rows: &[i16], width: usize, order: &[u32]) -> Self {
        let size = width * COLUMNS;
        let mut values = vec![0; order.len().div_ceil(COLUMNS) * size];
        values
            .par_chunks_exact_mut(size)
            .zip(order.par_chunks(COLUMNS))
            .for_each(|(panel, order)| {
                for (lane, &row) in order.iter().enumerate() {
                    let row = &rows[row as usize * width..][..width];
                    let pairs = panel.chunks_exact_mut(2 * COLUMNS);
                    for (at, two) in pairs.zip(row.chunks_exact(2)) {
                        at[2 * lane..][..2].copy_from_slice(two);
                    }
                }
            });
        Self { values, size }
    }

    /// The number of panels.
    pub fn count(&self) -> usize {
        self.values.len() / self.size
    }

    /// Panel `index`.
    pub fn panel(&self, index: usize) -> &[i16] {
        &self.values[index * self.size..][..self.size]
    }
}

/// The length of a scaled row of `d` dimensions, of which the kernels take two at a time.
pub fn padded(d: usize) -> usize {
    d.next_multiple_of(2)
}

/// How a row was scaled.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// What scales the rounded row x̃ back.
    pub factor: f64,
    /// A bound on ‖x − x̃‖.
    pub rounding: f64,
}

/// Norms within which single precision serves; rows outside are taken as zero, with all of their
/// norm as the rounding.
const NORMS: std::ops::Range<f64> = 1e-15..1e15;

impl Scale {
    /// How a row `[d]` of this norm is scaled.
    #[inline(always)]
    pub fn new(norm: f64, d: usize) -> Self {
        if !NORMS.contains(&norm) {
            return Self {
                factor: 0.0,
                rounding: norm,
            };
        }
        let factor = norm / NORM;
        Self {
            factor,
            // Half a unit for each value, and a little for the product that was rounded.
            rounding: 0.51 * factor * (d as f64).sqrt(),
        }
    }

    /// Rounds `row` into `scaled`, which is as long as [`padded`] says and ends in a zero where that is
    /// longer.
    #[inline(always)]
    pub fn quantise(self, row: &[f32], scaled: &mut [i16]) {
        if self.factor == 0.0 {
            scaled.fill(0);
            return;
        }
        let scale = (1.0 / self.factor) as f32;
        // Adding 1.5 · 2^23 rounds to an integer, which then stands in the lowest bits.
        const ROUND: f32 = 12_582_912.0;
        for (value, &x) in scaled.iter_mut().zip(row) {
            *value = (x * scale + ROUND).to_bits() as i16;
        }
    }
}

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// `vpdpwssd` on 512 bits.
    Avx512Vnni,
    /// `vpmaddwd` on 512 bits.
    Avx512,
    /// `vpmaddwd` on 256 bits.
    Avx2,
    /// 128 bits, which nearly every processor has.
    Portable,
}

impl Isa {
    /// Those that this processor has, the best first.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                if is_x86_feature_detected!("avx512vnni") {
                    sets.push(Self::Avx512Vnni);
                }
                sets.push(Self::Avx512);
            }
            sets.push(Self::Avx2);
        }
        sets.push(Self::Portable);
        sets
    }

    /// The best one that this processor has.
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// What `doctor` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "AVX-512 VNNI, 16-bit products",
            Self::Avx512 => "AVX-512, 16-bit products",
            Self::Avx2 => "AVX2, 16-bit products",
            Self::Portable => "128 bits, 16-bit products",
        }
    }

    /// Runs `work`, with this instruction set for what is inlined into it.
    ///
    /// # Panics
    /// If the processor lacks the instruction set.
    pub fn run<W: Work>(self, work: W) -> W::Output {
        assert!(
            Self::available().contains(&self),
            "{} is not there",
            self.name()
        );
        match self {
            // SAFETY: the processor has it, as asserted.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => unsafe { avx512::run_vnni(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512::run(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::run(work) },
            _ => work.run::<portable::Portable>(),
        }
    }
}

/// The products of [`ROWS`] scaled points with panels.
pub trait Products {
    /// The first `count` rows of the tile matter. All points are of the same, even length.
    fn tiles<const N: usize>(
        points: [&[i16]; ROWS],
        count: usize,
        panels: [&[i16]; N],
    ) -> [Tile; N];

    /// The product of two scaled rows of the same length.
    #[inline(always)]
    fn one(a: &[i16], b: &[i16]) -> i32 {
        let pairs = a.iter().zip(b);
        pairs.map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
    }

    /// The largest of the [`scores`].
    #[inline(always)]
    fn highest(products: Scored, own: usize) -> f32 {
        let scores = scores(products, own);
        // In halves, so that the compiler may use vector instructions.
        let eight: [f32; 8] = std::array::from_fn(|j| larger(scores[j], scores[j + 8]));
        let four: [f32; 4] = std::array::from_fn(|j| larger(eight[j], eight[j + 4]));
        larger(larger(four[0], four[2]), larger(four[1], four[3]))
    }

    /// Asks for all cache lines of a row that will be read soon.
    #[inline(always)]
    fn prefetch<T>(row: &[T]) {
        for line in row.chunks(64 / size_of::<T>()) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: part of x86-64; the address lies in the row, and nothing is read.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = line;
        }
    }

    /// The inner product of two rows of the same length in f64: the same number on every instruction set.
    fn inner(a: &[f32], b: &[f32]) -> f64;

    /// `Σ a_j b_j` in f64: the same number on every instruction set.
    fn dot(a: &[f32], b: &[f64]) -> f64;

    /// The largest value; −∞ for none.
    fn largest(values: &[f64]) -> f64;

    /// Those of up to [`BITS`] values that are not above `most`, as bits.
    #[inline(always)]
    fn at_most(values: &[u16], most: u16) -> u32 {
        let mut bits = 0;
        for (at, &value) in values.iter().enumerate() {
            bits |= u32::from(value <= most) << at;
        }
        bits
    }
}

/// Work that is compiled once for each instruction set: on products, or in loops that the compiler
/// turns into vector instructions (the arithmetic is the same on each: Rust fuses nothing by itself).
/// `run` must be `#[inline(always)]`.
pub trait Work {
    type Output;
    fn run<P: Products>(self) -> Self::Output;
}

/// The memory of a contiguous f32 tensor on the CPU; `None` for others. Other handles of the same
/// memory (`shallow_clone`, views) must not be written to while the slice lives, which holds in
/// `cluster`: it writes only to tensors that it made itself.
pub(in crate::cluster) fn values(tensor: &Tensor) -> Option<&[f32]> {
    let fits =
        tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous();
    // SAFETY: the memory holds `numel` f32 one after the other and lives as long as the tensor,
    // which is borrowed; nobody writes to it meanwhile, as said above.
    fits.then(|| match tensor.numel() {
        0 => &[][..],
        count => unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const f32, count) },
    })
}
