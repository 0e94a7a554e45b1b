// Many rows on matrix units: SIDE columns by SIDE rows per workgroup, 64 columns by SIDE / 4 rows of them per subgroup.
// Products of integers that f16 represents are summed in f32, which is exact up to 2^24; the sums of a group stay below
// 2^21. So the sums are the same integers as in the other kernels, and the bits are the same.
// TILE is 8 or 16, LANES the size of a subgroup, SIDE 64 or 128. units_vectors.wgsl or units_values.wgsl declares the
// workgroup memory.
const THREADS: u32 = LANES * SIDE / 16u;
const ROWS: u32 = SIDE / 4u;                 // of a subgroup
const PART: u32 = 32u;                       // values along K that are in workgroup memory at a time
// row stride there, in vec4s: values along K, or 32 columns of sums. Eight are padding, so that simultaneous accesses,
// by rows of 16 bytes or by adjacent threads, use different banks
const STRIDE: u32 = 10u;
const LOADS: u32 = max(2u * SIDE / THREADS, 1u); // of a thread, for a part
var<workgroup> marks: array<u32, 2u * SIDE>; // [SIDE rows][scale, places of outliers] of a group

// A part on its way from the buffers to workgroup memory, in the layout of the buffers: no computation on it must wait
// for its arrival. Of weights a quad of four columns, of rows 16 values.
struct Part {
    weights: array<vec4<u32>, LOADS>,
    sub_scales: array<u32, LOADS>,
    rows: array<vec4<u32>, LOADS>,
    scales: array<u32, LOADS>,
    places: array<u32, LOADS>,
}

// The column at position `c` of a tile, subgroup by subgroup.
fn column_at(tile: u32, c: u32) -> u32 { return column_of(tile * (SIDE / 64u) + c / 64u, c % 64u); }

fn fetch(tile: u32, row0: u32, step: u32, t: u32) -> Part {
    var next: Part;
    let group = step / 4u;
    let part = step % 4u;
    for (var l = 0u; l < LOADS; l += 1u) {
        let i = min(t + THREADS * l, 2u * SIDE - 1u);
        let column = column_at(tile, i / 8u * 4u);
        let block = block_of(column, group);
        next.weights[l] = raw_quads_of(block, column, part * 8u + i % 8u);
        if (!Q8) { next.sub_scales[l] = raw_sub_scales_of(block, column, part); }
        let at = min(row0 + i / 2u, n.rows - 1u) * n.groups + group;
        next.rows[l] = quantized[at * 8u + part * 2u + i % 2u];
        next.scales[l] = bitcast<u32>(row_meta[at].scale);
        next.places[l] = row_meta[at].places;
    }
    return next;
}

fn weights_of(raw: u32, quad: u32, sub_scale: i32) -> vec4<f16> {
    if (Q8) { return vec4<f16>(vec4<f32>(unpack4xI8(raw ^ 0x80808080u))); }
    let nibbles = (raw >> (4u * (quad & 1u))) & 0x0f0f0f0fu;
    return vec4<f16>(vec4<f32>((vec4<i32>(unpack4xU8(nibbles)) - vec4<i32>(8)) * sub_scale));
}

// The order along K is free, as long as weights and rows have the same: quad `q` is at 2 (q % 4) + q / 4, so that the
// two threads of a row write to different banks.
fn store(fetched: ptr<function, Part>, part: u32, t: u32) {
    for (var l = 0u; l < LOADS; l += 1u) {
        let i = t + THREADS * l;
        if (i < 2u * SIDE) {
            let quad = i % 8u;
            let to = i / 8u * 4u * STRIDE + 2u * (quad % 4u) + quad / 4u;
            let sub_scales = sub_scales_in((*fetched).sub_scales[l], part);
            for (var j = 0u; j < 4u; j += 1u) {
                put_weights(to + j * STRIDE, weights_of((*fetched).weights[l][j], quad, sub_scales[j]));
                let x = vec4<f16>(vec4<f32>(unpack4xI8((*fetched).rows[l][j])));
                put_rows(i / 2u * STRIDE + 2u * j + i % 2u, x);
            }
            marks[i] = select((*fetched).places[l], (*fetched).scales[l], i % 2u == 0u);
        }
    }
}

// Adds the next group to y, for four columns of a row.
fn added(y: vec4<f32>, sum: vec4<f32>, scales: vec4<f32>, scale: f32) -> vec4<f32> {
    return fma(sum * scales, vec4<f32>(scale), y);
}

const HELD: u32 = HOW_MANY_HELD;
struct Held { y: array<vec4<f32>, HELD> }

// Returns the row of a held value: a thread holds, of each row tile and either half of the columns, every (LANES / 8)th
// row.
fn row_of_held(i: u32) -> u32 {
    return i / (2u * TILE * 8u / LANES) * TILE + i % (TILE * 8u / LANES) * (LANES / 8u);
}
fn half_of_held(i: u32) -> u32 { return i / (TILE * 8u / LANES) % 2u; }

fn add_outliers(held: Held, row0: u32, row: u32, columns: vec2<u32>, group: u32) -> Held {
    var y = held;
    for (var i = 0u; i < HELD; i += 1u) {
        let r = row + row_of_held(i);
        let at = min(row0 + r, n.rows - 1u) * n.groups + group;
        let column = columns[half_of_held(i)];
        y.y[i] = with_four_outliers(y.y[i], at, marks[2u * r + 1u], block_of(column, group), column);
    }
    return y;
}

// Bias, epilogue and output: the second half holds the ups of the first's gates.
fn finish_held(held: Held, row: u32, columns: vec2<u32>) {
    var y = held;
    for (var i = 0u; i < HELD; i += 1u) {
        let half = half_of_held(i);
        if (n.epilogue != SILU_MUL) {
            write(row + row_of_held(i), columns[half], with_bias(y.y[i], columns[half]), vec4<f32>(0.0));
        } else if (half == 0u) {
            let ups = with_bias(y.y[i + TILE * 8u / LANES], columns.y);
            write(row + row_of_held(i), columns.x, with_bias(y.y[i], columns.x), ups);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row0 = n.first_row + wg.x * SIDE;
    let subgroup = t / LANES;
    let lane = t % LANES;
    let first_row = subgroup % 4u * ROWS;
    let first_column = subgroup / 4u * 64u;
    let piece = subgroup * TILE * STRIDE;
    let mine = piece + lane / 8u * STRIDE + lane % 8u;
    let row = first_row + lane / 8u;
    let column = first_column + lane % 8u * 4u;
    let columns = vec2<u32>(column_at(wg.y, column), column_at(wg.y, column + 32u));
    NO_SUMS_YET
    var next = fetch(wg.y, row0, 0u, t);
    for (var group = 0u; group < n.groups; group += 1u) {
        SUMS_OF_TILES
        let raw_scales_0 = raw_scales_of(block_of(columns.x, group), columns.x);
        let raw_scales_1 = raw_scales_of(block_of(columns.y, group), columns.y);
        for (var part = 0u; part < 4u; part += 1u) {
            workgroupBarrier();
            store(&next, part, t);
            workgroupBarrier();
            // loaded while the units multiply
            let step = 4u * group + part + 1u;
            if (step < 4u * n.groups) { next = fetch(wg.y, row0, step, t); }
            for (var k = 0u; k < PART; k += TILE) {
                ADD_TO_TILES
            }
        }
        let scales_0 = scales_in(raw_scales_0, columns.x);
        let scales_1 = scales_in(raw_scales_1, columns.y);
        var places = 0u;
        ADD_PIECES
        if (places >= 0x10000u) {
            let y = add_outliers(Held(ALL_HELD), row0, row, columns, group);
            TAKE_HELD
        }
    }
    finish_held(Held(ALL_HELD), row0 + row, columns);
}
