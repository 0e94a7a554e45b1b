//! The most that the instruction set can do: multiply-adds on registers alone.

use std::arch::aarch64::*;
use std::hint::black_box;

/// Enough independent chains to hide the latency of 4 cycles at four instructions per cycle.
const CHAINS: usize = 16;

/// Without dot products the most is the arithmetic of q8: two products in 16 bits, then pairs of them added in 32
/// bits.
#[target_feature(enable = "neon")]
pub(super) fn int8(rounds: usize) -> usize {
    let mut sums = [vdupq_n_s32(0); CHAINS];
    let (a, b) = (black_box(vdup_n_s8(3)), black_box(vdup_n_s8(5)));
    for _ in 0..rounds {
        for i in 0..CHAINS {
            // four different factors: a compiler would merge products that share one
            let [x, y] = [sums[i], sums[(i + 1) % CHAINS]].map(|sum| vreinterpret_s8_s32(vget_low_s32(sum)));
            sums[i] = vpadalq_s16(sums[i], vmlal_s8(vmull_s8(a, x), b, y));
        }
    }
    black_box(sums);
    rounds * CHAINS * 16 * 2
}

#[target_feature(enable = "neon")]
pub(super) fn f32(rounds: usize) -> usize {
    let mut sums = [vdupq_n_f32(0.0); CHAINS];
    let (a, b) = (black_box(vdupq_n_f32(0.5)), black_box(vdupq_n_f32(0.5)));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = vfmaq_f32(*sum, a, b));
    }
    black_box(sums);
    rounds * CHAINS * 4 * 2
}
