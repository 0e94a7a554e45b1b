//! The tokens as the grammar engine sees them: bytes.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::{ConstraintError, grammar};
use crate::tokenizer::Tokenizer;

/// Symbols of a grammar.
const SYMBOLS_MAX: usize = 50_000;

/// States that the lexer of a form may come to have. Each takes 1 to 2 KB.
const LEXER_STATES_MAX: usize = 50_000;

/// An index of the vocabulary by bytes. Special tokens have no text and so are never part of an answer; the first stop
/// token is the engine's end of the answer.
pub(super) fn parser_factory(tokenizer: &Tokenizer) -> Result<ParserFactory, ConstraintError> {
    let ids = 0..tokenizer.vocab_size() as u32;
    let mut words: Vec<Vec<u8>> = ids.map(|id| tokenizer.text_bytes(id).to_vec()).collect();
    let [end, _] = tokenizer.stop_ids();
    words[end as usize] = [&[TokTrie::SPECIAL_TOKEN_MARKER], b"<|end|>".as_slice()].concat();
    let info = TokRxInfo::new(words.len() as u32, end);
    // Not canonical: the engine never forces its own cut of a text on the model, every cut of it is allowed.
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
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
