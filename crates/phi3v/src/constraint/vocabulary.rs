//! The tokens as the grammar engine sees them: bytes.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::{ConstraintError, grammar};
use crate::tokenizer::{Speller, Tokenizer};

/// Maximum number of symbols in a grammar.
const SYMBOLS_MAX: usize = 50_000;

/// Maximum number of states that the lexer of a form may reach. Each takes 1 to 2 KB.
const LEXER_STATES_MAX: usize = 50_000;

/// The tokens, and how the tokenizer spells a text with them. If a form leaves only one possible text, that spelling is
/// the only one allowed.
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

/// Indexes the vocabulary by bytes. Special tokens have no text and so are never part of an answer. The first stop token
/// is the engine's end-of-answer token.
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
    // the engine counts its symbols with 16 bits and does not check for overflow
    limits.max_grammar_size = SYMBOLS_MAX;
    // reaching that many states takes some tens of megabytes
    limits.max_lexer_states = LEXER_STATES_MAX;
    Ok(factory)
}

/// Returns, for each id, whether its text begins with a space. // [vocab_size]
pub(super) fn begins_with_space(tokenizer: &Tokenizer) -> Arc<[bool]> {
    (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.text_bytes(id).first() == Some(&b' ')).collect()
}
