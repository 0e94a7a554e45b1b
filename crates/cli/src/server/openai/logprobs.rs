//! Log probabilities in OpenAI's shape.

use super::types::{ScoredToken, TokenLogprob};
use phi3v::engine::Token;
use phi3v::tokenizer::Tokenizer;

/// SentencePiece's visible space.
const SPACE: char = '\u{2581}';

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
    let bytes = bytes(&tokenizer.token(id).unwrap_or_default());
    let token = String::from_utf8_lossy(&bytes).into_owned();
    ScoredToken { token, logprob: logprob.max(LOGPROB_MIN), bytes }
}

/// The bytes a token stands for: `<0x0A>` is one byte, anything else its text with real spaces.
fn bytes(token: &str) -> Vec<u8> {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace(SPACE, " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_for_bytes() {
        assert_eq!(bytes("\u{2581}the"), b" the");
        assert_eq!(bytes("<0xE4>"), [0xe4]);
        assert_eq!(bytes("<0xZZ>"), b"<0xZZ>");
        assert_eq!(bytes("<|end|>"), b"<|end|>");
    }
}
