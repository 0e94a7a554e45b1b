//! Finds the part of an answer's text that each token stands for. Probabilities of words and of fields are grouped by it.

use crate::engine::Token;
use std::collections::VecDeque;

/// Finds the places of tokens in text that becomes final later than its tokens are chosen: bytes of an incomplete character,
/// and the possible beginning of a stop string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placer {
    /// Tokens whose text has not arrived completely.
    tokens: VecDeque<Unplaced>,
    /// Bytes of text that they hold back.
    held: usize,
}

/// A token whose text has not arrived completely.
#[derive(Clone, Debug)]
struct Unplaced {
    p: Option<f32>,
    /// Bytes that are yet to come; 0 for a part of a character.
    bytes: usize,
    is_begun: bool,
}

/// A piece of the text that has arrived: a token's, or a character spelled by several tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Placed {
    /// The piece ends before this byte of the arrived text, and begins where the previous piece ends.
    pub(crate) end: usize,
    /// The probabilities of its tokens, as far as they have one.
    pub(crate) probabilities: Vec<f32>,
    /// Whether this is another piece of the previous piece's token.
    pub(crate) goes_on: bool,
}

impl Placer {
    /// Takes the next token; returns the pieces of the text that has arrived with it.
    pub(crate) fn push(&mut self, token: &Token) -> Vec<Placed> {
        // would be negative if a stop string has cut the text
        let bytes = token.text.len().saturating_add(token.held).saturating_sub(self.held);
        self.held = token.held;
        self.tokens.push_back(Unplaced { p: token.logprob.map(f32::exp), bytes, is_begun: false });
        self.place(&token.text)
    }

    /// Takes the text that has arrived with the end of the answer; returns its pieces. The next token begins another answer.
    pub(crate) fn finish(&mut self, text: &str) -> Vec<Placed> {
        let placed = self.place(text);
        *self = Self::default();
        placed
    }

    fn place(&mut self, text: &str) -> Vec<Placed> {
        let (mut placed, mut begin) = (Vec::new(), 0);
        while begin < text.len() {
            let mut piece = Placed { end: text.len(), ..Placed::default() };
            // parts of a character count for the text that follows them
            while let Some(part) = self.tokens.pop_front_if(|token| token.bytes == 0) {
                piece.probabilities.extend(part.p);
            }
            if let Some(token) = self.tokens.front_mut() {
                piece.end = text.ceil_char_boundary(begin.saturating_add(token.bytes));
                piece.probabilities.extend(token.p);
                piece.goes_on = std::mem::replace(&mut token.is_begun, true);
                token.bytes = token.bytes.saturating_sub(piece.end - begin);
            }
            self.tokens.pop_front_if(|token| token.bytes == 0);
            begin = piece.end;
            placed.push(piece);
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::StopStrings;

    /// The pieces of an answer whose tokens have these texts and the probabilities 0, 1/8, 2/8, ..., after stop strings.
    fn pieces(texts: &[&str], stop: &[&str]) -> Vec<(String, Vec<f32>, bool)> {
        let (mut placer, mut stop) = (Placer::default(), StopStrings::new(stop).unwrap());
        let mut told = Vec::new();
        let mut tell = |text: &str, placed: Vec<Placed>| {
            let mut begin = 0;
            for Placed { end, probabilities, goes_on } in placed {
                let eighths = probabilities.iter().map(|p| (p * 8.0).round()).collect();
                told.push((text[begin..end].to_owned(), eighths, goes_on));
                begin = end;
            }
            assert_eq!(begin, text.len());
        };
        for (index, text) in texts.iter().enumerate() {
            let output = stop.push(text);
            let token = Token {
                id: 0,
                text: output.text,
                held: stop.held(),
                logprob: Some((index as f32 / 8.0).ln()),
                top: Vec::new(),
            };
            tell(&token.text, placer.push(&token));
        }
        let rest = stop.finish();
        tell(&rest, placer.finish(&rest));
        assert!(placer.tokens.is_empty() && placer.held == 0);
        told
    }

    fn expected(pieces: &[(&str, &[f32], bool)]) -> Vec<(String, Vec<f32>, bool)> {
        pieces
            .iter()
            .map(|(text, eighths, goes_on)| ((*text).to_owned(), eighths.to_vec(), *goes_on))
            .collect()
    }

    #[test]
    fn text_that_is_held_is_its_tokens() {
        // one answer ends with held text, the other continues after it
        let told = pieces(&["one", " E"], &["END"]);
        assert_eq!(told, expected(&[("one", &[0.0], false), (" ", &[1.0], false), ("E", &[1.0], true)]));
        let told = pieces(&["the", " User", "name", " is"], &["User:"]);
        let rest = [("User", &[1.0][..], true), ("name", &[2.0], false), (" is", &[3.0], false)];
        assert_eq!(
            told,
            expected(&[&[("the", &[0.0][..], false), (" ", &[1.0], false)], &rest[..]].concat())
        );
        // of three tokens, the first comes out letter by letter
        let told = pieces(&["aa", "aa", "a", "b"], &["aaaac"]);
        let first = [("a", &[0.0][..], false), ("a", &[0.0], true)];
        let rest = [("aa", &[1.0][..], false), ("a", &[2.0], false), ("b", &[3.0], false)];
        assert_eq!(told, expected(&[&first[..], &rest[..]].concat()));
    }

    #[test]
    fn text_before_a_stop_string_is_its_tokens_and_the_stop_string_is_nobodys() {
        assert_eq!(
            pieces(&["xE", "yEN", "Dz"], &["END"]),
            expected(&[("x", &[0.0], false), ("E", &[0.0], true), ("y", &[1.0], false)])
        );
        assert_eq!(pieces(&["E", "ND"], &["END"]), []);
    }

    #[test]
    fn parts_of_a_character_count_for_it() {
        let told = pieces(&["", "", "\u{20ac}", "5"], &["x"]);
        assert_eq!(told, expected(&[("\u{20ac}", &[0.0, 1.0, 2.0], false), ("5", &[3.0], false)]));
        let mut placer = Placer::default();
        let part = Token { id: 0, text: String::new(), held: 0, logprob: Some(0.0), top: Vec::new() };
        assert_eq!(placer.push(&part), []);
        // cut off
        let placed = Placed { end: 3, probabilities: vec![1.0], goes_on: false };
        assert_eq!(placer.finish("\u{fffd}"), [placed]);
    }
}
