//! Numbers as a reader wants them.

/// `60000` as `60,000`.
pub(super) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share from 0 to 1 in per cent, with a decimal only where it tells something.
pub(super) fn percent(share: f64) -> String {
    let value = 100.0 * share;
    if !value.is_finite() {
        "–".to_owned()
    } else if value > 0.0 && value < 0.05 {
        "< 0.1 %".to_owned()
    } else if value < 9.95 && value != 0.0 {
        format!("{value:.1} %")
    } else {
        format!("{value:.0} %")
    }
}

/// A value with about three significant digits.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        a if a >= 1e6 => format!("{value:.2e}"),
        a if a >= 1e3 => {
            let sign = if value < 0.0 { "−" } else { "" };
            format!("{sign}{}", count(a.round() as usize))
        }
        a if a >= 100.0 => format!("{value:.0}"),
        a if a >= 10.0 => format!("{value:.1}"),
        a if a >= 1.0 => format!("{value:.2}"),
        a if a >= 1e-3 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// A position on an axis whose ticks are `step` apart and reach `largest`.
pub(super) fn tick(value: f64, step: f64, largest: f64) -> String {
    // A sum of steps rarely meets zero exactly, and "-0.0" is no label.
    let value = if value.abs() < step * 1e-6 {
        0.0
    } else {
        value
    };
    let (scale, suffix) = match largest.abs() {
        a if a >= 1e10 || step < 1e-6 => return format!("{value:.0e}"),
        _ if value == 0.0 && step >= 1.0 => return "0".to_owned(),
        a if a >= 1e7 => (1e6, "M"),
        a if a >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    // Steps are 1, 2 or 5 times a power of ten: the power tells the decimals.
    let decimals = (-(step / scale * 1.000_001).log10().floor()).max(0.0) as usize;
    format!("{:.decimals$}{suffix}", value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_281_167), "1,281,167");
    }

    #[test]
    fn shares_keep_small_ones_visible() {
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.0001), "< 0.1 %");
        assert_eq!(percent(0.0213), "2.1 %");
        assert_eq!(percent(0.914), "91 %");
        assert_eq!(percent(f64::NAN), "–");
    }

    #[test]
    fn ticks_show_as_many_decimals_as_their_step() {
        assert_eq!(tick(0.6, 0.2, 1.0), "0.6");
        assert_eq!(tick(-1e-17, 0.2, 1.0), "0.0");
        assert_eq!(tick(2.0, 1.0, 5.0), "2");
        assert_eq!(tick(8_000.0, 2_000.0, 12_000.0), "8k");
        assert_eq!(tick(12_500.0, 500.0, 13_000.0), "12.5k");
        assert_eq!(tick(0.0, 10_000.0, 40_000.0), "0");
    }
}
