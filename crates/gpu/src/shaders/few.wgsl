// Few rows: a workgroup makes 16 columns of ROWS rows; 4 threads side by side read 16 columns, 64 such fours share K. Sums over 32
// values meet as integers in workgroup memory, so they are exact; then the groups are added in order, which gives the bits of
// the definition. K is taken in passes of what workgroup memory holds.
const PASS: u32 = 48u / ROWS;   // groups of a pass
const COLUMNS: u32 = 16u;
const SLICES: u32 = 64u;
var<workgroup> parts: array<i32, 3072>;  // [PASS * 4][ROWS][COLUMNS]
var<workgroup> steps: array<f32, 48>;    // [PASS][ROWS] scales of the activations
var<workgroup> places: array<u32, 48>;   // [PASS][ROWS] of outliers

fn sum_of(at: u32, sub: u32) -> i32 {
    let word = i32(select(row_meta[at].sums_high, row_meta[at].sums_low, sub < 2u));
    return select(word >> 16u, (word << 16u) >> 16u, (sub & 1u) == 0u);
}

fn row_at(row0: u32, r: u32, group: u32) -> u32 { return min(row0 + r, n.rows - 1u) * n.groups + group; }

// Sums over the 32 values `sub` of a group, of four columns and all rows, to the workgroup's memory.
fn sum_unit(row0: u32, column: u32, group: u32, sub: u32, to: u32) {
    let block = block_of(column, group);
    var sum: array<vec4<i32>, ROWS>;
    for (var half = 0u; half < 2u; half += 1u) {
        var quads: array<vec4<u32>, 4>;
        if (Q8) {
            for (var j = 0u; j < 4u; j += 1u) { quads[j] = quads_of(block, column, sub * 8u + half * 4u + j); }
        } else {
            for (var j = 0u; j < 2u; j += 1u) {
                let words = w[block + VALUES + (sub * 4u + half * 2u + j) * 16u + column % 64u / 4u];
                quads[2u * j] = words & vec4<u32>(0x0f0f0f0fu);
                quads[2u * j + 1u] = (words >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
            }
        }
        // read before the first is multiplied: between products, Mesa 26.1 makes of these reads a program that crashes
        var x: array<vec4<u32>, ROWS>;
        for (var r = 0u; r < ROWS; r += 1u) { x[r] = quantized[row_at(row0, r, group) * 8u + sub * 2u + half]; }
        for (var r = 0u; r < ROWS; r += 1u) {
            sum[r] += dots(quads[0], x[r].x) + dots(quads[1], x[r].y) + dots(quads[2], x[r].z) + dots(quads[3], x[r].w);
        }
    }
    for (var r = 0u; r < ROWS; r += 1u) {
        var total = sum[r];
        if (!Q8) { total = (total - vec4<i32>(8 * sum_of(row_at(row0, r, group), sub))) * sub_scales_of(block, column, sub); }
        let at = (to * ROWS + r) * COLUMNS + column % COLUMNS;
        parts[at] = total.x;
        parts[at + 1u] = total.y;
        parts[at + 2u] = total.z;
        parts[at + 3u] = total.w;
    }
}

// y of column `column0 + t % 16` and row `row0 + t / 16`, for the threads that have one.
fn product(row0: u32, column0: u32, t: u32) -> f32 {
    let mine = column0 + t % COLUMNS;
    let r = min(t / COLUMNS, ROWS - 1u);
    var y = 0.0;
    for (var first = 0u; first < n.groups; first += PASS) {
        let groups = min(PASS, n.groups - first);
        for (var i = t / 4u; i < 4u * groups; i += SLICES) {
            sum_unit(row0, column0 + t % 4u * 4u, first + i / 4u, i % 4u, i);
        }
        if (t < groups * ROWS) {
            let at = row_at(row0, t % ROWS, first + t / ROWS);
            steps[t] = row_meta[at].scale;
            places[t] = row_meta[at].places;
        }
        workgroupBarrier();
        for (var i = t; i < groups * ROWS * COLUMNS; i += 256u) {
            let group = i / (ROWS * COLUMNS);
            let rest = i % (ROWS * COLUMNS);
            let at = group * 4u * ROWS * COLUMNS + rest;
            let sum = parts[at] + parts[at + ROWS * COLUMNS] + parts[at + 2u * ROWS * COLUMNS] + parts[at + 3u * ROWS * COLUMNS];
            let column = column0 + rest % COLUMNS;
            parts[at] = bitcast<i32>(f32(sum) * scale_of(block_of(column, first + group), column));
        }
        workgroupBarrier();
        if (t < ROWS * COLUMNS) {
            for (var g = 0u; g < groups; g += 1u) {
                y = fma(bitcast<f32>(parts[g * 4u * ROWS * COLUMNS + t]), steps[g * ROWS + r], y);
                y = with_outliers(y, row_at(row0, r, first + g), places[g * ROWS + r], block_of(mine, first + g), mine);
            }
        }
        workgroupBarrier();
    }
    return y;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row0 = wg.x * ROWS;
    let column0 = wg.y * COLUMNS;
    var y = product(row0, column0, t);
    var up = 0.0;
    if (n.epilogue == SILU_MUL) { up = product(row0, n.cols + column0, t); }
    let row = row0 + t / COLUMNS;
    let column = column0 + t % COLUMNS;
    if (t >= ROWS * COLUMNS || row >= n.rows || column >= n.cols) { return; }
    if (n.has_bias != 0u) {
        y += bias[n.first_col + column];
        if (n.epilogue == SILU_MUL) { up += bias[n.cols + column]; }
    }
    let at = row * n.out_cols + n.first_col + column;
    out[at] = apply(n.epilogue, y, out[at], up);
}
