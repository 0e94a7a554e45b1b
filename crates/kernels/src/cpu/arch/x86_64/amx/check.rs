//! Compares one small product of each bf16 tile kernel with integers. This takes a few microseconds before the
//! kernels are used.

use super::attention;
use super::gemm::{self, ROWS};
use super::tiles::Tiles;
use crate::KV_BLOCK_TOKENS;
use crate::cpu::table::attention::{OVERLAPPED_ROWS, Products, Queries, SCORES_STRIDE};

/// Returns a small integer. bf16 and f32 represent the products and sums of these integers exactly, so the order of a
/// sum does not matter.
fn number(i: usize, j: usize) -> i32 {
    (i * 7 + j * 3 + i * j % 5) as i32 % 17 - 8
}

/// Packs two such integers as a word.
fn word(low: i32, high: i32) -> u32 {
    ((low as f32).to_bits() >> 16) | (high as f32).to_bits()
}

/// Returns whether the tile products are correct on this processor.
///
/// # Safety
/// The processor must have AVX-512 with BF16 and AMX-BF16, and the system must let this process use them.
pub(crate) unsafe fn bf16_is_right<T: Tiles>() -> bool {
    // SAFETY: by the caller's promise.
    unsafe { gemm_is_right::<T>() && attention_is_right::<T>() }
}

/// Words along K: a whole step and a part of one.
const WORDS: usize = 24;

/// Returns the expected sum, over `words` words, of the products of a row of numbers and a column of others.
fn expected(row: usize, column: usize, words: usize) -> f32 {
    (0..2 * words).map(|k| number(row, k) * number(k, column)).sum::<i32>() as f32
}

/// # Safety
/// Same as for [`bf16_is_right`].
unsafe fn gemm_is_right<T: Tiles>() -> bool {
    const PANEL: usize = 64;
    let kernel = gemm::Kernel::<T>::BF16;
    let x: Vec<f32> =
        (0..ROWS * 2 * WORDS).map(|i| number(i / (2 * WORDS), i % (2 * WORDS)) as f32).collect();
    let panel: Vec<u32> = (0..WORDS * PANEL)
        .map(|i| (i / PANEL * 2, i % PANEL))
        .map(|(k, col)| word(number(k, col), number(k + 1, col)))
        .collect();
    let (mut input, mut sums) = (vec![0; ROWS * WORDS], vec![1.0; ROWS * PANEL]);
    // SAFETY: by the caller's promise.
    unsafe {
        (kernel.pack_input)(&x, 2 * WORDS, &mut input);
        (kernel.tile)(WORDS, &input, &panel, &mut sums, true);
    }
    sums.iter().enumerate().all(|(i, &sum)| sum == 1.0 + expected(i / PANEL, i % PANEL, WORDS))
}

/// # Safety
/// Same as for [`bf16_is_right`].
unsafe fn attention_is_right<T: Tiles>() -> bool {
    const DIM: usize = 2 * WORDS;
    const COUNT: usize = 96;
    let Products::Overlapped(products) = attention::Kernel::<T>::BF16.products else { return false };
    let left = |stride: usize| -> Vec<u32> {
        let words = (0..OVERLAPPED_ROWS * stride).map(|i| (i / stride, i % stride * 2));
        words.map(|(row, k)| word(number(row, k), number(row, k + 1))).collect()
    };
    // words of `rows` rows from `first` on, each with `columns` columns from number `column` on
    let right = |first: usize, rows: usize, columns: usize, column: usize| -> Vec<u32> {
        let words = (0..rows * columns).map(|i| (2 * (first + i / columns), column + i % columns));
        words.map(|(k, col)| word(number(k, col), number(k + 1, col))).collect()
    };
    let keys = [0, KV_BLOCK_TOKENS].map(|token| right(0, WORDS, KV_BLOCK_TOKENS, token));
    let values = [0, KV_BLOCK_TOKENS / 2].map(|first| right(first, KV_BLOCK_TOKENS / 2, DIM, 0));
    let (queries, weights) = (left(WORDS), left(COUNT / 2));
    let of = |words, stride| Queries { words, rows: OVERLAPPED_ROWS, count: stride, stride };
    let (mut scores, mut sums) =
        (vec![0.0; OVERLAPPED_ROWS * SCORES_STRIDE], vec![1.0; OVERLAPPED_ROWS * DIM]);
    // SAFETY: by the caller's promise.
    unsafe {
        (products.scores)(
            of(&queries, WORDS),
            &keys.each_ref().map(|k| &k[..]),
            COUNT,
            &mut scores,
            &mut || {},
        );
        (products.values)(
            of(&weights, COUNT / 2),
            &values.each_ref().map(|v| &v[..]),
            DIM,
            &mut sums,
            &mut || {},
        );
    }
    let score = |i: usize| scores[i / COUNT * SCORES_STRIDE + i % COUNT];
    let sum = |i: usize| 1.0 + expected(i / DIM, i % DIM, COUNT / 2);
    (0..OVERLAPPED_ROWS * COUNT).all(|i| score(i) == expected(i / COUNT, i % COUNT, WORDS))
        && (0..OVERLAPPED_ROWS * DIM).all(|i| sums[i] == sum(i))
}

#[cfg(test)]
mod tests {
    use super::super::tiles::{Plain, Shapes};
    use super::*;
    use crate::testing;

    /// Tiles that give wrong sums for the second columns.
    enum Wrong {}

    impl Tiles for Wrong {
        unsafe fn configure(shapes: &Shapes) {
            // SAFETY: by the caller's promise.
            unsafe { Plain::configure(shapes) };
        }
        unsafe fn release() {
            // SAFETY: by the caller's promise.
            unsafe { Plain::release() };
        }
        unsafe fn zero<const T: u8>() {
            // SAFETY: by the caller's promise.
            unsafe { Plain::zero::<T>() };
        }
        unsafe fn load<const T: u8, const AT: usize>(base: *const u8, stride: usize) {
            // SAFETY: by the caller's promise.
            unsafe { Plain::load::<T, AT>(base, stride) };
        }
        unsafe fn store<const T: u8, const AT: usize>(base: *mut u8, stride: usize) {
            // SAFETY: by the caller's promise.
            unsafe { Plain::store::<T, AT>(base, stride) };
        }
        unsafe fn dot_bytes<const C: u8, const A: u8, const B: u8>() {
            // SAFETY: by the caller's promise.
            unsafe { Plain::dot_bytes::<C, A, B>() };
        }
        unsafe fn dot_pairs<const C: u8, const A: u8, const B: u8>() {
            // SAFETY: by the caller's promise.
            unsafe { if B == 7 { Plain::zero::<C>() } else { Plain::dot_pairs::<C, A, B>() } };
        }
    }

    #[test]
    fn right_products_are_trusted_and_wrong_ones_are_not() {
        if !is_x86_feature_detected!("avx512bf16") {
            testing::skip("the check of tiles", "use a processor with AVX-512 BF16");
            return;
        }
        // SAFETY: the processor has AVX-512 BF16, and tiles in plain Rust need nothing else.
        unsafe {
            assert!(gemm_is_right::<Plain>() && attention_is_right::<Plain>());
            assert!(!gemm_is_right::<Wrong>() && !attention_is_right::<Wrong>());
            assert!(bf16_is_right::<Plain>() && !bf16_is_right::<Wrong>());
        }
    }
}
