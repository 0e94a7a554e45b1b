// Many rows on matrix units: 64 columns by 64 rows to a workgroup. Products of integers that f16 holds are summed in f32, which is
// exact up to 2^24; those of a group stay below 2^21. So the sums are the integers of the other kernels, and so are the bits.
// TILE is 8 or 16, LANES the size of a subgroup, MINE the tiles of one.
var<workgroup> weights: array<f16, 2048>;  // [64 columns][32 values]
var<workgroup> rows_of_x: array<f16, 2048>; // [64 rows][32 values]
var<workgroup> sums: array<f32, 4096>;     // [64 rows][64 columns]
const PER_SIDE: u32 = 64u / TILE;
const MINE: u32 = PER_SIDE * PER_SIDE * LANES / 256u;

fn pass_on(i: u32, ups: vec4<f32>) {
    for (var c = 0u; c < 4u; c += 1u) { sums[4u * i + c] = ups[c]; }
}
fn passed_on(i: u32) -> vec4<f32> { return vec4<f32>(sums[4u * i], sums[4u * i + 1u], sums[4u * i + 2u], sums[4u * i + 3u]); }

// 32 values of 64 columns and 64 rows as f16.
fn load(tile: u32, row0: u32, group: u32, part: u32, t: u32) {
    for (var i = t; i < 128u; i += 256u) {
        let c = i % 16u * 4u;
        let quads = quads_of(block_of(column_of(tile, c), group), column_of(tile, c), part * 8u + i / 16u);
        for (var j = 0u; j < 4u; j += 1u) {
            let v = vec4<f32>(unpack4xI8(quads[j]));
            let to = (c + j) * 32u + i / 16u * 4u;
            for (var k = 0u; k < 4u; k += 1u) { weights[to + k] = f16(v[k]); }
        }
    }
    for (var i = t; i < 128u; i += 256u) {
        let row = min(row0 + i / 2u, n.rows - 1u);
        let quads = quantized[(row * n.groups + group) * 8u + part * 2u + i % 2u];
        for (var j = 0u; j < 4u; j += 1u) {
            let v = vec4<f32>(unpack4xI8(quads[j]));
            let to = i / 2u * 32u + i % 2u * 16u + 4u * j;
            for (var k = 0u; k < 4u; k += 1u) { rows_of_x[to + k] = f16(v[k]); }
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row0 = wg.y * 64u;
    let column = column_of(wg.x, t % 16u * 4u);
    let rows = t / 16u * 4u;
    let first = t / LANES * MINE;
    var y: array<vec4<f32>, 4>;
    for (var group = 0u; group < n.groups; group += 1u) {
        SUMS_OF_TILES
        for (var part = 0u; part < 4u; part += 1u) {
            workgroupBarrier();
            load(wg.x, row0, group, part, t);
            workgroupBarrier();
            for (var k = 0u; k < 32u; k += TILE) {
                ADD_TO_TILES
            }
        }
        STORE_TILES
        workgroupBarrier();
        var sum: array<vec4<i32>, 4>;
        for (var r = 0u; r < 4u; r += 1u) {
            let at = (rows + r) * 64u + t % 16u * 4u;
            sum[r] = vec4<i32>(vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]));
        }
        add_group(&y, &sum, row0 + rows, column, group);
    }
    workgroupBarrier();
    finish(&y, wg.x, row0, t);
}
