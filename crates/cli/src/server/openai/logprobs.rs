//! Log probabilities in OpenAI's shape.

use super::types::{ScoredToken, TokenLogprob};
use phi3v::engine::Token;
use phi3v::tokenizer::Tokenizer;

/// JSON has no infinities; OpenAI's number for a token that cannot come.
const LOGPROB_MIN: f32 = -9999.0;

/// The log probabilities of a token and of the likeliest ones in its place.
pub(super) fn of(tokenizer: &Tokenizer, token: &Token) -> TokenLogprob {
    TokenLogprob {
        token: scored(tokenizer, token.id, token.logprob.unwrap_or(LOGPROB_MIN)),
        top_logprobs: token.top.iter().map(|&(id, logprob)| scored(tokenizer, id, logprob)).collect(),
    }
}

fn scored(tokenizer: &Tokenizer, id: u32, logprob: f32) -> ScoredToken {
    let bytes = tokenizer.token_bytes(id).to_vec();
    let token = String::from_utf8_lossy(&bytes).into_owned();
    ScoredToken { token, logprob: logprob.max(LOGPROB_MIN), bytes }
}
