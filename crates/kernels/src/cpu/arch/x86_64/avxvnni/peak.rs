//! The most that the instruction set can do: multiply-adds on registers alone.

use std::arch::x86_64::*;
use std::hint::black_box;

/// Enough independent chains to hide the latency of 4 cycles at two instructions per cycle.
const CHAINS: usize = 12;

#[target_feature(enable = "avx2,avxvnni")]
pub(crate) fn int8(rounds: usize) -> usize {
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    let (a, b) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(5)));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = _mm256_dpbusd_avx_epi32(*sum, a, b));
    }
    black_box(sums);
    rounds * CHAINS * 32 * 2
}
