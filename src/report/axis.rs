//! What an axis spans and where its few ticks stand.

use std::ops::{Range, RangeInclusive};

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::format::tick;

/// Ticks aimed at: enough to read a value off, few enough to stay quiet.
const TICKS: f64 = 5.0;

/// A range with ticks at round numbers.
pub(super) struct Axis {
    from: f64,
    to: f64,
    ticks: Vec<f64>,
    step: f64,
}

impl Axis {
    /// Epochs: from the first to the last, ticks at whole numbers.
    pub fn epochs(values: impl Iterator<Item = f64>) -> Self {
        let (from, to) = padded(bounds(values));
        let step = round_step((to - from) / TICKS).max(1.0);
        let ticks = multiples(step, from, to);
        Self {
            from,
            to,
            ticks,
            step,
        }
    }

    /// Measured values: widened to the ticks around them, from zero where that costs
    /// the curve little of its height.
    pub fn values(values: impl Iterator<Item = f64>) -> Self {
        let (mut from, mut to) = bounds(values);
        if from > 0.0 && from < 0.5 * to {
            from = 0.0;
        }
        (from, to) = padded((from, to));
        let step = round_step((to - from) / TICKS);
        let (from, to) = ((from / step).floor() * step, (to / step).ceil() * step);
        let ticks = multiples(step, from, to);
        Self {
            from,
            to,
            ticks,
            step,
        }
    }

    /// Numbers of images: from zero to a tick at or above the largest.
    pub fn counts(largest: f64) -> Self {
        let step = round_step(largest / TICKS).max(1.0);
        let to = (largest / step).ceil() * step;
        let ticks = multiples(step, 0.0, to);
        Self {
            from: 0.0,
            to,
            ticks,
            step,
        }
    }

    /// Places in a list of `n`.
    pub fn ranks(n: usize) -> Self {
        let to = n as f64;
        let step = round_step(to / TICKS).max(1.0);
        let ticks = multiples(step, 0.0, to);
        Self {
            from: 0.0,
            to,
            ticks,
            step,
        }
    }

    /// The widest tick's text, in letters.
    pub fn label_width(&self) -> usize {
        self.ticks
            .iter()
            .map(|t| self.format_ext(t).chars().count())
            .max()
            .unwrap_or(0)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from);
        low + (part * f64::from(high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        tick(*value, self.step, self.from.abs().max(self.to.abs()))
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    })
}

/// A range of no width has no place for a point: give it some on both sides.
fn padded((from, to): (f64, f64)) -> (f64, f64) {
    let least = 1e-9 * from.abs().max(to.abs());
    if to - from > least {
        return (from, to);
    }
    let pad = if from == 0.0 {
        0.5
    } else {
        (0.1 * from.abs()).max(f64::MIN_POSITIVE)
    };
    (from - pad, to + pad)
}

/// The round number (1, 2 or 5 times a power of ten) at or above `raw`.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.max(f64::MIN_POSITIVE).log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|f| f * power >= raw * 0.999_999);
    factor.unwrap_or(10.0) * power
}

fn multiples(step: f64, from: f64, to: f64) -> Vec<f64> {
    let whole: RangeInclusive<i64> =
        ((from / step - 1e-6).ceil() as i64)..=((to / step + 1e-6).floor() as i64);
    whole.map(|i| i as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|t| axis.format_ext(t)).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(
            labels(&Axis::epochs([1.0, 20.0].into_iter())),
            ["5", "10", "15", "20"]
        );
        assert_eq!(
            labels(&Axis::epochs([1.0, 3.0].into_iter())),
            ["1", "2", "3"]
        );
        assert_eq!(
            labels(&Axis::values([0.1, 0.93].into_iter())),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(&Axis::counts(3.0)), ["0", "1", "2", "3"]);
    }

    #[test]
    fn odd_ranges_give_a_usable_axis() {
        for values in [
            [0.0, 0.0],
            [7.0, 7.0],
            [-3.0, -3.0],
            [1e-30, 2e-30],
            [-1e90, 1e90],
            [1.0, 1.0 + 1e-12],
        ] {
            let axis = Axis::values(values.into_iter());
            assert!(
                axis.from < axis.to && axis.from <= values[0] && values[1] <= axis.to,
                "{values:?}"
            );
            assert!((1..20).contains(&axis.ticks.len()), "{values:?}");
        }
        assert!(Axis::epochs([5.0].into_iter()).from < 5.0);
    }
}
