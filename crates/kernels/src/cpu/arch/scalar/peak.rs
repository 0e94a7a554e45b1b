//! The most that the instruction set can do: multiply-adds on registers alone.

use std::hint::black_box;

/// Runs eight chains of multiply-adds, in the form that the compiler generates.
pub(crate) fn f32(rounds: usize) -> usize {
    let (mut sums, factor) = ([1.0f32; 8], black_box(0.5f32));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = *sum * factor + factor);
    }
    black_box(sums);
    rounds * 8 * 2
}
