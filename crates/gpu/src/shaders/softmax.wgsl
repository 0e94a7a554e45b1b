// Code shared by the attention kernels. A chunk is 4 blocks of 64 keys. Chunks are summed separately and joined in
// order, however many workgroups compute them.
const CHUNK_BLOCKS: u32 = 4u;
// Keys whose values are summed separately, in order within a block.
const SLICE: u32 = 8u;
const LOWEST: f32 = -3.4e38;

// The sums including one more chunk: the largest score, the sum of the weights, and the factors of the two sums of
// values.
struct Joined { largest: f32, total: f32, before: f32, added: f32 }
fn join(largest: f32, total: f32, of_largest: f32, of_total: f32) -> Joined {
    let next = max(largest, of_largest);
    let before = exp(largest - next);
    let added = exp(of_largest - next);
    return Joined(next, fma(of_total, added, total * before), before, added);
}
