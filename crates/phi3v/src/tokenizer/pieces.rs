//! What each id adds to a text: the table used for decoding.

use super::{Inner, SPACE, Tokenizer, TokenizerError};
use tokenizers::Model;

/// What an id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PieceText {
    /// Text, with U+2581 already replaced by a space.
    Text(Box<str>),
    /// One byte of a character spelled in byte tokens (`<0x0A>`).
    Byte(u8),
}

/// An entry of the vocabulary.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) text: PieceText,
    /// Whether the token is left out of answers.
    pub(crate) special: bool,
    /// Whether it is one of tokenizer.json's added tokens, special or not.
    pub(crate) added: bool,
}

/// Builds the table over all ids; an entry is `None` if the id has no token.
pub(super) fn pieces_of(inner: &Inner) -> Result<Vec<Option<Piece>>, TokenizerError> {
    let vocab = inner.get_vocab(true);
    // report the largest id, so that the same file always gives the same error
    let largest = vocab.iter().max_by_key(|&(token, id)| (id, token));
    if let Some((token, &id)) = largest.filter(|&(_, &id)| id > Tokenizer::MAX_ID) {
        return Err(TokenizerError::IdTooLarge { token: token.clone(), id });
    }
    for byte in 0..=u8::MAX {
        // the model's own tokens only: characters are not spelled in added tokens
        let token = format!("<0x{byte:02X}>");
        if inner.get_model().token_to_id(&token).is_none() {
            return Err(TokenizerError::MissingToken { token });
        }
    }
    let size = largest.map_or(0, |(_, &id)| id as usize + 1);
    let added = inner.get_added_tokens_decoder();
    let pieces = (0..size as u32).map(|id| {
        let token = inner.id_to_token(id)?;
        let added = added.get(&id);
        let special = added.is_some_and(|token| token.special);
        let text = match byte_of(&token) {
            Some(byte) => PieceText::Byte(byte),
            None => PieceText::Text(token.replace(SPACE, " ").into_boxed_str()),
        };
        Some(Piece { text, special, added: added.is_some() })
    });
    Ok(pieces.collect())
}

/// Returns the byte of a token spelled `<0xHH>`.
pub(super) fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}
