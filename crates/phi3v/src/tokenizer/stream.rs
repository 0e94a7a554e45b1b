//! Converts ids to text while they arrive.
//!
//! A character that is spelled in byte tokens appears when its last byte has arrived. Bytes that cannot become a
//! character give one U+FFFD for each beginning of one, as Unicode recommends and `String::from_utf8_lossy` does. So does
//! an unfinished character at the end of a truncated answer. [`Tokenizer::decode`] follows the reference instead: it
//! judges each run of byte tokens as a whole, and loses all of a run's characters if one is incomplete. For ids whose
//! runs are valid UTF-8, both give the same text. Each token is processed once.

use std::sync::Arc;

use super::Tokenizer;
use super::pieces::PieceText;

/// Turns the ids of one answer into text, piece by piece, and never splits a character.
///
/// ```
/// use phi3v::tokenizer::DecodeStream;
///
/// let tokenizer = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files())?.tokenizer;
/// let mut stream = DecodeStream::new(tokenizer.clone());
/// let mut text = String::new();
/// for id in tokenizer.encode_plain("three words here") {
///     text += &stream.push(id);
/// }
/// text += &stream.finish();
/// assert_eq!(text, "three words here");
/// # Ok::<(), phi3v::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DecodeStream {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// The bytes so far of an incomplete character: at most 3 between two tokens.
    pending: Vec<u8>,
    /// Whether no text has been returned yet, so that a leading space would be the text's first.
    at_start: bool,
}

impl DecodeStream {
    /// Creates a stream at the start of an answer; special tokens are left out.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, skip_special: true, pending: Vec::new(), at_start: true }
    }

    /// Creates a stream that also shows special tokens, such as `<|end|>`, as their text.
    #[must_use]
    pub fn with_special(tokenizer: Arc<Tokenizer>) -> Self {
        Self { skip_special: false, ..Self::new(tokenizer) }
    }

    /// Takes the next id and returns the text that has become certain: empty within a character.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        let Some(piece) = self.tokenizer.piece(id).filter(|piece| !(piece.special && self.skip_special))
        else {
            return out;
        };
        match &piece.text {
            PieceText::Byte(byte) => {
                self.pending.push(*byte);
                take_whole(&mut self.pending, &mut out);
            }
            PieceText::Text(text) => {
                take_rest(&mut self.pending, &mut out);
                out.push_str(text);
            }
        }
        self.strip_first_space(&mut out);
        out
    }

    /// Ends the answer: returns U+FFFD for an incomplete character, otherwise nothing. The stream is then at the start of
    /// another text.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        take_rest(&mut self.pending, &mut out);
        self.at_start = true;
        out
    }

    fn strip_first_space(&mut self, out: &mut String) {
        if self.at_start && !out.is_empty() {
            self.at_start = false;
            if out.starts_with(' ') {
                out.remove(0);
            }
        }
    }
}

/// Moves the certain part of `bytes` to `out`, and leaves the beginning of a character that may still become complete.
fn take_whole(bytes: &mut Vec<u8>, out: &mut String) {
    while let Err(error) = std::str::from_utf8(bytes) {
        // bytes came one at a time, so nothing valid precedes the error
        let Some(invalid) = error.error_len() else { return };
        out.push(char::REPLACEMENT_CHARACTER);
        bytes.drain(..invalid);
    }
    take_rest(bytes, out);
}

/// Moves all of `bytes` to `out`; an incomplete character becomes U+FFFD.
fn take_rest(bytes: &mut Vec<u8>, out: &mut String) {
    out.push_str(&String::from_utf8_lossy(bytes));
    bytes.clear();
}
