// Stores keys and values of a batch's rows: a workgroup handles the key or value of one head of one row.
var<workgroup> largest: atomic<u32>;

fn value_at(row: u32, x: u32, d: u32) -> f32 {
    if (d >= n.dim) { return 0.0; }
    return value_of_head(row, x, d);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let entry = min(row_of(wg), n.entries - 1u);
    let token = batch[4u * entry + 1u];
    let block = batch[batch[4u * entry + 2u] + token / TOKENS];
    let row = batch[4u * entry];
    prepare(row, wg.x, row_of(wg) < n.entries, t);
    let head = head_of(wg.x) % n.heads;
    let is_value = head_of(wg.x) >= n.heads;
    let words = words_of(n.dim);
    let base = (block * n.heads + head) * head_words(n.dim);
    let slot = token % TOKENS;
    var scale = 1.0;
    var broken = false;
    if (KV == 2u) {
        if (t == 0u) { atomicStore(&largest, 0u); }
        workgroupBarrier();
        for (var d = t; d < n.dim; d += 64u) { atomicMax(&largest, bitcast<u32>(value_at(row, wg.x, d)) & 0x7fffffffu); }
        workgroupBarrier();
        // as bits, so that no NaN is lost
        let bits = atomicLoad(&largest);
        broken = bits >= 0x7f800000u;
        let found = bitcast<f32>(bits);
        // zeros keep a scale of 1, to avoid a division by zero
        if (found > 0.0 && !broken) { scale = found / 127.0; }
    }
    if (row_of(wg) >= n.entries || !is_stored(wg.x)) { return; }
    for (var i = t; i < words; i += 64u) {
        var word: u32;
        if (KV == 0u) { word = bitcast<u32>(value_at(row, wg.x, i)); }
        if (KV == 1u) { word = (bf16_bits(value_at(row, wg.x, i * 2u)) >> 16u) | bf16_bits(value_at(row, wg.x, i * 2u + 1u)); }
        if (KV == 2u) {
            let d = i * 4u;
            let four = vec4<f32>(
                value_at(row, wg.x, d), value_at(row, wg.x, d + 1u), value_at(row, wg.x, d + 2u), value_at(row, wg.x, d + 3u));
            word = pack4xI8(clamp(vec4<i32>(round(four / scale)), vec4<i32>(-127), vec4<i32>(127)));
        }
        let of_key = (i / 4u * TOKENS + slot) * 4u + i % 4u;
        kv[base + select(of_key, TOKENS * words + slot * words + i, is_value)] = word;
    }
    if (KV == 2u && t == 0u) {
        // bytes of non-finite values would be finite: the scale becomes NaN, so that it shows in every row that sees
        // the token
        kv[base + 2u * TOKENS * words + select(0u, TOKENS, is_value) + slot] = select(bitcast<u32>(scale), 0x7fc00000u, broken);
    }
}
