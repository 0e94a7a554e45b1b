//! What the instruction set can do at most: multiply-adds on registers alone.

use std::hint::black_box;

/// Eight chains of multiply-adds as the compiler makes them.
pub(crate) fn f32(rounds: usize) -> usize {
    let (mut sums, factor) = ([1.0f32; 8], black_box(0.5f32));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = *sum * factor + factor);
    }
    black_box(sums);
    rounds * 8 * 2
}
