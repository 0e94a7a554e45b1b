// Few rows: 4 columns per workgroup, 64 threads along K for each, ROWS rows per reading of the weights.
var<workgroup> parts: array<f32, 1024>; // [ROWS][4 columns][64 slices]

fn product(row0: u32, column: u32, t: u32) -> f32 {
    let lane = t % 64u;
    var sum: array<f32, ROWS>;
    for (var i = 2u * lane; i < n.k; i += 128u) {
        let a = weight_at(column, i);
        let b = weight_at(column, i + 1u);
        for (var r = 0u; r < ROWS; r += 1u) {
            let row = min(row0 + r, n.rows - 1u);
            sum[r] = fma(a, input_at(row, i), sum[r]);
            sum[r] = fma(b, input_at(row, i + 1u), sum[r]);
        }
    }
    for (var r = 0u; r < ROWS; r += 1u) { parts[r * 256u + t] = sum[r]; }
    workgroupBarrier();
    for (var d = 32u; d > 0u; d /= 2u) {
        if (lane < d) {
            for (var r = 0u; r < ROWS; r += 1u) { parts[r * 256u + t] += parts[r * 256u + t + d]; }
        }
        workgroupBarrier();
    }
    // thread 4 r + c computes row r of column c
    let total = parts[min(t / 4u, ROWS - 1u) * 256u + t % 4u * 64u];
    workgroupBarrier();
    return total;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row0 = wg.x * ROWS;
    let read = min(wg.y * 4u + t / 64u, n.cols - 1u);
    var y = product(row0, read, t);
    var up = 0.0;
    if (n.epilogue == SILU_MUL) { up = product(row0, n.cols + read, t); }
    let row = row0 + t / 4u;
    let column = wg.y * 4u + t % 4u;
    if (t >= 4u * ROWS || row >= n.rows || column >= n.cols) { return; }
    if (n.has_bias != 0u) {
        y += bias[n.first_col + column];
        if (n.epilogue == SILU_MUL) { up += bias[n.cols + column]; }
    }
    let at = row * n.out_cols + n.first_col + column;
    var before = 0.0;
    if (n.epilogue == ADD) { before = out[at]; }
    out[at] = apply(n.epilogue, y, before, up);
}
