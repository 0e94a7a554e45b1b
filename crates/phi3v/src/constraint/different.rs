//! Arrays of different items (`uniqueItems`). A grammar cannot know which items came before, so this module removes
//! tokens that the grammar allows:
//!
//! - tokens that end an item which its array already has, and
//! - tokens after which the grammar lets an item become nothing else, so that dead ends are seen before they are entered.

use llguidance::Matcher;
use llguidance::toktrie::{TokTrie, TokenId};
use std::cmp::Reverse;
use std::collections::HashSet;

use super::schema::{Check, Outlook};
use super::{ConstraintError, grammar};

/// Limit on questions to the grammar engine before one token, which bounds the cost of a form. Tokens undecided then are
/// allowed.
const QUESTIONS_MAX: usize = 16_384;

/// Cost of re-reading the answer, in questions: a fixed part, plus one per `READING_BYTES` bytes.
const READING: usize = 16;
const READING_BYTES: usize = 128;

/// The bytes that most often continue or end a value. They are tried first.
const LIKELY: &[u8] = b"a0A1,]}\"";

/// Bytes that occur outside of strings. Answers have no white space there.
const OUTSIDE_OF_STRINGS: &[u8] = b"0123456789-+.eE,:[]{}\"truefalsn";

/// Bytes of strings: those of UTF-8 without control characters.
const OF_STRINGS: std::ops::RangeInclusive<u8> = b' '..=0xf4;

/// Forbids the tokens after which an array would contain an item twice. A token without an alternative stays unless it
/// ends such an item: knowing sooner would change nothing.
pub(super) fn leave_out_repetitions(
    matcher: &mut Matcher,
    check: &Check,
    answer: &[u8],
    allowed: &mut [bool],
) -> Result<(), ConstraintError> {
    let Some(mut arrays) = check.open_arrays(answer)? else { return Ok(()) };
    let tokens = matcher.tok_env().map_err(|error| grammar::too_complex(&error))?;
    let trie = tokens.tok_trie();
    let has_choice = allowed.iter().filter(|allowed| **allowed).count() > 1;
    let mut in_doubt: Vec<TokenId> = Vec::new();
    for (token, allowed) in (0..).zip(allowed.iter_mut()).filter(|(_, allowed)| **allowed) {
        match arrays.outlook(trie.token(token)) {
            Outlook::InDoubt if has_choice => in_doubt.push(token),
            Outlook::Free | Outlook::InDoubt => {}
            Outlook::Repeats => *allowed = false,
        }
    }
    // a way on from a long token is also one from every token that is its prefix
    in_doubt.sort_by_key(|&token| Reverse(trie.token(token).len()));
    let mut search = Search::new(matcher, check, trie, answer);
    let mut ways: Vec<Vec<u8>> = Vec::new();
    for token in in_doubt {
        if ways.iter().any(|way| way.starts_with(trie.token(token))) {
            continue;
        }
        match search.way_from(token).map_err(|error| grammar::too_complex(&error))? {
            Some(way) => ways.push(way),
            None => allowed[token as usize] = false,
        }
    }
    Ok(())
}

/// Searches for a continuation after a token, byte by byte.
struct Search<'a> {
    matcher: &'a mut Matcher,
    check: &'a Check,
    trie: &'a TokTrie,
    /// The length of the answer.
    answer: usize,
    /// The answer, followed by the text that is being tried.
    text: Vec<u8>,
    /// Texts that have no continuation.
    dead_ends: HashSet<Vec<u8>>,
    /// The number of questions left.
    questions: usize,
}

impl<'a> Search<'a> {
    fn new(matcher: &'a mut Matcher, check: &'a Check, trie: &'a TokTrie, answer: &[u8]) -> Self {
        Self {
            matcher,
            check,
            trie,
            answer: answer.len(),
            text: answer.to_vec(),
            dead_ends: HashSet::new(),
            questions: QUESTIONS_MAX,
        }
    }

    /// Returns what may be appended to the answer, beginning with a token, until no item is in doubt; `None` if nothing may.
    fn way_from(&mut self, token: TokenId) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self.leads_on(&[token])?;
        let way = self.text.split_off(self.answer);
        Ok(found.then_some(way))
    }

    /// Returns whether something may follow these tokens, which the grammar allows, after which no item is in doubt. If so,
    /// the tokens and what follows are appended to the text, otherwise nothing is. The matcher's position is unchanged.
    fn leads_on(&mut self, tokens: &[TokenId]) -> anyhow::Result<bool> {
        let before = self.text.len();
        tokens.iter().for_each(|&token| self.text.extend_from_slice(self.trie.token(token)));
        if !self.dead_ends.contains(&self.text[self.answer..]) {
            self.matcher.consume_tokens(tokens)?;
            let goes_on = self.goes_on()?;
            self.matcher.rollback(tokens.len())?;
            if goes_on {
                return Ok(true);
            }
            self.dead_ends.insert(self.text[self.answer..].to_vec());
        }
        self.text.truncate(before);
        Ok(false)
    }

    /// Returns whether something may follow after which no item is in doubt. If so, that continuation is appended.
    fn goes_on(&mut self) -> anyhow::Result<bool> {
        if !self.may_ask(READING + self.text.len() / READING_BYTES) {
            return Ok(true);
        }
        let forced = self.matcher.compute_ff_bytes();
        if !forced.is_empty() {
            return self.run_leads_on(&forced);
        }
        let Some([free, in_doubt]) = self.next_bytes() else { return Ok(true) };
        for (bytes, is_free) in [(free, true), (in_doubt, false)] {
            for byte in bytes {
                let Some(token) = self.trie.token_id(&[byte]) else { continue };
                if !self.may_ask(1) {
                    return Ok(true);
                }
                if self.matcher.validate_tokens(&[token])? == 0 {
                    continue;
                }
                if is_free {
                    self.text.push(byte);
                    return Ok(true);
                }
                if self.leads_on(&[token])? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Like [`goes_on`](Self::goes_on), for bytes that the grammar forces.
    fn run_leads_on(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        let outlook =
            self.check.open_arrays(&self.text).ok().flatten().map(|mut arrays| arrays.outlook(bytes));
        match outlook.unwrap_or(Outlook::Free) {
            Outlook::Free => {
                self.text.extend_from_slice(bytes);
                Ok(true)
            }
            Outlook::Repeats => Ok(false),
            Outlook::InDoubt => {
                let tokens: Option<Vec<TokenId>> =
                    bytes.iter().map(|&byte| self.trie.token_id(&[byte])).collect();
                tokens.map_or(Ok(true), |tokens| self.leads_on(&tokens))
            }
        }
    }

    /// Returns whether that number of questions is left, and deducts it.
    fn may_ask(&mut self, questions: usize) -> bool {
        let left = self.questions.checked_sub(questions);
        self.questions = left.unwrap_or_default();
        left.is_some()
    }

    /// Returns the bytes that leave no item in doubt, and those that still leave one in doubt; `None` if all items are free.
    fn next_bytes(&self) -> Option<[Vec<u8>; 2]> {
        let mut arrays = self.check.open_arrays(&self.text).ok().flatten()?;
        let others: Vec<u8> =
            if arrays.ends_in_a_string() { OF_STRINGS.collect() } else { OUTSIDE_OF_STRINGS.to_vec() };
        let others = others.into_iter().filter(|byte| !LIKELY.contains(byte));
        let mut next = [Vec::new(), Vec::new()];
        for byte in LIKELY.iter().copied().chain(others) {
            match arrays.outlook(&[byte]) {
                Outlook::Free => next[0].push(byte),
                Outlook::InDoubt => next[1].push(byte),
                Outlook::Repeats => {}
            }
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Constraint, ConstraintFactory, Grammar, GrammarLimits};
    use crate::tokenizer::Tokenizer;
    use serde_json::json;

    /// Returns which of some bytes may follow the beginning of an array of different items.
    fn following(items: &serde_json::Value, answer: &str, bytes: &str) -> String {
        let tokenizer =
            Tokenizer::from_json(include_bytes!("../../../../testdata/tiny/tokenizer.json")).unwrap();
        let factory = ConstraintFactory::new(&tokenizer, GrammarLimits::default()).unwrap();
        let schema = json!({"type": "array", "minItems": 2, "uniqueItems": true, "items": items});
        let mut constraint = factory.constraint(&Grammar::JsonSchema(schema)).unwrap();
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        for byte in answer.bytes() {
            constraint.allowed(&mut vec![0.0; tokenizer.vocab_size()]).unwrap();
            constraint.accept(tokenizer.byte_id(byte)).unwrap();
        }
        constraint.allowed(&mut logits).unwrap();
        let may_follow = |byte: &u8| logits[tokenizer.byte_id(*byte) as usize] == 0.0;
        bytes.bytes().filter(may_follow).map(char::from).collect()
    }

    #[test]
    fn no_item_is_begun_that_could_only_be_one_of_those_before_it() {
        let number = |maximum: u32| json!({"type": "integer", "minimum": 1, "maximum": maximum});
        let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
        let members = |key: &str| {
            json!({"type": "object", "properties": {"k": text(key), "v": {"type": "boolean"}},
                "required": ["k", "v"], "additionalProperties": false})
        };
        let pairs = json!({"type": "array", "items": number(2), "minItems": 2, "maxItems": 2});
        for (items, answer, bytes, expected) in [
            (number(12), "[3,9,", "139", "1"),
            (number(12), "[1,10,11,12,", "123456789", "23456789"),
            (number(12), "[1,10,11,", "123456789", "123456789"),
            (number(12), "[1,10,11,1", "0123,]", "2"),
            (number(2), "[1,2", ",]", "]"),
            (text("^[A-Z]{2}$"), "[\"KL\",\"IH\",\"I", "HIL", "IL"),
            (text("^[A-Z]{2}$"), "[\"KL\",\"IH\",\"", "IKL", "IKL"),
            (text("^(ab|ac|b)$"), "[\"ab\",\"ac\",\"", "abc", "b"),
            (text("^(ab|ac|b)$"), "[\"ab\",\"ac\",\"b\"", ",]", "]"),
            // a character that has several escapes
            (text("^(a\\n|a\\t|b)$"), "[\"a\\n\",\"", "ab", "ab"),
            (text("^(a\\n|a\\t|b)$"), "[\"a\\n\",\"a\\", "ntu", "tu"),
            (text("^(a\\n|a\\t|b)$"), "[\"a\\n\",\"a\\u000", "9aA", "9"),
            (text("^(a\\n|b)$"), "[\"a\\n\",\"", "ab", "b"),
            // a dead end is seen before the bytes that are forced on the way to it
            (members("^[FG]$"), "[{\"k\":\"F\",\"v\":true},{\"k\":\"F\",\"v\":", "tf", "f"),
            (members("^[FG]$"), "[{\"k\":\"F\",\"v\":true},{\"k\":\"", "FG", "FG"),
            (members("^[FG]$"), "[{\"k\":\"F\",\"v\":true},{\"k\":\"F\",\"v\":false},{\"k\":\"", "FG", "G"),
            (members("^F?G?$"), "[{\"k\":\"F\",\"v\":true},{\"k\":\"F\",\"v\":false},{\"k\":\"F", "G\"", "G"),
            (pairs.clone(), "[[1,2],[1,", "12", "1"),
            (pairs.clone(), "[[1,1],[1,2],[", "12", "2"),
            (pairs, "[[1,1],[1,2],[2,1],[2,2]", ",]", "]"),
            (json!({"type": "number", "minimum": 0, "maximum": 9}), "[0.5,0.50000000000000", "01,", "1"),
            (json!({"type": "string"}), "[\"ab\",\"a", "b\"", "b\""),
        ] {
            assert_eq!(following(&items, answer, bytes), expected, "{answer}");
        }
    }
}
