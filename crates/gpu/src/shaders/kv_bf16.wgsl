// A word of the KV cache holds two bf16.
const KV: u32 = 1u;
const PER_WORD: u32 = 2u;
alias Values = vec2<f32>;
fn values_of(word: u32) -> Values { return vec2<f32>(bf16_low(word), bf16_high(word)); }
fn value_of(values: Values, i: u32) -> f32 { return values[i]; }
// Returns the four values from 4 i on, of the values in four words.
fn four_of(words: vec4<u32>, i: u32) -> vec4<f32> {
    let pair = select(words.zw, words.xy, i == 0u);
    return vec4<f32>(values_of(pair.x), values_of(pair.y));
}
