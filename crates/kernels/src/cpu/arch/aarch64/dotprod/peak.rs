//! The most that the instruction set can do: dot products on registers alone.

use super::packed::sdot;
use std::arch::aarch64::*;
use std::hint::black_box;

/// Enough independent chains to hide the latency of 4 cycles at four instructions per cycle.
const CHAINS: usize = 16;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn int8(rounds: usize) -> usize {
    let mut sums = [vdupq_n_s32(0); CHAINS];
    let (a, b) = (black_box(vdupq_n_s8(3)), black_box(vdupq_n_s8(5)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sdot::<0>(*sum, a, b);
        }
    }
    black_box(sums);
    rounds * CHAINS * 16 * 2
}
