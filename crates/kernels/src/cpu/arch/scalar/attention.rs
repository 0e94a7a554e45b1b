//! Attention, one query at a time.

use crate::cpu::table::attention::{KeyValues, Seen};
use crate::cpu::table::kv::{KvHeadMut, KvRows};
use half::bf16;

/// Stores keys and values of consecutive tokens from token `t` of a block on, see [`KvHeadMut::store`].
pub(crate) fn store_kv(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>) {
    for i in 0..rows.count {
        let (key, value) = rows.token(i);
        head.store(t + i, key, value);
    }
}

/// `out = softmax(q Kᵀ / sqrt(dim)) V` for one query, `[dim]`, over the tokens it sees.
pub(crate) fn single(q: &[f32], kv: &dyn KeyValues, seen: Seen, scratch: &mut [f32], out: &mut [f32]) {
    let Seen { tokens, bf16 } = seen;
    let round = |v: f32| if bf16 { bf16::from_f32(v).to_f32() } else { v };
    let (row, weights) = scratch.split_at_mut(q.len());
    let scale = 1.0 / (q.len() as f32).sqrt();
    let mut largest = f32::NEG_INFINITY;
    for (t, score) in weights[..tokens].iter_mut().enumerate() {
        kv.key(t, row);
        *score = q.iter().zip(&*row).map(|(q, k)| round(*q) * k).sum::<f32>() * scale;
        largest = largest.max(*score);
    }
    let mut sum = 0.0;
    out.fill(0.0);
    for (t, weight) in weights[..tokens].iter_mut().enumerate() {
        *weight = (*weight - largest).exp();
        sum += *weight;
        kv.value(t, row);
        out.iter_mut().zip(&*row).for_each(|(out, v)| *out += round(*weight) * v);
    }
    out.iter_mut().for_each(|out| *out /= sum);
}
