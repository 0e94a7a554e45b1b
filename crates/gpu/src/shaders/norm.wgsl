// out = norm(x), one workgroup per row.
struct Numbers { cols: u32, rows: u32, is_layer: u32, eps: u32 }
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> x: array<f32>;           // [rows, cols]
@group(0) @binding(1) var<storage, read> weight: array<f32>;      // [cols]
@group(0) @binding(2) var<storage, read> bias: array<f32>;        // [cols], of a layer norm
@group(0) @binding(3) var<storage, read_write> out: array<f32>;   // [rows, cols]

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    // a row past the last one computes the last again and writes nothing, since all threads must reach the barriers
    let row = min(row_of(wg), n.rows - 1u);
    let moments = moments_of(row, t);
    if (row_of(wg) >= n.rows) { return; }
    let first = row * n.cols;
    for (var i = t; i < n.cols; i += NORM_THREADS) { out[first + i] = normed(x[first + i], moments, i); }
}
