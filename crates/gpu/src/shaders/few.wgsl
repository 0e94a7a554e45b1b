// Few rows: a workgroup computes 16 columns of ROWS rows. 4 neighbouring threads read 16 columns; 48 such groups of
// four threads share K. A thread loads half a quantization group at a time, and issues all its loads before any is
// needed: K of 3,072 is one unit per group of threads. Sums over 64 values are combined as integers in workgroup
// memory, so they are exact. Then the groups are added in order, which gives the bits of the definition. K is processed
// in passes that fit into workgroup memory.
const PASS: u32 = 96u / ROWS;   // groups of a pass
const COLUMNS: u32 = 16u;
const THREADS: u32 = 192u;
const SLICES: u32 = 48u;
const WORDS: u32 = select(8u, 16u, Q8);    // words of a column in a unit
var<workgroup> parts: array<i32, 3072>;    // [PASS * 2][ROWS][COLUMNS]
var<workgroup> scales: array<vec4<u32>, 192>; // [PASS][COLUMNS] of the weights, bf16
var<workgroup> steps: array<f32, 96>;      // [PASS][ROWS] scales of the activations
var<workgroup> places: array<u32, 96>;     // [PASS][ROWS] of outliers

fn sum_of(at: u32, sub: u32) -> i32 {
    let word = i32(select(row_meta[at].sums_high, row_meta[at].sums_low, sub < 2u));
    return select(word >> 16u, (word << 16u) >> 16u, (sub & 1u) == 0u);
}

fn row_at(row0: u32, r: u32, group: u32) -> u32 { return min(row0 + r, n.rows - 1u) * n.groups + group; }

struct Unit { words: array<vec4<u32>, WORDS> }

// Four values along K, the quad `i` of a unit, of each of four columns; of q4 the nibbles.
fn quads_in(unit: Unit, i: u32) -> vec4<u32> {
    if (Q8) { return unit.words[i % WORDS] ^ vec4<u32>(0x80808080u); }
    return (unit.words[i / 2u] >> vec4<u32>(4u * (i & 1u))) & vec4<u32>(0x0f0f0f0fu);
}

// Sums half a group, of four columns and all rows, into workgroup memory.
fn sum_unit(row0: u32, column: u32, group: u32, half: u32, to: u32) {
    let block = block_of(column, group);
    var unit: Unit;
    for (var j = 0u; j < WORDS; j += 1u) {
        unit.words[j] = w[block + VALUES + (half * WORDS + j) * 16u + column % 64u / 4u];
    }
    var sub_scales = 0u;
    if (!Q8) { sub_scales = raw_sub_scales_of(block, column, 2u * half); }
    // all rows are loaded before the first product: with loads between products, Mesa 26.1 generates a program that
    // crashes
    var x: array<vec4<u32>, 4u * ROWS>;
    for (var r = 0u; r < ROWS; r += 1u) {
        for (var i = 0u; i < 4u; i += 1u) { x[4u * r + i] = quantized[row_at(row0, r, group) * 8u + half * 4u + i]; }
    }
    var total: array<vec4<i32>, ROWS>;
    for (var sub = 0u; sub < 2u; sub += 1u) {
        var sum: array<vec4<i32>, ROWS>;
        for (var i = 2u * sub; i < 2u * sub + 2u; i += 1u) {
            let a = quads_in(unit, 4u * i);
            let b = quads_in(unit, 4u * i + 1u);
            let c = quads_in(unit, 4u * i + 2u);
            let d = quads_in(unit, 4u * i + 3u);
            for (var r = 0u; r < ROWS; r += 1u) {
                let four = x[4u * r + i];
                sum[r] += dots(a, four.x) + dots(b, four.y) + dots(c, four.z) + dots(d, four.w);
            }
        }
        for (var r = 0u; r < ROWS; r += 1u) {
            if (!Q8) {
                let of_row = sum_of(row_at(row0, r, group), 2u * half + sub);
                sum[r] = (sum[r] - vec4<i32>(8 * of_row)) * sub_scales_in(sub_scales, sub);
            }
            total[r] += sum[r];
        }
    }
    for (var r = 0u; r < ROWS; r += 1u) {
        let at = (to * ROWS + r) * COLUMNS + column % COLUMNS;
        parts[at] = total[r].x;
        parts[at + 1u] = total[r].y;
        parts[at + 2u] = total[r].z;
        parts[at + 3u] = total[r].w;
    }
}

// Sums all units of a pass, and loads the metadata of its groups.
fn sum_pass(row0: u32, column0: u32, first: u32, groups: u32, t: u32) {
    var of_columns: vec4<u32>;
    if (t < 2u * groups) { of_columns = raw_scales_of(block_of(column0, first + t / 2u), column0 + t % 2u * 8u); }
    var step = 0.0;
    var place = 0u;
    if (t < groups * ROWS) {
        let at = row_at(row0, t % ROWS, first + t / ROWS);
        step = row_meta[at].scale;
        place = row_meta[at].places;
    }
    for (var i = t / 4u; i < 2u * groups; i += SLICES) {
        sum_unit(row0, column0 + t % 4u * 4u, first + i / 2u, i % 2u, i);
    }
    scales[t] = of_columns;
    if (t < 96u) {
        steps[t] = step;
        places[t] = place;
    }
}

// Multiplies the sums of groups by their scales.
fn scale_groups(groups: u32, t: u32) {
    for (var i = t; i < groups * ROWS * COLUMNS; i += THREADS) {
        let group = i / (ROWS * COLUMNS);
        let rest = i % (ROWS * COLUMNS);
        let at = group * 2u * ROWS * COLUMNS + rest;
        let column = rest % COLUMNS;
        let word = scales[2u * group + column / 8u][column / 2u % 4u];
        let scale = select(bf16_high(word), bf16_low(word), (column & 1u) == 0u);
        parts[at] = bitcast<i32>(f32(parts[at] + parts[at + ROWS * COLUMNS]) * scale);
    }
}

// Returns y of column `column0 + t % 16` and row `row0 + t / 16`, for the threads that have one.
fn product(row0: u32, column0: u32, t: u32) -> f32 {
    let mine = column0 + t % COLUMNS;
    let r = min(t / COLUMNS, ROWS - 1u);
    var y = 0.0;
    for (var first = 0u; first < n.groups; first += PASS) {
        let groups = min(PASS, n.groups - first);
        sum_pass(row0, column0, first, groups, t);
        workgroupBarrier();
        scale_groups(groups, t);
        workgroupBarrier();
        if (t < ROWS * COLUMNS) {
            // four groups are loaded before the first is added
            for (var g = 0u; g < groups; g += 4u) {
                var scaled: array<f32, 4>;
                var step: array<f32, 4>;
                var place: array<u32, 4>;
                for (var i = 0u; i < 4u; i += 1u) {
                    scaled[i] = bitcast<f32>(parts[(g + i) * 2u * ROWS * COLUMNS + t]);
                    step[i] = steps[(g + i) * ROWS + r];
                    place[i] = places[(g + i) * ROWS + r];
                }
                for (var i = 0u; i < 4u; i += 1u) {
                    if (g + i < groups) {
                        y = fma(scaled[i], step[i], y);
                        if (place[i] >= 0x10000u) {
                            y = with_outliers(y, row_at(row0, r, first + g + i), place[i], block_of(mine, first + g + i), mine);
                        }
                    }
                }
            }
        }
        workgroupBarrier();
    }
    return y;
}

@compute @workgroup_size(192)
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
    var before = 0.0;
    if (n.epilogue == ADD) { before = out[at]; }
    out[at] = apply(n.epilogue, y, before, up);
}
