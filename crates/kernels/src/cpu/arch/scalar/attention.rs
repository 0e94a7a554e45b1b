//! Attention, one query at a time.

use crate::cpu::table::attention::{CHUNK_KEYS, KeyValues, RowState, Seen};
use crate::cpu::table::kv::{KvHeadMut, KvRows};
use half::bf16;
use std::ops::Range;

/// Stores keys and values of consecutive tokens, beginning at token `t` of a block, see [`KvHeadMut::store`].
pub(crate) fn store_kv(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>) {
    for i in 0..rows.count {
        let (key, value) = rows.token(i);
        head.store(t + i, key, value);
    }
}

/// `out = softmax(q Kᵀ / sqrt(dim)) V` for one query, `[dim]`, over the tokens it sees, chunk by chunk.
pub(crate) fn single(q: &[f32], kv: &dyn KeyValues, seen: Seen, scratch: &mut [f32], out: &mut [f32]) {
    let (chunk_values, scratch) = scratch.split_at_mut(q.len());
    let mut state = RowState::EMPTY;
    for first in (0..seen.tokens).step_by(CHUNK_KEYS) {
        let tokens = first..seen.tokens.min(first + CHUNK_KEYS);
        let chunk = single_chunk(q, kv, tokens, seen.bf16, scratch, chunk_values);
        state.merge(out, chunk, chunk_values, f32::exp);
    }
    out.iter_mut().for_each(|out| *out /= state.sum);
}

/// Computes the weighted values of a chunk of tokens, `[dim]`, not divided by the sum of the weights. Returns the
/// state of the softmax.
fn single_chunk(
    q: &[f32],
    kv: &dyn KeyValues,
    tokens: Range<usize>,
    bf16: bool,
    scratch: &mut [f32],
    values: &mut [f32],
) -> RowState {
    let round = |v: f32| if bf16 { bf16::from_f32(v).to_f32() } else { v };
    let (row, weights) = scratch.split_at_mut(q.len());
    let weights = &mut weights[..tokens.len()];
    let scale = 1.0 / (q.len() as f32).sqrt();
    let mut state = RowState::EMPTY;
    for (t, score) in tokens.clone().zip(&mut *weights) {
        kv.key(t, row);
        *score = q.iter().zip(&*row).map(|(q, k)| round(*q) * k).sum::<f32>() * scale;
        state.largest = state.largest.max(*score);
    }
    values.fill(0.0);
    for (t, weight) in tokens.zip(weights) {
        *weight = (*weight - state.largest).exp();
        state.sum += *weight;
        kv.value(t, row);
        values.iter_mut().zip(&*row).for_each(|(value, v)| *value += round(*weight) * v);
    }
    state
}
