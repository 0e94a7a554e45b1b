// Many rows: 64 columns by 64 rows per workgroup, 4 x 4 per thread, 16 values of K at a time in workgroup memory.
var<workgroup> ws: array<vec4<f32>, 256>; // [16 values][16] of four columns
var<workgroup> xs: array<vec4<f32>, 256>; // [16 values][16] of four rows

fn pass_on(i: u32, ups: vec4<f32>) {
    if (i < 256u) { ws[i] = ups; } else { xs[i - 256u] = ups; }
}
fn passed_on(i: u32) -> vec4<f32> {
    if (i < 256u) { return ws[i]; }
    return xs[i - 256u];
}

fn load(tile: u32, row0: u32, k0: u32, t: u32) {
    // neighbouring threads read along K, in the order of memory
    let i = k0 + t % 16u;
    let last = n.cols * select(1u, 2u, n.epilogue == SILU_MUL) - 1u;
    let c = column_of(tile, t / 16u * 4u);
    let r = min(vec4<u32>(row0 + t / 16u * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(n.rows - 1u));
    ws[t % 16u * 16u + t / 16u] = vec4<f32>(
        weight_at(min(c, last), i), weight_at(min(c + 1u, last), i), weight_at(min(c + 2u, last), i), weight_at(min(c + 3u, last), i));
    xs[t % 16u * 16u + t / 16u] = vec4<f32>(input_at(r.x, i), input_at(r.y, i), input_at(r.z, i), input_at(r.w, i));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row0 = n.first_row + wg.x * 64u;
    let mine = t % 16u;
    let rows = t / 16u;
    var y: array<vec4<f32>, 4>;
    for (var k0 = 0u; k0 < n.k; k0 += 16u) {
        load(wg.y, row0, k0, t);
        workgroupBarrier();
        for (var i = 0u; i < 256u; i += 16u) {
            let a = ws[i + mine];
            let b = xs[i + rows];
            y[0] = fma(a, vec4<f32>(b.x), y[0]);
            y[1] = fma(a, vec4<f32>(b.y), y[1]);
            y[2] = fma(a, vec4<f32>(b.z), y[2]);
            y[3] = fma(a, vec4<f32>(b.w), y[3]);
        }
        workgroupBarrier();
    }
    finish(&y, wg.y, row0, t);
}
