// Products with packed weights in the layout of the file (crates/kernels/src/quant). A block is 64 columns by 128
// values: scales of 64 columns (bf16); for q4 sub-scales [2][64], as nibbles of bytes; then words of four values,
// [32][64] bytes (q8) or [16][64] nibbles (q4). Weights are read four columns at a time. Q8 says which format it is.
struct Numbers {
    groups: u32,    // of 128 values along K
    rows: u32,
    cols: u32,      // columns of this part of the matrix; for SiluMul gates, as many ups follow
    out_cols: u32,  // of the whole output
    first_col: u32, // of this part in the output
    epilogue: u32,
    has_bias: u32,
    first_row: u32, // of this dispatch, if rows are many
}
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> quantized: array<vec4<u32>>;  // [rows, groups, 8]
@group(0) @binding(2) var<storage, read> row_meta: array<RowMeta>;     // [rows, groups]
@group(0) @binding(3) var<storage, read> bias: array<f32>;             // [n]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;        // [rows, out_cols]

const BLOCK: u32 = select(272u, 520u, Q8); // vec4s
const VALUES: u32 = select(16u, 8u, Q8);   // vec4s before the values

fn block_of(column: u32, group: u32) -> u32 { return (column / 64u * n.groups + group) * BLOCK; }

// Of the four columns from `column` on: the words that hold the scales, and the scales.
fn raw_scales_of(block: u32, column: u32) -> vec4<u32> { return w[block + column % 64u / 8u]; }
fn scales_in(words: vec4<u32>, column: u32) -> vec4<f32> {
    let pair = select(words.xy, words.zw, (column & 4u) != 0u);
    return vec4<f32>(bf16_low(pair.x), bf16_high(pair.x), bf16_low(pair.y), bf16_high(pair.y));
}
fn scales_of(block: u32, column: u32) -> vec4<f32> { return scales_in(raw_scales_of(block, column), column); }
fn scale_of(block: u32, column: u32) -> f32 {
    let c = column % 64u;
    let word = w[block + c / 8u][c / 2u % 4u];
    return select(bf16_high(word), bf16_low(word), (c & 1u) == 0u);
}

// q4: the same for the sub-scales, one per 32 values.
fn raw_sub_scales_of(block: u32, column: u32, sub: u32) -> u32 {
    let at = sub / 2u * 16u + column % 64u / 4u; // words, four columns each
    return w[block + 8u + at / 4u][at % 4u];
}
fn sub_scales_in(word: u32, sub: u32) -> vec4<i32> {
    return vec4<i32>(unpack4xU8((word >> (4u * (sub & 1u))) & 0x0f0f0f0fu));
}
fn sub_scales_of(block: u32, column: u32, sub: u32) -> vec4<i32> {
    return sub_scales_in(raw_sub_scales_of(block, column, sub), sub);
}

// Four values along K, the quad `i` of the group, of each of four columns, in the stored form; of q4 together with the
// adjacent quad.
fn raw_quads_of(block: u32, column: u32, i: u32) -> vec4<u32> {
    return w[block + VALUES + select(i / 2u, i, Q8) * 16u + column % 64u / 4u];
}
// The same as signed bytes.
fn quads_of(block: u32, column: u32, i: u32) -> vec4<u32> {
    let raw = raw_quads_of(block, column, i);
    if (Q8) { return raw ^ vec4<u32>(0x80808080u); }
    let nibbles = (raw >> vec4<u32>(4u * (i & 1u))) & vec4<u32>(0x0f0f0f0fu);
    let s = sub_scales_of(block, column, i / 8u);
    return vec4<u32>(widened(nibbles.x, s.x), widened(nibbles.y, s.y), widened(nibbles.z, s.z), widened(nibbles.w, s.w));
}
fn widened(nibbles: u32, sub_scale: i32) -> u32 { return pack4xI8((unpack4xI8(nibbles) - vec4<i32>(8)) * sub_scale); }

// Returns the integer of one column at position `i` of the group.
fn value_at(block: u32, column: u32, i: u32) -> f32 {
    let quads = quads_of(block, column & ~3u, i / 4u);
    return f32(unpack4xI8(quads[column & 3u])[i % 4u]);
}

fn dots(quads: vec4<u32>, x: u32) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(quads.x, x), dot4I8Packed(quads.y, x), dot4I8Packed(quads.z, x), dot4I8Packed(quads.w, x));
}

// Adds the outliers of a row's group to `y`. They are rare, so only `places` is checked first.
fn with_outliers(y0: f32, at: u32, places: u32, block: u32, column: u32) -> f32 {
    let count = places >> 16u;
    if (count == 0u) { return y0; }
    let scale = scale_of(block, column);
    var y = fma(value_at(block, column, places & 0xffu) * scale, row_meta[at].outlier_0, y0);
    if (count > 1u) { y = fma(value_at(block, column, (places >> 8u) & 0xffu) * scale, row_meta[at].outlier_1, y); }
    return y;
}
