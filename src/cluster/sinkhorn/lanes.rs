//! Sums, maxima and exponentials of rows in eight lanes, so that the compiler may use vector
//! instructions: the order of additions is fixed, and so is the result.

const LANES: usize = 8;

/// A dot product.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f64]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (a8, b8) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a8.remainder().iter().zip(b8.remainder());
    let tail: f64 = rest.map(|(&x, y)| f64::from(x) * y).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..LANES {
            lanes[lane] += f64::from(x[lane]) * y[lane];
        }
    }
    lanes.iter().sum::<f64>() + tail
}

/// A sum.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let eights = values.chunks_exact(LANES);
    let tail: f64 = eights.remainder().iter().map(|&x| f64::from(x)).sum();
    for x in eights {
        for lane in 0..LANES {
            lanes[lane] += f64::from(x[lane]);
        }
    }
    lanes.iter().sum::<f64>() + tail
}

/// `λ log P_j + v_j` into `scores`, and the largest of them.
#[inline(always)]
pub(super) fn score(scores: &mut [f64], log_p: &[f32], lambda: f64, potentials: &[f64]) -> f64 {
    for ((score, &p), v) in scores.iter_mut().zip(log_p).zip(potentials) {
        *score = lambda * f64::from(p) + v;
    }
    highest(scores)
}

/// The largest value; −∞ for none.
#[inline(always)]
fn highest(values: &[f64]) -> f64 {
    let larger = |a: f64, b: f64| if a > b { a } else { b };
    let mut lanes = [f64::NEG_INFINITY; LANES];
    let eights = values.chunks_exact(LANES);
    let tail = eights.remainder().iter().copied();
    let tail = tail.fold(f64::NEG_INFINITY, larger);
    for x in eights {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], x[lane]);
        }
    }
    lanes.into_iter().fold(tail, larger)
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
