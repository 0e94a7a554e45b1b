// Operations on rows: a thread handles one value (or pair) of one row. `source` and `out` are [rows, cols]; a and b are
// parameters of the operation.
struct Numbers { cols: u32, rows: u32, a: u32, b: u32 }
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> source: array<f32>;
@group(0) @binding(1) var<storage, read> numbers: array<u32>; // words of the arena, of a gather
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

// out[a + row] = source[numbers[b + row]]
@compute @workgroup_size(64)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = row_of(wg);
    let i = wg.x * 64u + t;
    if (row >= n.rows || i >= n.cols) { return; }
    out[(n.a + row) * n.cols + i] = source[numbers[n.b + row] * n.cols + i];
}

// out[row] += source[row % a]
@compute @workgroup_size(64)
fn add(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = row_of(wg);
    let i = wg.x * 64u + t;
    if (row >= n.rows || i >= n.cols) { return; }
    out[row * n.cols + i] += source[row % n.a * n.cols + i];
}

// out = [rows, cols], from gates and then as many ups in `source`
@compute @workgroup_size(64)
fn gate(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = row_of(wg);
    let i = wg.x * 64u + t;
    if (row >= n.rows || i >= n.cols) { return; }
    let at = row * 2u * n.cols + i;
    out[row * n.cols + i] = apply(SILU_MUL, source[at], 0.0, source[at + n.cols]);
}

// Rotates pair (j, j + a/2) of each of b heads of a row of `out` by the cosine and sine in `source`, [rows, a].
@compute @workgroup_size(64)
fn rope(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = row_of(wg);
    let i = wg.x * 64u + t;
    let half = n.a / 2u;
    if (row >= n.rows || i >= half * n.b) { return; }
    let j = i % half;
    let at = row * n.cols + i / half * n.a + j;
    let cosine = source[row * n.a + j];
    let sine = source[row * n.a + half + j];
    let first = out[at];
    let second = out[at + half];
    out[at] = first * cosine - second * sine;
    out[at + half] = second * cosine + first * sine;
}
