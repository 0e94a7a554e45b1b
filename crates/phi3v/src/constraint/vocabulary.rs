//! The tokens as the grammar engine sees them: bytes.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::{ConstraintError, grammar};
use crate::tokenizer::{Speller, Tokenizer};

/// Symbols of a grammar.
const SYMBOLS_MAX: usize = 50_000;

/// States that the lexer of a form may come to have. Each takes 1 to 2 KB.
const LEXER_STATES_MAX: usize = 50_000;

/// The tokens, and how the tokenizer itself spells a text with them: where a form leaves no choice of text, that spelling is
/// the only one that it allows.
struct Vocabulary {
    trie: TokTrie,
    speller: Speller,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.speller.spell(bytes)
    }
}

/// An index of the vocabulary by bytes. Special tokens have no text and so are never part of an answer; the first stop
/// token is the engine's end of the answer.
pub(super) fn parser_factory(tokenizer: &Tokenizer) -> Result<ParserFactory, ConstraintError> {
    let ids = 0..tokenizer.vocab_size() as u32;
    let mut words: Vec<Vec<u8>> = ids.map(|id| tokenizer.text_bytes(id).to_vec()).collect();
    let [end, _] = tokenizer.stop_ids();
    words[end as usize] = [&[TokTrie::SPECIAL_TOKEN_MARKER], b"<|end|>".as_slice()].concat();
    let info = TokRxInfo::new(words.len() as u32, end);
    let env: TokEnv =
        Arc::new(Vocabulary { trie: TokTrie::from(&info, &words), speller: tokenizer.speller() });
    let mut factory = ParserFactory::new_simple(&env).map_err(|error| grammar::too_complex(&error))?;
    factory.quiet();
    // An error is one line; without this it would carry the whole grammar and the parser's state.
    let limits = factory.limits_mut();
    limits.verbose_errors = false;
    // the engine counts its symbols with 16 bits, and does not look before it does
    limits.max_grammar_size = SYMBOLS_MAX;
    // a form that is followed into so many states takes some tens of megabytes
    limits.max_lexer_states = LEXER_STATES_MAX;
    Ok(factory)
}

/// For each id whether its text begins with a space. // [vocab_size]
pub(super) fn begins_with_space(tokenizer: &Tokenizer) -> Arc<[bool]> {
    (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.text_bytes(id).first() == Some(&b' ')).collect()
}
