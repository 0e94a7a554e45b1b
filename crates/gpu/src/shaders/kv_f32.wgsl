// A word of the KV cache holds one f32.
const KV: u32 = 0u;
const PER_WORD: u32 = 1u;
alias Values = f32;
fn values_of(word: u32) -> Values { return bitcast<f32>(word); }
fn value_of(values: Values, i: u32) -> f32 { return values; }
// Returns the four values from 4 i on, of the values in four words.
fn four_of(words: vec4<u32>, i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(words); }
