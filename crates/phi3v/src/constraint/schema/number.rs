//! Numbers: bounds and multiples, kept exactly, and the texts they allow.
//!
//! A consumer of an answer may read its numbers as doubles. So that rounding never crosses a bound, a number with bounds
//! either has at most 15 digits, which doubles keep distinct, or is whole. An exclusive bound of 2^53 or more is replaced
//! by the next double. Numbers that the schema's own reader may have rounded are treated the same way.

use llguidance::derivre::RegexAst;
use serde_json::Number;

use super::Refused;
use super::decimal::Decimal;

/// Number of digits that doubles keep distinct.
const DOUBLE_DIGITS: usize = 15;

/// Numbers that are not whole, even when they are read as doubles.
const FRACTION: &str = r"-?(0|[1-9][0-9]{0,8})\.[0-9]{0,5}[1-9]";

/// Maximum digits of a whole number if no bound requires more: these fit into 64 bits.
const WHOLE_DIGITS: usize = 18;

/// Digits of the longest bounds. Larger bounds are cut towards the inside of the range.
const BOUND_DIGITS: usize = 40;

/// Digits after the point of the smallest bounds. Smaller bounds are rounded towards the inside of the range.
const BOUND_PLACES: usize = 60;

/// The largest supported `multipleOf`, without its trailing zeros. The engine has a state for each remainder, and searches
/// the states for a way to the end. From 6,000 on, that may exceed the engine's limits.
const MULTIPLE_MAX: u64 = 4_096;

/// Maximum digits after the point of a supported `multipleOf`.
const MULTIPLE_PLACES: usize = 6;

/// An end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    /// The value at which the range ends.
    pub value: Decimal,
    /// Whether the value itself is outside of the range.
    pub excluded: bool,
    /// The bound stated in the schema, if it is a double that cannot be used unchanged.
    stated: Option<Decimal>,
}

/// Multiples of `coefficient` times ten to the minus `places`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Multiple {
    coefficient: u64,
    places: usize,
}

/// A set of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NumberShape {
    /// Whether only whole numbers are in the set.
    pub whole: bool,
    /// Whether only numbers that are not whole are in the set.
    pub fractional: bool,
    /// The lower end, if any.
    pub low: Option<Bound>,
    /// The upper end, if any.
    pub high: Option<Bound>,
    /// The divisor of all numbers of the set, if any.
    pub multiple: Option<Multiple>,
}

/// Returns whether the reader of the schema may have rounded the number.
pub(super) fn may_be_rounded(number: &Number) -> bool {
    number.is_f64() && number.as_f64().is_some_and(|value| value.abs() >= 9_007_199_254_740_992.0)
}

/// Returns the value of a number of the schema.
pub(super) fn decimal(number: &Number) -> Result<Decimal, Refused> {
    Decimal::parse(&number.to_string())
        .ok_or_else(|| Refused::new(format!("the number {number} is too long")))
}

impl Bound {
    /// Returns the lower end of a range of the schema, in a form that rounding does not cross.
    pub(super) fn low(number: &Number, excluded: bool) -> Result<Self, Refused> {
        let value = number.as_f64().unwrap_or(0.0);
        // also if the schema had more digits than a double: then the next double is above the bound
        if may_be_rounded(number) || (excluded && !fits_64_bits(number) && value.abs() >= 1e15) {
            return Self::next(value.next_up(), number);
        }
        Ok(Self { value: decimal(number)?, excluded, stated: None })
    }

    /// Returns the upper end of a range of the schema, in a form that rounding does not cross.
    pub(super) fn high(number: &Number, excluded: bool) -> Result<Self, Refused> {
        let value = number.as_f64().unwrap_or(0.0);
        if may_be_rounded(number) || (excluded && !fits_64_bits(number) && value.abs() >= 1e15) {
            return Self::next(value.next_down(), number);
        }
        Ok(Self { value: decimal(number)?, excluded, stated: None })
    }

    fn next(value: f64, stated: &Number) -> Result<Self, Refused> {
        let value = Decimal::parse(&format!("{value}"));
        let value = value.ok_or_else(|| Refused::new("a bound is larger than any number"))?;
        Ok(Self { value, excluded: false, stated: Some(decimal(stated)?) })
    }

    fn negated(&self) -> Self {
        Self {
            value: self.value.negated(),
            excluded: self.excluded,
            stated: self.stated.as_ref().map(Decimal::negated),
        }
    }
}

fn fits_64_bits(number: &Number) -> bool {
    number.is_i64() || number.is_u64()
}

/// Returns the tighter of two ends; `order` says which value is tighter.
fn tighter(a: Option<Bound>, b: Option<Bound>, order: std::cmp::Ordering) -> Option<Bound> {
    match (a, b) {
        (Some(a), Some(b)) => {
            let compared = a.value.cmp(&b.value);
            Some(if compared == order || (compared.is_eq() && a.excluded) { a } else { b })
        }
        (a, b) => a.or(b),
    }
}

impl Multiple {
    /// Returns the multiples of a number of the schema.
    pub(super) fn of(number: &Number) -> Result<Self, Refused> {
        let value = decimal(number)?;
        if value.is_zero() || value.negative {
            return Err(Refused::new(format!("multipleOf is {number}, it must be above 0")));
        }
        let places = value.fraction.len();
        let digits = [value.whole.as_str(), value.fraction.as_str()].concat();
        let too_long =
            || Refused::new(format!("multipleOf is {number}, it has too many digits to be followed"));
        let coefficient = digits.parse().map_err(|_| too_long())?;
        if places > MULTIPLE_PLACES || may_be_rounded(number) {
            return Err(too_long());
        }
        Ok(Self { coefficient, places })
    }

    /// Returns the numbers that are multiples of both.
    fn and(self, other: Self) -> Result<Self, Refused> {
        let places = self.places.max(other.places);
        let scaled = |multiple: Self| {
            let scale = 10_u64.pow(u32::try_from(places - multiple.places).unwrap_or(0));
            multiple.coefficient.checked_mul(scale)
        };
        let common = scaled(self).zip(scaled(other)).and_then(|(a, b)| (a / gcd(a, b)).checked_mul(b));
        let coefficient = common.ok_or_else(|| {
            Refused::new("the common multiple of all multipleOf is too large to be followed")
        })?;
        Ok(Self { coefficient, places }.reduced())
    }

    /// Reduces the multiple to the fewest places after the point.
    fn reduced(mut self) -> Self {
        while self.places > 0 && self.coefficient.is_multiple_of(10) {
            self.coefficient /= 10;
            self.places -= 1;
        }
        self
    }

    /// Returns whether a number is one of the multiples.
    pub(super) fn contains(self, value: &Decimal) -> bool {
        value.remainder(self.places, self.coefficient) == Some(0)
    }

    /// Returns the coefficient without its trailing zeros, which is the engine's number of states, and the number of these
    /// zeros.
    fn states(self) -> (u64, usize) {
        let mut coefficient = self.coefficient;
        let mut zeros = 0;
        while self.places == 0 && coefficient.is_multiple_of(10) && coefficient > 0 {
            coefficient /= 10;
            zeros += 1;
        }
        (coefficient, zeros)
    }

    /// Returns the digits of such numbers, without sign.
    fn digits(self) -> Result<RegexAst, Refused> {
        let (coefficient, zeros) = self.states();
        if coefficient > MULTIPLE_MAX {
            return Err(Refused::new(format!(
                "multipleOf comes to {coefficient} without zeros at the end, the limit is {MULTIPLE_MAX}"
            )));
        }
        let places = u32::try_from(self.places).unwrap_or(u32::MAX);
        let multiple = RegexAst::MultipleOf(u32::try_from(coefficient).unwrap_or(u32::MAX), places);
        if zeros == 0 {
            return Ok(multiple);
        }
        let multiple = RegexAst::Concat(vec![multiple, RegexAst::Literal("0".repeat(zeros))]);
        Ok(RegexAst::Or(vec![multiple, RegexAst::Literal("0".to_owned())]))
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl NumberShape {
    /// Returns the numbers that are in both sets.
    pub(super) fn and(self, other: Self) -> Result<Self, Refused> {
        let multiple = match (self.multiple, other.multiple) {
            (Some(a), Some(b)) => Some(a.and(b)?),
            (a, b) => a.or(b),
        };
        Ok(Self {
            whole: self.whole || other.whole,
            fractional: self.fractional || other.fractional,
            low: tighter(self.low, other.low, std::cmp::Ordering::Greater),
            high: tighter(self.high, other.high, std::cmp::Ordering::Less),
            multiple,
        })
    }

    /// Returns the number of the engine's states for the divisor; 0 if [`Self::texts`] refuses that many.
    pub(super) fn states(&self) -> u64 {
        let states = self.multiple.map(|multiple| multiple.states().0);
        states.filter(|&states| states <= MULTIPLE_MAX).unwrap_or(0)
    }

    /// Returns whether a number is in the set.
    pub(super) fn contains(&self, value: &Decimal) -> bool {
        let above = |low: &Bound| *value > low.value || (*value == low.value && !low.excluded);
        let below = |high: &Bound| *value < high.value || (*value == high.value && !high.excluded);
        (!self.whole || value.fraction.is_empty())
            && !(self.fractional && value.fraction.is_empty())
            && self.low.as_ref().is_none_or(above)
            && self.high.as_ref().is_none_or(below)
            && self.multiple.is_none_or(|multiple| multiple.contains(value))
    }

    /// Returns the numbers below and the numbers above the range. Ends that were moved are left out.
    pub(super) fn outside_bounds(&self) -> Vec<Self> {
        let turned = |bound: &Bound| {
            let exact = bound.stated.is_none() && bound.value.whole.len() <= DOUBLE_DIGITS;
            exact.then(|| Bound { excluded: !bound.excluded, ..bound.clone() })
        };
        let below =
            self.low.as_ref().and_then(turned).map(|high| Self { high: Some(high), ..Self::default() });
        let above = self.high.as_ref().and_then(turned).map(|low| Self { low: Some(low), ..Self::default() });
        below.into_iter().chain(above).collect()
    }

    /// Returns the numbers that equal none of some values; `None` if one of the values is too long to be kept distinct.
    pub(super) fn without(values: &[&Number]) -> Option<Vec<Self>> {
        let mut points = Vec::new();
        for value in values {
            let value = Decimal::parse(&value.to_string())?;
            if value.whole.len() > DOUBLE_DIGITS || value.fraction.len() > DOUBLE_DIGITS {
                return None;
            }
            points.push(Bound { value, excluded: true, stated: None });
        }
        points.sort_by(|a, b| a.value.cmp(&b.value));
        points.dedup();
        let lows = std::iter::once(None).chain(points.iter().cloned().map(Some));
        let highs = points.iter().cloned().map(Some).chain(std::iter::once(None));
        Some(lows.zip(highs).map(|(low, high)| Self { low, high, ..Self::default() }).collect())
    }

    /// Returns whether the set is obviously empty.
    pub(super) fn is_never(&self) -> bool {
        let ends = self.low.as_ref().zip(self.high.as_ref());
        (self.whole && self.fractional)
            || ends.is_some_and(|(low, high)| {
                let moved = low.stated.is_some() || high.stated.is_some();
                let empty = low.value == high.value && (low.excluded || high.excluded);
                !moved && (low.value > high.value || empty)
            })
    }

    /// Refuses bounds that were moved inwards so far that nothing is left between them. Called for shapes without a text.
    pub(super) fn check_rounded_bounds(&self) -> Result<(), Refused> {
        let (Some(low), Some(high)) = (&self.low, &self.high) else { return Ok(()) };
        let moved = low.stated.is_some() || high.stated.is_some();
        if moved && low.stated.as_ref().unwrap_or(&low.value) <= high.stated.as_ref().unwrap_or(&high.value) {
            return Err(Refused::new(
                "bounds that lie close together beyond 64-bit integers cannot be followed",
            ));
        }
        Ok(())
    }

    /// Returns whether no number is in both sets.
    pub(super) fn is_apart_from(&self, other: &Self) -> bool {
        let before = |a: &Self, b: &Self| {
            a.high.as_ref().zip(b.low.as_ref()).is_some_and(|(high, low)| {
                high.value < low.value || (high.value == low.value && (high.excluded || low.excluded))
            })
        };
        (self.whole && other.fractional)
            || (self.fractional && other.whole)
            || before(self, other)
            || before(other, self)
    }

    /// Returns the texts of the numbers; `None` if there are none.
    pub(super) fn texts(&self) -> Result<Option<RegexAst>, Refused> {
        if self.fractional {
            let rest = Self { fractional: false, ..self.clone() };
            return Ok(rest
                .texts()?
                .map(|texts| RegexAst::And(vec![texts, RegexAst::Regex(FRACTION.to_owned())])));
        }
        let one = Multiple { coefficient: 1, places: 0 };
        let mut shape = self.clone();
        if shape.whole || shape.multiple.is_some_and(|multiple| multiple.places == 0) {
            shape.whole = true;
            let multiple = shape.multiple.map_or(Ok(one), |multiple| multiple.and(one))?;
            shape.multiple = Some(multiple).filter(|multiple| *multiple != one);
        }
        if !shape.whole && shape.low.is_none() && shape.high.is_none() && shape.multiple.is_none() {
            let any = format!(
                "-?(0|[1-9][0-9]{{0,{}}})(\\.[0-9]{{1,{DOUBLE_DIGITS}}})?([eE][+-]?[0-9]{{1,2}})?",
                WHOLE_DIGITS - 1
            );
            return Ok(Some(RegexAst::Regex(any)));
        }
        let zero = Bound { value: Decimal::zero(), excluded: false, stated: None };
        let below_zero = Bound { excluded: true, ..zero.clone() };
        let positive = tighter(shape.low.clone(), Some(zero), std::cmp::Ordering::Greater);
        let negative =
            tighter(shape.high.as_ref().map(Bound::negated), Some(below_zero), std::cmp::Ordering::Greater);
        let mut sides = Vec::new();
        if let Some(side) = shape.side(positive, shape.high.clone())? {
            sides.push(side);
        }
        if let Some(side) = shape.side(negative, shape.low.as_ref().map(Bound::negated))? {
            sides.push(RegexAst::Concat(vec![RegexAst::Literal("-".to_owned()), side]));
        }
        Ok(if sides.is_empty() { None } else { Some(RegexAst::Or(sides)) })
    }

    /// Returns the texts of non-negative numbers between two ends.
    fn side(&self, low: Option<Bound>, high: Option<Bound>) -> Result<Option<RegexAst>, Refused> {
        let low = low.unwrap_or(Bound { value: Decimal::zero(), excluded: false, stated: None });
        // a double with more digits than this does not show whether it is a multiple
        let exact = Bound { value: Decimal::power_of_ten(DOUBLE_DIGITS), excluded: true, stated: None };
        let high = tighter(high, self.multiple.map(|_| exact), std::cmp::Ordering::Less);
        if let Some(high) = &high
            && (high.value < low.value || (high.value == low.value && (high.excluded || low.excluded)))
        {
            return Ok(None);
        }
        if let Some(high) = high.as_ref().filter(|high| high.value == low.value) {
            return Ok(self.contains_size(&high.value).then(|| RegexAst::Literal(text(&high.value))));
        }
        let texts = if self.whole {
            self.whole_texts(&low, high).map(RegexAst::Regex)
        } else {
            decimal_texts(&low, high)
        };
        Ok(match (texts, self.multiple) {
            (Some(texts), Some(multiple)) => Some(RegexAst::And(vec![texts, multiple.digits()?])),
            (texts, _) => texts,
        })
    }

    fn contains_size(&self, size: &Decimal) -> bool {
        (!self.whole || size.fraction.is_empty())
            && self.multiple.is_none_or(|multiple| multiple.contains(size))
    }

    fn whole_texts(&self, low: &Bound, high: Option<Bound>) -> Option<String> {
        let mut least = low.value.rounded_up(0);
        if low.excluded && least == low.value {
            least = least.stepped_up(0);
        }
        let longest = Decimal::power_of_ten(BOUND_DIGITS);
        let high = high.unwrap_or_else(|| Bound {
            value: Decimal::power_of_ten(WHOLE_DIGITS.max(least.whole.len() + 1)),
            excluded: true,
            stated: None,
        });
        let mut most = high.value.rounded_down(0);
        if most >= longest {
            most = longest.stepped_down(0);
        } else if high.excluded && most == high.value && !most.is_zero() {
            most = most.stepped_down(0);
        } else if high.excluded && most == high.value {
            return None;
        }
        (least <= most).then(|| whole_range(least.whole_digits(), most.whole_digits()))
    }
}

/// Returns the text of a number.
fn text(value: &Decimal) -> String {
    let point = if value.fraction.is_empty() { "" } else { "." };
    [value.whole_digits(), point, &value.fraction].concat()
}

/// Matches whole numbers from `least` to `most`, which may differ in length.
fn whole_range(least: &str, most: &str) -> String {
    let parts: Vec<String> = (least.len()..=most.len())
        .map(|length| {
            let first = if length == 1 { "0".to_owned() } else { format!("1{}", "0".repeat(length - 1)) };
            let from = if length == least.len() { least } else { &first };
            let last = "9".repeat(length);
            let to = if length == most.len() { most } else { &last };
            same_length_range(from, to)
        })
        .collect();
    one_of(&parts)
}

/// Matches digits from `from` to `to`, which have the same length.
fn same_length_range(from: &str, to: &str) -> String {
    let length = from.len();
    if length == 0 {
        return String::new();
    }
    if from.bytes().all(|digit| digit == b'0') && to.bytes().all(|digit| digit == b'9') {
        return format!("[0-9]{{{length}}}");
    }
    let (a, b) = (from.as_bytes()[0], to.as_bytes()[0]);
    let (digit_a, digit_b) = (char::from(a), char::from(b));
    if a == b {
        return format!("{digit_a}{}", same_length_range(&from[1..], &to[1..]));
    }
    let (zeros, nines) = ("0".repeat(length - 1), "9".repeat(length - 1));
    let from_is_round = from[1..] == zeros;
    let to_is_round = to[1..] == nines;
    let (first, last) = (if from_is_round { a } else { a + 1 }, if to_is_round { b } else { b - 1 });
    let mut parts = Vec::new();
    if !from_is_round {
        parts.push(format!("{digit_a}{}", same_length_range(&from[1..], &nines)));
    }
    if first <= last {
        parts.push(format!("[{}-{}][0-9]{{{}}}", char::from(first), char::from(last), length - 1));
    }
    if !to_is_round {
        parts.push(format!("{digit_b}{}", same_length_range(&zeros, &to[1..])));
    }
    one_of(&parts)
}

fn one_of(parts: &[String]) -> String {
    match parts {
        [part] => part.clone(),
        parts => format!("({})", parts.join("|")),
    }
}

/// Matches numbers between two ends, with or without a fraction.
fn decimal_texts(low: &Bound, high: Option<Bound>) -> Option<RegexAst> {
    let low = match low.value.rounded_up(BOUND_PLACES) {
        value if value == low.value => low.clone(),
        value => Bound { value, excluded: false, stated: None },
    };
    let longest = Decimal::power_of_ten(BOUND_DIGITS);
    let high = high.map(|high| match high.value.rounded_down(BOUND_PLACES) {
        value if value > longest => Bound { value: longest.clone(), excluded: true, stated: None },
        value if value == high.value => high,
        value => Bound { value, excluded: false, stated: None },
    });
    if low.value >= longest {
        return None;
    }
    let mut parts = vec![written(&low, high.as_ref()), at_least(&low)];
    if let Some(high) = &high {
        parts.push(at_most(high)?);
    }
    Some(RegexAst::And(parts.into_iter().map(RegexAst::Regex).collect()))
}

/// Matches the notation of numbers near two ends: with at most 15 digits after their leading zeros, or whole.
fn written(low: &Bound, high: Option<&Bound>) -> String {
    let zeros = |bound: &Bound| bound.value.fraction.bytes().take_while(|&digit| digit == b'0').count();
    let zeros = high.map_or(0, zeros).max(zeros(low)) + 4;
    let mut parts = vec![format!("0(\\.0{{0,{zeros}}}[0-9]{{1,{DOUBLE_DIGITS}}})?")];
    parts.extend(
        (1..DOUBLE_DIGITS)
            .map(|whole| format!("[1-9][0-9]{{{}}}(\\.[0-9]{{1,{}}})?", whole - 1, DOUBLE_DIGITS - whole)),
    );
    let longest = high.map_or(WHOLE_DIGITS, |high| high.value.whole.len()).max(low.value.whole.len() + 1);
    parts.push(format!("[1-9][0-9]{{{},{}}}", DOUBLE_DIGITS - 1, longest.max(DOUBLE_DIGITS)));
    one_of(&parts)
}

/// Matches numbers from `low` upwards.
fn at_least(low: &Bound) -> String {
    let whole = low.value.whole_digits();
    let next = low.value.rounded_down(0).stepped_up(0);
    let (next, nines) = (next.whole_digits(), "9".repeat(next.whole_digits().len()));
    let fraction = match (low.value.fraction.as_str(), low.excluded) {
        ("", false) => "(\\.[0-9]+)?".to_owned(),
        ("", true) => "\\.0*[1-9][0-9]*".to_owned(),
        (fraction, excluded) => format!("\\.{}", fraction_at_least(fraction, excluded)),
    };
    let above = format!("({}|[1-9][0-9]{{{},}})(\\.[0-9]+)?", same_length_range(next, &nines), next.len());
    format!("({whole}{fraction}|{above})")
}

/// Matches the digits of a fraction of 0.`bound` or more.
fn fraction_at_least(bound: &str, excluded: bool) -> String {
    let (digit, rest) = (bound.as_bytes()[0], &bound[1..]);
    let same = match (rest, excluded) {
        ("", false) => "[0-9]*".to_owned(),
        ("", true) => "0*[1-9][0-9]*".to_owned(),
        _ => fraction_at_least(rest, excluded),
    };
    let mut parts = vec![format!("{}{same}", char::from(digit))];
    parts.extend((digit < b'9').then(|| format!("[{}-9][0-9]*", char::from(digit + 1))));
    one_of(&parts)
}

/// Matches numbers up to `high`; `None` if there are none.
fn at_most(high: &Bound) -> Option<String> {
    let whole = high.value.rounded_down(0);
    let mut parts = Vec::new();
    if !whole.is_zero() {
        let last = whole.stepped_down(0);
        parts.push(format!("{}(\\.[0-9]+)?", whole_range("0", last.whole_digits())));
    }
    match (high.value.fraction.as_str(), high.excluded) {
        ("", true) => {}
        ("", false) => parts.push(format!("{}(\\.0+)?", high.value.whole_digits())),
        (fraction, excluded) => {
            let tail = fraction_at_most(fraction, excluded);
            parts.push(format!("{}(\\.{tail})?", high.value.whole_digits()));
        }
    }
    (!parts.is_empty()).then(|| one_of(&parts))
}

/// Matches the digits of a fraction of 0.`bound` or less. The last digit of `bound` is not 0.
fn fraction_at_most(bound: &str, excluded: bool) -> String {
    let (digit, rest) = (bound.as_bytes()[0], &bound[1..]);
    let mut parts = Vec::new();
    if digit > b'0' {
        parts.push(format!("[0-{}][0-9]*", char::from(digit - 1)));
    }
    match (rest, excluded) {
        ("", true) => {}
        ("", false) => parts.push(format!("{}0*", char::from(digit))),
        _ => parts.push(format!("{}({})?", char::from(digit), fraction_at_most(rest, excluded))),
    }
    one_of(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use llguidance::derivre::{Regex, RegexBuilder};

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"))
    }

    fn regex(shape: &NumberShape) -> Option<Regex> {
        let texts = shape.texts().unwrap_or_else(|refused| panic!("{refused:?}"))?;
        let mut builder = RegexBuilder::new();
        let texts = builder.mk(&texts).unwrap_or_else(|error| panic!("{error}"));
        Some(builder.to_regex(texts))
    }

    /// Every text of a number near the bounds is allowed if and only if it is in the range.
    #[test]
    fn all_pairs_of_bounds_allow_what_is_between_them() {
        let ends =
            ["-12", "-1.5", "-1", "-0.25", "0", "0.05", "0.5", "0.9", "1", "1.5", "9.5", "10", "99.5", "100"];
        let mut texts: Vec<String> =
            (-130..=1030).map(|tenths| format!("{}", f64::from(tenths) / 10.0)).collect();
        texts.extend(ends.iter().flat_map(|end| {
            [
                (*end).to_owned(),
                format!("{}01", if end.contains('.') { (*end).to_owned() } else { format!("{end}.0") }),
            ]
        }));
        for (low, high) in ends.iter().flat_map(|low| ends.map(|high| (*low, high))) {
            for excluded in [(false, false), (true, false), (false, true), (true, true)] {
                for whole in [false, true] {
                    let low = Bound::low(&number(low), excluded.0).ok();
                    let high = Bound::high(&number(high), excluded.1).ok();
                    let shape = NumberShape { whole, low, high, ..NumberShape::default() };
                    let mut regex = regex(&shape);
                    for text in texts.iter().filter(|text| *text != "-0") {
                        let value = Decimal::parse(text).unwrap_or_else(|| panic!("{text}"));
                        let allowed = regex.as_mut().is_some_and(|regex| regex.is_match(text));
                        assert_eq!(allowed, shape.contains(&value), "{text}: {shape:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn ends_without_another_and_long_ones() {
        let low = |text: &str, excluded| NumberShape {
            low: Some(Bound::low(&number(text), excluded).unwrap_or_else(|_| panic!("{text}"))),
            ..NumberShape::default()
        };
        let whole = |shape: NumberShape| NumberShape { whole: true, ..shape };
        let allows =
            |shape: &NumberShape, text: &str| regex(shape).is_some_and(|mut regex| regex.is_match(text));
        assert!(
            allows(&low("0", true), "0.00001")
                && !allows(&low("0", true), "0.0")
                && allows(&low("0", true), "7")
        );
        assert!(allows(&low("-3.5", false), "-3.5") && !allows(&low("-3.5", true), "-3.5"));
        let ids = whole(low("9007199254740993", true));
        assert!(allows(&ids, "9007199254740994") && !allows(&ids, "9007199254740993"));
        let large = whole(low("18446744073709551615", false));
        assert!(allows(&large, "18446744073709551615") && !allows(&large, "18446744073709551614"));
        assert!(allows(&low("5e-324", false), "0.1"));
    }

    #[test]
    fn multiples_and_their_common_ones() {
        let multiples = |numbers: &[&str], whole| {
            let all = numbers.iter().map(|text| Multiple::of(&number(text)));
            let shape = all.map(|multiple| {
                multiple.map(|multiple| NumberShape {
                    multiple: Some(multiple),
                    whole,
                    ..NumberShape::default()
                })
            });
            shape.reduce(|a, b| a?.and(b?)).unwrap_or(Ok(NumberShape::default()))
        };
        for (numbers, whole, yes, no) in [
            (&["3"][..], true, "-12", "-13"),
            (&["0.01"], false, "0.07", "0.075"),
            (&["2.5"], true, "15", "2"),
            (&["86400"], true, "172800", "864"),
            (&["7", "3600"], true, "25200", "3600"),
            (&["0.25", "0.1"], false, "1.5", "0.25"),
            (&["1000000000000"], true, "3000000000000", "1000000000001"),
        ] {
            let shape = multiples(numbers, whole).unwrap_or_else(|refused| panic!("{refused:?}"));
            let mut regex = regex(&shape).unwrap_or_else(|| panic!("{numbers:?}"));
            assert!(regex.is_match(yes) && !regex.is_match(no) && regex.is_match("0"), "{numbers:?}");
        }
        for numbers in [
            &["4194304"][..],
            &["2147483648"],
            &["7", "86400"],
            &["5", "999999"],
            &["99991", "99989", "99971", "99961"],
        ] {
            assert!(multiples(numbers, true).and_then(|shape| shape.texts()).is_err(), "{numbers:?}");
        }
        assert!(Multiple::of(&number("0")).is_err() && Multiple::of(&number("1e-9")).is_err());
    }
}
