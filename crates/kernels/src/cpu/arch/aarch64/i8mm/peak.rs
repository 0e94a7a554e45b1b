//! The most that the instruction set can do: products of small matrices on registers alone.

use super::{bfmmla, usmmla};
use std::arch::aarch64::*;
use std::hint::black_box;

/// Enough independent chains to hide the latency of 4 cycles at four instructions per cycle.
const CHAINS: usize = 16;

#[target_feature(enable = "neon,i8mm")]
pub(super) fn int8(rounds: usize) -> usize {
    let mut sums = [vdupq_n_s32(0); CHAINS];
    let (a, b) = (black_box(vdupq_n_u8(3)), black_box(vdupq_n_s8(5)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = usmmla(*sum, a, b);
        }
    }
    black_box(sums);
    rounds * CHAINS * 4 * 8 * 2
}

#[target_feature(enable = "neon,bf16")]
pub(super) fn bf16(rounds: usize) -> usize {
    let mut sums = [vdupq_n_f32(0.0); CHAINS];
    // pairs of 0.5
    let a = black_box(vdupq_n_u32(0x3f00_3f00));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = bfmmla(*sum, a, a);
        }
    }
    black_box(sums);
    rounds * CHAINS * 4 * 4 * 2
}
