//! Products by `vpmaddwd`, which multiplies 16 pairs of i16 and adds them in twos: twice the
//! products of a fused multiply-add in f32. Half a tile keeps 8 registers of sums, two of a panel and
//! one of a point; more rows are no faster, because a core takes four such instructions a cycle at most.

use std::arch::x86_64::{
    __m256d, __m256i, _mm_loadu_ps, _mm256_add_epi32, _mm256_add_pd, _mm256_cvtps_pd,
    _mm256_loadu_pd, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_pd, _mm256_mul_pd,
    _mm256_set1_epi32, _mm256_set1_pd, _mm256_setzero_pd, _mm256_setzero_si256, _mm256_storeu_pd,
    _mm256_storeu_si256,
};

use super::{COLUMNS, LANES, Products, ROWS, Tile, Work, largest, total};

/// Runs `work` compiled for AVX2.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn run<W: Work>(work: W) -> W::Output {
    work.run::<Avx2>()
}

pub struct Avx2;

/// Points that are taken together.
const HALF: usize = ROWS / 2;

impl Products for Avx2 {
    #[inline(always)]
    fn tiles<const N: usize>(
        points: [&[i16]; ROWS],
        count: usize,
        panels: [&[i16]; N],
    ) -> [Tile; N] {
        panels.map(|panel| {
            let pairs = panel.len() / (2 * COLUMNS);
            assert!(panel.len() == pairs * 2 * COLUMNS);
            assert!(points.iter().all(|point| point.len() == 2 * pairs));
            let mut tile = [[0; COLUMNS]; ROWS];
            let halves = points.chunks_exact(HALF).zip(tile.chunks_exact_mut(HALF));
            for (points, tile) in halves.take(count.div_ceil(HALF)) {
                let points = std::array::from_fn(|row| points[row].as_ptr());
                // SAFETY: `Avx2` is only named by `run`, whose caller answers for the processor; the
                // slices are as long as asserted.
                unsafe { products(points, panel.as_ptr(), pairs, tile) }
            }
            tile
        })
    }

    #[inline(always)]
    fn inner(a: &[f32], b: &[f32]) -> f64 {
        // SAFETY: as for `tiles`.
        unsafe { product(a, b) }
    }

    #[inline(always)]
    fn dot(a: &[f32], b: &[f64]) -> f64 {
        // SAFETY: as for `tiles`.
        unsafe { product(a, b) }
    }

    #[inline(always)]
    fn largest(values: &[f64]) -> f64 {
        let (fours, rest) = values.as_chunks::<4>();
        let mut lanes = [f64::NEG_INFINITY; 4];
        // SAFETY: as for `tiles`; each chunk is as long as a register.
        unsafe {
            let mut most = _mm256_set1_pd(f64::NEG_INFINITY);
            for four in fours {
                most = _mm256_max_pd(most, _mm256_loadu_pd(four.as_ptr()));
            }
            _mm256_storeu_pd(lanes.as_mut_ptr(), most);
        }
        largest(&lanes).max(largest(rest))
    }
}

/// # Safety
/// AVX2; each of `points` holds `2 * pairs` and `panel` `COLUMNS * 2 * pairs` values.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn products(
    points: [*const i16; HALF],
    panel: *const i16,
    pairs: usize,
    tile: &mut [[i32; COLUMNS]],
) {
    let mut sums = [[_mm256_setzero_si256(); 2]; HALF];
    for pair in 0..pairs {
        // SAFETY: within the slices, by the caller's promise; loads need no alignment.
        unsafe {
            let c = panel.add(pair * COLUMNS * 2).cast::<__m256i>();
            let (low, high) = (_mm256_loadu_si256(c), _mm256_loadu_si256(c.add(1)));
            for (point, sums) in points.iter().zip(&mut sums) {
                let two = point.add(2 * pair).cast::<i32>();
                let x = _mm256_set1_epi32(two.read_unaligned());
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(x, low));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(x, high));
            }
        }
    }
    for (row, sums) in tile.iter_mut().zip(sums) {
        let at = row.as_mut_ptr().cast::<__m256i>();
        // SAFETY: a row holds two registers.
        unsafe {
            _mm256_storeu_si256(at, sums[0]);
            _mm256_storeu_si256(at.add(1), sums[1]);
        }
    }
}

/// Numbers of which a register takes 4, in f64.
trait Wide: Copy + Into<f64> {
    /// # Safety
    /// The instruction set of this file; 4 numbers lie at `at`.
    unsafe fn load(at: *const Self) -> __m256d;
}

impl Wide for f32 {
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m256d {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_cvtps_pd(_mm_loadu_ps(at)) }
    }
}

impl Wide for f64 {
    #[inline(always)]
    unsafe fn load(at: *const f64) -> __m256d {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_loadu_pd(at) }
    }
}

/// `Σ a_j b_j`.
///
/// # Safety
/// The instruction set of this file.
#[inline(always)]
unsafe fn product<B: Wide>(a: &[f32], b: &[B]) -> f64 {
    assert_eq!(a.len(), b.len());
    let whole = a.len() / LANES * LANES;
    let mut sums = [0.0; LANES];
    // SAFETY: places at which as many numbers are left as are read or written.
    unsafe {
        let mut lanes = [_mm256_setzero_pd(); LANES / 4];
        for start in (0..whole).step_by(LANES) {
            for (part, lanes) in lanes.iter_mut().enumerate() {
                let at = start + 4 * part;
                let (a, b) = (f32::load(a.as_ptr().add(at)), B::load(b.as_ptr().add(at)));
                *lanes = _mm256_add_pd(*lanes, _mm256_mul_pd(a, b));
            }
        }
        for (sums, lanes) in sums.chunks_exact_mut(4).zip(lanes) {
            _mm256_storeu_pd(sums.as_mut_ptr(), lanes);
        }
    }
    total(sums, &a[whole..], &b[whole..])
}
