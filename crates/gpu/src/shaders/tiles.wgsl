// Maps the 64 columns of a tile to those of the weights: for SiluMul 32 gates and the ups that belong to them.
fn column_of(tile: u32, c: u32) -> u32 {
    if (n.epilogue != SILU_MUL) { return tile * 64u + c; }
    return select(n.cols, 0u, c < 32u) + tile * 32u + (c & 31u);
}

fn with_bias(y: vec4<f32>, column: u32) -> vec4<f32> {
    if (n.has_bias == 0u) { return y; }
    // columns past the last one are computed but not written
    let last = n.cols * select(1u, 2u, n.epilogue == SILU_MUL) - 1u;
    let c = min(vec4<u32>(column, column + 1u, column + 2u, column + 3u), vec4<u32>(last)) + vec4<u32>(n.first_col);
    return y + vec4<f32>(bias[c.x], bias[c.y], bias[c.z], bias[c.w]);
}

// Writes four columns of a row; SiluMul multiplies by `ups`.
fn write(row: u32, column: u32, y: vec4<f32>, ups: vec4<f32>) {
    if (row >= n.rows) { return; }
    for (var j = 0u; j < 4u; j += 1u) {
        if (column + j < n.cols) {
            let at = row * n.out_cols + n.first_col + column + j;
            var before = 0.0;
            if (n.epilogue == ADD) { before = out[at]; }
            out[at] = apply(n.epilogue, y[j], before, ups[j]);
        }
    }
}
