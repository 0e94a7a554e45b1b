//! Strings: lengths, patterns and formats, and the JSON texts they allow.

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use llguidance::derivre::{JsonQuoteOptions, Regex, RegexAst, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::super::repetitions;
use super::Refused;
use super::format::{self, Format};

/// Maximum length bound of a string, in characters. A greater `maxLength` is cut to this: longer strings are never needed.
const LENGTH_MAX: usize = 20_000;

/// Maximum work of one question to the engine about a pattern, in the engine's units of about 100 ns each.
const WORK_MAX: u64 = 100_000;

/// The largest product of the lengths of all patterns that must hold at once: the engine compares every alternative of
/// each pattern with every alternative of the others.
const PATTERNS_PRODUCT_MAX: usize = 1 << 20;

/// A set of strings.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct TextShape {
    /// Minimum number of characters.
    pub min: usize,
    /// Maximum number of characters.
    pub max: Option<usize>,
    /// Patterns that must all match.
    pub patterns: Vec<Pattern>,
    /// Patterns of which none may match.
    pub never: Vec<Pattern>,
}

/// A regular expression over strings.
#[derive(Clone)]
pub(super) struct Pattern {
    source: Source,
    /// The engine's compiled form, made on first use.
    compiled: Rc<OnceCell<RefCell<Regex>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    /// A pattern found anywhere in the text.
    Found {
        /// The pattern in the engine's syntax.
        pattern: String,
        /// The pattern that answers are generated from, if it differs: see [`Nul`].
        written: Option<String>,
    },
    /// The strings of a format.
    Format(&'static Format),
    /// Exactly this string.
    Literal(String),
}

/// What a pattern of the schema is read for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Use {
    /// For generating answers and for checking existing strings.
    Written,
    /// Only for checking existing strings.
    Judged,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl Pattern {
    fn of(source: Source) -> Self {
        Self { source, compiled: Rc::default() }
    }

    /// Reads a pattern of the schema.
    pub(super) fn new(pattern: &str, used: Use) -> Result<Self, Refused> {
        Self::read(pattern, false, used)
    }

    /// Reads a pattern of the schema that must not match. Its `\s` contains all white space about which validators differ.
    /// The dot and the end of the text (`$`) are JavaScript's, as everywhere here.
    pub(super) fn never(pattern: &str, used: Use) -> Result<Self, Refused> {
        Self::read(pattern, true, used)
    }

    fn read(pattern: &str, wide: bool, used: Use) -> Result<Self, Refused> {
        repetitions::check(pattern)
            .map_err(|reason| Refused::new(format!("a pattern cannot be used: {reason}")))?;
        let written = match used {
            Use::Written => Some(translated(pattern, Reading { nul: Nul::LeftOut, wide })?),
            Use::Judged => None,
        };
        let pattern = translated(pattern, Reading { nul: Nul::Kept, wide })?;
        let written = written.filter(|written| *written != pattern);
        let pattern = Self::of(Source::Found { pattern, written });
        RegexBuilder::new().mk(&pattern.regex()).map_err(|error| {
            let error = super::super::grammar::one_line(&error);
            Refused::new(format!("a pattern cannot be used: {error}"))
        })?;
        Ok(pattern)
    }

    /// Returns the strings of a format; `None` if the format's name is only informative.
    pub(super) fn format(name: &str) -> Option<Self> {
        Format::named(name).map(|format| Self::of(Source::Format(format)))
    }

    /// Returns the regular expression that answers are generated from, for strings without quotes.
    pub(super) fn regex(&self) -> RegexAst {
        match &self.source {
            Source::Found { pattern, written } => {
                RegexAst::SearchRegex(written.as_ref().unwrap_or(pattern).clone())
            }
            Source::Format(format) => format.written(),
            Source::Literal(text) => RegexAst::Literal(text.clone()),
        }
    }

    /// Returns the regular expression that existing strings are checked against.
    fn judged(&self) -> RegexAst {
        match &self.source {
            Source::Found { pattern, .. } => RegexAst::SearchRegex(pattern.clone()),
            Source::Format(format) => format.taken(),
            Source::Literal(_) => self.regex(),
        }
    }

    /// Returns whether answers are generated from fewer strings than the pattern matches: only from those without U+0000.
    pub(super) fn leaves_nul_out(&self) -> bool {
        matches!(self.source, Source::Found { written: Some(_), .. })
    }

    /// Returns the number of repetitions and groups, if the schema wrote the pattern.
    pub(super) fn repetitions(&self) -> usize {
        match &self.source {
            Source::Found { pattern, .. } => repetitions::count(pattern),
            Source::Format(_) | Source::Literal(_) => 0,
        }
    }

    fn len(&self) -> usize {
        match &self.source {
            Source::Found { pattern, .. } => pattern.len(),
            Source::Format(_) => format::BYTES_COUNTED,
            Source::Literal(_) => 1,
        }
    }

    /// Returns the strings with a length in a range.
    pub(super) fn of_length(min: usize, max: Option<usize>) -> Self {
        let max = max.map(|max| max.min(LENGTH_MAX).to_string()).unwrap_or_default();
        Self::of(Source::Found { pattern: format!("^(?s:.{{{min},{max}}})$"), written: None })
    }

    /// Returns exactly one string.
    pub(super) fn literal(text: &str) -> Self {
        Self::of(Source::Literal(text.to_owned()))
    }

    /// Returns whether the pattern is all that the schema means by it. It is less if validators differ about it.
    pub(super) fn is_exact(&self) -> bool {
        match &self.source {
            Source::Found { pattern, .. } => {
                !pattern.contains(SPACE_OF_ALL) && !pattern.contains(SPACE_OF_ANY)
            }
            Source::Format(_) => false,
            Source::Literal(_) => true,
        }
    }

    /// Returns whether the pattern matches an existing string: a finished answer, or a value or name from the schema.
    pub(super) fn matches(&self, text: &str) -> Result<bool, Refused> {
        self.matches_within(text, &mut { WORK_MAX })
    }

    /// Returns whether the pattern matches a string, and deducts the work it takes from `work`.
    pub(super) fn matches_within(&self, text: &str, work: &mut u64) -> Result<bool, Refused> {
        if let Source::Literal(literal) = &self.source {
            return Ok(literal == text);
        }
        let mut regex = self.compiled()?.borrow_mut();
        let mut state = regex.initial_state();
        for byte in text.bytes() {
            // each letter may take the engine to a state as large as the pattern
            let before = regex.cost();
            state = regex.transition(state, byte);
            *work = work.checked_sub(regex.cost() - before).ok_or_else(too_complex)?;
        }
        Ok(regex.is_accepting(state))
    }

    fn compiled(&self) -> Result<&RefCell<Regex>, Refused> {
        if let Some(regex) = self.compiled.get() {
            return Ok(regex);
        }
        let mut builder = RegexBuilder::new();
        let regex = builder.mk(&self.judged()).and_then(|regex| builder.into_regex_limited(regex, WORK_MAX));
        let regex = regex.map_err(|_| too_complex())?;
        Ok(self.compiled.get_or_init(|| RefCell::new(regex)))
    }
}

fn too_complex() -> Refused {
    Refused::new("a pattern is too complex to be followed")
}

impl TextShape {
    /// Returns the strings that are in both sets.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.min = self.min.max(other.min);
        self.max = [self.max, other.max].into_iter().flatten().min();
        self.patterns = joined(self.patterns, other.patterns);
        self.never = joined(self.never, other.never);
        self
    }

    /// Returns the number of patterns that must match or must not match.
    pub(super) fn held(&self) -> usize {
        self.patterns.len() + self.never.len()
    }

    /// Returns whether the set is obviously empty.
    pub(super) fn is_never(&self) -> bool {
        let never: HashSet<&Source> = self.never.iter().map(|pattern| &pattern.source).collect();
        self.max.is_some_and(|max| max < self.min)
            || self.patterns.iter().any(|pattern| never.contains(&pattern.source))
    }

    /// Returns the number of repetitions and groups of all patterns of the schema.
    pub(super) fn repetitions(&self) -> usize {
        self.patterns.iter().chain(&self.never).map(Pattern::repetitions).sum()
    }

    /// Returns whether a string is in the set.
    pub(super) fn contains(&self, text: &str) -> Result<bool, Refused> {
        let length = text.chars().count();
        if length < self.min || self.max.is_some_and(|max| length > max) {
            return Ok(false);
        }
        for pattern in &self.patterns {
            if !pattern.matches(text)? {
                return Ok(false);
            }
        }
        for pattern in &self.never {
            if pattern.matches(text)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the JSON texts; `None` if there are none.
    pub(super) fn texts(&self) -> Result<Option<RegexAst>, Refused> {
        if self.min > LENGTH_MAX {
            return Err(Refused::new(format!("minLength is {}, the limit is {LENGTH_MAX}", self.min)));
        }
        if self.max.is_some_and(|max| max < self.min) {
            return Ok(None);
        }
        let length = match self.max.map(|max| max.min(LENGTH_MAX)) {
            None if self.min == 0 => None,
            None => Some(format!("(?s:.{{{},}})", self.min)),
            Some(max) => Some(format!("(?s:.{{{},{max}}})", self.min)),
        };
        let held = self.patterns.iter().chain(&self.never);
        let product = held.fold(1_usize, |all, pattern| all.saturating_mul(pattern.len().max(1)));
        if self.held() > 1 && product > PATTERNS_PRODUCT_MAX {
            return Err(Refused::new("too many patterns must hold at once"));
        }
        let mut all: Vec<RegexAst> = self.patterns.iter().map(Pattern::regex).collect();
        all.extend(length.map(RegexAst::Regex));
        // what must not match is known only for strings without U+0000
        all.extend(self.never.iter().any(Pattern::leaves_nul_out).then(without_nul));
        let texts = match all.len() {
            0 => RegexAst::Regex("(?s:.*)".to_owned()),
            1 => all.remove(0),
            _ => RegexAst::And(all),
        };
        if !self.patterns.is_empty() && is_empty(&texts)? {
            return Ok(None);
        }
        if self.never.is_empty() {
            return Ok(Some(quoted(texts)));
        }
        let never = self.never.iter().map(|pattern| quoted(pattern.regex())).collect();
        let texts = without(quoted(texts), never);
        Ok(if is_empty(&texts)? { None } else { Some(texts) })
    }
}

/// Returns the patterns of both lists, in their order, without duplicates.
fn joined(mut list: Vec<Pattern>, more: Vec<Pattern>) -> Vec<Pattern> {
    let known: HashSet<&Source> = list.iter().map(|pattern| &pattern.source).collect();
    let new: Vec<Pattern> = more.into_iter().filter(|pattern| !known.contains(&pattern.source)).collect();
    list.extend(new);
    list
}

/// Returns the texts of `all` that are not in `taken`.
pub(super) fn without(all: RegexAst, taken: Vec<RegexAst>) -> RegexAst {
    if taken.is_empty() {
        return all;
    }
    RegexAst::And(vec![all, RegexAst::Not(Box::new(RegexAst::Or(taken)))])
}

/// Returns whether no text is allowed.
pub(super) fn is_empty(texts: &RegexAst) -> Result<bool, Refused> {
    let mut builder = RegexBuilder::new();
    let regex = builder.mk(texts).and_then(|regex| builder.into_regex_limited(regex, WORK_MAX));
    Ok(regex.map_err(|_| too_complex())?.always_empty())
}

/// Returns any string.
pub(super) fn any() -> RegexAst {
    quoted(RegexAst::Regex("(?s:.*)".to_owned()))
}

/// Returns any string without U+0000, not in JSON notation.
pub(super) fn without_nul() -> RegexAst {
    RegexAst::Regex("[^\\x00]*".to_owned())
}

/// Returns strings in JSON notation.
pub(super) fn quoted(texts: RegexAst) -> RegexAst {
    RegexAst::JsonQuote(Box::new(texts), JsonQuoteOptions::regular())
}

/// How U+0000 in a pattern is treated.
///
/// When the engine writes a class that contains all control characters in JSON notation, it adds `\"` and `\\`, even if
/// the class excludes these two, as `[^"]` does. It does not do so for a class that lacks one of the control characters.
/// So answers are generated from classes without U+0000. Classes that contain both `"` and `\` are exempt: the fault does
/// no harm to them, nor to intersections of them.
#[derive(Clone, Copy, PartialEq)]
enum Nul {
    /// U+0000 stays, for existing strings.
    Kept,
    /// U+0000 is removed from classes that lack a quote or a backslash.
    LeftOut,
}

impl Nul {
    /// Returns a class after this treatment.
    fn of_class(self, class: String) -> String {
        let is_short = || {
            // an invalid class is refused with the whole pattern
            let class = regex_syntax::parse(&class);
            class.is_ok_and(|class| has(&class, '\0') && !(has(&class, '"') && has(&class, '\\')))
        };
        if self == Self::LeftOut && is_short() { format!("[{class}--\\x00]") } else { class }
    }
}

/// Returns whether a class contains an ASCII character. A class of a single letter is parsed as that letter.
fn has(class: &Hir, letter: char) -> bool {
    match class.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&letter))
        }
        HirKind::Literal(only) => *only.0 == [letter as u8],
        _ => false,
    }
}

/// How a pattern is read.
#[derive(Clone, Copy)]
struct Reading {
    nul: Nul,
    /// Whether a class has all characters that any of JavaScript, Python and the engine gives it, or only those that all
    /// three agree on.
    wide: bool,
}

/// Translates a pattern of JSON Schema, which is a JavaScript pattern, into the engine's syntax.
fn translated(pattern: &str, reading: Reading) -> Result<String, Refused> {
    let mut out = String::with_capacity(pattern.len());
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.push_str(&outside_escape(&mut letters, reading)?),
            '.' => out.push_str(r"[^\n\r\u2028\u2029]"),
            '[' => out.push_str(&reading.nul.of_class(class(&mut letters, reading.wide)?)),
            '\0' => out.push_str(&reading.nul.of_class("[\0]".to_owned())),
            _ => out.push(letter),
        }
    }
    Ok(out)
}

/// White space that JavaScript, Python and the engine all know.
const SPACE_OF_ALL: &str = r" \t\n\r\x0b\x0c";
/// White space that at least one of them knows.
const SPACE_OF_ANY: &str = r"\s\x1c-\x1f\x85\ufeff";

fn outside_escape(letters: &mut Letters<'_>, reading: Reading) -> Result<String, Refused> {
    match letters.next() {
        Some(letter @ ('b' | 'B' | 'k' | '1'..='9')) => Ok(format!("\\{letter}")),
        Some(letter @ ('p' | 'P' | 'x' | 'u')) => {
            let named = if letters.peek() == Some(&'{') {
                braced(letters)?
            } else if letter == 'x' || letter == 'u' {
                code(letters, letter)?
            } else {
                letters.next().map(String::from).unwrap_or_default()
            };
            Ok(reading.nul.of_class(format!("[\\{letter}{named}]")))
        }
        letter => match escape(letter, reading.wide)? {
            Item::Set(set) => Ok(format!("[{set}]")),
            Item::Letter(letter) => Ok(letter),
        },
    }
}

/// One item of a class, in the engine's syntax.
enum Item {
    Letter(String),
    /// Several characters, which cannot begin or end a range.
    Set(String),
}

/// Translates a backslash and a letter in a class, or outside of one if the meaning is the same. `most` selects the
/// largest meaning, otherwise the smallest.
fn escape(letter: Option<char>, most: bool) -> Result<Item, Refused> {
    let letter = letter.ok_or_else(|| Refused::new("a pattern ends with a backslash"))?;
    let set = |set: &str| Ok(Item::Set(set.to_owned()));
    let (space, no_space) = if most { (SPACE_OF_ANY, SPACE_OF_ALL) } else { (SPACE_OF_ALL, SPACE_OF_ANY) };
    match letter {
        'd' => set("0-9"),
        'D' => set("[^0-9]"),
        'w' => set("0-9A-Za-z_"),
        'W' => set("[^0-9A-Za-z_]"),
        's' => set(space),
        'S' => set(&format!("[^{no_space}]")),
        // to the engine, these escapes are the ends of a word
        '/' | '<' | '>' => Ok(Item::Letter(letter.to_string())),
        'f' | 'n' | 'r' | 't' | 'v' => Ok(Item::Letter(format!("\\{letter}"))),
        letter if letter.is_ascii_punctuation() => Ok(Item::Letter(format!("\\{letter}"))),
        letter if !letter.is_alphanumeric() => Ok(Item::Letter(letter.to_string())),
        letter => Err(Refused::new(format!("a pattern has \\{letter}, which cannot be followed"))),
    }
}

type Letters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Translates a class after its opening bracket. Hyphens make ranges as in JavaScript. Nothing else that is special in
/// the engine's classes is special here.
fn class(letters: &mut Letters<'_>, wide: bool) -> Result<String, Refused> {
    let negated = letters.next_if_eq(&'^').is_some();
    let mut out = if negated { "[^" } else { "[" }.to_owned();
    if letters.peek() == Some(&']') {
        return Err(Refused::new("a pattern has an empty class, which cannot be followed"));
    }
    let most = negated != wide;
    while let Some(first) = item(letters, most)? {
        let mut after = letters.clone();
        let is_range = after.next() == Some('-') && after.peek().is_some_and(|&letter| letter != ']');
        if !is_range {
            match first {
                Item::Letter(item) | Item::Set(item) => out.push_str(&item),
            }
            continue;
        }
        letters.next();
        match (first, item(letters, most)?) {
            (Item::Letter(first), Some(Item::Letter(last))) => out.extend([&first, "-", &last]),
            // next to several characters, the hyphen is literal
            (Item::Letter(first) | Item::Set(first), Some(Item::Letter(last) | Item::Set(last))) => {
                out.extend([&first, r"\-", &last]);
            }
            (_, None) => return Err(unclosed()),
        }
    }
    out.push(']');
    Ok(out)
}

fn unclosed() -> Refused {
    Refused::new("a pattern cannot be used: unclosed character class")
}

/// Returns the next item of a class; `None` at its end.
fn item(letters: &mut Letters<'_>, most: bool) -> Result<Option<Item>, Refused> {
    Ok(Some(match letters.next().ok_or_else(unclosed)? {
        ']' => return Ok(None),
        '\\' => match letters.next() {
            Some('b') => Item::Letter(r"\x08".to_owned()),
            Some(letter @ ('p' | 'P')) => Item::Set(format!("\\{letter}{}", braced(letters)?)),
            Some(letter @ ('x' | 'u')) => Item::Letter(format!("\\{letter}{}", code(letters, letter)?)),
            letter => escape(letter, most)?,
        },
        letter if letter.is_ascii_punctuation() && !"<>".contains(letter) => {
            Item::Letter(format!("\\{letter}"))
        }
        letter => Item::Letter(letter.to_string()),
    }))
}

/// Reads the digits of a character code, including their braces if present.
fn code(letters: &mut Letters<'_>, kind: char) -> Result<String, Refused> {
    if kind == 'u' && letters.peek() == Some(&'{') {
        return braced(letters);
    }
    let count = if kind == 'x' { 2 } else { 4 };
    let digits: String =
        std::iter::from_fn(|| letters.next_if(char::is_ascii_hexdigit)).take(count).collect();
    if digits.len() == count {
        return Ok(digits);
    }
    Err(Refused::new(format!("a pattern has \\{kind}, which {count} hexadecimal digits must follow")))
}

/// Reads everything up to the closing brace.
fn braced(letters: &mut Letters<'_>) -> Result<String, Refused> {
    let mut text = String::new();
    if letters.peek() == Some(&'{') {
        for letter in letters.by_ref() {
            text.push(letter);
            if letter == '}' {
                return Ok(text);
            }
        }
    }
    Err(Refused::new("a pattern has \\p or \\u without a name or number in braces"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_of_matching_is_bounded() {
        // each letter leads to another set of four hundred places
        let letters = |i: u64| if (i * i * 2_654_435_761) >> 13 & 1 == 0 { 'a' } else { 'b' };
        let text: String = (0..20_000).map(letters).collect();
        let pattern = Pattern::new("^(a|b)*a(a|b){400}$", Use::Written).ok().unwrap();
        assert_eq!(pattern.matches(&text), Err(too_complex()));
        let mut work = 10_000_000;
        assert!(pattern.matches_within(&text, &mut work).is_ok());
        assert!(work < 9_000_000, "{work} is left");
        // work that has been done is not repeated
        let left = work;
        assert!(pattern.matches_within(&text, &mut work).is_ok());
        assert_eq!(work, left);
    }

    #[test]
    fn classes_without_a_quote_or_a_backslash_are_written_without_nul() {
        for (class, is_short) in [
            (r#"[^"]"#, true),
            (r"[^\\]", true),
            (r#"[^"a]"#, true),
            (r"[\x00-\x1f]", true),
            (r"[\x00]", true),
            ("[\0]", true),
            (r"[\p{Cc}]", true),
            (r"[\x00-\[]", true),
            (r"[\x00-~]", false),
            (r"[^a]", false),
            (r"[\PL]", false),
            (r#"["\\]"#, false),
            (r#"["]"#, false),
            (r"[^\x00-\u{10ffff}]", false),
            (r"[\p{No such}]", false),
        ] {
            let written = Nul::LeftOut.of_class(class.to_owned());
            let expected = if is_short { format!(r"[{class}--\x00]") } else { class.to_owned() };
            assert_eq!(written, expected, "{class}");
            assert_eq!(Nul::Kept.of_class(class.to_owned()), class);
        }
    }

    #[test]
    fn what_only_judges_is_not_made_ready_to_be_written() {
        let pattern = r#"^[^"]*$"#;
        let read = |used| Pattern::new(pattern, used).ok().unwrap();
        let (written, judged) = (read(Use::Written), read(Use::Judged));
        assert!(written.leaves_nul_out() && !judged.leaves_nul_out());
        for text in ["a", "\0", "\""] {
            assert_eq!(written.matches(text), judged.matches(text), "{text:?}");
        }
    }
}
