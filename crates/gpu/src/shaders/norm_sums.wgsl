// Mean and inverse deviation of a row, by 128 threads. The order of the sums is the same wherever this is used, so a
// fused norm has the bits of a separate one. The user declares `x`, and in `n` `cols`, `is_layer`, `eps`.
const NORM_THREADS: u32 = 128u;
var<workgroup> norm_parts: array<f32, 128>;

fn norm_total(t: u32, value: f32) -> f32 {
    workgroupBarrier();
    norm_parts[t] = value;
    workgroupBarrier();
    for (var d = NORM_THREADS / 2u; d > 0u; d /= 2u) {
        if (t < d) { norm_parts[t] += norm_parts[t + d]; }
        workgroupBarrier();
    }
    return norm_parts[0];
}

struct Moments { mean: f32, inverse: f32 }

fn moments_of(row: u32, t: u32) -> Moments {
    let first = row * n.cols;
    var mean = 0.0;
    if (n.is_layer != 0u) {
        var sum = 0.0;
        for (var i = t; i < n.cols; i += NORM_THREADS) { sum += x[first + i]; }
        mean = norm_total(t, sum) / f32(n.cols);
    }
    var squares = 0.0;
    for (var i = t; i < n.cols; i += NORM_THREADS) {
        let d = x[first + i] - mean;
        squares = fma(d, d, squares);
    }
    let variance = norm_total(t, squares) / f32(n.cols);
    return Moments(mean, 1.0 / sqrt(variance + bitcast<f32>(n.eps)));
}

fn normed(value: f32, moments: Moments, i: u32) -> f32 {
    let y = (value - moments.mean) * moments.inverse * weight[i];
    if (n.is_layer != 0u) { return y + bias[i]; }
    return y;
}
