//! How the scaled matrix is stored: numbers from 0 to 1.

use super::lanes::exp;

/// A stored number.
pub(super) trait Entry: Copy + Default + Send + Sync {
    /// What makes of [`Self::values`] the numbers that are meant.
    const UNIT: f64;

    /// `e^x` for x ≤ 0.
    fn of_exponent(x: f32) -> Self;

    /// A row's numbers in multiples of [`Self::UNIT`], in `space` or where they are.
    fn values<'a>(row: &'a [Self], space: &'a mut [f32]) -> &'a [f32];
}

/// Single precision.
impl Entry for f32 {
    const UNIT: f64 = 1.0;

    #[inline(always)]
    fn of_exponent(x: f32) -> Self {
        exp(x)
    }

    #[inline(always)]
    fn values<'a>(row: &'a [f32], _space: &'a mut [f32]) -> &'a [f32] {
        row
    }
}

/// The square root in 16 bits. A number v is off by `√v / 65535` at most: what a column sums up, which is
/// mostly a few large numbers, is nearly as good as in single precision (see [`rounding`]).
impl Entry for u16 {
    const UNIT: f64 = 1.0 / (65_535.0 * 65_535.0);

    #[inline(always)]
    fn of_exponent(x: f32) -> Self {
        // Adding 2^23 rounds to an integer, which then stands in the lowest bits.
        (exp(0.5 * x) * 65_535.0 + 8_388_608.0).to_bits() as u16
    }

    #[inline(always)]
    fn values<'a>(row: &'a [u16], space: &'a mut [f32]) -> &'a [f32] {
        for (value, &root) in space.iter_mut().zip(row) {
            *value = f32::from(root) * f32::from(root);
        }
        space
    }
}

/// How much of the authors' criterion the rounding of u16 hides at most for `n` rows and `k` columns. An entry
/// v is off by `√(v / 3) / 65535` in the mean, a column of n/k times 1 by `√(n / 3k) / 65535`, that is by
/// `δ = √(k / 3n) / 65535` of itself; and n rows see that.
pub(super) fn rounding(n: usize, k: usize) -> f64 {
    (n as f64 * k as f64 / 3.0).sqrt() / 65_535.0
}

#[cfg(test)]
mod tests {
    use super::Entry;

    #[test]
    fn sixteen_bits_hold_roots() {
        for step in 0..4_000 {
            let x = -(step as f32) / 100.0;
            let exact = f64::from(x).exp();
            let mut value = [0.0];
            u16::values(&[u16::of_exponent(x)], &mut value);
            let stored = f64::from(value[0]) * u16::UNIT;
            assert!(
                (stored - exact).abs() <= 1.01 * exact.sqrt() / 65_535.0 + 1e-10,
                "{x}"
            );
        }
        assert_eq!(u16::of_exponent(0.0), 65_535);
        assert_eq!(u16::of_exponent(f32::NEG_INFINITY), 0);
    }
}
