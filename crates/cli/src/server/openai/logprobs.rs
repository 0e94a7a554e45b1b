//! Log probabilities in OpenAI's shape. The bytes of an answer's tokens, joined, are its text: without the blank that
//! the tokenizer puts before the first word, and only up to the place where a stop text cut it.

use super::types::{Logprobs, ScoredToken, TokenLogprob};
use phi3v::engine::Token;
use phi3v::tokenizer::{DecodeStream, Tokenizer};
use std::collections::VecDeque;
use std::sync::Arc;

/// JSON has no infinities; this is OpenAI's number for a token that cannot occur.
const LOGPROB_MIN: f32 = -9999.0;

/// The log probabilities of one answer, in step with its text.
pub(super) struct AnswerLogprobs {
    tokenizer: Arc<Tokenizer>,
    /// The answer's text, ignoring stop texts.
    stream: DecodeStream,
    /// Whether no token with text has arrived yet.
    at_start: bool,
    /// Bytes of that text so far.
    made: usize,
    /// Bytes of the text sent to the client so far.
    told: usize,
    /// Tokens whose text was not sent yet, in order.
    held: VecDeque<Held>,
}

/// A token that was not sent yet.
struct Held {
    logprob: TokenLogprob,
    /// Where its text begins in the answer's text, in bytes.
    begin: usize,
    /// Where its text ends; `None` while it is part of an incomplete character.
    end: Option<usize>,
}

impl AnswerLogprobs {
    /// Creates the log probabilities of an answer that begins, with no tokens yet.
    pub(super) fn new(tokenizer: Arc<Tokenizer>) -> Self {
        let stream = DecodeStream::new(Arc::clone(&tokenizer));
        Self { tokenizer, stream, at_start: true, made: 0, told: 0, held: VecDeque::new() }
    }

    /// Takes the next token, and returns the tokens up to the end of the text that it has made final.
    pub(super) fn token(&mut self, token: &Token) -> Logprobs {
        let top = token.top.iter().map(|&(id, logprob)| self.scored(id, logprob)).collect();
        let scored = self.scored(token.id, token.logprob.unwrap_or(LOGPROB_MIN));
        self.place(token.id, TokenLogprob { token: scored, top_logprobs: top });
        self.told += token.text.len();
        let told = self.told;
        self.take_while(|held| held.end.is_some_and(|end| end <= told))
    }

    /// Takes the text that was held back until the end of the answer, and returns the remaining tokens of it.
    pub(super) fn finish(&mut self, text: &str) -> Logprobs {
        let rest = self.stream.finish();
        self.resolve(rest.len());
        self.told += text.len();
        let told = self.told;
        if told >= self.made {
            return self.take_while(|_| true);
        }
        // a stop text cut the answer, perhaps within a token
        for held in &mut self.held {
            let beyond = held.end.unwrap_or(held.begin).saturating_sub(told);
            let bytes = &mut held.logprob.token.bytes;
            if held.begin < told && beyond > 0 {
                bytes.truncate(bytes.len().saturating_sub(beyond));
                held.logprob.token.token = String::from_utf8_lossy(bytes).into_owned();
            }
        }
        self.take_while(|held| held.begin < told)
    }

    /// Finds the position of a token's text.
    fn place(&mut self, id: u32, logprob: TokenLogprob) {
        let text = self.stream.push(id);
        let own = &logprob.token.bytes;
        let (own_len, ends_with_it) = (own.len(), text.as_bytes().ends_with(own));
        // a token without text, such as the blank before the first word
        let empty = own.is_empty();
        self.at_start &= self.is_hidden(id);
        if empty && text.is_empty() {
            self.held.push_back(Held { logprob, begin: self.made, end: Some(self.made) });
        } else if !text.is_empty() && ends_with_it {
            self.resolve(text.len() - own_len);
            self.held.push_back(Held { logprob, begin: self.made, end: Some(self.made + own_len) });
            self.made += own_len;
        } else {
            self.held.push_back(Held { logprob, begin: self.made, end: None });
            self.resolve(text.len());
        }
    }

    /// Assigns the next `len` bytes of text to the tokens whose position is not known yet; does nothing if there is no
    /// text.
    fn resolve(&mut self, len: usize) {
        let pending = self.held.iter().filter(|held| held.end.is_none()).count();
        if len == 0 || pending == 0 {
            self.made += len;
            return;
        }
        // a byte each; or U+FFFD each, if they form no character
        let each = (len.is_multiple_of(pending)).then_some(len / pending);
        let mut begin = self.made;
        for held in self.held.iter_mut().filter(|held| held.end.is_none()) {
            let end = each.map_or(self.made + len, |each| begin + each);
            (held.begin, held.end) = (begin, Some(end));
            begin = each.map_or(self.made, |_| end);
        }
        self.made += len;
    }

    fn take_while(&mut self, is_told: impl Fn(&Held) -> bool) -> Logprobs {
        let count = self.held.iter().take_while(|held| is_told(held)).count();
        Logprobs { content: self.held.drain(..count).map(|held| held.logprob).collect() }
    }

    /// Returns whether a token is not part of the text.
    fn is_hidden(&self, id: u32) -> bool {
        // a blank alone is the only text that decoding drops
        self.tokenizer.token_bytes(id) != b" " && self.tokenizer.decode(&[id], true).is_empty()
    }

    /// Returns a token in the answer's next position. Special tokens are not part of the text and have no bytes.
    fn scored(&self, id: u32, logprob: f32) -> ScoredToken {
        let (logprob, bytes) = (logprob.max(LOGPROB_MIN), self.tokenizer.token_bytes(id));
        if self.is_hidden(id) {
            return ScoredToken {
                token: String::from_utf8_lossy(bytes).into_owned(),
                logprob,
                bytes: Vec::new(),
            };
        }
        let bytes = if self.at_start { bytes.strip_prefix(b" ").unwrap_or(bytes) } else { bytes };
        ScoredToken { token: String::from_utf8_lossy(bytes).into_owned(), logprob, bytes: bytes.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3v::stop::StopStrings;

    fn tokenizer() -> Arc<Tokenizer> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/tiny/tokenizer.json");
        Arc::new(Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap())
    }

    /// Returns, for each id, what an engine would send: the text, and the bytes of the tokens sent with it.
    fn told(ids: &[u32], stop: &[&str]) -> Vec<(String, Vec<u8>)> {
        let tokenizer = tokenizer();
        let (mut stream, mut stop) =
            (DecodeStream::new(Arc::clone(&tokenizer)), StopStrings::new(stop).unwrap());
        let mut answer = AnswerLogprobs::new(Arc::clone(&tokenizer));
        let bytes = |logprobs: Logprobs| {
            logprobs.content.into_iter().flat_map(|logprob| logprob.token.bytes).collect::<Vec<u8>>()
        };
        let mut told = Vec::new();
        for &id in ids {
            let output = stop.push(&stream.push(id));
            let (text, top) = (output.text.clone(), vec![(id, -1.0)]);
            let token = Token { id, text, held: stop.held(), logprob: Some(-1.0), top };
            told.push((output.text, bytes(answer.token(&token))));
            if output.stopped_by.is_some() {
                break;
            }
        }
        let rest = stop.push(&stream.finish()).text + &stop.finish();
        let logprobs = answer.finish(&rest);
        told.push((rest, bytes(logprobs)));
        told
    }

    fn ids(text: &str) -> Vec<u32> {
        tokenizer().encode_plain(text)
    }

    fn bytes_of(text: &str) -> Vec<u32> {
        text.bytes().map(|byte| tokenizer().byte_id(byte)).collect()
    }

    #[test]
    fn the_bytes_of_the_tokens_told_are_never_more_than_the_text_and_in_the_end_the_same() {
        let special = tokenizer().stop_ids()[0];
        let euro = bytes_of("\u{20ac}");
        let cases: Vec<(Vec<u32>, Vec<&str>, &str)> = vec![
            (ids("Hello there, world"), vec![], "Hello there, world"),
            (ids(" two blanks"), vec![], " two blanks"),
            (ids("Hello there, world"), vec!["re, w"], "Hello the"),
            (ids("Hello there, world"), vec!["Hello"], ""),
            (ids("Hello there, world"), vec!["worlds", "world"], "Hello there, "),
            (ids("Hello there, world"), vec!["worlds"], "Hello there, world"),
            (
                [ids("It costs 5 "), euro.clone(), ids("or less")].concat(),
                vec![],
                "It costs 5 \u{20ac} or less",
            ),
            ([euro.clone(), euro.clone()].concat(), vec![], "\u{20ac}\u{20ac}"),
            ([ids("a"), euro.clone(), ids("b")].concat(), vec!["\u{20ac}"], "a"),
            ([ids("a"), bytes_of("bcd"), ids("e")].concat(), vec!["cd"], "ab"),
            ([ids("a"), vec![special], ids("b")].concat(), vec![], "a b"),
            ([vec![special], ids("a b")].concat(), vec![], "a b"),
        ];
        for (ids, stop, expected) in cases {
            let (mut text, mut bytes) = (String::new(), Vec::new());
            for (more, told) in told(&ids, &stop) {
                text += &more;
                bytes.extend(told);
                assert!(text.as_bytes().starts_with(&bytes), "{text:?} {bytes:?}");
            }
            assert_eq!((text.as_str(), bytes.as_slice()), (expected, expected.as_bytes()), "{stop:?}");
        }
    }

    #[test]
    fn bytes_that_form_no_character_are_told_as_they_are() {
        let broken = [ids("a"), bytes_of("\u{20ac}")[..2].to_vec()].concat();
        let all: Vec<u8> = told(&broken, &[]).into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(all, b"a\xe2\x82");
    }
}
