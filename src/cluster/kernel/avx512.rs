//! The same products as `avx2.rs` on registers of twice the length, where VNNI also adds in the same
//! instruction. A tile keeps a register of sums for each of its points; with two panels at a time each
//! value of a point is loaded once for both. Fewer points are taken in two halves of their dimensions,
//! so that there are still eight sums that do not wait for each other.

use std::arch::x86_64::{
    __m512d, __m512i, _mm256_loadu_ps, _mm512_add_epi32, _mm512_add_pd, _mm512_add_ps,
    _mm512_cvtepi32_ps, _mm512_cvtps_pd, _mm512_dpwssd_epi32, _mm512_loadu_pd, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_madd_epi16, _mm512_mask_cmple_epu16_mask, _mm512_mask_mov_ps,
    _mm512_maskz_loadu_epi16, _mm512_max_pd, _mm512_mul_pd, _mm512_mul_ps, _mm512_reduce_max_pd,
    _mm512_reduce_max_ps, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_pd, _mm512_set1_ps,
    _mm512_setzero_pd, _mm512_setzero_si512, _mm512_storeu_pd, _mm512_storeu_si512,
};

use super::{BITS, COLUMNS, LANES, Products, ROWS, Scored, Tile, Work, largest, total};

/// Runs `work` compiled for AVX-512.
///
/// # Safety
/// The processor must have AVX-512 F, BW and VL, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
pub unsafe fn run<W: Work>(work: W) -> W::Output {
    work.run::<Avx512<false>>()
}

/// Runs `work` compiled for AVX-512 with VNNI.
///
/// # Safety
/// As for [`run`], with VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub unsafe fn run_vnni<W: Work>(work: W) -> W::Output {
    work.run::<Avx512<true>>()
}

pub struct Avx512<const VNNI: bool>;

impl<const VNNI: bool> Products for Avx512<VNNI> {
    #[inline(always)]
    fn tiles<const N: usize>(
        points: [&[i16]; ROWS],
        count: usize,
        panels: [&[i16]; N],
    ) -> [Tile; N] {
        let pairs = points[0].len() / 2;
        assert!(points.iter().all(|point| point.len() == 2 * pairs));
        assert!(
            panels
                .iter()
                .all(|panel| panel.len() == pairs * 2 * COLUMNS)
        );
        let (points, panels) = (points.map(<[i16]>::as_ptr), panels.map(<[i16]>::as_ptr));
        // SAFETY: this type is only named by `run` and `run_vnni`, whose callers answer for the
        // processor; the slices are as long as asserted.
        unsafe {
            if count > ROWS / 2 {
                products::<VNNI, N>(points, panels, pairs)
            } else {
                products_of_few::<VNNI, N>(points, panels, pairs)
            }
        }
    }

    #[inline(always)]
    fn highest((row, factor, factors, shifts): Scored, own: usize) -> f32 {
        // SAFETY: as for `tiles`; each of the arrays is as long as a register.
        unsafe {
            let products = _mm512_cvtepi32_ps(_mm512_loadu_si512(row.as_ptr().cast()));
            let factors = _mm512_mul_ps(_mm512_set1_ps(factor), _mm512_loadu_ps(factors.as_ptr()));
            let shifts = _mm512_loadu_ps(shifts.as_ptr());
            let scores = _mm512_add_ps(_mm512_mul_ps(products, factors), shifts);
            let others = !(1_u32 << own) as u16;
            let scores = _mm512_mask_mov_ps(_mm512_set1_ps(f32::NEG_INFINITY), others, scores);
            _mm512_reduce_max_ps(scores)
        }
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
        let (eights, rest) = values.as_chunks::<8>();
        // SAFETY: as for `tiles`; each chunk is as long as a register.
        let most = unsafe {
            let mut most = _mm512_set1_pd(f64::NEG_INFINITY);
            for eight in eights {
                most = _mm512_max_pd(most, _mm512_loadu_pd(eight.as_ptr()));
            }
            _mm512_reduce_max_pd(most)
        };
        most.max(largest(rest))
    }

    #[inline(always)]
    fn at_most(values: &[u16], most: u16) -> u32 {
        assert!(values.len() <= BITS);
        let there = ((1_u64 << values.len()) - 1) as u32;
        // SAFETY: as for `tiles`; only the values that are there are read.
        unsafe {
            let values = _mm512_maskz_loadu_epi16(there, values.as_ptr().cast());
            _mm512_mask_cmple_epu16_mask(there, values, _mm512_set1_epi16(most as i16))
        }
    }
}

/// # Safety
/// AVX-512 as for [`run`] or [`run_vnni`]; each of `points` holds `2 * pairs` and each of `panels`
/// `COLUMNS * 2 * pairs` values.
#[inline(always)]
unsafe fn products<const VNNI: bool, const N: usize>(
    points: [*const i16; ROWS],
    panels: [*const i16; N],
    pairs: usize,
) -> [Tile; N] {
    // SAFETY: within the slices, by the caller's promise; loads need no alignment.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); ROWS]; N];
        for pair in 0..pairs {
            let mut c = [_mm512_setzero_si512(); N];
            for (c, panel) in c.iter_mut().zip(panels) {
                *c = _mm512_loadu_si512(panel.add(pair * COLUMNS * 2).cast());
            }
            for row in 0..ROWS {
                let x = two(points[row].add(2 * pair));
                for n in 0..N {
                    sums[n][row] = add_products::<VNNI>(sums[n][row], x, c[n]);
                }
            }
        }
        let mut tiles = [[[0; COLUMNS]; ROWS]; N];
        for (tile, sums) in tiles.iter_mut().zip(sums) {
            *tile = stored(sums);
        }
        tiles
    }
}

/// The first half of the rows only, even pairs and odd pairs apart.
///
/// # Safety
/// As for [`products`].
#[inline(always)]
unsafe fn products_of_few<const VNNI: bool, const N: usize>(
    points: [*const i16; ROWS],
    panels: [*const i16; N],
    pairs: usize,
) -> [Tile; N] {
    const FEW: usize = ROWS / 2;
    // SAFETY: as in `products`.
    unsafe {
        let mut tiles = [[[0; COLUMNS]; ROWS]; N];
        for (tile, panel) in tiles.iter_mut().zip(panels) {
            let mut even = [_mm512_setzero_si512(); FEW];
            let mut odd = [_mm512_setzero_si512(); FEW];
            for pair in (0..pairs).step_by(2) {
                let c = _mm512_loadu_si512(panel.add(pair * COLUMNS * 2).cast());
                for (point, sum) in points.iter().zip(&mut even) {
                    *sum = add_products::<VNNI>(*sum, two(point.add(2 * pair)), c);
                }
                if pair + 1 < pairs {
                    let c = _mm512_loadu_si512(panel.add((pair + 1) * COLUMNS * 2).cast());
                    for (point, sum) in points.iter().zip(&mut odd) {
                        *sum = add_products::<VNNI>(*sum, two(point.add(2 * pair + 2)), c);
                    }
                }
            }
            let mut sums = [_mm512_setzero_si512(); ROWS];
            for row in 0..FEW {
                sums[row] = _mm512_add_epi32(even[row], odd[row]);
            }
            *tile = stored(sums);
        }
        tiles
    }
}

/// Two values, again and again.
///
/// # Safety
/// As for [`products`]; there are two at `values`.
#[inline(always)]
unsafe fn two(values: *const i16) -> __m512i {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_set1_epi32(values.cast::<i32>().read_unaligned()) }
}

/// `sum` and the products of pairs.
///
/// # Safety
/// As for [`products`].
#[inline(always)]
unsafe fn add_products<const VNNI: bool>(sum: __m512i, x: __m512i, c: __m512i) -> __m512i {
    // SAFETY: by the caller's promise.
    unsafe {
        if VNNI {
            _mm512_dpwssd_epi32(sum, x, c)
        } else {
            _mm512_add_epi32(sum, _mm512_madd_epi16(x, c))
        }
    }
}

/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn stored(sums: [__m512i; ROWS]) -> Tile {
    let mut tile = [[0; COLUMNS]; ROWS];
    for (row, sum) in tile.iter_mut().zip(sums) {
        // SAFETY: a row is as long as a register.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), sum) };
    }
    tile
}

/// Numbers of which a register takes 8, in f64.
trait Wide: Copy + Into<f64> {
    /// # Safety
    /// The instruction set of this file; 8 numbers lie at `at`.
    unsafe fn load(at: *const Self) -> __m512d;
}

impl Wide for f32 {
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m512d {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(at)) }
    }
}

impl Wide for f64 {
    #[inline(always)]
    unsafe fn load(at: *const f64) -> __m512d {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_loadu_pd(at) }
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
        let mut lanes = [_mm512_setzero_pd(); LANES / 8];
        for start in (0..whole).step_by(LANES) {
            for (part, lanes) in lanes.iter_mut().enumerate() {
                let at = start + 8 * part;
                let (a, b) = (f32::load(a.as_ptr().add(at)), B::load(b.as_ptr().add(at)));
                *lanes = _mm512_add_pd(*lanes, _mm512_mul_pd(a, b));
            }
        }
        for (sums, lanes) in sums.chunks_exact_mut(8).zip(lanes) {
            _mm512_storeu_pd(sums.as_mut_ptr(), lanes);
        }
    }
    total(sums, &a[whole..], &b[whole..])
}
