// The KV cache of a layer: [blocks][key_value heads] of keys [FOURS][64 tokens] and values [64 tokens][FOURS]; for q8
// then the scales of 64 keys and of 64 values. FOURS are groups of four words of a head, with zeros after the last
// value. A word holds PER_WORD values of a head. So four words of the keys of 64 tokens are adjacent, and so are a
// token's values.
const TOKENS: u32 = 64u;
fn fours_of(dim: u32) -> u32 { return (dim + 4u * PER_WORD - 1u) / (4u * PER_WORD); }
fn words_of(dim: u32) -> u32 { return 4u * fours_of(dim); }
fn head_words(dim: u32) -> u32 { return 2u * TOKENS * words_of(dim) + select(0u, 2u * TOKENS, KV == 2u); }
