// A word of the KV cache is two bf16.
const KV: u32 = 1u;
const PER_WORD: u32 = 2u;
alias Values = vec2<f32>;
fn values_of(word: u32) -> Values { return vec2<f32>(bf16_low(word), bf16_high(word)); }
fn value_of(values: Values, i: u32) -> f32 { return values[i]; }
