//! Ids to text while they arrive.
//!
//! The decoder's rules look at neighbours: a run of byte tokens is a text only when the whole run is valid UTF-8
//! (otherwise every byte becomes U+FFFD), and only the first space of the whole text is dropped. So a run is held back
//! until a token of another kind ends it. Whatever the stream has given in total equals [`Tokenizer::decode`] of the
//! whole list; each token is looked at once.

use std::sync::Arc;

use super::Tokenizer;
use super::pieces::PieceText;

/// Turns the ids of one answer into text, piece by piece; special tokens are left out.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    tokenizer: Arc<Tokenizer>,
    text: TextBuilder,
}

impl DecodeStream {
    /// A stream at the start of an answer.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, text: TextBuilder::new(true) }
    }

    /// A stream that also shows special tokens.
    #[must_use]
    pub fn with_special(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, text: TextBuilder::new(false) }
    }

    /// Takes the next id and gives the text that has become certain, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        self.text.push(&self.tokenizer, id, &mut out);
        out
    }

    /// The text that was held back, at the end of the answer. The stream is then at the start of another text.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.text.finish(&mut out);
        out
    }
}

/// The state of decoding between two tokens.
#[derive(Debug, Clone)]
pub(super) struct TextBuilder {
    skip_special: bool,
    /// Byte tokens of a run that has not ended yet.
    run: Vec<u8>,
    /// Nothing has been given out yet, so a leading space would be the text's first.
    at_start: bool,
}

impl TextBuilder {
    pub(super) fn new(skip_special: bool) -> Self {
        Self { skip_special, run: Vec::new(), at_start: true }
    }

    /// Appends to `out` what `id` makes certain.
    pub(super) fn push(&mut self, tokenizer: &Tokenizer, id: u32, out: &mut String) {
        let Some(piece) = tokenizer.piece(id) else { return };
        if piece.special && self.skip_special {
            return;
        }
        match &piece.text {
            PieceText::Byte(byte) => self.run.push(*byte),
            PieceText::Text(text) => {
                self.end_run(out);
                self.give(text, out);
            }
        }
    }

    /// Appends what was held back and starts over.
    pub(super) fn finish(&mut self, out: &mut String) {
        self.end_run(out);
        self.at_start = true;
    }

    fn end_run(&mut self, out: &mut String) {
        if self.run.is_empty() {
            return;
        }
        let run = std::mem::take(&mut self.run);
        match std::str::from_utf8(&run) {
            Ok(text) => self.give(text, out),
            Err(_) => self.give(&"\u{fffd}".repeat(run.len()), out),
        }
    }

    fn give(&mut self, text: &str, out: &mut String) {
        if text.is_empty() {
            return;
        }
        let text = if self.at_start { text.strip_prefix(' ').unwrap_or(text) } else { text };
        self.at_start = false;
        out.push_str(text);
    }
}
