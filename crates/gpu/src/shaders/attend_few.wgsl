// Causal attention, few rows: a workgroup has one head of one row and the keys of one chunk; `join.wgsl` puts the chunks together
// unless there is one alone.
// Per chunk: blocks of 64 keys with a running maximum (Milakov & Gimelshein 2018). Sums run in one order here and in
// `attend_many.wgsl`, so that a row has the same bits in both.
var<workgroup> query: array<f32, 256>;
var<workgroup> weights: array<f32, 64>;
var<workgroup> partial: array<f32, 64>;

fn largest_of(t: u32, value: f32) -> f32 {
    partial[t] = value;
    workgroupBarrier();
    for (var d = 32u; d > 0u; d /= 2u) {
        if (t < d) { partial[t] = max(partial[t], partial[t + d]); }
        workgroupBarrier();
    }
    let found = partial[0];
    workgroupBarrier();
    return found;
}

// Sixteen sums of four neighbours, then in pairs.
fn sum_of(t: u32) -> f32 {
    if (t < 16u) { partial[t] = weights[4u * t] + weights[4u * t + 1u] + weights[4u * t + 2u] + weights[4u * t + 3u]; }
    workgroupBarrier();
    for (var d = 8u; d > 0u; d /= 2u) {
        if (t < d) { partial[t] += partial[t + d]; }
        workgroupBarrier();
    }
    return partial[0];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wg.x;
    let chunk = wg.y;
    let entry = 4u * (n.first_entry + wg.z);
    let row = batch[entry];
    let tokens = batch[entry + 1u] + 1u; // itself included
    let words = words_of(n.dim);
    for (var d = t; d < words * PER_WORD; d += 64u) {
        var value = 0.0;
        if (d < n.dim) { value = q[row * n.cols + head * n.dim + d]; }
        query[d] = rounded(value);
    }
    workgroupBarrier();
    var largest = LOWEST;
    var total = 0.0;
    var sum: array<Values, 4u / PER_WORD>;
    for (var b = 0u; b < CHUNK_BLOCKS; b += 1u) {
        let index = chunk * CHUNK_BLOCKS + b;
        let first = index * TOKENS;
        if (first >= tokens) { break; }
        let block = block_at(batch[entry + 2u], index, head / (n.heads / n.kv_heads));
        var score = LOWEST;
        if (first + t < tokens) {
            var dot = 0.0;
            for (var i = 0u; i < words; i += 1u) {
                let key = key_word(block, i, t);
                for (var j = 0u; j < PER_WORD; j += 1u) { dot = fma(query[i * PER_WORD + j], value_of(key, j), dot); }
            }
            score = dot * key_scale(block, t) * bitcast<f32>(n.scale);
        }
        let next = max(largest, largest_of(t, score));
        let weight = select(0.0, exp(score - next), first + t < tokens);
        weights[t] = weight;
        workgroupBarrier();
        let faded = exp(largest - next);
        total = fma(total, faded, sum_of(t));
        largest = next;
        weights[t] = weight_of(weight, block, t, first + t < tokens);
        workgroupBarrier();
        for (var i = 0u; i < 4u / PER_WORD; i += 1u) {
            if (t + 64u * i < words) {
                sum[i] *= faded;
                for (var j = 0u; j < min(TOKENS, tokens - first); j += 1u) {
                    sum[i] = fma(Values(weights[j]), value_word(block, t + 64u * i, j), sum[i]);
                }
            }
        }
        workgroupBarrier();
    }
    if (n.chunks == 1u) {
        let joined = join(LOWEST, 0.0, largest, total); // as of many, for the same bits
        let to = (row * n.heads + head) * n.dim;
        for (var i = 0u; i < 4u / PER_WORD; i += 1u) {
            for (var j = 0u; j < PER_WORD; j += 1u) {
                let d = (t + 64u * i) * PER_WORD + j;
                if (d < n.dim) { out[to + d] = fma(value_of(sum[i], j), joined.added, 0.0) / joined.total; }
            }
        }
        return;
    }
    let to = ((wg.z * n.heads + head) * n.chunks + chunk) * (n.dim + 2u);
    for (var i = 0u; i < 4u / PER_WORD; i += 1u) {
        for (var j = 0u; j < PER_WORD; j += 1u) {
            let d = (t + 64u * i) * PER_WORD + j;
            if (d < n.dim) { out[to + d] = value_of(sum[i], j); }
        }
    }
    if (t == 0u) {
        out[to + n.dim] = largest;
        out[to + n.dim + 1u] = total;
    }
}
