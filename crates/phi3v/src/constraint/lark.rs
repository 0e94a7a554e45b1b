//! Bounds on Lark grammars, checked before the engine reads them.
//!
//! The engine walks the rules recursively, each rule inside the rule that names it, and cannot be interrupted. So the
//! rules and the brackets of a grammar are counted first: their nesting cannot be deeper than their number.

/// Maximum number of colons (of rules and terminals) and opening brackets in a grammar. The engine takes less than
/// 16 KiB of stack for each.
const PARTS_MAX: usize = 2_000;

/// Maximum bytes of a grammar with one, two and three `&` between terminals. More than three are refused: the engine
/// compares each alternative of one side with each of every other.
const BYTES_MAX_OF_INTERSECTIONS: [usize; 3] = [4_096, 512, 192];

/// Maximum bytes of a grammar with `~` before a terminal, for the same reason.
const BYTES_MAX_OF_NEGATIONS: usize = 4_096;

/// Maximum sum of all repetition counts in a grammar: an ambiguous rule costs more the more often it is repeated.
const REPEATS_MAX: u64 = 1_000;

/// Extensions of Lark that the engine reads and that cannot be bounded here.
const NOT_FOLLOWED: [&str; 6] = ["%json", "%lark", "%llguidance", "%if", "::", "@"];

/// Refuses a grammar that might take the engine too long or nest too deeply.
pub(super) fn check(grammar: &str) -> Result<(), String> {
    let parts = words(grammar);
    if let Some(part) = parts.iter().find(|part| NOT_FOLLOWED.contains(&part.as_str())) {
        return Err(format!("{part} cannot be followed"));
    }
    if let Some(token) = parts.iter().find(|part| part.len() > 1 && part.starts_with('<')) {
        return Err(format!(
            "it names {token}, special tokens have no text; an answer ends where start does"
        ));
    }
    check_attributes(&parts)?;
    // counted anywhere in the text: this bound must hold however the engine reads the grammar
    let nested = grammar.bytes().filter(|byte| b":([{".contains(byte)).count();
    if nested > PARTS_MAX {
        return Err(format!("it has {nested} colons and opening brackets, the limit is {PARTS_MAX}"));
    }
    super::repetitions::check(grammar)?;
    let repeats = repeats(&parts);
    if repeats > REPEATS_MAX {
        return Err(format!("the numbers of its repetitions come to {repeats}, the limit is {REPEATS_MAX}"));
    }
    let bytes = grammar.len();
    let intersections = parts.iter().filter(|part| *part == "&").count();
    if let Some(index) = intersections.checked_sub(1) {
        let limit = BYTES_MAX_OF_INTERSECTIONS.get(index).copied().unwrap_or(0);
        if bytes > limit {
            return Err(format!(
                "it has {bytes} bytes and & {intersections} times, the limit is then {limit} bytes"
            ));
        }
    }
    // `~` before a number means repetition
    let negates =
        |pair: &[String]| pair[0] == "~" && !pair[1].starts_with(|letter: char| letter.is_ascii_digit());
    if parts.windows(2).any(negates) && bytes > BYTES_MAX_OF_NEGATIONS {
        return Err(format!("it has {bytes} bytes and ~, the limit is then {BYTES_MAX_OF_NEGATIONS} bytes"));
    }
    Ok(())
}

/// Refuses attributes of rules:
///
/// - those about tokens (`max_tokens`, `temperature`), and those that cut matched text from the answer (`lazy`, `stop`,
///   `suffix`), would make text and grammar differ;
/// - nothing could read what the others store (`capture`, `stop_capture`).
fn check_attributes(parts: &[String]) -> Result<(), String> {
    let Some(end) = parts.windows(2).position(|pair| pair == ["]", ":"]) else { return Ok(()) };
    let name = parts[..end].iter().rposition(|part| part == "[").and_then(|start| parts.get(start + 1));
    Err(format!("a rule has the attribute {}, which cannot be followed", name.map_or("", String::as_str)))
}

/// Returns the sum of all numbers.
fn repeats(parts: &[String]) -> u64 {
    let numbers = parts.iter().filter(|part| part.starts_with(|letter: char| letter.is_ascii_digit()));
    // a number that overflows the type exceeds the limit too
    numbers.map(|number| number.parse().unwrap_or(u64::MAX)).fold(0, u64::saturating_add)
}

/// Returns the names, numbers and signs of a grammar, without its strings, regular expressions and comments.
fn words(grammar: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = grammar;
    while let Some(letter) = rest.chars().next() {
        let length = match letter {
            '"' | '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' | '/' => closing(rest, letter),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '<' => special_token(rest),
            '%' => 1 + word_length(&rest[1..]),
            _ if rest.starts_with("::") => 2,
            _ => word_length(rest).max(letter.len_utf8()),
        };
        let (word, after) = rest.split_at(length);
        if !letter.is_whitespace() && !matches!(letter, '"' | '/' | '#') {
            words.push(word.to_owned());
        }
        rest = after;
    }
    words
}

fn word_length(text: &str) -> usize {
    text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len())
}

/// Returns the bytes of a special token including both its marks, or of the first mark alone.
fn special_token(text: &str) -> usize {
    let inside = |letter: char| !matches!(letter, '<' | '>') && !letter.is_whitespace();
    let length = text[1..].find(|letter| !inside(letter)).unwrap_or(text.len() - 1);
    if length > 0 && text[1 + length..].starts_with('>') { length + 2 } else { 1 }
}

/// Returns the bytes of a string or regular expression including both its marks.
fn closing(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (index, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if letter == mark => return index + 1,
            _ => {}
        }
    }
    text.len()
}
