//! Released numbers: multiples of a declared step, from integers by integer arithmetic.

use cohort_protocol::recipe::Step;
use serde_json::{Number, Value};

const ONE: i128 = Step::ONE as i128;

/// Largest magnitude of a whole number that every JSON reader keeps: 2^53 - 1.
pub(super) const MAX_SAFE: i64 = (1 << 53) - 1;

/// The multiple of `step` nearest to `numerator / denominator` that lies within `lower..=upper` (whole units).
/// Halves go away from zero. `denominator` must be positive; some multiple must lie within the range.
pub(super) fn nearest(numerator: i128, denominator: i128, step: Step, lower: i64, upper: i64) -> Value {
    let step = i128::from(step.micros());
    let steps = round_div(numerator.saturating_mul(ONE), denominator.max(1).saturating_mul(step));
    let most = (i128::from(upper) * ONE).div_euclid(step);
    let least = -(-i128::from(lower) * ONE).div_euclid(step);
    // Not `clamp`, which panics on an empty range; recipes with one are refused.
    number(steps.min(most).max(least) * step)
}

/// [`nearest`] for a number that post-processing computed in floating point; what is not finite counts as 0.
pub(super) fn nearest_to(value: f64, step: Step, lower: i64, upper: i64) -> Value {
    const LARGEST: f64 = 1e18;
    let micros = if value.is_finite() { (value * ONE as f64).clamp(-LARGEST, LARGEST) } else { 0.0 };
    nearest(micros as i128, ONE, step, lower, upper)
}

fn round_div(numerator: i128, denominator: i128) -> i128 {
    let (quotient, rest) = (numerator / denominator, numerator % denominator);
    let away = rest.unsigned_abs() >= denominator.unsigned_abs() - rest.unsigned_abs();
    quotient + if away { numerator.signum() } else { 0 }
}

/// A JSON number of millionths: whole where it is whole, otherwise the double that prints as that very decimal
/// (at most 15 significant digits, which doubles keep).
fn number(micros: i128) -> Value {
    if micros % ONE == 0 {
        return i64::try_from(micros / ONE).map_or(Value::Null, Value::from);
    }
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, rest) =
        (micros.unsigned_abs() / ONE.unsigned_abs(), micros.unsigned_abs() % ONE.unsigned_abs());
    let double = format!("{sign}{whole}.{rest:06}").parse().ok().and_then(Number::from_f64);
    double.map_or(Value::Null, Value::Number)
}

/// Reads a canonical JSON number back into millionths; `None` for exponents and for more than six places.
pub(super) fn micros(text: &str) -> Option<i128> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > 6 {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let fraction: i128 = format!("{fraction:0<6}").parse().ok()?;
    let value = whole.checked_mul(ONE)?.checked_add(fraction)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(numerator: i128, denominator: i128, step: &str, lower: i64, upper: i64) -> String {
        nearest(numerator, denominator, Step::parse(step).unwrap(), lower, upper).to_string()
    }

    #[test]
    fn numbers_are_multiples_of_the_step_within_the_range() {
        assert_eq!(text(1334, 10, "0.1", 0, 300), "133.4");
        assert_eq!(text(13345, 100, "0.1", 0, 300), "133.5");
        assert_eq!(text(-13345, 100, "0.1", -300, 0), "-133.5");
        assert_eq!(text(-13344, 100, "0.1", -300, 0), "-133.4");
        assert_eq!(text(2, 3, "0.001", 0, 1), "0.667");
        assert_eq!(text(7, 3, "0.001", 0, 1), "1");
        assert_eq!(text(1, 1, "0.4", 0, 1), "0.8"); // 1.2 would leave the range
        assert_eq!(text(1, 1, "0.4", 1, 2), "1.2"); // 0.8 would leave it at the other end
        assert_eq!(text(-7, 3, "0.001", 0, 1), "0");
        assert_eq!(text(43, 1, "5", 0, MAX_SAFE), "45");
        assert_eq!(text(i128::MAX, 1, "1", 0, MAX_SAFE), MAX_SAFE.to_string());
    }

    #[test]
    fn canonical_text_reads_back_or_is_refused() {
        for (text, value) in [("133.4", 133_400_000), ("-0.000001", -1), ("12", 12_000_000)] {
            assert_eq!(micros(text), Some(value));
        }
        for bad in ["1e5", "0.0000001", "", "-", ".5", "+1", "1.2.3"] {
            assert_eq!(micros(bad), None, "{bad}");
        }
    }
}
