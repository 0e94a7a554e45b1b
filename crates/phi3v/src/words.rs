//! Words of an answer, and how confident the model was of each. Tokens are parts of words, and their probabilities together
//! say more about a word than each alone.
//!
//! ```
//! use phi3v::words::words;
//! use std::ops::ControlFlow;
//!
//! let mut session = phi3v::load("demo")?;
//! session.generation.sampling.logprobs = Some(0);
//! session.generation.max_new_tokens = Some(20);
//! let request = session.preparer().ask([], "Who are you?")?;
//! let answer = session.run(request, &mut |_| ControlFlow::Continue(()))?;
//! let words = words(&answer.tokens, &answer.finished.text);
//! let text: String = words.iter().flat_map(|word| [word.space.as_str(), &word.text]).collect();
//! assert_eq!(text, answer.text);
//! assert!(words.iter().all(|word| word.p > 0.0 && word.p <= word.mean));
//! # Ok::<(), phi3v::Error>(())
//! ```

use crate::engine::Token;
use crate::placing::{Placed, Placer};

/// A word less probable than this is called unsure. Of the demo model's right words about held-out pictures, about one in
/// twenty is below it: 3 and 6 in a hundred for two kinds of pictures (`training/certainty.py`, docs/guide/demo.md). Other
/// models may need other values.
pub const SURE_MIN: f32 = 0.8;

/// A word less probable than this, an even chance, is more likely wrong than right, and so is the answer that contains it. Of
/// the demo model's answers about held-out pictures with such a word, 216 of 222 were wrong.
pub const EVEN_MIN: f32 = 0.5;

/// A run of characters without white space, and the probabilities of the tokens it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// White space before the word. All words of an answer, joined with theirs, are its text without trailing white space.
    pub space: String,
    /// The word itself, including adjacent punctuation.
    pub text: String,
    /// The lowest probability of its tokens, from 0 to 1: the model's confidence at the worst place.
    pub p: f32,
    /// The mean probability of its tokens, from 0 to 1.
    pub mean: f32,
}

/// Joins the tokens of an answer to words as it is generated, and returns each word as soon as it has ended.
///
/// Probabilities are those of [`Token::logprob`], so the request must ask for log probabilities; without them there are
/// no words. Text that is held back as the possible beginning of a stop string has the probabilities of its own tokens,
/// whenever it arrives.
#[derive(Clone, Debug, Default)]
pub struct WordStream {
    space: String,
    text: String,
    /// Probabilities of the tokens of the word so far.
    probabilities: Vec<f32>,
    placer: Placer,
}

impl WordStream {
    /// Takes the next token and returns the words that have ended with it.
    pub fn push(&mut self, token: &Token) -> Vec<Word> {
        let mut words = Vec::new();
        let placed = self.placer.push(token);
        self.take(&token.text, &placed, &mut words);
        words
    }

    /// Takes the text that was held back until the end of the answer, and returns the remaining words. Afterwards the stream is
    /// at the beginning of another answer.
    pub fn finish(&mut self, text: &str) -> Vec<Word> {
        let mut words = Vec::new();
        let placed = self.placer.finish(text);
        self.take(text, &placed, &mut words);
        self.end(&mut words);
        *self = Self::default();
        words
    }

    fn take(&mut self, text: &str, placed: &[Placed], words: &mut Vec<Word>) {
        let mut begin = 0;
        for Placed { end, probabilities, goes_on } in placed {
            // once for each word that contains a part of the token
            let mut counted = *goes_on && !self.text.is_empty();
            for letter in text[begin..*end].chars() {
                if letter.is_whitespace() {
                    self.end(words);
                    self.space.push(letter);
                    counted = false;
                } else {
                    self.text.push(letter);
                    if !counted {
                        self.probabilities.extend(probabilities);
                        counted = true;
                    }
                }
            }
            begin = *end;
        }
    }

    /// Ends the word, if there is one.
    fn end(&mut self, words: &mut Vec<Word>) {
        if self.text.is_empty() {
            return;
        }
        let probabilities = std::mem::take(&mut self.probabilities);
        let (space, text) = (std::mem::take(&mut self.space), std::mem::take(&mut self.text));
        let Some(p) = probabilities.iter().copied().reduce(f32::min) else { return };
        let mean = probabilities.iter().sum::<f32>() / probabilities.len() as f32;
        // the rounding of a sum must not put the mean below the least
        words.push(Word { space, text, p, mean: mean.max(p) });
    }
}

/// Returns the words of a complete answer, from its `tokens` and the text that came with its end.
#[must_use]
pub fn words(tokens: &[Token], rest: &str) -> Vec<Word> {
    let mut stream = WordStream::default();
    let mut words: Vec<Word> = tokens.iter().flat_map(|token| stream.push(token)).collect();
    words.extend(stream.finish(rest));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::StopStrings;

    fn token(text: &str, p: f32) -> Token {
        Token { id: 0, text: text.to_owned(), held: 0, logprob: Some(p.ln()), top: Vec::new() }
    }

    fn told(tokens: &[Token], rest: &str) -> Vec<(String, f32, f32)> {
        let round = |p: f32| (p * 1000.0).round() / 1000.0;
        let words = words(tokens, rest);
        words.into_iter().map(|word| (word.space + &word.text, round(word.p), round(word.mean))).collect()
    }

    fn expected(words: &[(&str, f32, f32)]) -> Vec<(String, f32, f32)> {
        words.iter().map(|(text, p, mean)| ((*text).to_owned(), *p, *mean)).collect()
    }

    #[test]
    fn tokens_are_joined_to_words_with_the_least_and_the_mean_of_their_probabilities() {
        let tokens =
            [token("Sum", 0.5), token("mer", 0.9), token(" Gar", 1.0), token("den", 0.2), token(".\n", 0.6)];
        assert_eq!(told(&tokens, ""), expected(&[("Summer", 0.5, 0.7), (" Garden.", 0.2, 0.6)]));
        // a separate blank belongs to no word, and a token that spans two words to both
        let tokens = [token("a", 0.9), token(" ", 0.1), token("b c", 0.8), token("d", 0.4)];
        assert_eq!(told(&tokens, ""), expected(&[("a", 0.9, 0.9), (" b", 0.8, 0.8), (" cd", 0.4, 0.6)]));
    }

    #[test]
    fn tokens_without_text_count_for_the_text_that_they_become() {
        let tokens =
            [token("", 0.3), token("", 0.9), token("\u{20ac}", 0.9), token("5", 1.0), token("", 0.5)];
        assert_eq!(told(&tokens, " or"), expected(&[("\u{20ac}5", 0.3, 0.775), (" or", 0.5, 0.5)]));
    }

    /// Returns the tokens as they arrive after stop strings, and the rest.
    fn watched(tokens: &[Token], stop: &[&str]) -> (Vec<Token>, String) {
        let mut stop = StopStrings::new(stop).unwrap();
        let told = |token: &Token| {
            let text = stop.push(&token.text).text;
            Token { text, held: stop.held(), ..token.clone() }
        };
        let tokens = tokens.iter().map(told).collect();
        (tokens, stop.finish())
    }

    #[test]
    fn words_beside_stop_strings_have_the_probabilities_of_their_own_tokens() {
        let (tokens, rest) = watched(&[token("one", 0.9), token(" E", 0.4)], &["END"]);
        assert_eq!((tokens[1].text.as_str(), rest.as_str()), (" ", "E"));
        assert_eq!(told(&tokens, &rest), expected(&[("one", 0.9, 0.9), (" E", 0.4, 0.4)]));
        let all = [token("the", 0.9), token(" User", 0.4), token("name", 0.8), token(" is", 0.7)];
        let (tokens, rest) = watched(&all, &["User:"]);
        let words = [("the", 0.9, 0.9), (" Username", 0.4, 0.6), (" is", 0.7, 0.7)];
        assert_eq!(told(&tokens, &rest), expected(&words));
        assert_eq!(told(&all, ""), expected(&words), "as without them");
        // a token whose letters arrive one after the other, and several tokens that are held back
        let all = [token("aa", 0.5), token("aa", 0.8), token("a", 0.7), token("a b", 0.8), token("c", 1.0)];
        let (tokens, rest) = watched(&all, &["aaaac", "bcd"]);
        assert_eq!((tokens[2].text.as_str(), tokens[3].text.as_str()), ("a", "aaaaa "));
        assert_eq!(told(&tokens, &rest), told(&all, ""));
        let (tokens, rest) = watched(&[token("one EN", 0.9), token("D two", 0.4)], &["END"]);
        assert_eq!(told(&tokens, &rest), expected(&[("one", 0.9, 0.9)]));
    }

    #[test]
    fn without_log_probabilities_there_are_no_words() {
        let tokens = [Token { logprob: None, ..token("a b", 1.0) }];
        assert_eq!(told(&tokens, " c"), []);
    }
}
