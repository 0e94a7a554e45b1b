// Many rows: 64 columns by 64 rows per workgroup, 4 x 4 per thread. A group of weights and of activations is in
// workgroup memory, each word four values along K, with the four columns or rows of a thread adjacent: 2 x 8 KB, all
// that WebGPU guarantees.
var<workgroup> ws: array<vec4<u32>, 512>; // [32 quads][16] of four columns
var<workgroup> xs: array<vec4<u32>, 512>; // [32 quads][16] of four rows

fn pass_on(i: u32, ups: vec4<f32>) { ws[i] = bitcast<vec4<u32>>(ups); }
fn passed_on(i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(ws[i]); }

fn load_weights(tile: u32, group: u32, i: u32) {
    let column = column_of(tile, i % 16u * 4u);
    ws[i] = quads_of(block_of(column, group), column, i / 16u);
}

// Transposes four quads of four rows. Adjacent threads handle different, adjacent rows, so they write to different
// banks.
fn load_rows(row0: u32, group: u32, i: u32) {
    let rows = min(vec4<u32>(row0 + i % 16u * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(n.rows - 1u));
    let at = (rows * n.groups + vec4<u32>(group)) * 8u + vec4<u32>(i / 16u);
    let a = quantized[at.x];
    let b = quantized[at.y];
    let c = quantized[at.z];
    let d = quantized[at.w];
    let to = i / 16u * 64u + i % 16u;
    xs[to] = vec4<u32>(a.x, b.x, c.x, d.x);
    xs[to + 16u] = vec4<u32>(a.y, b.y, c.y, d.y);
    xs[to + 32u] = vec4<u32>(a.z, b.z, c.z, d.z);
    xs[to + 48u] = vec4<u32>(a.w, b.w, c.w, d.w);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row0 = n.first_row + wg.x * 64u;
    let mine = t % 16u;
    let rows = t / 16u;
    let column = column_of(wg.y, mine * 4u);
    var y: array<vec4<f32>, 4>;
    for (var group = 0u; group < n.groups; group += 1u) {
        if (t < 128u) {
            load_rows(row0, group, t);
        } else {
            for (var i = t - 128u; i < 512u; i += 128u) { load_weights(wg.y, group, i); }
        }
        workgroupBarrier();
        var sum: array<vec4<i32>, 4>;
        for (var i = 0u; i < 512u; i += 16u) {
            let quads = ws[i + mine];
            let x = xs[i + rows];
            sum[0] += dots(quads, x.x);
            sum[1] += dots(quads, x.y);
            sum[2] += dots(quads, x.z);
            sum[3] += dots(quads, x.w);
        }
        add_group(&y, &sum, row0 + rows * 4u, column, group);
        workgroupBarrier();
    }
    finish(&y, wg.y, row0, t);
}
