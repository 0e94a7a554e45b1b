// Quantizes rows to signed bytes by groups of 128, with the bits of the CPU's kernels. A workgroup handles one group of
// one row; 32 of its threads hold four values each.
var<workgroup> magnitudes: array<u32, 128>;
var<workgroup> largest: atomic<u32>;
var<workgroup> place: atomic<u32>;
var<workgroup> sums: array<atomic<i32>, 4>;

// The least ratio of an outlier to the next value, and (below) the magnitude under which a group counts as zeros.
const OUTLIER_RATIO: f32 = 4.0;
const TINY: f32 = 1e-30;

// Float division may be off by 2.5 ulp, and one byte rounded the other way is an error a thousand times that of a sum.
// So both quotients are computed in integers. `quotient`, of at least 25 bits, and the remainder of its division become
// a float times 2^power, rounded to nearest even.
fn rounded(quotient: u32, rest: u32, power: i32) -> f32 {
    let shift = 8u - countLeadingZeros(quotient);
    let low = quotient & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    var mantissa = quotient >> shift;
    if (low > half || (low == half && (rest != 0u || (mantissa & 1u) == 1u))) { mantissa += 1u; }
    let exponent = power + i32(shift);
    let first = exponent / 2;
    return f32(mantissa) * bitcast<f32>(u32(first + 127) << 23u) * bitcast<f32>(u32(exponent - first + 127) << 23u);
}

// Returns 127 / value, for a normal value > 0.
fn inverse_of(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    var rest = 127u << 25u;
    var quotient = rest / mantissa;
    rest = (rest % mantissa) << 8u;
    quotient = (quotient << 8u) | (rest / mantissa);
    rest = (rest % mantissa) << 8u;
    quotient = (quotient << 8u) | (rest / mantissa);
    rest = (rest % mantissa) << 4u;
    quotient = (quotient << 4u) | (rest / mantissa);
    return rounded(quotient, rest % mantissa, 105 - i32(bits >> 23u));
}

// Returns value / 127, for a normal value > 0.
fn step_of(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    let dividend = ((bits & 0x7fffffu) | 0x800000u) << 8u;
    return rounded(dividend / 127u, dividend % 127u, i32(bits >> 23u) - 158);
}

struct Top { bits: vec3<u32>, places: vec3<u32> }

// Finds the three largest magnitudes, as bits so that no NaN is lost, and their positions; the earlier of equals comes
// first.
fn three_largest(t: u32) -> Top {
    var top = Top(vec3<u32>(0u), vec3<u32>(0xffffffffu));
    for (var round = 0u; round < 3u; round += 1u) {
        if (t == 0u) {
            atomicStore(&largest, 0u);
            atomicStore(&place, 0xffffffffu);
        }
        workgroupBarrier();
        if (t < QUADS) {
            var found = 0u;
            for (var i = 4u * t; i < 4u * t + 4u; i += 1u) {
                if (all(top.places != vec3<u32>(i))) { found = max(found, magnitudes[i]); }
            }
            atomicMax(&largest, found);
        }
        workgroupBarrier();
        let bits = atomicLoad(&largest);
        if (t < QUADS) {
            for (var i = 4u * t; i < 4u * t + 4u; i += 1u) {
                if (magnitudes[i] == bits && all(top.places != vec3<u32>(i))) { atomicMin(&place, i); }
            }
        }
        workgroupBarrier();
        let at = atomicLoad(&place);
        if (round == 0u) { top.bits.x = bits; top.places.x = at; }
        if (round == 1u) { top.bits.y = bits; top.places.y = at; }
        if (round == 2u) { top.bits.z = bits; top.places.z = at; }
        workgroupBarrier();
    }
    return top;
}

struct Plan { outliers: u32, inverse: f32, scale: f32 }

fn plan_of(top: Top) -> Plan {
    // a non-finite value makes the scale NaN, so that it shows in the output
    if (top.bits.x >= 0x7f800000u) { return Plan(0u, 0.0, bitcast<f32>(0x7fc00000u | (top.bits.x & 1u))); }
    let values = bitcast<vec3<f32>>(top.bits);
    var outliers = 0u;
    var rest = values.x;
    if (values.y > OUTLIER_RATIO * values.z) {
        outliers = 2u;
        rest = values.z;
    } else if (values.x > OUTLIER_RATIO * values.y) {
        outliers = 1u;
        rest = values.y;
    }
    if (rest < TINY) { return Plan(outliers, 0.0, 0.0); }
    return Plan(outliers, inverse_of(rest), step_of(rest));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = min(row_of(wg), n.rows - 1u);
    let group = wg.x;
    let moments = prepare(row, t);
    var values: vec4<f32>;
    if (t < QUADS) {
        for (var j = 0u; j < 4u; j += 1u) {
            let i = group * GROUP + 4u * t + j;
            if (i < n.cols) { values[j] = input(row, i, moments); }
            magnitudes[4u * t + j] = bitcast<u32>(values[j]) & 0x7fffffffu;
        }
    }
    if (t < 4u) { atomicStore(&sums[t], 0); }
    workgroupBarrier();
    let top = three_largest(t);
    let plan = plan_of(top);
    let at = row * n.groups + group;
    if (t < QUADS) {
        var bytes = vec4<i32>(round(values * plan.inverse));
        for (var j = 0u; j < 4u; j += 1u) {
            let i = 4u * t + j;
            if ((plan.outliers > 0u && i == top.places.x) || (plan.outliers > 1u && i == top.places.y)) { bytes[j] = 0; }
        }
        quantized[at * QUADS + t] = pack4xI8(bytes);
        atomicAdd(&sums[t / 8u], bytes.x + bytes.y + bytes.z + bytes.w);
    }
    workgroupBarrier();
    if (t == 0u) {
        var sum: vec4<u32>;
        for (var j = 0u; j < 4u; j += 1u) { sum[j] = u32(atomicLoad(&sums[j])) & 0xffffu; }
        var meta_of_row: RowMeta;
        meta_of_row.scale = plan.scale;
        meta_of_row.sums_low = sum.x | (sum.y << 16u);
        meta_of_row.sums_high = sum.z | (sum.w << 16u);
        if (plan.outliers > 0u) { meta_of_row.outlier_0 = input(row, group * GROUP + top.places.x, moments); }
        if (plan.outliers > 1u) { meta_of_row.outlier_1 = input(row, group * GROUP + top.places.y, moments); }
        meta_of_row.places = (top.places.x & 0xffu) | ((top.places.y & 0xffu) << 8u) | (plan.outliers << 16u);
        row_meta[at] = meta_of_row;
    }
}
