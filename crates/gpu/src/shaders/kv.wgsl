// The KV cache of a layer: [blocks][key_value heads] of keys [WORDS of a head][64 tokens], values [64 tokens][WORDS], and for q8
// scales of 64 keys and of 64 values. A word holds PER_WORD values of a head, so the keys of 64 tokens are read side by side, and
// so is a token's value.
const TOKENS: u32 = 64u;
fn words_of(dim: u32) -> u32 { return (dim + PER_WORD - 1u) / PER_WORD; }
fn head_words(dim: u32) -> u32 { return 2u * TOKENS * words_of(dim) + select(0u, 2u * TOKENS, KV == 2u); }
