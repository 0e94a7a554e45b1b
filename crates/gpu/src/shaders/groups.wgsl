// y of the next group, of four rows by four columns.
fn add_group(y: ptr<function, array<vec4<f32>, 4>>, sum: ptr<function, array<vec4<i32>, 4>>, row: u32, column: u32, group: u32) {
    let block = block_of(column, group);
    let scales = scales_of(block, column);
    for (var r = 0u; r < 4u; r += 1u) {
        let at = min(row + r, n.rows - 1u) * n.groups + group;
        (*y)[r] = fma(vec4<f32>((*sum)[r]) * scales, vec4<f32>(row_meta[at].scale), (*y)[r]);
        let places = row_meta[at].places;
        if (places >= 0x10000u) {
            for (var c = 0u; c < 4u; c += 1u) { (*y)[r][c] = with_outliers((*y)[r][c], at, places, block, column + c); }
        }
    }
}
