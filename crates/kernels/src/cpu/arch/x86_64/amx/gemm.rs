//! The matrix kernel of bf16: tiles of 32 rows x 64 columns, computed two by two registers of sums at a time.
//!
//! A panel has the layout of AVX-512, `[words, 64]`; every 16 rows by 16 columns of it are a register of weights. The
//! input is packed in a similar way, in steps of 16 words: `[32, 16]`, so that a row of a register is a cache line.

use super::rectangle::{Left, Pass, Right, STEP, Sums, multiply};
use super::tiles::{Configured, TILE, Tiles};
use crate::cpu::arch::x86_64::avx512::load::{Words, input_pairs, input_words};
use crate::cpu::arch::x86_64::avx512::math::mask;
use crate::cpu::arch::x86_64::avx512::pack;
use crate::cpu::table::dense::GemmKernel;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Rows of a tile.
pub(super) const ROWS: usize = 2 * TILE;
/// Columns of a panel, and of a piece of it.
const PANEL: usize = 64;
const COLUMNS: usize = 2 * TILE;

/// The kernel on tiles of type `T`.
pub(super) struct Kernel<T>(PhantomData<T>);

impl<T: Tiles> Kernel<T> {
    /// The kernel with pairs of bf16.
    pub(super) const BF16: GemmKernel =
        GemmKernel { rows: ROWS, group: 2, pack_input, pack_weights: pack::weights_pairs, tile: tile::<T> };
}

/// See [`GemmKernel::pack_input`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_input(x: &[f32], k: usize, out: &mut [u32]) {
    for r in 0..ROWS {
        let row = x.get(r * k..(r + 1) * k).unwrap_or_default();
        for (step, out) in out.chunks_mut(ROWS * STEP).enumerate() {
            // the last step may have fewer words
            let words = out.len() / ROWS;
            let pairs = match row.get(2 * STEP * step..2 * STEP * (step + 1)) {
                Some(whole) => input_pairs(whole),
                None => input_words(row, Words::Pairs, STEP * step),
            };
            let to = &mut out[r * words..(r + 1) * words];
            // SAFETY: the mask leaves out lanes beyond the slice, and masked lanes are not accessed.
            unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), mask(words), pairs) };
        }
    }
}

/// See [`GemmKernel::tile`].
fn tile<T: Tiles>(words: usize, input: &[u32], panel: &[u32], sums: &mut [f32], accumulate: bool) {
    assert!(input.len() >= words * ROWS && panel.len() >= words * PANEL && sums.len() >= ROWS * PANEL);
    let sums = sums.as_mut_ptr();
    for pass in Pass::all(words) {
        // SAFETY: this level has AMX. Steps of `[32, words]` follow each other in the input, and steps of `[words,
        // 64]` in the panel; both and the sums are as large as asserted.
        unsafe {
            let _tiles = Configured::<T>::new(&pass.shapes());
            for col in (0..PANEL).step_by(COLUMNS) {
                let row = pass.row_bytes();
                let left = Left { start: input.as_ptr().add(pass.first * ROWS), row, step: ROWS * row };
                let of_step = |step: usize| panel.as_ptr().add((pass.first + step * STEP) * PANEL + col);
                let right = Right { of_step, row: PANEL * size_of::<u32>() };
                let accumulate = accumulate || pass.first > 0;
                let sums = Sums { start: sums.add(col), row: PANEL * size_of::<f32>(), accumulate };
                multiply::<T, ROWS, COLUMNS>(left, right, sums, pass.steps, |_| {});
            }
        }
    }
}
