// Attention, many rows: a workgroup computes one head of a tile of up to 16 rows. Per block of 64 keys, 256 threads
// compute scores, four queries each; then sixteen threads per query find its maximum and sum; then all add up values,
// four queries each. The sums are in the order of `attend_few.wgsl`: of the values of eight keys at a time.
var<workgroup> queries: array<vec4<f32>, 512>; // [128 values][4] of four queries
var<workgroup> weights: array<f32, 1024>;      // [64 keys][16 queries]
var<workgroup> partial: array<f32, 256>;       // [16 queries][16]
var<workgroup> largest: array<f32, 16>;
var<workgroup> total: array<f32, 16>;
var<workgroup> faded: array<f32, 16>;
const STEPS: u32 = max(2u / PER_WORD, 1u);     // words of a thread

fn load_queries(tile: Tile, head: u32, t: u32) {
    for (var i = t; i < 16u * fours_of(n.dim) * PER_WORD; i += 256u) {
        var four: vec4<f32>;
        for (var c = 0u; c < 4u; c += 1u) {
            let row = tile.row + min(i % 4u * 4u + c, tile.rows - 1u);
            if (i / 4u < n.dim) { four[c] = rounded(q[row * n.cols + head * n.dim + i / 4u]); }
        }
        queries[i] = four;
    }
}

fn scores(tile: Tile, block: Block, first: u32, t: u32) {
    let token = t % 64u;
    let four = t / 64u;
    var dot = vec4<f32>(0.0);
    for (var i = 0u; i < fours_of(n.dim); i += 1u) {
        let words = key_words(block, i, token);
        for (var g = 0u; g < PER_WORD; g += 1u) {
            let key = four_of(words, g);
            let at = (i * PER_WORD + g) * 16u + four;
            for (var c = 0u; c < 4u; c += 1u) { dot = fma(queries[at + 4u * c], vec4<f32>(key[c]), dot); }
        }
    }
    let score = dot * key_scale(block, token) * bitcast<f32>(n.scale);
    for (var c = 0u; c < 4u; c += 1u) {
        let seen = first + token < seen_by(tile, 4u * four + c);
        weights[token * 16u + 4u * four + c] = select(LOWEST, score[c], seen);
    }
}

// Converts scores to weights, and updates the running maximum and sum of each query.
fn softmax(tile: Tile, block: Block, first: u32, t: u32) {
    let lane = t % 16u;
    let row = t / 16u;
    var score: vec4<f32>;
    for (var k = 0u; k < 4u; k += 1u) { score[k] = weights[(4u * lane + k) * 16u + row]; }
    partial[t] = max(max(score.x, score.y), max(score.z, score.w));
    workgroupBarrier();
    for (var d = 8u; d > 0u; d /= 2u) {
        if (lane < d) { partial[t] = max(partial[t], partial[t + d]); }
        workgroupBarrier();
    }
    let before = largest[row];
    let next = max(before, partial[row * 16u]);
    workgroupBarrier();
    var weight: vec4<f32>;
    for (var k = 0u; k < 4u; k += 1u) {
        let token = 4u * lane + k;
        let seen = first + token < seen_by(tile, row);
        weight[k] = select(0.0, exp(score[k] - next), seen);
        weights[token * 16u + row] = weight_of(weight[k], block, token, seen);
    }
    partial[t] = weight.x + weight.y + weight.z + weight.w;
    workgroupBarrier();
    for (var d = 8u; d > 0u; d /= 2u) {
        if (lane < d) { partial[t] += partial[t + d]; }
        workgroupBarrier();
    }
    if (lane == 0u) {
        faded[row] = exp(before - next);
        total[row] = fma(total[row], faded[row], partial[t]);
        largest[row] = next;
    }
    workgroupBarrier();
}

// Sums the values of a word over `count` keys of a block, weighted for four queries.
fn value_sums(block: Block, word: u32, four: u32, count: u32) -> array<Values, 4> {
    var sums: array<Values, 4>;
    for (var slice = 0u; slice < count; slice += SLICE) {
        var of_slice: array<Values, 4>;
        for (var j = slice; j < min(slice + SLICE, count); j += 1u) {
            let value = value_word(block, word, j);
            for (var c = 0u; c < 4u; c += 1u) {
                of_slice[c] = fma(Values(weights[j * 16u + four + c]), value, of_slice[c]);
            }
        }
        for (var c = 0u; c < 4u; c += 1u) { sums[c] += of_slice[c]; }
    }
    return sums;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wg.x;
    let tile = tile_at(wg.y);
    let seen = seen_by(tile, tile.rows - 1u);
    let words = words_of(n.dim);
    // the first 32 words, which may be all of them, keep one warp busy for each four queries, not half as many warps
    let first_word = t % 32u + t / 128u * 32u;
    let four = t / 32u % 4u * 4u;
    load_queries(tile, head, t);
    var all_largest = vec4<f32>(LOWEST);
    var all_total = vec4<f32>(0.0);
    var all: array<array<Values, 4>, STEPS>;
    let chunks = (seen - 1u) / (CHUNK_BLOCKS * TOKENS) + 1u;
    for (var chunk = 0u; chunk < chunks; chunk += 1u) {
        workgroupBarrier();
        if (t < 16u) {
            largest[t] = LOWEST;
            total[t] = 0.0;
        }
        workgroupBarrier();
        var sum: array<array<Values, 4>, STEPS>;
        for (var b = 0u; b < CHUNK_BLOCKS; b += 1u) {
            let first = (chunk * CHUNK_BLOCKS + b) * TOKENS;
            if (first >= seen) { break; }
            let block = block_of_tile(tile, chunk * CHUNK_BLOCKS + b, kv_head(head));
            scores(tile, block, first, t);
            workgroupBarrier();
            softmax(tile, block, first, t);
            for (var i = 0u; i < STEPS; i += 1u) {
                let word = first_word + 64u * i;
                if (word < words) {
                    let of_block = value_sums(block, word, four, min(TOKENS, seen - first));
                    for (var c = 0u; c < 4u; c += 1u) {
                        sum[i][c] = fma(sum[i][c], Values(faded[four + c]), of_block[c]);
                    }
                }
            }
            workgroupBarrier();
        }
        for (var c = 0u; c < 4u; c += 1u) {
            let joined = join(all_largest[c], all_total[c], largest[four + c], total[four + c]);
            all_largest[c] = joined.largest;
            all_total[c] = joined.total;
            for (var i = 0u; i < STEPS; i += 1u) {
                all[i][c] = fma(sum[i][c], Values(joined.added), all[i][c] * joined.before);
            }
        }
    }
    for (var c = 0u; c < 4u; c += 1u) {
        if (four + c < tile.rows) {
            for (var i = 0u; i < STEPS; i += 1u) {
                for (var j = 0u; j < PER_WORD; j += 1u) {
                    let d = (first_word + 64u * i) * PER_WORD + j;
                    if (d < n.dim) {
                        out[((tile.row + four + c) * n.heads + head) * n.dim + d] = value_of(all[i][c], j) / all_total[c];
                    }
                }
            }
        }
    }
}
