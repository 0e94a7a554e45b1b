//! Attention in blocks that stay in cache (Dao et al. 2022): scores, softmax and weighted values of a few query rows
//! against 512 keys at a time. Each block corrects the largest value and the sum of the softmax.
//!
//! Invariants: blocks of keys start at multiples of 512 tokens of the sequence, and chunks of keys at multiples of
//! 2,048. The arithmetic of a row is the same whatever other rows are computed with it. Neither the cut of a prompt
//! nor the thread count therefore changes a result.

mod block;
mod job;
mod unseen;

use super::tensor::Buffer;
use crate::KV_BLOCK_TOKENS;
use crate::cpu::table::attention::{
    CHUNK_KEYS, FlashKernel, KEYS, OVERLAPPED_ROWS, Products, Queries, RowState, SCORES_STRIDE, SingleRow,
};
use crate::cpu::table::kv::{HeadShape, KvHead};
use block::{Block, Panels, ROWS, Rows};
pub(crate) use job::Job;
use std::ops::Range;

/// Query rows of a task. Keys that must be widened first are widened once for all of them.
pub(crate) const TASK_ROWS: usize = 192;

// kernels that overlap take two tiles of rows
const _: () = assert!(TASK_ROWS.is_multiple_of(ROWS) && TASK_ROWS.is_multiple_of(OVERLAPPED_ROWS));

/// Returns whether the blocked kernels can run heads of `dim` values: they only fill whole registers.
pub(crate) fn supports(dim: usize) -> bool {
    dim.is_multiple_of(16)
}

/// The memory of a task, in words; every part is a multiple of 64 bytes.
struct Memory<'a> {
    /// Queries in the form the kernel reads, `[TASK_ROWS, dim]` words.
    queries: &'a mut [u32],
    /// Scores of a block's keys, `[ROWS, KEYS]`, or `[2, OVERLAPPED_ROWS, SCORES_STRIDE]` if the products overlap.
    scores: &'a mut [f32],
    /// Weights of a block's values, in as many words as there are scores.
    weights: &'a mut [u32],
    /// Weighted sums of values, `[TASK_ROWS, dim]`.
    sums: &'a mut [f32],
    /// Scales of a block's keys and values, `[2, KEYS]`.
    scales: &'a mut [f32],
    /// `[KEYS / 64, 2, 64, dim]` words
    widened: &'a mut [u32],
}

fn carve<'a>(rest: &mut &'a mut [u32], count: usize) -> &'a mut [u32] {
    let (part, tail) = std::mem::take(rest).split_at_mut(count);
    *rest = tail;
    part
}

impl<'a> Memory<'a> {
    /// Returns the words of each part, in the order of the fields.
    fn sizes(dim: usize, kernel: &FlashKernel) -> [usize; 6] {
        let group = kernel.group;
        let words = dim.div_ceil(group).next_multiple_of(16);
        let panels = 2 * KEYS * dim.div_ceil(group);
        let scores = match kernel.products {
            Products::InTurn(_) => ROWS * KEYS,
            Products::Overlapped(_) => 2 * OVERLAPPED_ROWS * SCORES_STRIDE,
        };
        [TASK_ROWS * words, scores, scores / group, TASK_ROWS * dim, 2 * KEYS, panels]
    }

    fn new(buffer: &'a mut Buffer, dim: usize, kernel: &FlashKernel) -> Self {
        let sizes = Self::sizes(dim, kernel);
        let mut rest = buffer.take::<u32>(sizes.iter().sum());
        let [queries, scores, weights, sums, scales, widened] = sizes.map(|size| carve(&mut rest, size));
        Self {
            queries,
            scores: bytemuck::cast_slice_mut(scores),
            weights,
            sums: bytemuck::cast_slice_mut(sums),
            scales: bytemuck::cast_slice_mut(scales),
            widened,
        }
    }
}

/// Returns the words of memory that [`attend`] takes.
pub(crate) fn room_words(kernel: &FlashKernel, dim: usize) -> usize {
    Memory::sizes(dim, kernel).iter().sum()
}

/// Computes at most [`TASK_ROWS`] query rows of one head against all keys they see. `head(b)` is block `b` of the
/// sequence.
///
/// # Safety
/// The kernel must be of a level this processor has; no other thread may access the job's rows and columns of `out`.
pub(crate) unsafe fn attend<'a>(
    kernel: &FlashKernel,
    job: &Job<'_>,
    shape: HeadShape,
    head: impl Fn(usize) -> KvHead<'a>,
    buffer: &mut Buffer,
) {
    let (rows, dim) = (job.rows.len(), shape.dim);
    let mut totals = [RowState::EMPTY; TASK_ROWS];
    for chunk in 0..job.tokens(rows - 1).div_ceil(CHUNK_KEYS) {
        // SAFETY: the level is the caller's promise.
        let ChunkSums { states, values } = unsafe { attend_chunk(kernel, job, shape, chunk, &head, buffer) };
        for (i, (total, values)) in totals[..rows].iter_mut().zip(values.chunks_exact(dim)).enumerate() {
            // SAFETY: these rows and columns belong to the job alone, by the promise made to `attend`.
            let out = unsafe { job.out_row(i, dim) };
            total.merge(out, states[i], values, kernel.exp);
        }
    }
    for (i, total) in totals[..rows].iter().enumerate() {
        // SAFETY: see above.
        divide(unsafe { job.out_row(i, dim) }, total.sum);
    }
}

fn divide(values: &mut [f32], sum: f32) {
    let inverse = 1.0 / sum;
    values.iter_mut().for_each(|value| *value *= inverse);
}

/// Returns the number of values of a chunk's partial result in [`attend_chunk_of_row`], for heads of `dim` values.
pub(crate) fn chunk_len(dim: usize) -> usize {
    dim + STATE_LEN
}

/// Number of values of a [`RowState`], which precede the weighted values of its chunk.
const STATE_LEN: usize = 2;

/// Computes one chunk of the keys that a single row sees. The partial result is written to `out`, `[chunk_len(dim)]`.
///
/// # Safety
/// The kernel must be of a level this processor has.
pub(crate) unsafe fn attend_chunk_of_row<'a>(
    kernel: &FlashKernel,
    job: &Job<'_>,
    shape: HeadShape,
    chunk: usize,
    head: impl Fn(usize) -> KvHead<'a>,
    ChunkRoom { buffer, out }: ChunkRoom<'_>,
) {
    assert_eq!(job.rows.len(), 1, "rows whose keys are split");
    // another task reads the keys past the chunk, so this task does not prefetch them
    let job = &Job { tokens: job.tokens.min((chunk + 1) * CHUNK_KEYS), rows: job.rows.clone(), ..*job };
    // SAFETY: the level is the caller's promise.
    let sums = unsafe { attend_chunk(kernel, job, shape, chunk, &head, buffer) };
    let (state, values) = out.split_at_mut(STATE_LEN);
    state.copy_from_slice(&[sums.states[0].largest, sums.states[0].sum]);
    values.copy_from_slice(&sums.values[..shape.dim]);
}

/// Memory for [`attend_chunk_of_row`].
pub(crate) struct ChunkRoom<'a> {
    pub(crate) buffer: &'a mut Buffer,
    /// `[chunk_len(dim)]`
    pub(crate) out: &'a mut [f32],
}

/// Computes the attention of a row, `[dim]`, from the partial results of its chunks, in the order of the chunks.
pub(crate) fn merge_row<'a>(kernel: &FlashKernel, chunks: impl Iterator<Item = &'a [f32]>, out: &mut [f32]) {
    let mut total = RowState::EMPTY;
    for chunk in chunks {
        let (state, values) = chunk.split_at(STATE_LEN);
        total.merge(out, RowState { largest: state[0], sum: state[1] }, values, kernel.exp);
    }
    divide(out, total.sum);
}

/// The partial results of a chunk of keys.
struct ChunkSums<'a> {
    states: [RowState; TASK_ROWS],
    /// Weighted values, not divided by the sums of the weights, `[TASK_ROWS, dim]`.
    values: &'a [f32],
}

/// Computes the rows of a job against the keys of one chunk.
///
/// # Safety
/// The kernel must be of a level this processor has.
unsafe fn attend_chunk<'a, 'b>(
    kernel: &FlashKernel,
    job: &Job<'_>,
    shape: HeadShape,
    chunk: usize,
    head: &impl Fn(usize) -> KvHead<'a>,
    buffer: &'b mut Buffer,
) -> ChunkSums<'b> {
    let (rows, dim) = (job.rows.len(), shape.dim);
    assert!((1..=TASK_ROWS).contains(&rows) && supports(dim), "{rows} rows of {dim}");
    let stride = dim.div_ceil(kernel.group).next_multiple_of(16);
    let row_kernel = kernel.single_rows.of(shape.format).filter(|_| rows == 1);
    let Memory { queries, scores, weights, sums, scales, widened } = Memory::new(buffer, dim, kernel);
    for (row, out) in job.rows.clone().zip(queries.chunks_exact_mut(stride)) {
        let query = &job.queries[row * job.stride + job.col..][..dim];
        // SAFETY: the level is the caller's promise.
        unsafe { (kernel.pack_query)(query, &mut out[..dim / kernel.group]) };
    }
    sums[..rows.next_multiple_of(ROWS).min(TASK_ROWS) * dim].fill(0.0);
    let mut states = [RowState::EMPTY; TASK_ROWS];
    let end = job.tokens(rows - 1).min((chunk + 1) * CHUNK_KEYS);
    for first_key in (chunk * CHUNK_KEYS..end).step_by(KEYS) {
        let keys = KEYS.min(end - first_key);
        let room = BlockRoom { scales: &mut *scales, widened: &mut *widened };
        // SAFETY: the level is the caller's promise.
        let block = unsafe { block_of(kernel, row_kernel, first_key..first_key + keys, head, room) };
        let block = block.with_next(job.tokens(rows - 1), head);
        let queries = Queries { words: queries, rows, count: dim / kernel.group, stride };
        let rows = Rows { queries, states: &mut states[..rows], sums, scores, weights };
        // SAFETY: the level is the caller's promise.
        unsafe { block::attend(kernel, job, &block, rows) };
    }
    ChunkSums { states, values: sums }
}

/// Memory for a [`Block`], see [`Memory`].
struct BlockRoom<'a> {
    scales: &'a mut [f32],
    widened: &'a mut [u32],
}

/// Returns the block of the keys `keys` of a sequence. `head(b)` is block `b` of the cache.
///
/// # Safety
/// Same as for [`attend`].
unsafe fn block_of<'a: 'b, 'b>(
    kernel: &FlashKernel,
    row_kernel: Option<SingleRow>,
    keys: Range<usize>,
    head: &impl Fn(usize) -> KvHead<'a>,
    BlockRoom { scales, widened }: BlockRoom<'b>,
) -> Block<'b> {
    let mut panels = [Panels::default(); KEYS / KV_BLOCK_TOKENS];
    let (mut memory, mut has_scales, mut group) = (widened, false, kernel.group);
    let blocks = keys.start / KV_BLOCK_TOKENS..keys.end.div_ceil(KV_BLOCK_TOKENS);
    for ((i, block), panels) in blocks.enumerate().zip(&mut panels) {
        let head = head(block);
        has_scales = head.shape.format.has_scales();
        if has_scales {
            scales[i * KV_BLOCK_TOKENS..][..KV_BLOCK_TOKENS].copy_from_slice(head.key_scales);
            scales[KEYS + i * KV_BLOCK_TOKENS..][..KV_BLOCK_TOKENS].copy_from_slice(head.value_scales);
        }
        *panels = match row_kernel {
            Some(_) => {
                group = head.shape.group;
                Panels::stored(&head)
            }
            // SAFETY: the level is the caller's promise.
            None => unsafe { panels_of(kernel, &head, &mut memory) },
        };
    }
    let (key_scales, value_scales) = if has_scales { scales.split_at(KEYS) } else { (&[][..], &[][..]) };
    Block {
        first_key: keys.start,
        panels,
        group,
        key_scales,
        value_scales,
        row_kernel,
        ahead: [None; KEYS / KV_BLOCK_TOKENS],
    }
}

/// Returns the panels of a head as words: as they are stored, or widened to memory cut from `memory`.
///
/// # Safety
/// Same as for [`attend`].
unsafe fn panels_of<'a>(kernel: &FlashKernel, head: &KvHead<'a>, memory: &mut &'a mut [u32]) -> Panels<'a> {
    let shape = head.shape;
    if shape.group == kernel.group {
        return Panels::stored(head);
    }
    let words = KV_BLOCK_TOKENS * shape.dim / kernel.group;
    let (keys, values) = (carve(memory, words), carve(memory, words));
    // SAFETY: the level is the caller's promise.
    unsafe {
        (kernel.widen)(head.keys, shape.format, KV_BLOCK_TOKENS, keys);
        (kernel.widen)(head.values, shape.format, shape.dim, values);
    }
    Panels { keys, values }
}
