//! Encodes text that continues other text, of which only one thing is known: it ended at the end of a token.

use super::{Inner, SPACE};
use std::sync::Arc;
use tokenizers::Model;

/// Spells bytes with tokens, by the merges of the vocabulary. It shares the tokenizer's tables.
pub(crate) struct Speller {
    inner: Arc<Inner>,
    /// The token of each byte. // [256]
    byte_ids: [u32; 256],
}

impl Speller {
    pub(super) fn new(inner: Arc<Inner>, byte_ids: [u32; 256]) -> Self {
        Self { inner, byte_ids }
    }

    /// Returns the ids of `bytes`, which may begin and end within a character. Unlike a stretch, the text gets no space
    /// in front.
    pub(crate) fn spell(&self, bytes: &[u8]) -> Vec<u32> {
        let mut ids = Vec::new();
        for chunk in bytes.utf8_chunks() {
            if !chunk.valid().is_empty() {
                let text = chunk.valid().replace(' ', SPACE);
                let tokens = self.inner.get_model().tokenize(&text);
                ids.extend(
                    tokens.expect("every byte has a token, checked at load").into_iter().map(|t| t.id),
                );
            }
            ids.extend(chunk.invalid().iter().map(|&byte| self.byte_ids[usize::from(byte)]));
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use crate::tokenizer::Tokenizer;

    #[test]
    fn text_is_spelled_by_merges_without_a_space_in_front_and_broken_characters_by_bytes() {
        let tokenizer =
            Tokenizer::from_json(include_bytes!("../../../../testdata/tiny/tokenizer.json")).unwrap();
        let speller = tokenizer.speller();
        for text in ["", "the words", " two  spaces ", "caf\u{e9} \u{1f600}", "{\"total\":\"", "a\nb"] {
            let ids = speller.spell(text.as_bytes());
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.text_bytes(id)).copied().collect();
            assert_eq!(bytes, text.as_bytes());
            // the rest of a text is spelled the same without its first tokens: forced text can be spelled from any token
            // on
            for (at, _) in ids.iter().enumerate() {
                let rest: Vec<u8> =
                    ids[at..].iter().flat_map(|&id| tokenizer.text_bytes(id)).copied().collect();
                assert_eq!(speller.spell(&rest), ids[at..], "{text:?} from token {at}");
            }
        }
        // a stretch gives the same ids as the text with its leading space
        assert_eq!(speller.spell(b" the words"), tokenizer.encode_plain("the words"));
        let smile = "\u{1f600}".as_bytes();
        let bytes = [smile[1..].to_vec(), b"a".to_vec(), smile[..2].to_vec()].concat();
        let ids = speller.spell(&bytes);
        assert_eq!(ids.len(), 6);
        assert_eq!(ids[0], tokenizer.byte_id(smile[1]));
        assert_eq!(ids[5], tokenizer.byte_id(smile[1]));
    }
}
