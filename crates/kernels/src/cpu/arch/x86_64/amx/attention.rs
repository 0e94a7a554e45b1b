//! The products of blocked attention, see [`crate::cpu::ops::flash`], on tiles of bf16. Everything between them uses
//! AVX-512 and runs at the same time.
//!
//! Panels of keys, `[dim / 2, 64]` words, and of values, `[32, dim]` words, are registers of the right factor in
//! their stored layout: 16 rows by 16 columns. Queries and weights are rows of the left factor.

use super::rectangle::{Left, Pass, Right, STEP, Sums, multiply};
use super::row;
use super::tiles::{Configured, TILE, Tiles};
use crate::KV_BLOCK_TOKENS;
use crate::cpu::arch::x86_64::avx512;
use crate::cpu::table::attention::{
    FlashKernel, Meanwhile, OVERLAPPED_ROWS, Overlapped, Products, Queries, SCORES_STRIDE, SingleRows,
};
use std::marker::PhantomData;

/// Columns of a piece: two registers.
const COLUMNS: usize = 2 * TILE;
/// Steps per panel of values.
const PANEL_STEPS: usize = KV_BLOCK_TOKENS / 2 / STEP;
/// Steps of values, of four products each, between two calls of `meanwhile`: as many products as two steps of scores.
const STEPS_BETWEEN: usize = 4;

const _: () = assert!(OVERLAPPED_ROWS == 2 * TILE && KV_BLOCK_TOKENS.is_multiple_of(COLUMNS));

/// The kernel on tiles of type `T`.
pub(super) struct Kernel<T>(PhantomData<T>);

impl<T: Tiles> Kernel<T> {
    /// The kernel with pairs of bf16.
    pub(super) const BF16: FlashKernel = FlashKernel {
        products: Products::Overlapped(Overlapped { scores: scores::<T>, values: values::<T> }),
        single_rows: SingleRows { f32: None, bf16: None, q8: Some(row::Q8) },
        ..avx512::FLASH_BF16
    };
}

/// See [`Overlapped::scores`].
fn scores<T: Tiles>(
    q: Queries<'_>,
    panels: &[&[u32]],
    count: usize,
    scores: &mut [f32],
    meanwhile: Meanwhile<'_>,
) {
    match q.rows {
        ..=TILE => scores_of::<T, TILE>(q, panels, count, scores, meanwhile),
        _ => scores_of::<T, OVERLAPPED_ROWS>(q, panels, count, scores, meanwhile),
    }
}

/// Computes [`scores`] for up to `ROWS` rows.
#[inline(always)]
fn scores_of<T: Tiles, const ROWS: usize>(
    q: Queries<'_>,
    panels: &[&[u32]],
    count: usize,
    scores: &mut [f32],
    meanwhile: Meanwhile<'_>,
) {
    assert!(q.rows <= ROWS && q.words.len() >= (ROWS - 1) * q.stride + q.count, "queries");
    assert!(panels.len() * KV_BLOCK_TOKENS >= count, "keys");
    assert!(panels.iter().all(|panel| panel.len() >= q.count * KV_BLOCK_TOKENS), "keys of a panel");
    assert!(scores.len() >= (ROWS - 1) * SCORES_STRIDE + count.next_multiple_of(COLUMNS), "scores");
    let scores = scores.as_mut_ptr();
    for pass in Pass::all(q.count) {
        // SAFETY: this level has AMX; the largest offsets reached are those asserted.
        unsafe {
            let _tiles = Configured::<T>::new(&pass.shapes());
            let start = q.words.as_ptr().add(pass.first);
            let left = Left { start, row: q.stride * size_of::<u32>(), step: STEP * size_of::<u32>() };
            for key in (0..count).step_by(COLUMNS) {
                let panel = panels[key / KV_BLOCK_TOKENS].as_ptr().add(key % KV_BLOCK_TOKENS);
                let of_step = |step: usize| panel.add((pass.first + step * STEP) * KV_BLOCK_TOKENS);
                let right = Right { of_step, row: KV_BLOCK_TOKENS * size_of::<u32>() };
                let row = SCORES_STRIDE * size_of::<f32>();
                let sums = Sums { start: scores.add(key), row, accumulate: pass.first > 0 };
                multiply::<T, ROWS, COLUMNS>(left, right, sums, pass.steps, |_| {});
                meanwhile();
            }
        }
    }
}

/// See [`Overlapped::values`].
fn values<T: Tiles>(
    weights: Queries<'_>,
    panels: &[&[u32]],
    dim: usize,
    sums: &mut [f32],
    meanwhile: Meanwhile<'_>,
) {
    match weights.rows {
        ..=TILE => values_of::<T, TILE>(weights, panels, dim, sums, meanwhile),
        _ => values_of::<T, OVERLAPPED_ROWS>(weights, panels, dim, sums, meanwhile),
    }
}

/// Computes [`values`] for up to `ROWS` rows.
#[inline(always)]
fn values_of<T: Tiles, const ROWS: usize>(
    weights: Queries<'_>,
    panels: &[&[u32]],
    dim: usize,
    sums: &mut [f32],
    meanwhile: Meanwhile<'_>,
) {
    let Queries { words, rows, count, stride } = weights;
    assert!(count > 0 && count.is_multiple_of(STEP) && dim.is_multiple_of(TILE), "{count} words by {dim}");
    assert!(rows <= ROWS && words.len() >= (ROWS - 1) * stride + count, "weights");
    assert!(panels.len() * PANEL_STEPS * STEP >= count, "values");
    assert!(panels.iter().all(|panel| panel.len() >= PANEL_STEPS * STEP * dim), "values of a panel");
    assert!(sums.len() >= ROWS * dim, "sums");
    let sums = sums.as_mut_ptr();
    for pass in Pass::all(count) {
        // SAFETY: this level has AMX; the largest offsets reached are those asserted.
        unsafe {
            let _tiles = Configured::<T>::new(&pass.shapes());
            let left =
                Left { start: words.as_ptr(), row: stride * size_of::<u32>(), step: STEP * size_of::<u32>() };
            for col in (0..dim).step_by(COLUMNS) {
                let of_step = |step: usize| {
                    panels[step / PANEL_STEPS].as_ptr().add(step % PANEL_STEPS * STEP * dim + col)
                };
                let right = Right { of_step, row: dim * size_of::<u32>() };
                let sums = Sums { start: sums.add(col), row: dim * size_of::<f32>(), accumulate: true };
                let after = |step: usize| {
                    if step % STEPS_BETWEEN == STEPS_BETWEEN - 1 {
                        meanwhile();
                    }
                };
                if dim - col == TILE {
                    multiply::<T, ROWS, TILE>(left, right, sums, pass.steps, after);
                } else {
                    multiply::<T, ROWS, COLUMNS>(left, right, sums, pass.steps, after);
                }
            }
        }
    }
}
