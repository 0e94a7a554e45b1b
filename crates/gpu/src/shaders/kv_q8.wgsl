// A word of the KV cache holds four signed bytes, to which a scale belongs.
const KV: u32 = 2u;
const PER_WORD: u32 = 4u;
alias Values = vec4<f32>;
fn values_of(word: u32) -> Values { return vec4<f32>(unpack4xI8(word)); }
fn value_of(values: Values, i: u32) -> f32 { return values[i]; }
// Returns the four values from 4 i on, of the values in four words.
fn four_of(words: vec4<u32>, i: u32) -> vec4<f32> { return values_of(words[i]); }
