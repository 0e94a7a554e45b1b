// A word of the KV cache is four signed bytes, which a scale belongs to.
const KV: u32 = 2u;
const PER_WORD: u32 = 4u;
alias Values = vec4<f32>;
fn values_of(word: u32) -> Values { return vec4<f32>(unpack4xI8(word)); }
fn value_of(values: Values, i: u32) -> f32 { return values[i]; }
// Of the values in four words, the four from 4 i on.
fn four_of(words: vec4<u32>, i: u32) -> vec4<f32> { return values_of(words[i]); }
