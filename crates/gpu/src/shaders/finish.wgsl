// Bias, epilogue and output of four rows by four columns. Ups are passed to the threads with their gates through
// workgroup memory that is no longer needed, by `pass_on` and `passed_on` of the kernel.
fn finish(y: ptr<function, array<vec4<f32>, 4>>, tile: u32, row0: u32, t: u32) {
    let mine = t % 16u;
    let rows = t / 16u * 4u;
    let column = column_of(tile, mine * 4u);
    for (var r = 0u; r < 4u; r += 1u) { (*y)[r] = with_bias((*y)[r], column); }
    if (n.epilogue != SILU_MUL) {
        for (var r = 0u; r < 4u; r += 1u) { write(row0 + rows + r, column, (*y)[r], vec4<f32>(0.0)); }
        return;
    }
    if (mine >= 8u) {
        for (var r = 0u; r < 4u; r += 1u) { pass_on((rows + r) * 8u + mine - 8u, (*y)[r]); }
    }
    workgroupBarrier();
    if (mine < 8u) {
        for (var r = 0u; r < 4u; r += 1u) { write(row0 + rows + r, column, (*y)[r], passed_on((rows + r) * 8u + mine)); }
    }
}
