//! Attention over the KV cache (causal) and within image tiles (full): how it is cut into tasks.

use super::Cpu;
use super::kv::{CpuKvPool, KvHead};
use super::scalar::{self, KeyValues};
use super::tensor::CpuTensor;
use crate::threads::SharedMut;
use crate::{FullAttention, Heads, KV_BLOCK_TOKENS, KvFormat, Precision, Span};
use half::bf16;

/// One head of a sequence's cached keys and values.
struct Cached<'a> {
    pool: &'a CpuKvPool,
    blocks: &'a [u32],
    layer: usize,
    head: usize,
}

impl Cached<'_> {
    fn block_of(&self, t: usize) -> KvHead<'_> {
        self.pool.head(self.blocks[t / KV_BLOCK_TOKENS], self.layer, self.head)
    }
}

impl KeyValues for Cached<'_> {
    fn key(&self, t: usize, out: &mut [f32]) {
        self.block_of(t).read_key(t % KV_BLOCK_TOKENS, out);
    }

    fn value(&self, t: usize, out: &mut [f32]) {
        self.block_of(t).read_value(t % KV_BLOCK_TOKENS, out);
    }
}

/// One head of the keys and values of a tile.
struct Tile<'a> {
    keys: &'a CpuTensor,
    values: &'a CpuTensor,
    first_row: usize,
    head: usize,
    bf16: bool,
}

impl Tile<'_> {
    fn read(&self, tensor: &CpuTensor, t: usize, out: &mut [f32]) {
        let dim = out.len();
        let row = tensor.row(self.first_row + t);
        for (out, v) in out.iter_mut().zip(&row[self.head * dim..]) {
            *out = if self.bf16 { bf16::from_f32(*v).to_f32() } else { *v };
        }
    }
}

impl KeyValues for Tile<'_> {
    fn key(&self, t: usize, out: &mut [f32]) {
        self.read(self.keys, t, out);
    }

    fn value(&self, t: usize, out: &mut [f32]) {
        self.read(self.values, t, out);
    }
}

/// The span that batch row `row` belongs to.
fn span_of<'a, 's>(spans: &'a [Span<'s>], row: usize) -> Option<&'a Span<'s>> {
    spans.iter().find(|span| span.rows.contains(&row))
}

impl Cpu {
    /// Causal attention, one task per row and query head.
    pub(crate) fn causal_scalar(
        &self,
        qkv: &CpuTensor,
        layer: usize,
        spans: &[Span<'_>],
        pool: &CpuKvPool,
        out: &mut CpuTensor,
    ) {
        let Heads { query, key_value, dim } = pool.layout().heads;
        let bf16 = pool.layout().format != KvFormat::F32;
        let rows = qkv.rows();
        let out = SharedMut::new(out.values_mut());
        self.pool.run(rows * query, |task, thread| {
            let (row, head) = (task / query, task % query);
            let Some(span) = span_of(spans, row) else { return };
            let tokens = span.past + row - span.rows.start + 1;
            let kv = Cached { pool, blocks: span.blocks, layer, head: head / (query / key_value) };
            let q = &qkv.row(row)[head * dim..(head + 1) * dim];
            let mut scratch = self.thread_scratch(thread);
            // SAFETY: every task writes its own head of its own row.
            let out = unsafe { out.slice(task * dim..(task + 1) * dim) };
            scalar::attend(q, &kv, tokens, bf16, scratch.take(dim + tokens), out);
        });
    }

    /// Full attention, one task per row and head.
    pub(crate) fn full_scalar(&self, qkv: [&CpuTensor; 3], shape: FullAttention, out: &mut CpuTensor) {
        let FullAttention { group, heads, precision } = shape;
        let (query, dim) = (heads.query, heads.dim);
        let [q, keys, values] = qkv;
        let out = SharedMut::new(out.values_mut());
        self.pool.run(q.rows() * query, |task, thread| {
            let (row, head) = (task / query, task % query);
            let bf16 = precision == Precision::Bf16;
            let kv = Tile { keys, values, first_row: row / group * group, head, bf16 };
            let q = &q.row(row)[head * dim..(head + 1) * dim];
            let mut scratch = self.thread_scratch(thread);
            // SAFETY: every task writes its own head of its own row.
            let out = unsafe { out.slice(task * dim..(task + 1) * dim) };
            scalar::attend(q, &kv, group, bf16, scratch.take(dim + group), out);
        });
    }
}
