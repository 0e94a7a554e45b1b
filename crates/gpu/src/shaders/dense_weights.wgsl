// Products with dense weights: unquantized numbers, row by row. FORMAT is 0 for f32, 1 for f16, 2 for bf16. ROUND says
// whether both factors are rounded to bf16.
struct Numbers {
    k: u32,
    rows: u32,
    cols: u32,      // columns of this part of the matrix; for SiluMul gates, as many ups follow
    out_cols: u32,  // of the whole output
    first_col: u32, // of this part in the output
    epilogue: u32,
    has_bias: u32,
    first_row: u32, // of this dispatch, if rows are many
}
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> w: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;          // [rows, k]
@group(0) @binding(2) var<storage, read> bias: array<f32>;       // [n]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // [rows, out_cols]

fn stored(i: u32) -> f32 {
    if (FORMAT == 0u) { return bitcast<f32>(w[i]); }
    let word = w[i / 2u];
    if (FORMAT == 1u) { return unpack2x16float(word)[i & 1u]; }
    return select(bf16_high(word), bf16_low(word), (i & 1u) == 0u);
}
fn factor(value: f32) -> f32 {
    if (ROUND) { return round_bf16(value); }
    return value;
}
// Returns value `i` of a column of the product, 0 past the last.
fn weight_at(column: u32, i: u32) -> f32 {
    if (i >= n.k) { return 0.0; }
    if (FORMAT == 2u) { return stored(column * n.k + i); }
    return factor(stored(column * n.k + i));
}
fn input_at(row: u32, i: u32) -> f32 {
    if (i >= n.k) { return 0.0; }
    return factor(x[row * n.k + i]);
}
