// Causal attention, few rows: a workgroup computes one head of one row over the keys of one chunk, 64 threads for each
// block of them. `join.wgsl` joins the chunks unless there is only one.
// Per chunk: blocks of 64 keys with a running maximum (Milakov & Gimelshein 2018). Sums are in the same order here and
// in `attend_many.wgsl`, so that a row has the same bits in both. Loads from the cache are issued before any of them is
// needed: of a head of 96 values in q8 a thread loads its key and eight times 16 values at once.
const KEYS: u32 = 6u;          // groups of four words of a key that a thread holds
const COLUMNS: u32 = 24u;      // groups of four values of a pass
const PASS: u32 = COLUMNS / PER_WORD; // groups of four words of a pass
const SLICES: u32 = 256u / SLICE;     // of a chunk
var<workgroup> query: array<vec4<f32>, 64>;
var<workgroup> weights: array<f32, 256>;       // [256 keys], and scores before
var<workgroup> scaled: array<f32, 256>;        // weights as multiplied with the values
var<workgroup> partial: array<f32, 64>;        // largest of four scores
var<workgroup> of_blocks: array<f32, 4>;       // largest score of each block
var<workgroup> totals: array<f32, 4>;          // of its weights
var<workgroup> sums: array<vec4<f32>, 768>;    // [SLICES][COLUMNS]

fn load_query(row: u32, head: u32, t: u32) {
    for (var i = t; i < fours_of(n.dim) * PER_WORD; i += 256u) {
        var four: vec4<f32>;
        for (var c = 0u; c < 4u; c += 1u) {
            if (4u * i + c < n.dim) { four[c] = rounded(q[row * n.cols + head * n.dim + 4u * i + c]); }
        }
        query[i] = four;
    }
}

struct Keys { words: array<Words, KEYS> }
fn load_keys(block: Block, first: u32, token: u32, seen: bool) -> Keys {
    var keys: Keys;
    for (var i = 0u; i < KEYS; i += 1u) {
        if (seen && first + i < fours_of(n.dim)) { keys.words[i] = key_words(block, first + i, token); }
    }
    return keys;
}

// The dot product of a key and the query, value by value.
fn dot_of(keys: Keys, block: Block, token: u32) -> f32 {
    var held = keys;
    var dot = 0.0;
    for (var first = 0u; first < fours_of(n.dim); first += KEYS) {
        for (var i = 0u; i < KEYS; i += 1u) {
            if (first + i < fours_of(n.dim)) {
                for (var g = 0u; g < PER_WORD; g += 1u) {
                    let key = four_of(held.words[i], g);
                    let of_query = query[(first + i) * PER_WORD + g];
                    for (var c = 0u; c < 4u; c += 1u) { dot = fma(of_query[c], key[c], dot); }
                }
            }
        }
        held = load_keys(block, first + KEYS, token, true);
    }
    return dot;
}

struct Slice { words: array<Words, SLICE> }
fn load_values(table: u32, kv_head: u32, column: u32, slice: u32, tokens: u32) -> Slice {
    var values: Slice;
    let block = block_at(table, min(slice * SLICE, tokens - 1u) / TOKENS, kv_head);
    for (var j = 0u; j < SLICE; j += 1u) {
        if (slice * SLICE + j < tokens && column < fours_of(n.dim)) {
            values.words[j] = value_words(block, column, (slice * SLICE + j) % TOKENS);
        }
    }
    return values;
}

// Sums the values of a slice into workgroup memory.
fn sum_slice(values: Slice, column: u32, slice: u32, tokens: u32) {
    var held = values;
    var sum: array<vec4<f32>, PER_WORD>;
    for (var j = 0u; j < SLICE; j += 1u) {
        if (slice * SLICE + j < tokens) {
            let weight = vec4<f32>(scaled[slice * SLICE + j]);
            for (var g = 0u; g < PER_WORD; g += 1u) { sum[g] = fma(weight, four_of(held.words[j], g), sum[g]); }
        }
    }
    for (var g = 0u; g < PER_WORD; g += 1u) { sums[slice * COLUMNS + column * PER_WORD + g] = sum[g]; }
}

fn find_largest(t: u32) {
    if (t < 64u) {
        partial[t] = max(max(weights[4u * t], weights[4u * t + 1u]), max(weights[4u * t + 2u], weights[4u * t + 3u]));
    }
    workgroupBarrier();
    if (t < CHUNK_BLOCKS) {
        var largest = LOWEST;
        for (var i = 0u; i < 16u; i += 1u) { largest = max(largest, partial[16u * t + i]); }
        of_blocks[t] = largest;
    }
    workgroupBarrier();
}

// The largest score of the blocks before `b`; LOWEST before the first.
fn largest_up_to(b: u32) -> f32 {
    var largest = LOWEST;
    for (var i = 0u; i < b; i += 1u) { largest = max(largest, of_blocks[i]); }
    return largest;
}

// Sixteen sums of four neighbours, which are then added in pairs.
fn total_of(b: u32) -> f32 {
    var fours: array<vec4<f32>, 4>;
    for (var i = 0u; i < 4u; i += 1u) {
        for (var c = 0u; c < 4u; c += 1u) {
            let at = 64u * b + 16u * i + 4u * c;
            fours[i][c] = weights[at] + weights[at + 1u] + weights[at + 2u] + weights[at + 3u];
        }
    }
    let pairs = (fours[0] + fours[2]) + (fours[1] + fours[3]);
    return (pairs.x + pairs.z) + (pairs.y + pairs.w);
}

struct Chunk { largest: f32, total: f32 }
fn chunk_of(blocks: u32) -> Chunk {
    var chunk = Chunk(LOWEST, 0.0);
    for (var b = 0u; b < blocks; b += 1u) {
        let next = largest_up_to(b + 1u);
        chunk.total = fma(chunk.total, exp(chunk.largest - next), totals[b]);
        chunk.largest = next;
    }
    return chunk;
}

// The sum of value `d` of a pass over the chunk.
fn sum_of(d: u32, blocks: u32) -> f32 {
    var sum = 0.0;
    for (var b = 0u; b < blocks; b += 1u) {
        var of_block = 0.0;
        for (var s = b * TOKENS / SLICE; s < (b + 1u) * TOKENS / SLICE; s += 1u) {
            of_block += sums[s * COLUMNS + d / 4u][d % 4u];
        }
        sum = fma(sum, exp(largest_up_to(b) - largest_up_to(b + 1u)), of_block);
    }
    return sum;
}

// The location of the result, or of the chunk, of a head of a row.
struct Place { row: u32, entry: u32, head: u32, chunk: u32 }

fn put(place: Place, d: u32, sum: f32, blocks: u32) {
    if (d >= n.dim) { return; }
    if (n.chunks > 1u) {
        out[((place.entry * n.heads + place.head) * n.chunks + place.chunk) * (n.dim + 2u) + d] = sum;
        return;
    }
    let chunk = chunk_of(blocks);
    let joined = join(LOWEST, 0.0, chunk.largest, chunk.total); // as for many chunks, for the same bits
    out[(place.row * n.heads + place.head) * n.dim + d] = fma(sum, joined.added, 0.0) / joined.total;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wg.x;
    let entry = 4u * (n.first_entry + wg.z);
    let row = batch[entry];
    let first_block = wg.y * CHUNK_BLOCKS;
    let all = batch[entry + 1u] + 1u; // including the row's own token
    if (all <= first_block * TOKENS) { return; }
    let tokens = min(all - first_block * TOKENS, CHUNK_BLOCKS * TOKENS);
    let blocks = (tokens - 1u) / TOKENS + 1u;
    let table = batch[entry + 2u] + first_block;
    let kv_head = head / (n.heads / n.kv_heads);
    let block = block_at(table, min(t / TOKENS, blocks - 1u), kv_head);
    let token = t % TOKENS;
    let seen = t < tokens;
    let keys = load_keys(block, 0u, token, seen);
    var values = load_values(table, kv_head, t % PASS, t / PASS, tokens);
    load_query(row, head, t);
    workgroupBarrier();
    var score = LOWEST;
    if (seen) { score = dot_of(keys, block, token) * key_scale(block, token) * bitcast<f32>(n.scale); }
    weights[t] = score;
    workgroupBarrier();
    find_largest(t);
    let weight = select(0.0, exp(score - largest_up_to(t / TOKENS + 1u)), seen);
    weights[t] = weight;
    scaled[t] = weight_of(weight, block, token, seen);
    workgroupBarrier();
    // by threads without values, if heads are small
    if (t >= 252u) { totals[t - 252u] = total_of(t - 252u); }
    let place = Place(row, wg.z, head, wg.y);
    for (var first = 0u; first < fours_of(n.dim); first += PASS) {
        for (var i = t; i < PASS * SLICES; i += 256u) {
            if (first + i > t) { values = load_values(table, kv_head, first + i % PASS, i / PASS, tokens); }
            sum_slice(values, i % PASS, i / PASS, tokens);
        }
        workgroupBarrier();
        if (t < 4u * COLUMNS) { put(place, first * 4u * PER_WORD + t, sum_of(t, blocks), blocks); }
        workgroupBarrier();
    }
    if (n.chunks > 1u && t == 0u) {
        let to = ((wg.z * n.heads + head) * n.chunks + wg.y) * (n.dim + 2u) + n.dim;
        let chunk = chunk_of(blocks);
        out[to] = chunk.largest;
        out[to + 1u] = chunk.total;
    }
}
