//! Scores and exponentials of rows, in loops of which the compiler makes vector instructions.

use crate::cluster::kernel::Products;

/// `λ log P_j + v_j` into `scores`, and the largest of them.
#[inline(always)]
pub(super) fn score<P: Products>(
    scores: &mut [f64],
    log_p: &[f32],
    lambda: f64,
    potentials: &[f64],
) -> f64 {
    for ((score, &p), v) in scores.iter_mut().zip(log_p).zip(potentials) {
        *score = lambda * f64::from(p) + v;
    }
    P::largest(scores)
}

/// `e^x` for x ≤ 0 to within 2e-7 of the value, and 0 below −87; written so that the compiler may
/// use vector instructions.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.max(-87.0) * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let r = x.max(-87.0) - whole * LN2_HIGH - whole * LN2_LOW;
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_exact_to_single_precision() {
        for step in 0..=87_000 {
            let x = -(step as f32) / 1000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.5e-7, "exp({x}): {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e4), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }
}
