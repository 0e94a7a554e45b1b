//! Cuts attention over the KV cache (causal) and within image tiles (full) into tasks.

use super::batch::CpuBatch;
use super::cut::{Cut, Part, SplitRow};
use super::flash::{self, ChunkRoom, Job, TASK_ROWS};
use super::kv::CpuKvPool;
use super::rows::assert_same_shape;
use super::runner::{Runner, ThreadScratch};
use super::tensor::CpuTensor;
use crate::cpu::table::attention::{FlashKernel, KeyValues, Seen};
use crate::cpu::table::kv::{HeadShape, KvHead, KvHeadMut, KvRows};
use crate::threads::SharedMut;
use crate::{FullAttention, Heads, KV_BLOCK_TOKENS, KvFormat, KvLayout, Precision};
use half::bf16;

/// One head of the cached keys and values of a sequence.
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

/// Causal attention of a batch.
pub(crate) struct Causal<'a> {
    pub(crate) qkv: &'a CpuTensor,
    pub(crate) layer: usize,
    pub(crate) batch: &'a CpuBatch,
    pub(crate) pool: &'a CpuKvPool,
}

impl Runner {
    /// See [`Backend::attention_causal`](crate::Backend::attention_causal).
    pub(crate) fn causal(&self, causal: &Causal<'_>, out: &mut CpuTensor) {
        let KvLayout { heads, format, .. } = causal.pool.layout();
        let Heads { query, key_value, dim } = heads;
        let qkv = causal.qkv;
        assert_eq!(qkv.cols(), (query + 2 * key_value) * dim, "columns of qkv");
        assert_eq!((out.rows(), out.cols()), (qkv.rows(), query * dim), "output of an attention");
        let kernel = match format {
            KvFormat::F32 => self.kernels.attention.flash_f32,
            KvFormat::Bf16 | KvFormat::Q8 => {
                self.kernels.attention.flash_bf16.or(self.kernels.attention.flash_f32)
            }
        };
        match kernel {
            Some(kernel) if flash::supports(heads.dim) => self.causal_flash(kernel, causal, out),
            _ => self.causal_singly(causal, out),
        }
    }

    fn causal_flash(&self, kernel: &FlashKernel, causal: &Causal<'_>, out: &mut CpuTensor) {
        let Causal { qkv, layer, batch, pool } = *causal;
        let Heads { query, key_value, dim } = pool.layout().heads;
        let (stride, out_stride) = (qkv.cols(), out.cols());
        self.reserve_work::<u32>(flash::room_words(kernel, dim));
        let cut = Cut::new(batch, query, self.threads());
        let mut scratch = self.scratch();
        let chunk_len = flash::chunk_len(dim);
        // sized for all tokens that the sequences may come to have, as with `reserve_work`
        let chunks = scratch.chunks.take::<f32>(cut.parts_max() * query * chunk_len);
        let (chunks, out) = (SharedMut::new(chunks), SharedMut::new(out.values_mut()));
        self.pool.run(cut.parts() * query, |task, thread| {
            let (part, head) = (task / query, task % query);
            let Part { span, rows, chunk } = cut.part(part);
            let job = Job {
                queries: qkv.values(),
                stride,
                col: head * dim,
                tokens: span.past + rows.start - span.rows.start + 1,
                rows,
                causal: true,
                out: &out,
                out_stride,
                out_col: head * dim,
            };
            let block = |b: usize| pool.head(span.blocks[b], layer, head / (query / key_value));
            let work = &mut self.thread_scratch(thread).work;
            match chunk {
                // SAFETY: every task has its own rows and head; the kernel is of a level this processor has.
                None => unsafe { flash::attend(kernel, &job, pool.shape(), block, work) },
                Some(chunk) => {
                    // SAFETY: every task has its own chunk's sums; the kernel is of a level this processor has.
                    unsafe {
                        let out = chunks.slice(task * chunk_len..(task + 1) * chunk_len);
                        let room = ChunkRoom { buffer: work, out };
                        flash::attend_chunk_of_row(kernel, &job, pool.shape(), chunk, block, room);
                    }
                }
            }
        });
        let split = cut.split_rows().count();
        self.pool.run(split * query, |task, _| {
            let head = task % query;
            let Some(SplitRow { row, parts }) = cut.split_rows().nth(task / query) else { return };
            let start = row * out_stride + head * dim;
            // SAFETY: every task has its own row and head, and no task of this loop writes sums of chunks.
            unsafe {
                let of_chunk = |part: usize| (part * query + head) * chunk_len;
                let parts = parts.map(|part| &*chunks.slice(of_chunk(part)..of_chunk(part) + chunk_len));
                flash::merge_row(kernel, parts, out.slice(start..start + dim));
            }
        });
    }

    /// Runs one task per row and query head.
    fn causal_singly(&self, causal: &Causal<'_>, out: &mut CpuTensor) {
        let Causal { qkv, layer, batch, pool } = *causal;
        let Heads { query, key_value, dim } = pool.layout().heads;
        let bf16 = match pool.layout().format {
            KvFormat::F32 => false,
            KvFormat::Bf16 | KvFormat::Q8 => true,
        };
        // sized for all tokens that the sequences may come to have: their next token must not need more
        let tokens_max = batch.spans().map(|span| span.blocks.len()).max().unwrap_or(0) * KV_BLOCK_TOKENS;
        self.reserve_work::<f32>(Seen::scratch(dim, tokens_max));
        let out = SharedMut::new(out.values_mut());
        self.pool.run(qkv.rows() * query, |task, thread| {
            let (row, head) = (task / query, task % query);
            let Some(span) = batch.span_of(row) else { return };
            let tokens = span.past + row - span.rows.start + 1;
            let kv = Cached { pool, blocks: span.blocks, layer, head: head / (query / key_value) };
            let q = &qkv.row(row)[head * dim..(head + 1) * dim];
            let mut scratch = self.thread_scratch(thread);
            // SAFETY: every task writes its own head of its own row.
            let out = unsafe { out.slice(task * dim..(task + 1) * dim) };
            let (seen, work) = (Seen { tokens, bf16 }, scratch.work.take(Seen::scratch(dim, tokens)));
            // SAFETY: the kernels are those of a level this processor has.
            unsafe { (self.kernels.attention.single)(q, &kv, seen, work, out) };
        });
    }

    /// See [`Backend::attention_full`](crate::Backend::attention_full).
    pub(crate) fn full(&self, qkv: [&CpuTensor; 3], shape: FullAttention, out: &mut CpuTensor) {
        assert!(
            qkv[0].rows().is_multiple_of(shape.group),
            "{} rows in groups of {}",
            qkv[0].rows(),
            shape.group
        );
        qkv.iter().for_each(|tensor| assert_same_shape(tensor, out));
        assert_eq!(out.cols(), shape.heads.query * shape.heads.dim, "columns of an attention");
        let (format, kernel) = match (shape.precision, self.kernels.attention.flash_bf16) {
            (Precision::Bf16, Some(kernel)) => (KvFormat::Bf16, Some(kernel)),
            (Precision::Bf16, None) => (KvFormat::Bf16, self.kernels.attention.flash_f32),
            (Precision::F32, _) => (KvFormat::F32, self.kernels.attention.flash_f32),
        };
        match kernel {
            Some(kernel) if flash::supports(shape.heads.dim) => {
                self.full_flash(kernel, format, qkv, shape, out)
            }
            _ => self.full_singly(qkv, shape, out),
        }
    }

    /// Runs one task per group and head. Keys and values are stored as panels in the thread's scratch.
    fn full_flash(
        &self,
        kernel: &FlashKernel,
        format: KvFormat,
        [q, keys, values]: [&CpuTensor; 3],
        shape: FullAttention,
        out: &mut CpuTensor,
    ) {
        let FullAttention { group, heads: Heads { query, dim, .. }, .. } = shape;
        let head_shape = HeadShape::new(format, dim);
        let stride = out.cols();
        let out = SharedMut::new(out.values_mut());
        self.pool.run(q.rows() / group * query, |task, thread| {
            let (first, col) = (task / query * group, task % query * dim);
            let mut scratch = self.thread_scratch(thread);
            let ThreadScratch { panels, work } = &mut *scratch;
            let panels = panels.take::<u8>(group.div_ceil(KV_BLOCK_TOKENS) * 2 * head_shape.panel_bytes());
            // weights of zero multiply the values past the last row, which must therefore be finite
            let end = panels.len();
            panels[end - 2 * head_shape.panel_bytes()..].fill(0);
            let blocks = panels.chunks_exact_mut(2 * head_shape.panel_bytes());
            for (token, block) in (0..group).step_by(KV_BLOCK_TOKENS).zip(blocks) {
                let start = (first + token) * stride + col;
                let rows = KvRows {
                    keys: &keys.values()[start..],
                    values: &values.values()[start..],
                    stride,
                    dim,
                    count: KV_BLOCK_TOKENS.min(group - token),
                };
                // SAFETY: the kernels are those of a level this processor has.
                unsafe {
                    (self.kernels.attention.store_kv)(&mut KvHeadMut::of_panels(head_shape, block), 0, &rows)
                };
            }
            let block = |b: usize| {
                let size = 2 * head_shape.panel_bytes();
                KvHead::of_panels(head_shape, &panels[b * size..(b + 1) * size])
            };
            for start in (0..group).step_by(TASK_ROWS) {
                let job = Job {
                    queries: q.values(),
                    stride,
                    col,
                    rows: first + start..first + group.min(start + TASK_ROWS),
                    tokens: group,
                    causal: false,
                    out: &out,
                    out_stride: stride,
                    out_col: col,
                };
                // SAFETY: every task has its own group and head; the kernel is of a level this processor has.
                unsafe { flash::attend(kernel, &job, head_shape, block, work) };
            }
        });
    }

    /// Runs one task per row and head.
    fn full_singly(&self, qkv: [&CpuTensor; 3], shape: FullAttention, out: &mut CpuTensor) {
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
            let (seen, work) = (Seen { tokens: group, bf16 }, scratch.work.take(Seen::scratch(dim, group)));
            // SAFETY: the kernels are those of a level this processor has.
            unsafe { (self.kernels.attention.single)(q, &kv, seen, work, out) };
        });
    }
}
