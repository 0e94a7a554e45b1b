//! Strings: lengths, patterns and formats, and the JSON texts they allow.

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use llguidance::derivre::{JsonQuoteOptions, Regex, RegexAst, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::super::repetitions;
use super::Refused;
use super::format::{self, Format};

/// Characters of the longest bound of a string. Longer ones are never needed: a `maxLength` above is cut to it.
const LENGTH_MAX: usize = 20_000;

/// Work of one question to the engine about a pattern, in its units, some 100 ns each.
const WORK_MAX: u64 = 100_000;

/// The largest product of the lengths of all patterns that must hold at once, since the engine compares every alternative
/// of each with every one of the others.
const PATTERNS_PRODUCT_MAX: usize = 1 << 20;

/// A set of strings.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct TextShape {
    /// Characters that there are at least.
    pub min: usize,
    /// Characters that there are at most.
    pub max: Option<usize>,
    /// All of these hold.
    pub patterns: Vec<Pattern>,
    /// None of these holds.
    pub never: Vec<Pattern>,
}

/// A regular expression over strings.
#[derive(Clone)]
pub(super) struct Pattern {
    source: Source,
    /// The engine's form of it, made when it is first asked.
    compiled: Rc<OnceCell<RefCell<Regex>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    /// Found anywhere in the text.
    Found {
        /// The pattern in the engine's syntax.
        pattern: String,
        /// The one that answers are written from, where it is another: see [`Nul`].
        written: Option<String>,
    },
    /// The strings of a format.
    Format(&'static Format),
    /// Is this string and no other.
    Literal(String),
}

/// What a pattern of the schema is read for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Use {
    /// For answers that are written, and strings that are there already.
    Written,
    /// For strings that are there already, alone.
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

    /// A pattern of the schema.
    pub(super) fn new(pattern: &str, used: Use) -> Result<Self, Refused> {
        Self::read(pattern, false, used)
    }

    /// A pattern of the schema that must not match: of the white space that validators differ in (`\s`) it has all. The dot
    /// and the end of the text (`$`) are JavaScript's here as elsewhere.
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

    /// The strings of a format. None where its name says something to people only.
    pub(super) fn format(name: &str) -> Option<Self> {
        Format::named(name).map(|format| Self::of(Source::Format(format)))
    }

    /// The regular expression that answers are written from, of strings without quotes.
    pub(super) fn regex(&self) -> RegexAst {
        match &self.source {
            Source::Found { pattern, written } => {
                RegexAst::SearchRegex(written.as_ref().unwrap_or(pattern).clone())
            }
            Source::Format(format) => format.written(),
            Source::Literal(text) => RegexAst::Literal(text.clone()),
        }
    }

    /// The regular expression that strings are judged by which are there already.
    fn judged(&self) -> RegexAst {
        match &self.source {
            Source::Found { pattern, .. } => RegexAst::SearchRegex(pattern.clone()),
            Source::Format(format) => format.taken(),
            Source::Literal(_) => self.regex(),
        }
    }

    /// Whether answers are written from less than it matches: from the strings without U+0000 alone.
    pub(super) fn leaves_nul_out(&self) -> bool {
        matches!(self.source, Source::Found { written: Some(_), .. })
    }

    /// Repetitions and groups, if the schema wrote it.
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

    /// Strings of some length.
    pub(super) fn of_length(min: usize, max: Option<usize>) -> Self {
        let max = max.map(|max| max.min(LENGTH_MAX).to_string()).unwrap_or_default();
        Self::of(Source::Found { pattern: format!("^(?s:.{{{min},{max}}})$"), written: None })
    }

    /// Just one string.
    pub(super) fn literal(text: &str) -> Self {
        Self::of(Source::Literal(text.to_owned()))
    }

    /// Whether it is all that the schema means by it; where validators differ it is less.
    pub(super) fn is_exact(&self) -> bool {
        match &self.source {
            Source::Found { pattern, .. } => {
                !pattern.contains(SPACE_OF_ALL) && !pattern.contains(SPACE_OF_ANY)
            }
            Source::Format(_) => false,
            Source::Literal(_) => true,
        }
    }

    /// Whether it matches a string that is there already: a finished answer, or a value or a name that the schema's author wrote.
    pub(super) fn matches(&self, text: &str) -> Result<bool, Refused> {
        self.matches_within(text, &mut { WORK_MAX })
    }

    /// Whether it matches a string, with so much work that is left for it, from which is taken what it needs.
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
    /// Strings that are in both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.min = self.min.max(other.min);
        self.max = [self.max, other.max].into_iter().flatten().min();
        self.patterns = joined(self.patterns, other.patterns);
        self.never = joined(self.never, other.never);
        self
    }

    /// Patterns that hold or do not.
    pub(super) fn held(&self) -> usize {
        self.patterns.len() + self.never.len()
    }

    /// Whether it is seen at once that there are none.
    pub(super) fn is_never(&self) -> bool {
        let never: HashSet<&Source> = self.never.iter().map(|pattern| &pattern.source).collect();
        self.max.is_some_and(|max| max < self.min)
            || self.patterns.iter().any(|pattern| never.contains(&pattern.source))
    }

    /// Repetitions and groups of all patterns of the schema.
    pub(super) fn repetitions(&self) -> usize {
        self.patterns.iter().chain(&self.never).map(Pattern::repetitions).sum()
    }

    /// Whether a string is in it.
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

    /// The JSON texts; None if there are none.
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
        // what is not to be matched is known of strings without it only
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

/// The patterns of both lists, in their order, each once.
fn joined(mut list: Vec<Pattern>, more: Vec<Pattern>) -> Vec<Pattern> {
    let known: HashSet<&Source> = list.iter().map(|pattern| &pattern.source).collect();
    let new: Vec<Pattern> = more.into_iter().filter(|pattern| !known.contains(&pattern.source)).collect();
    list.extend(new);
    list
}

/// The texts of `all` that are none of `taken`.
pub(super) fn without(all: RegexAst, taken: Vec<RegexAst>) -> RegexAst {
    if taken.is_empty() {
        return all;
    }
    RegexAst::And(vec![all, RegexAst::Not(Box::new(RegexAst::Or(taken)))])
}

/// Whether no text is allowed.
pub(super) fn is_empty(texts: &RegexAst) -> Result<bool, Refused> {
    let mut builder = RegexBuilder::new();
    let regex = builder.mk(texts).and_then(|regex| builder.into_regex_limited(regex, WORK_MAX));
    Ok(regex.map_err(|_| too_complex())?.always_empty())
}

/// Any string.
pub(super) fn any() -> RegexAst {
    quoted(RegexAst::Regex("(?s:.*)".to_owned()))
}

/// Any string without U+0000, not as JSON writes it.
pub(super) fn without_nul() -> RegexAst {
    RegexAst::Regex("[^\\x00]*".to_owned())
}

/// Strings as JSON writes them.
pub(super) fn quoted(texts: RegexAst) -> RegexAst {
    RegexAst::JsonQuote(Box::new(texts), JsonQuoteOptions::regular())
}

/// What becomes of U+0000 in a pattern.
///
/// The engine writes a class of all control characters, as JSON escapes them, with `\"` and `\\` among them, though the
/// class may be without these two, as `[^"]` is. It does so with no class that lacks one of the control characters. So answers are
/// written from classes without U+0000, but for those that hold the two, to which this does no harm, together with
/// one another neither.
#[derive(Clone, Copy, PartialEq)]
enum Nul {
    /// It stays, for strings that are there already.
    Kept,
    /// It is taken from classes that are without a quote or a backslash.
    LeftOut,
}

impl Nul {
    /// A class as it is then.
    fn of_class(self, class: String) -> String {
        let is_short = || {
            // one that is no class is refused with the whole pattern
            let class = regex_syntax::parse(&class);
            class.is_ok_and(|class| has(&class, '\0') && !(has(&class, '"') && has(&class, '\\')))
        };
        if self == Self::LeftOut && is_short() { format!("[{class}--\\x00]") } else { class }
    }
}

/// Whether a class has a letter of ASCII. One of a single letter is read as that letter.
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
    /// Whether it has the characters that any of JavaScript, Python and the engine knows in a class, or those that all agree on.
    wide: bool,
}

/// A pattern of JSON Schema, which is one of JavaScript, in the engine's syntax.
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

/// White space that JavaScript, Python and the engine know.
const SPACE_OF_ALL: &str = r" \t\n\r\x0b\x0c";
/// White space that one of them knows.
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
    /// Several characters, which no range begins or ends with.
    Set(String),
}

/// What a backslash and a letter stand for in a class, or outside of one where it is the same, with most characters or fewest.
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
        // for the engine these are the ends of a word
        '/' | '<' | '>' => Ok(Item::Letter(letter.to_string())),
        'f' | 'n' | 'r' | 't' | 'v' => Ok(Item::Letter(format!("\\{letter}"))),
        letter if letter.is_ascii_punctuation() => Ok(Item::Letter(format!("\\{letter}"))),
        letter if !letter.is_alphanumeric() => Ok(Item::Letter(letter.to_string())),
        letter => Err(Refused::new(format!("a pattern has \\{letter}, which cannot be followed"))),
    }
}

type Letters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// A class after its opening bracket. Hyphens make ranges as in JavaScript, and nothing else that has a meaning in the
/// engine's classes has one here.
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
            // beside several characters the hyphen stands for itself
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

/// The next item of a class; None at its end.
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

/// The digits of a character's number, with their braces if they have some.
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

/// Everything to the closing brace.
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
        // work that has been done is not done again
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
