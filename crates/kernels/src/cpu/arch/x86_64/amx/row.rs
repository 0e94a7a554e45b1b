//! Attention of a single row over 8-bit keys and values, as they are stored.
//!
//! The sums are computed in the order of the tiles, so that a row has the same bits alone and together with others.
//! For each 32 values along K, the values with even and those with odd numbers are summed separately; the two sums
//! are added, and the result is added to the previous sum. (Tiles treat values below 2^-126 as zero; this code does
//! not.) `vfmadd` does this at twice the rate at which these processors multiply pairs.

use super::rectangle::STEP;
use crate::KV_BLOCK_TOKENS;
use crate::cpu::arch::x86_64::avx512::attention::{bytes, load_words};
use crate::cpu::arch::x86_64::avx512::math::{load, store};
use crate::cpu::prefetch::Ahead;
use crate::cpu::table::attention::SingleRow;
use std::arch::x86_64::*;

/// See [`SingleRow`].
pub(super) const Q8: SingleRow = SingleRow { scores, values };

/// Words, each a pair, that four bytes are multiplied by.
const WORDS: usize = 2;
/// Registers of columns that are summed together.
const REGISTERS: usize = KV_BLOCK_TOKENS / 16;

/// The sums of one step.
struct StepSums {
    even: [__m512; REGISTERS],
    odd: [__m512; REGISTERS],
}

impl StepSums {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn zero() -> Self {
        Self { even: [_mm512_setzero_ps(); REGISTERS], odd: [_mm512_setzero_ps(); REGISTERS] }
    }

    /// Adds the products of two words, which are four values, and registers of four bytes each.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(&mut self, words: &[u32; WORDS], lanes: &[[u32; 16]]) {
        const HIGH: u32 = 0xffff_0000;
        let [even, odd, even2, odd2] =
            [words[0] << 16, words[0] & HIGH, words[1] << 16, words[1] & HIGH].map(f32::from_bits);
        let (even, odd) = (_mm512_set1_ps(even), _mm512_set1_ps(odd));
        let (even2, odd2) = (_mm512_set1_ps(even2), _mm512_set1_ps(odd2));
        for (j, lanes) in lanes.iter().enumerate().take(REGISTERS) {
            let [a, b, c, d] = bytes(load_words(lanes));
            self.even[j] = _mm512_fmadd_ps(even2, c, _mm512_fmadd_ps(even, a, self.even[j]));
            self.odd[j] = _mm512_fmadd_ps(odd2, d, _mm512_fmadd_ps(odd, b, self.odd[j]));
        }
    }

    /// Adds the step to `sums`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add_to(&self, sums: &mut [__m512; REGISTERS]) {
        for ((sum, even), odd) in sums.iter_mut().zip(self.even).zip(self.odd) {
            *sum = _mm512_add_ps(*sum, _mm512_add_ps(even, odd));
        }
    }
}

/// See [`SingleRow::scores`].
#[target_feature(enable = "avx512f")]
fn scores(query: &[u32], keys: &[u32], ahead: Ahead<'_>, scores: &mut [f32]) {
    const LINES: usize = KV_BLOCK_TOKENS / Ahead::LINE_WORDS;
    let mut sums = [_mm512_setzero_ps(); REGISTERS];
    let steps = query.chunks(STEP).zip(keys.chunks(STEP / WORDS * KV_BLOCK_TOKENS));
    for (i, (query, keys)) in steps.enumerate() {
        let mut step = StepSums::zero();
        let rows = query.as_chunks().0.iter().zip(keys.as_chunks::<KV_BLOCK_TOKENS>().0);
        for (j, (words, keys)) in rows.enumerate() {
            ahead.fetch_lines(LINES * (i * STEP / WORDS + j), LINES);
            step.add(words, keys.as_chunks().0);
        }
        step.add_to(&mut sums);
    }
    for (scores, sum) in scores.chunks_exact_mut(16).zip(sums) {
        store(scores, sum);
    }
}

/// See [`SingleRow::values`].
#[target_feature(enable = "avx512f")]
fn values(weights: &[u32], values: &[u32], ahead: Ahead<'_>, sums: &mut [f32]) {
    let dim = sums.len();
    let lines = dim / Ahead::LINE_WORDS;
    for (part, sums) in sums.chunks_mut(16 * REGISTERS).enumerate() {
        let count = sums.len() / 16;
        let mut acc = [_mm512_setzero_ps(); REGISTERS];
        for (acc, sums) in acc.iter_mut().zip(sums.chunks_exact(16)) {
            *acc = load(sums);
        }
        let steps = weights.chunks(STEP).zip(values.chunks(STEP / WORDS * dim));
        for (i, (weights, values)) in steps.enumerate() {
            let mut step = StepSums::zero();
            for (j, (words, values)) in weights.as_chunks().0.iter().zip(values.chunks_exact(dim)).enumerate()
            {
                if part == 0 {
                    ahead.fetch_lines(lines * (i * STEP / WORDS + j), lines);
                }
                let values = values[16 * REGISTERS * part..].as_chunks().0;
                step.add(words, &values[..count]);
            }
            step.add_to(&mut acc);
        }
        for (sums, acc) in sums.chunks_exact_mut(16).zip(acc) {
            store(sums, acc);
        }
    }
}
