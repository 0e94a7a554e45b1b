// Code that all kernels share. Each declares `struct Numbers` and `var<immediate> n: Numbers`: its parameters, u32
// each, in the order in which `kernel.rs` names them.

// Rows run along y, and also along z if there are more than one dimension of a dispatch can have.
const ROWS_PER_LAYER: u32 = 32768u;
fn row_of(wg: vec3<u32>) -> u32 { return wg.z * ROWS_PER_LAYER + wg.y; }

fn bf16_low(word: u32) -> f32 { return bitcast<f32>(word << 16u); }
fn bf16_high(word: u32) -> f32 { return bitcast<f32>(word & 0xffff0000u); }

// Rounds `x` to bf16, nearest even, and returns its bits in the high half.
fn bf16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits | 0x400000u) & 0xffff0000u; }
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u;
}
fn round_bf16(x: f32) -> f32 { return bitcast<f32>(bf16_bits(x)); }
