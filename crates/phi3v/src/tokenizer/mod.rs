//! Converts text to ids and back with the checkpoint's tokenizer.json.
//!
//! The scheme is BPE with byte fallback, as in Llama's SentencePiece vocabulary. The text between two added tokens is a
//! *stretch*: it gets U+2581 in front, its spaces become U+2581, and it is merged as one piece. Decoding turns U+2581
//! into a space, gathers byte tokens into characters, and drops one leading space of the whole text.
//!
//! Invariants:
//! - [`Tokenizer::from_json`] refuses a tokenizer.json whose normaliser, decoder, model or ids of added tokens deviate
//!   from this in a way that changes ids or text. After it, encoding and decoding cannot fail.
//! - [`Tokenizer::encode_plain`] never gives the id of an added token.

mod check;
mod inner;
mod pieces;
mod speller;
mod stream;

pub(crate) use speller::Speller;
pub use stream::DecodeStream;

use std::sync::Arc;
use tokenizers::Model;

use inner::Inner;
use pieces::{Piece, PieceText, pieces_of};

/// Why a tokenizer.json is refused: it cannot be read, or does not give the reference's ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file is longer than any real one.
    #[error("tokenizer.json has {bytes} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// The greatest length that is read.
        limit: usize,
    },
    /// The file is not a tokenizer's JSON.
    #[error("tokenizer.json cannot be read: {reason}")]
    Malformed {
        /// The parser's message.
        reason: String,
    },
    /// A part would give other ids or other text than the reference.
    #[error("tokenizer.json has an unsupported {part}: {found}, expected {expected}")]
    Unsupported {
        /// The part of the file.
        part: &'static str,
        /// The value in the file.
        found: String,
        /// What phi3v supports.
        expected: &'static str,
    },
    /// A token that every prompt or every text may need is missing.
    #[error("tokenizer.json has no token {token:?}")]
    MissingToken {
        /// Text of the token.
        token: String,
    },
    /// An id is so large that tables over ids would not fit.
    #[error("tokenizer.json gives token {token:?} the id {id}, the limit is {}", Tokenizer::MAX_ID)]
    IdTooLarge {
        /// Text of the token.
        token: String,
        /// Id of the token.
        id: u32,
    },
}

impl TokenizerError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Malformed { .. } => "download tokenizer.json again".to_owned(),
            _ => "use the tokenizer.json that belongs to Phi-3-vision or Phi-3.5-vision".to_owned(),
        })
    }
}

/// An added token of the chat template: its id and what it does to adjacent text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddedToken {
    /// Id of the token.
    pub(crate) id: u32,
    /// Swallows the white space before it.
    pub(crate) lstrip: bool,
    /// Swallows the white space after it.
    pub(crate) rstrip: bool,
}

/// The added tokens that prompts are built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TemplateTokens {
    pub(crate) system: AddedToken,
    pub(crate) user: AddedToken,
    pub(crate) assistant: AddedToken,
    pub(crate) end: AddedToken,
}

/// The checkpoint's tokenizer: converts text to ids as the reference does, and back.
pub struct Tokenizer {
    inner: Arc<Inner>,
    pieces: Vec<Option<Piece>>, // [vocab_size]
    template: TemplateTokens,
    bos: u32,
    stop_ids: [u32; 2],
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Largest id a token may have; the hub's vocabulary ends at 32044.
    pub const MAX_ID: u32 = (1 << 20) - 1;

    /// Reads a tokenizer.json.
    ///
    /// # Errors
    /// [`TokenizerError`] if the file is too large or malformed, if it would encode or decode by other rules than the
    /// reference's tokenizer, or if a byte token or a token of the chat template is missing.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        /// The hub's has 1.8 MB; a file takes twenty times its size while it is read.
        const BYTES_MAX: usize = 16 << 20;
        if json.len() > BYTES_MAX {
            return Err(TokenizerError::TooLarge { bytes: json.len(), limit: BYTES_MAX });
        }
        let added = check::parts(json)?;
        let inner = inner::inner(json)?;
        check::added_ids(&inner, &added)?;
        check::behaviour(&inner)?;
        let pieces = pieces_of(&inner)?;
        let template = check::template_tokens(&inner)?;
        let bos = check::id_of(&inner, "<s>")?;
        let stop_ids = [template.end.id, check::id_of(&inner, "<|endoftext|>")?];
        Ok(Self { inner: Arc::new(inner), pieces, template, bos, stop_ids })
    }

    /// Returns the ids of a raw prompt: `<s>` first, and added tokens in the text become their ids, as in the reference's
    /// tokenizer.
    ///
    /// ```
    /// let tokenizer = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files())?.tokenizer;
    /// let ids = tokenizer.encode_raw("Hello, world!");
    /// assert_eq!(ids[0], tokenizer.bos_id());
    /// assert_eq!(tokenizer.decode(&ids[1..], true), "Hello, world!");
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    #[must_use]
    pub fn encode_raw(&self, text: &str) -> Vec<u32> {
        let encoding = self.inner.encode_fast(text, false).expect("every byte has a token, checked at load");
        let mut ids = Vec::with_capacity(1 + encoding.len());
        ids.push(self.bos);
        ids.extend_from_slice(encoding.get_ids());
        ids
    }

    /// Returns the ids of one stretch of text that a user wrote: no `<s>`, and no added token, whatever the text says.
    #[must_use]
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut stretch = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
        stretch.push_str(SPACE);
        for word in text.split_inclusive(' ') {
            match word.strip_suffix(' ') {
                Some(word) => stretch.extend([word, SPACE]),
                None => stretch.push_str(word),
            }
        }
        let tokens =
            self.inner.get_model().tokenize(&stretch).expect("every byte has a token, checked at load");
        tokens.into_iter().map(|token| token.id).collect()
    }

    /// Returns the text of a whole list of ids, by the reference's rules. Ids without a token give nothing. A run of byte
    /// tokens that is not valid UTF-8 as a whole gives one U+FFFD for each of its bytes. Answers are decoded by
    /// [`DecodeStream`], which loses no character. With `skip_special`, special tokens are left out (`</s>` is not
    /// special).
    #[must_use]
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let (mut text, mut run) = (String::new(), Vec::new());
        let pieces = ids.iter().filter_map(|&id| self.piece(id));
        for piece in pieces.filter(|piece| !(piece.special && skip_special)) {
            match &piece.text {
                PieceText::Byte(byte) => run.push(*byte),
                PieceText::Text(piece) => {
                    end_run(&mut run, &mut text);
                    text.push_str(piece);
                }
            }
        }
        end_run(&mut run, &mut text);
        if text.starts_with(' ') {
            text.remove(0);
        }
        text
    }

    /// Returns the id of a token by its text (`"<|end|>"`, `"\u{2581}the"`, `"<0x0A>"`).
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns the text of a token as spelled in tokenizer.json (`"\u{2581}the"`), or `None` if the id has no token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One more than the largest id. A checkpoint's `vocab_size` may be larger, in which case its last rows have no
    /// token.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The id of `<s>`, which begins every prompt and every stretch after an image.
    #[must_use]
    pub fn bos_id(&self) -> u32 {
        self.bos
    }

    /// The ids that end an answer: `<|end|>` and `<|endoftext|>`.
    #[must_use]
    pub fn stop_ids(&self) -> [u32; 2] {
        self.stop_ids
    }

    /// Returns what an id stands for, added tokens included: UTF-8 of its text with U+2581 as a space, or one byte of a
    /// character. Empty if the vocabulary has no such id.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        match self.piece(id).map(|piece| &piece.text) {
            Some(PieceText::Text(text)) => text.as_bytes(),
            Some(PieceText::Byte(byte)) => std::slice::from_ref(byte),
            None => &[],
        }
    }

    /// Returns what an id adds to an answer: UTF-8 of its text with U+2581 as a space, or one byte of a character. Empty
    /// for added tokens, for `<unk>` and `<s>`, and if the vocabulary has no such id.
    #[must_use]
    pub fn text_bytes(&self, id: u32) -> &[u8] {
        match self.piece(id) {
            Some(Piece { added: true, .. }) | None => &[],
            Some(_) => self.token_bytes(id),
        }
    }

    /// Returns the id of the token for one byte, such as `<0x0A>` for a line feed.
    #[must_use]
    pub fn byte_id(&self, byte: u8) -> u32 {
        self.token_id(&format!("<0x{byte:02X}>")).expect("every byte has a token, checked at load")
    }

    /// Returns a speller for text that continues other text.
    pub(crate) fn speller(&self) -> Speller {
        let byte_ids = std::array::from_fn(|byte| self.byte_id(byte as u8));
        Speller::new(Arc::clone(&self.inner), byte_ids)
    }

    /// Returns what an id adds to a text, or `None` if the vocabulary has no such id.
    pub(crate) fn piece(&self, id: u32) -> Option<&Piece> {
        self.pieces.get(id as usize)?.as_ref()
    }

    pub(crate) fn template(&self) -> &TemplateTokens {
        &self.template
    }
}

/// SentencePiece's visible space, U+2581.
const SPACE: &str = "\u{2581}";

/// Appends a run of byte tokens to the text, and clears the run.
fn end_run(run: &mut Vec<u8>, text: &mut String) {
    match std::str::from_utf8(run) {
        Ok(run) => text.push_str(run),
        Err(_) => text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, run.len())),
    }
    run.clear();
}
