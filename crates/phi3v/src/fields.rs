//! The values of an answer with a form, and how confident the model was of each.
//!
//! ```
//! use phi3v::constraint::{ConstraintFactory, Grammar, GrammarLimits};
//! use phi3v::fields::fields;
//! use serde_json::json;
//! use std::ops::ControlFlow;
//!
//! let mut session = phi3v::load("demo")?;
//! session.generation.sampling.logprobs = Some(0);
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/cover.png");
//! let cover = session.image(path)?;
//! let mut request = session.preparer().ask([cover], "What is the title?")?;
//! let form = Grammar::JsonSchema(json!({"type": "object", "properties": {"title": {"type": "string", "maxLength": 20}},
//!     "required": ["title"], "additionalProperties": false}));
//! let factory = ConstraintFactory::new(session.tokenizer(), GrammarLimits::default())?;
//! request.constraint = Some(Box::new(factory.constraint(&form)?));
//! let answer = session.run(request, &mut |_| ControlFlow::Continue(()))?;
//! let fields = fields(&form, &answer.tokens, &answer.finished.text);
//! assert_eq!(fields[0].path, "/title");
//! assert!(fields[0].p > 0.0 && fields[0].p <= 1.0);
//! # Ok::<(), phi3v::Error>(())
//! ```

use crate::constraint::Grammar;
use crate::engine::Token;
use crate::placing::{Placed, Placer};
use serde_json::Value;
use std::ops::Range;

/// A value of an answer that contains no other values.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its position, as a JSON Pointer (RFC 6901): `/items/0/price`. The pointer is empty if the answer is a single value.
    pub path: String,
    /// The value itself: a string, a number, true, false, null, or an empty array or object. A number that no JSON reader
    /// could hold is given as its text.
    pub value: Value,
    /// The lowest probability of its tokens, from 0 to 1. For a string, only the tokens between its quotes count.
    pub p: f32,
}

/// Collects the tokens of an answer as it is generated, and finds its values at the end.
///
/// Probabilities are those of [`Token::logprob`], so the request must ask for log probabilities; without them there are
/// no values.
#[derive(Clone, Debug)]
pub struct FieldReader {
    is_json: bool,
    text: String,
    /// Pieces of the text in order, each with the lowest probability of its tokens.
    pieces: Vec<Piece>,
    placer: Placer,
    /// Whether any token had a probability.
    is_told: bool,
}

/// A piece of the text that ends at byte `end`.
#[derive(Clone, Debug)]
struct Piece {
    end: usize,
    p: f32,
}

impl FieldReader {
    /// Returns a reader at the beginning of an answer with this form.
    #[must_use]
    pub fn of(form: &Grammar) -> Self {
        Self::new(form.is_json())
    }

    fn new(is_json: bool) -> Self {
        let (text, pieces, placer) = (String::new(), Vec::new(), Placer::default());
        Self { is_json, text, pieces, placer, is_told: false }
    }

    /// Takes the next token.
    pub fn push(&mut self, token: &Token) {
        self.is_told |= token.logprob.is_some();
        let placed = self.placer.push(token);
        self.take(&token.text, placed);
    }

    fn take(&mut self, text: &str, placed: Vec<Placed>) {
        let begin = self.text.len();
        self.text.push_str(text);
        // nothing is known of text without a token
        let least = |probabilities: Vec<f32>| probabilities.into_iter().fold(1.0, f32::min);
        let piece = |placed: Placed| Piece { end: begin + placed.end, p: least(placed.probabilities) };
        self.pieces.extend(placed.into_iter().map(piece));
    }

    /// Takes the text that was held back until the end of the answer, and returns all values. These are the JSON values if the
    /// form is JSON, otherwise the whole answer as one string. If the answer was cut off, only complete values are
    /// returned. Values more than 64 levels deep are left out. Afterwards the reader is at the beginning of another answer.
    pub fn finish(&mut self, rest: &str) -> Vec<Field> {
        let placed = self.placer.finish(rest);
        self.take(rest, placed);
        let reader = std::mem::replace(self, Self::new(self.is_json));
        if reader.text.is_empty() || !reader.is_told {
            return Vec::new();
        }
        if !reader.is_json {
            let p = reader.least(0..reader.text.len());
            return vec![Field { path: String::new(), value: Value::String(reader.text), p }];
        }
        values(&reader.text).into_iter().map(|found| reader.field(found)).collect()
    }

    fn field(&self, Found { path, place }: Found) -> Field {
        let text = &self.text[place.clone()];
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        // the quotes of a string belong to its form, unless there is nothing else
        let inner = place.start + 1..place.end.saturating_sub(1);
        let place = if text.starts_with('"') && !inner.is_empty() { inner } else { place };
        Field { path, value, p: self.least(place) }
    }

    /// Returns the lowest probability of the pieces that overlap a part of the text.
    fn least(&self, place: Range<usize>) -> f32 {
        let first = self.pieces.partition_point(|piece| piece.end <= place.start);
        let begins = |index: usize| index.checked_sub(1).map_or(0, |before| self.pieces[before].end);
        let pieces = (first..self.pieces.len()).take_while(|&index| begins(index) < place.end);
        pieces.map(|index| self.pieces[index].p).fold(1.0, f32::min)
    }
}

/// Returns the values of a complete answer with this form, from its `tokens` and the text that came with its end.
#[must_use]
pub fn fields(form: &Grammar, tokens: &[Token], rest: &str) -> Vec<Field> {
    let mut reader = FieldReader::of(form);
    tokens.iter().for_each(|token| reader.push(token));
    reader.finish(rest)
}

/// Maximum depth at which values are listed: their pointers grow with each level.
const LEVELS_MAX: usize = 64;

/// A value and its place in the text.
struct Found {
    path: String,
    place: Range<usize>,
}

/// The position of the reader of a text: an array's item, or an object's member, whose name may have been read or not.
enum Level {
    Item(usize),
    Member(Option<String>),
}

/// Finds the values of a text that is JSON, or the beginning of JSON.
fn values(text: &str) -> Vec<Found> {
    let bytes = text.as_bytes();
    let (mut levels, mut found, mut at) = (Vec::<Level>::new(), Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match (byte, levels.last_mut()) {
            (b'{' | b'[', _) => match closing(bytes, at) {
                Some(end) => at = end,
                None => {
                    levels.push(if byte == b'{' { Level::Member(None) } else { Level::Item(0) });
                    continue;
                }
            },
            (b'}' | b']', _) => {
                levels.pop();
                continue;
            }
            (b',', Some(Level::Item(index))) => {
                *index += 1;
                continue;
            }
            (b',', Some(Level::Member(name))) => {
                *name = None;
                continue;
            }
            (b',' | b':' | b' ' | b'\t' | b'\n' | b'\r', _) => continue,
            (b'"', level) => {
                let Some(end) = end_of_string(bytes, at) else { break };
                at = end;
                if let Some(Level::Member(name @ None)) = level {
                    *name = serde_json::from_str(&text[start..at]).ok();
                    continue;
                }
            }
            (_, level) => {
                let ends = |byte: &u8| b",]} \t\n\r".contains(byte);
                match bytes[at..].iter().position(ends) {
                    Some(length) => at += length,
                    // a number or word that is cut off within an array or object
                    None if level.is_some() => break,
                    None => at = bytes.len(),
                }
            }
        }
        if levels.len() <= LEVELS_MAX {
            found.push(Found { path: pointer(&levels), place: start..at });
        }
    }
    found
}

/// Returns the end of an array or object that closes immediately.
fn closing(bytes: &[u8], at: usize) -> Option<usize> {
    let skipped = bytes[at..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    matches!(bytes[at + skipped], b'}' | b']').then_some(at + skipped + 1)
}

/// Returns the end of a string whose opening quote is before `at`, if it has one.
fn end_of_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn pointer(levels: &[Level]) -> String {
    let mut pointer = String::new();
    for level in levels {
        pointer.push('/');
        match level {
            Level::Item(index) => pointer += &index.to_string(),
            Level::Member(name) => {
                pointer += &name.as_deref().unwrap_or_default().replace('~', "~0").replace('/', "~1");
            }
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(text: &str, p: f32) -> Token {
        Token { id: 0, text: text.to_owned(), held: 0, logprob: Some(p.ln()), top: Vec::new() }
    }

    fn told(tokens: &[Token], rest: &str) -> Vec<(String, Value, f32)> {
        let round = |p: f32| (p * 1000.0).round() / 1000.0;
        let fields = fields(&Grammar::JsonObject, tokens, rest);
        fields.into_iter().map(|field| (field.path, field.value, round(field.p))).collect()
    }

    fn expected(fields: &[(&str, Value, f32)]) -> Vec<(String, Value, f32)> {
        fields.iter().map(|(path, value, p)| ((*path).to_owned(), value.clone(), *p)).collect()
    }

    #[test]
    fn values_have_the_least_probability_of_their_tokens() {
        let tokens = [
            token("{\"a/b\":\"", 0.1),
            token("Sum", 0.9),
            token("mer", 0.7),
            token("\",\"", 0.2),
            token("items", 0.1),
            token("\":[{", 0.3),
            token("\"n\":1", 0.8),
            token("2", 0.6),
            token("},", 0.1),
            token("{\"n\":null", 0.5),
            token("}],\"", 0.1),
            token("e\":\"", 0.05),
            token("\",\"f\":[],\"g\":{ }}", 0.4),
        ];
        let told = told(&tokens, "");
        let fields = [
            ("/a~1b", json!("Summer"), 0.7),
            ("/items/0/n", json!(12), 0.6),
            ("/items/1/n", json!(null), 0.5),
            // nothing but quotes, from two tokens
            ("/e", json!(""), 0.05),
            ("/f", json!([]), 0.4),
            ("/g", json!({}), 0.4),
        ];
        assert_eq!(told, expected(&fields));
    }

    #[test]
    fn an_answer_may_be_one_value_or_no_json() {
        assert_eq!(told(&[token("4", 0.9), token("2", 0.5)], ""), expected(&[("", json!(42), 0.5)]));
        assert_eq!(
            told(&[token("\"a\\\"", 0.9), token("b\"", 0.5)], ""),
            expected(&[("", json!("a\"b"), 0.5)])
        );
        assert_eq!(told(&[token("1e999", 0.9)], ""), expected(&[("", json!("1e999"), 0.9)]));
        let whole = fields(&Grammar::Choices(Vec::new()), &[token("ye", 0.9), token("", 0.4)], "s");
        assert_eq!(whole, [Field { path: String::new(), value: json!("yes"), p: 0.4f32.ln().exp() }]);
        assert_eq!(fields(&Grammar::JsonObject, &[], ""), []);
        let unsaid = Token { logprob: None, ..token("{\"a\":", 1.0) };
        assert_eq!(fields(&Grammar::JsonObject, &[unsaid], "1}"), []);
    }

    #[test]
    fn a_value_that_was_held_back_has_the_probabilities_of_its_own_tokens() {
        // what may be the beginning of the stop string `4,5` comes with the token after it
        let tokens = [Token { held: 1, ..token("[3,", 0.3) }, token("4]", 0.9)];
        assert_eq!(told(&tokens, ""), expected(&[("/0", json!(3), 0.3), ("/1", json!(4), 0.3)]));
        let tokens = [token("[3,", 0.9), Token { held: 1, ..token("", 0.3) }, token("4]", 0.8)];
        assert_eq!(told(&tokens, ""), expected(&[("/0", json!(3), 0.9), ("/1", json!(4), 0.3)]));
        let tokens = [token("[3,", 0.9), Token { held: 2, ..token("", 0.3) }];
        assert_eq!(told(&tokens, "4]"), expected(&[("/0", json!(3), 0.9), ("/1", json!(4), 0.3)]));
    }

    #[test]
    fn of_a_cut_answer_the_values_that_are_whole_are_told() {
        let paths = |text: &str| -> Vec<String> {
            let fields = fields(&Grammar::JsonObject, &[token(text, 0.5)], "");
            fields.into_iter().map(|field| field.path).collect()
        };
        assert_eq!(paths("{\"a\": [1, 2], \"b\": {\"c\": tru"), ["/a/0", "/a/1"]);
        assert_eq!(paths("{\"a\": [1, \"x\", \"y"), ["/a/0", "/a/1"]);
        assert_eq!(paths("{\"a\": 1, \"b"), ["/a"]);
        assert_eq!(paths("{\"a\": \"x\\"), [""; 0]);
        let deep = |levels: usize| "[".repeat(levels) + "1" + &"]".repeat(levels);
        assert_eq!((paths(&deep(64)).len(), paths(&deep(65)).len(), paths(&deep(100_000)).len()), (1, 0, 0));
    }
}
