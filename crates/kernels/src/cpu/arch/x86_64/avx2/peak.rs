//! The most that the instruction set can do: multiply-adds on registers alone.

use std::arch::x86_64::*;
use std::hint::black_box;

/// Enough independent chains to hide the latency of 4 cycles at two instructions per cycle.
const CHAINS: usize = 12;

/// Without VNNI the most is the arithmetic of q4: products of bytes in pairs, summed in 16 bits. q8, whose products
/// need 32 bits, can reach half of it.
#[target_feature(enable = "avx2")]
pub(crate) fn int8(rounds: usize) -> usize {
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    let a = black_box(_mm256_set1_epi8(3));
    for _ in 0..rounds {
        let b = black_box(a);
        sums.iter_mut().for_each(|sum| *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(b, *sum)));
    }
    black_box(sums);
    rounds * CHAINS * 32 * 2
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn f32(rounds: usize) -> usize {
    let mut sums = [_mm256_setzero_ps(); CHAINS];
    let (a, b) = (black_box(_mm256_set1_ps(0.5)), black_box(_mm256_set1_ps(0.5)));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(a, b, *sum));
    }
    black_box(sums);
    rounds * CHAINS * 8 * 2
}
