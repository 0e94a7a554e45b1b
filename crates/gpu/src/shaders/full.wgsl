// Rows of a group that attend to each other; keys and values are tensors.
struct Numbers { cols: u32, dim: u32, heads: u32, group: u32, rounded: u32, scale: u32, first_tile: u32 }
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> q: array<f32>;          // [rows, heads * dim] each
@group(0) @binding(1) var<storage, read> keys: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
const PER_WORD: u32 = 1u;
const TOKENS: u32 = 64u;
alias Values = f32;
fn value_of(values: Values, i: u32) -> f32 { return values; }
alias Words = vec4<f32>;
fn fours_of(dim: u32) -> u32 { return (dim + 3u) / 4u; }
fn words_of(dim: u32) -> u32 { return dim; }
fn four_of(words: Words, i: u32) -> vec4<f32> { return words; }

struct Tile { row: u32, rows: u32, first: u32 }
fn tile_at(index: u32) -> Tile {
    let tiles = (n.group + 15u) / 16u;
    let tile = n.first_tile + index;
    let first = tile / tiles * n.group;
    let row = tile % tiles * 16u;
    return Tile(first + row, min(16u, n.group - row), first);
}
fn seen_by(tile: Tile, i: u32) -> u32 { return n.group; }
fn kv_head(head: u32) -> u32 { return head; }

// The first value of the first of 64 rows, and the number of rows.
struct Block { at: u32, rows: u32 }
fn block_of_tile(tile: Tile, index: u32, head: u32) -> Block {
    return Block((tile.first + index * TOKENS) * n.cols + head * n.dim, n.group - index * TOKENS);
}
fn key_words(block: Block, i: u32, token: u32) -> Words {
    let at = block.at + min(token, block.rows - 1u) * n.cols + 4u * i;
    var words: Words;
    for (var j = 0u; j < 4u; j += 1u) {
        if (4u * i + j < n.dim) { words[j] = rounded(keys[at + j]); }
    }
    return words;
}
fn value_word(block: Block, i: u32, token: u32) -> Values { return rounded(values[block.at + token * n.cols + i]); }
fn key_scale(block: Block, token: u32) -> f32 { return 1.0; }
fn rounded(value: f32) -> f32 {
    if (n.rounded != 0u) { return round_bf16(value); }
    return value;
}
fn weight_of(weight: f32, block: Block, token: u32, seen: bool) -> f32 { return rounded(weight); }
