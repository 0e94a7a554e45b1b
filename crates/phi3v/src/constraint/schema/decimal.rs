//! Decimal numbers in their written form: compared and stepped without rounding.

use std::cmp::Ordering;

/// A decimal number of any size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    /// Whether the number is below zero; false for zero itself.
    pub negative: bool,
    /// Digits before the point, without leading zeros; empty below 1.
    pub whole: String,
    /// Digits after the point, without trailing zeros.
    pub fraction: String,
}

impl Decimal {
    /// Returns zero.
    pub(super) fn zero() -> Self {
        Self { negative: false, whole: String::new(), fraction: String::new() }
    }

    /// Returns ten to the power of `exponent`.
    pub(super) fn power_of_ten(exponent: usize) -> Self {
        Self { whole: format!("1{}", "0".repeat(exponent)), ..Self::zero() }
    }

    /// Parses the text of a JSON number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().ok()?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = [whole, fraction].concat();
        if exponent.unsigned_abs() > 2_000 || all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let point = whole.len() as i32 + exponent;
        let before = "0".repeat(usize::try_from(-point).unwrap_or(0));
        let after = "0".repeat(usize::try_from(point - all.len() as i32).unwrap_or(0));
        let all = [before, all, after].concat();
        let (whole, fraction) = all.split_at(usize::try_from(point).unwrap_or(0));
        Some(Self::new(negative, whole, fraction))
    }

    fn new(negative: bool, whole: &str, fraction: &str) -> Self {
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Self { negative, whole: whole.to_owned(), fraction: fraction.to_owned() }
    }

    /// Returns the number with the opposite sign.
    pub(super) fn negated(&self) -> Self {
        Self::new(!self.negative, &self.whole, &self.fraction)
    }

    /// Returns whether the number is zero.
    pub(super) fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    /// Returns the digits before the point, at least one.
    pub(super) fn whole_digits(&self) -> &str {
        if self.whole.is_empty() { "0" } else { &self.whole }
    }

    /// Returns the least number with at most `places` digits after the point that is not below this number, which must not
    /// be negative.
    pub(super) fn rounded_up(&self, places: usize) -> Self {
        let down = self.rounded_down(places);
        if down == *self { down } else { down.stepped_up(places) }
    }

    /// Returns the greatest number with at most `places` digits after the point that is not above this number, which must
    /// not be negative.
    pub(super) fn rounded_down(&self, places: usize) -> Self {
        Self::new(false, &self.whole, self.fraction.get(..places).unwrap_or(&self.fraction))
    }

    /// Adds one unit of the last of `places` digits after the point. The number must not be negative.
    pub(super) fn stepped_up(&self, places: usize) -> Self {
        let mut digits = format!("0{}{:0<places$}", self.whole, self.fraction).into_bytes();
        for digit in digits.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
        self.of_digits(digits, places)
    }

    /// Subtracts one unit of the last of `places` digits after the point. The number must be at least that unit.
    pub(super) fn stepped_down(&self, places: usize) -> Self {
        let mut digits = format!("0{}{:0<places$}", self.whole, self.fraction).into_bytes();
        for digit in digits.iter_mut().rev() {
            if *digit > b'0' {
                *digit -= 1;
                break;
            }
            *digit = b'9';
        }
        self.of_digits(digits, places)
    }

    fn of_digits(&self, digits: Vec<u8>, places: usize) -> Self {
        let text = String::from_utf8(digits).unwrap_or_default();
        let (whole, fraction) = text.split_at(text.len() - places);
        Self::new(self.negative, whole, fraction)
    }

    /// Returns the remainder by `divisor` of this number in units of ten to the minus `places`. Returns `None` if the number
    /// is not a multiple of that unit.
    pub(super) fn remainder(&self, places: usize, divisor: u64) -> Option<u64> {
        if self.fraction.len() > places {
            return None;
        }
        let digits = format!("{}{:0<places$}", self.whole, self.fraction);
        let step = |rest: u128, digit: u8| (rest * 10 + u128::from(digit - b'0')) % u128::from(divisor);
        u64::try_from(digits.bytes().fold(0, step)).ok()
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |a: &Self, b: &Self| {
            let whole = (a.whole.len(), &a.whole).cmp(&(b.whole.len(), &b.whole));
            whole.then_with(|| a.fraction.cmp(&b.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => size(self, other),
            (true, true) => size(other, self),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn texts_and_order() {
        let ascending =
            ["-1e3", "-12.5", "-0.5", "-1e-5", "0", "1e-300", "0.05", "0.5", "1", "1.25", "9", "10", "1e20"];
        for pair in ascending.windows(2) {
            assert!(decimal(pair[0]) < decimal(pair[1]), "{pair:?}");
        }
        for (text, same) in [("-0", "0.0"), ("1.50e1", "15"), ("100e-2", "1"), ("0.25E+2", "25")] {
            assert_eq!(decimal(text), decimal(same));
        }
        for text in ["", "-", "a", "1e99999", "1 "] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn steps_and_remainders() {
        assert_eq!(decimal("9.99").stepped_up(2), decimal("10"));
        assert_eq!(decimal("100").stepped_down(0), decimal("99"));
        assert_eq!(decimal("1.234").rounded_up(2), decimal("1.24"));
        assert_eq!(decimal("1.23").rounded_up(2), decimal("1.23"));
        assert_eq!(decimal("1.239").rounded_down(2), decimal("1.23"));
        assert_eq!(
            decimal("12345678901234567890123").remainder(0, 7),
            Some((12_345_678_901_234_567_890_123_u128 % 7) as u64)
        );
        assert_eq!(decimal("0.75").remainder(2, 25), Some(0));
        assert_eq!(decimal("0.755").remainder(2, 25), None);
    }
}
