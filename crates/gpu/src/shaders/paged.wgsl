// Keys and values of the cache, and the rows of a batch, for attention.
@group(0) @binding(0) var<storage, read> q: array<f32>;         // [rows, cols], queries first
@group(0) @binding(1) var<storage, read> kv: array<vec4<u32>>;  // see kv.wgsl
@group(0) @binding(2) var<storage, read> batch: array<u32>;     // entries, tiles and tables, see batch.rs
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
// f32 products round nothing; bf16 rounds queries and weights; q8 rounds neither, since its keys and values are
// integers
fn rounded(value: f32) -> f32 {
    if (KV == 1u) { return round_bf16(value); }
    return value;
}

alias Words = vec4<u32>;

// Where the keys and values of 64 tokens begin, in groups of four words.
struct Block { keys: u32, values: u32, scales: u32 }
fn block_at(table: u32, index: u32, head: u32) -> Block {
    let fours = fours_of(n.dim);
    let keys = (batch[table + index] * n.kv_heads + head) * (head_words(n.dim) / 4u);
    return Block(keys, keys + TOKENS * fours, keys + 2u * TOKENS * fours);
}
fn key_words(block: Block, i: u32, token: u32) -> Words { return kv[block.keys + i * TOKENS + token]; }
fn value_words(block: Block, i: u32, token: u32) -> Words { return kv[block.values + token * fours_of(n.dim) + i]; }
fn value_word(block: Block, i: u32, token: u32) -> Values {
    return values_of(kv[block.values + token * fours_of(n.dim) + i / 4u][i % 4u]);
}
fn key_scale(block: Block, token: u32) -> f32 {
    if (KV != 2u) { return 1.0; }
    return bitcast<f32>(kv[block.scales + token / 4u][token % 4u]);
}
fn value_scale(block: Block, token: u32) -> f32 {
    if (KV != 2u) { return 1.0; }
    return bitcast<f32>(kv[block.scales + (TOKENS + token) / 4u][token % 4u]);
}
