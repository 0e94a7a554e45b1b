// Quantized activations: rows in groups of 128 values, as in the CPU's kernels. A group is 32 words of four signed
// bytes, and a RowMeta; a byte q stands for q * scale. Up to two outliers, values far larger than the rest, count as 0
// among the bytes and are multiplied in f32.
const GROUP: u32 = 128u;
const QUADS: u32 = 32u; // words of a group

struct RowMeta {
    scale: f32,
    sums_low: u32,  // sums of values 0..32 and 32..64, i16 each
    sums_high: u32, // of 64..96 and 96..128
    outlier_0: f32,
    outlier_1: f32,
    places: u32, // of both outliers in the group, 8 bits each, then their count
    unused_0: u32,
    unused_1: u32,
}
