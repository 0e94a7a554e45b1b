//! Ids to text while they arrive.
//!
//! A character that is spelled in byte tokens is given when its last byte is there. Bytes that cannot become a character
//! give one U+FFFD for each beginning of one, as Unicode recommends and `String::from_utf8_lossy` does, and so does the
//! unfinished character at the end of an answer that was cut. [`Tokenizer::decode`], which follows the reference, judges
//! each run of byte tokens as a whole instead and loses all of its characters where one is not whole; of ids whose runs
//! are valid UTF-8 both give the same text. Each token is looked at once.

use std::sync::Arc;

use super::Tokenizer;
use super::pieces::PieceText;

/// Turns the ids of one answer into text, piece by piece, never within a character.
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
    /// The bytes so far of a character that is not whole: at most 3 between two tokens.
    pending: Vec<u8>,
    /// Nothing has been given out yet, so a leading space would be the text's first.
    at_start: bool,
}

impl DecodeStream {
    /// A stream at the start of an answer; special tokens are left out.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, skip_special: true, pending: Vec::new(), at_start: true }
    }

    /// A stream that also shows special tokens, such as `<|end|>`, as their text.
    #[must_use]
    pub fn with_special(tokenizer: Arc<Tokenizer>) -> Self {
        Self { skip_special: false, ..Self::new(tokenizer) }
    }

    /// Takes the next id and gives the text that has become certain: empty within a character.
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

    /// The end of the answer: U+FFFD for a character that has not become whole, otherwise nothing. The stream is then
    /// at the start of another text.
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

/// Moves to `out` what is certain of `bytes`, and leaves the beginning of a character that may still become whole.
fn take_whole(bytes: &mut Vec<u8>, out: &mut String) {
    while let Err(error) = std::str::from_utf8(bytes) {
        // one byte came at a time, so nothing valid stands before the error
        let Some(invalid) = error.error_len() else { return };
        out.push(char::REPLACEMENT_CHARACTER);
        bytes.drain(..invalid);
    }
    take_rest(bytes, out);
}

/// Moves all of `bytes` to `out`: a character that is not whole becomes U+FFFD.
fn take_rest(bytes: &mut Vec<u8>, out: &mut String) {
    out.push_str(&String::from_utf8_lossy(bytes));
    bytes.clear();
}
