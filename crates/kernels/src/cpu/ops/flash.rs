//! Attention in blocks that stay in cache (Dao et al. 2022): scores, softmax and weighted values of a few query rows
//! against 512 keys at a time, the softmax's largest value and sum being corrected as they go.
//!
//! Invariants: blocks of keys start at multiples of 512 tokens of the sequence and a row's arithmetic is the same
//! whatever rows are beside it, so neither the cut of a prompt into chunks nor the thread count changes a result.

use super::tensor::Buffer;
use crate::cpu::table::attention::{
    FlashKernel, KEYS, Queries, RowState, SCORES_STEP, SingleRow, SoftmaxRow, VALUES_STEP,
};
use crate::cpu::table::kv::{HeadShape, KvHead};
use crate::threads::SharedMut;
use crate::{KV_BLOCK_TOKENS, KvFormat};

/// Query rows of a task; keys that must be widened first are widened once for all of them.
pub(crate) const TASK_ROWS: usize = 192;

/// Query rows taken together: 48 rows x 512 keys x 4 bytes of scores are 98 KB, a tenth of an L2. A multiple of the
/// kernels' tiles of 4, 6 and 8 rows, which may write up to the next multiple.
pub(crate) const ROWS: usize = 48;

/// Query rows of one head, and where their results go.
pub(crate) struct Job<'a> {
    /// The tensor of the queries, `[_, stride]`.
    pub(crate) queries: &'a [f32],
    pub(crate) stride: usize,
    /// First column of the head in the tensor.
    pub(crate) col: usize,
    /// Rows of the tensor.
    pub(crate) rows: std::ops::Range<usize>,
    /// Keys that the first row sees.
    pub(crate) tokens: usize,
    /// Whether each following row sees one more.
    pub(crate) causal: bool,
    pub(crate) out: &'a SharedMut<'a, f32>,
    pub(crate) out_stride: usize,
    pub(crate) out_col: usize,
}

impl Job<'_> {
    /// Keys that row `i` of the job sees.
    fn tokens(&self, i: usize) -> usize {
        self.tokens + if self.causal { i } else { 0 }
    }
}

/// Whether the blocked kernels can run heads of `dim` values: registers are filled whole.
pub(crate) fn supports(dim: usize) -> bool {
    dim.is_multiple_of(16)
}

/// A task's memory, in words; every part is a multiple of 64 bytes.
struct Memory<'a> {
    /// Queries as the kernel reads them, `[TASK_ROWS, dim]` words.
    queries: &'a mut [u32],
    /// Scores of a block's keys, `[ROWS, KEYS]`.
    scores: &'a mut [f32],
    /// Weights of a block's values, `[ROWS, KEYS]` words.
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
    /// Words of each part, in the order of the fields.
    fn sizes(dim: usize, group: usize) -> [usize; 6] {
        let words = dim.div_ceil(group).next_multiple_of(16);
        let panels = 2 * KEYS * dim.div_ceil(group);
        [TASK_ROWS * words, ROWS * KEYS, ROWS * KEYS / group, TASK_ROWS * dim, 2 * KEYS, panels]
    }

    fn new(buffer: &'a mut Buffer, dim: usize, group: usize) -> Self {
        let sizes = Self::sizes(dim, group);
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

/// Words of memory that [`attend`] takes.
pub(crate) fn room_words(kernel: &FlashKernel, dim: usize) -> usize {
    Memory::sizes(dim, kernel.group).iter().sum()
}

/// A block's panels as the kernel reads them.
#[derive(Clone, Copy, Default)]
struct Panels<'a> {
    keys: &'a [u32],
    values: &'a [u32],
}

impl<'a> Panels<'a> {
    /// A head's panels as they are stored.
    fn stored(head: &KvHead<'a>) -> Self {
        Self { keys: bytemuck::cast_slice(head.keys), values: bytemuck::cast_slice(head.values) }
    }
}

/// At most [`TASK_ROWS`] query rows of one head against all keys they see. `head(b)` is block `b` of the sequence.
///
/// # Safety
/// The kernel is of a level this processor has; no other thread touches the job's rows and columns of `out`.
pub(crate) unsafe fn attend<'a>(
    kernel: &FlashKernel,
    job: &Job<'_>,
    shape: HeadShape,
    head: impl Fn(usize) -> KvHead<'a>,
    buffer: &mut Buffer,
) {
    let (rows, dim) = (job.rows.len(), shape.dim);
    assert!((1..=TASK_ROWS).contains(&rows) && supports(dim), "{rows} rows of {dim}");
    let stride = dim.div_ceil(kernel.group).next_multiple_of(16);
    let row_kernel = kernel.row_q8.filter(|_| rows == 1 && shape.format == KvFormat::Q8);
    let Memory { queries, scores, weights, sums, scales, widened } = Memory::new(buffer, dim, kernel.group);
    for (row, out) in job.rows.clone().zip(queries.chunks_exact_mut(stride)) {
        let query = &job.queries[row * job.stride + job.col..][..dim];
        // SAFETY: the level is the caller's promise.
        unsafe { (kernel.pack_query)(query, &mut out[..dim / kernel.group]) };
    }
    sums[..rows.next_multiple_of(ROWS).min(TASK_ROWS) * dim].fill(0.0);
    let mut states = [RowState::EMPTY; TASK_ROWS];
    for first_key in (0..job.tokens(rows - 1)).step_by(KEYS) {
        let keys = KEYS.min(job.tokens(rows - 1) - first_key);
        let mut panels = [Panels::default(); KEYS / KV_BLOCK_TOKENS];
        let blocks = first_key / KV_BLOCK_TOKENS..(first_key + keys).div_ceil(KV_BLOCK_TOKENS);
        let mut memory = &mut *widened;
        for ((i, block), panels) in blocks.enumerate().zip(&mut panels) {
            let head = head(block);
            if shape.format.has_scales() {
                scales[i * KV_BLOCK_TOKENS..][..KV_BLOCK_TOKENS].copy_from_slice(head.key_scales);
                scales[KEYS + i * KV_BLOCK_TOKENS..][..KV_BLOCK_TOKENS].copy_from_slice(head.value_scales);
            }
            *panels = match row_kernel {
                Some(_) => Panels::stored(&head),
                // SAFETY: the level is the caller's promise.
                None => unsafe { panels_of(kernel, &head, &mut memory) },
            };
        }
        let (key_scales, value_scales) =
            if shape.format.has_scales() { scales.split_at(KEYS) } else { (&[][..], &[][..]) };
        let block = Block { first_key, panels, key_scales, value_scales, row_kernel };
        for first in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - first);
            let part = Part {
                first,
                queries: Queries {
                    words: &queries[first * stride..],
                    rows: count,
                    count: dim / kernel.group,
                    stride,
                },
                states: &mut states[first..first + count],
                sums: &mut sums[first * dim..],
            };
            // SAFETY: the level is the caller's promise.
            unsafe { attend_block(kernel, job, &block, part, scores, weights) };
        }
    }
    write_out(job, &states, sums, dim);
}

/// The panels of a head as words: as they are, or widened to memory cut from `memory`.
///
/// # Safety
/// As [`attend`].
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

/// Up to [`KEYS`] keys.
struct Block<'a> {
    first_key: usize,
    panels: [Panels<'a>; KEYS / KV_BLOCK_TOKENS],
    key_scales: &'a [f32],
    value_scales: &'a [f32],
    /// What reads the panels where there is one row; else the kernel's own parts do.
    row_kernel: Option<SingleRow>,
}

/// Up to [`ROWS`] rows of a job, from row `first` on.
struct Part<'a> {
    first: usize,
    queries: Queries<'a>,
    states: &'a mut [RowState],
    sums: &'a mut [f32],
}

/// # Safety
/// As [`attend`].
unsafe fn attend_block(
    kernel: &FlashKernel,
    job: &Job<'_>,
    block: &Block<'_>,
    part: Part<'_>,
    scores: &mut [f32],
    weights: &mut [u32],
) {
    let Part { first, queries, states, sums } = part;
    let seen = job.tokens(first + queries.rows - 1);
    if seen <= block.first_key {
        return;
    }
    let dim = queries.count * kernel.group;
    // what lies beyond the last key is neither multiplied nor read, but for what fills a register
    let seen = KEYS.min(seen - block.first_key);
    let (panels, keys) = (seen.div_ceil(KV_BLOCK_TOKENS), seen.next_multiple_of(SCORES_STEP));
    let weight_stride = KEYS / kernel.group;
    // SAFETY: the level is the caller's promise.
    unsafe {
        for (i, panel) in block.panels[..panels].iter().enumerate() {
            let scores = &mut scores[i * KV_BLOCK_TOKENS..];
            let count = KV_BLOCK_TOKENS.min(seen - i * KV_BLOCK_TOKENS);
            match block.row_kernel {
                Some(row) => (row.scores)(&queries.words[..queries.count], panel.keys, scores),
                None => (kernel.scores)(queries, panel.keys, count, scores),
            }
        }
        for (i, state) in states.iter_mut().enumerate() {
            let valid = job.tokens(first + i).saturating_sub(block.first_key).min(keys);
            let scaled = |scales: &'_ [f32]| if scales.is_empty() { 0 } else { keys };
            let factor = (kernel.softmax)(SoftmaxRow {
                scores: &mut scores[i * KEYS..][..keys],
                valid,
                scale: 1.0 / (dim as f32).sqrt(),
                key_scales: &block.key_scales[..scaled(block.key_scales)],
                value_scales: &block.value_scales[..scaled(block.value_scales)],
                weights: &mut weights[i * weight_stride..][..keys / kernel.group],
                state,
            });
            if factor != 1.0 {
                sums[i * dim..(i + 1) * dim].iter_mut().for_each(|sum| *sum *= factor);
            }
        }
        let count = seen.next_multiple_of(VALUES_STEP) / kernel.group;
        if let Some(row) = block.row_kernel {
            let weights = weights[..count].chunks(KV_BLOCK_TOKENS / kernel.group);
            for (weights, panel) in weights.zip(&block.panels[..panels]) {
                (row.values)(weights, panel.values, &mut sums[..dim]);
            }
            return;
        }
        let weights = Queries { words: weights, rows: queries.rows, count, stride: weight_stride };
        (kernel.values)(weights, &block.panels.map(|panel| panel.values)[..panels], dim, sums);
    }
}

fn write_out(job: &Job<'_>, states: &[RowState], sums: &[f32], dim: usize) {
    for ((row, state), sums) in job.rows.clone().zip(states).zip(sums.chunks_exact(dim)) {
        let start = row * job.out_stride + job.out_col;
        // SAFETY: these rows and columns are the job's alone, by the promise made to `attend`.
        let out = unsafe { job.out.slice(start..start + dim) };
        let inverse = 1.0 / state.sum;
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * inverse);
    }
}
