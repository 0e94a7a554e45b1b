// Returns the integers of four columns from `column` on, at position `i` of the group.
fn values_at(block: u32, column: u32, i: u32) -> vec4<f32> {
    let quads = quads_of(block, column, i / 4u) << vec4<u32>(24u - 8u * (i % 4u));
    return vec4<f32>(bitcast<vec4<i32>>(quads) >> vec4<u32>(24u));
}

// `with_outliers` for four columns.
fn with_four_outliers(y0: vec4<f32>, at: u32, places: u32, block: u32, column: u32) -> vec4<f32> {
    if (places < 0x10000u) { return y0; }
    let scales = scales_of(block, column);
    let y = fma(values_at(block, column, places & 0xffu) * scales, vec4<f32>(row_meta[at].outlier_0), y0);
    if (places < 0x20000u) { return y; }
    return fma(values_at(block, column, (places >> 8u) & 0xffu) * scales, vec4<f32>(row_meta[at].outlier_1), y);
}

// Adds the next group to y, for four rows by four columns.
fn add_group(y: ptr<function, array<vec4<f32>, 4>>, sum: ptr<function, array<vec4<i32>, 4>>, row: u32, column: u32, group: u32) {
    let block = block_of(column, group);
    let scales = scales_of(block, column);
    for (var r = 0u; r < 4u; r += 1u) {
        let at = min(row + r, n.rows - 1u) * n.groups + group;
        (*y)[r] = fma(vec4<f32>((*sum)[r]) * scales, vec4<f32>(row_meta[at].scale), (*y)[r]);
        (*y)[r] = with_four_outliers((*y)[r], at, row_meta[at].places, block, column);
    }
}
