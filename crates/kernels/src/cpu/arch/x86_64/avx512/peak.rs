//! The most that the instruction set can do: multiply-adds on registers alone.

use std::arch::x86_64::*;
use std::hint::black_box;

/// Enough independent chains to hide the latency of 4 cycles at two instructions per cycle.
const CHAINS: usize = 12;

#[target_feature(enable = "avx512f,avx512vnni")]
pub(crate) fn int8(rounds: usize) -> usize {
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = _mm512_dpbusd_epi32(*sum, a, b));
    }
    black_box(sums);
    rounds * CHAINS * 64 * 2
}

#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn bf16(rounds: usize) -> usize {
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    let one = _mm512_set1_ps(1.0);
    let (a, b) = (black_box(_mm512_cvtne2ps_pbh(one, one)), black_box(_mm512_cvtne2ps_pbh(one, one)));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, a, b));
    }
    black_box(sums);
    rounds * CHAINS * 32 * 2
}

#[target_feature(enable = "avx512f")]
pub(crate) fn f32(rounds: usize) -> usize {
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    let (a, b) = (black_box(_mm512_set1_ps(0.5)), black_box(_mm512_set1_ps(0.5)));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(a, b, *sum));
    }
    black_box(sums);
    rounds * CHAINS * 16 * 2
}
