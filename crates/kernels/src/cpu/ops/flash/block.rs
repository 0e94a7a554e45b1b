//! Rows against one block of keys: scores, softmax and weighted values.

use super::job::Job;
use super::unseen::{FinitePanels, ValueShape};
use crate::KV_BLOCK_TOKENS;
use crate::cpu::prefetch::{Ahead, fetch};
use crate::cpu::table::attention::{
    FlashKernel, InTurn, KEYS, OVERLAPPED_ROWS, Overlapped, Products, Queries, RowState, SCORES_STEP,
    SCORES_STRIDE, SingleRow, SoftmaxRow, VALUES_STEP,
};
use crate::cpu::table::kv::KvHead;
use std::ops::Range;

/// Query rows that are taken together: 48 rows x 512 keys x 4 bytes of scores are 98 KB, a tenth of an L2 cache. A
/// multiple of the tiles of the kernels, which have 4, 6, 8 or 16 rows and may write up to the next multiple.
pub(super) const ROWS: usize = 48;

/// A block's panels in the form that the kernel reads.
#[derive(Clone, Copy, Default)]
pub(super) struct Panels<'a> {
    pub(super) keys: &'a [u32],
    pub(super) values: &'a [u32],
}

impl<'a> Panels<'a> {
    /// Returns a head's panels as they are stored.
    pub(super) fn stored(head: &KvHead<'a>) -> Self {
        Self { keys: bytemuck::cast_slice(head.keys), values: bytemuck::cast_slice(head.values) }
    }
}

/// A block of up to [`KEYS`] keys.
pub(super) struct Block<'a> {
    pub(super) first_key: usize,
    pub(super) panels: [Panels<'a>; KEYS / KV_BLOCK_TOKENS],
    /// Values in a word of the panels.
    pub(super) group: usize,
    pub(super) key_scales: &'a [f32],
    pub(super) value_scales: &'a [f32],
    /// The functions that read the panels for a single row; `None` to use the kernel's own products.
    pub(super) row_kernel: Option<SingleRow>,
    /// The blocks to prefetch while this one is computed. The blocks of the cache are far apart, and no hardware
    /// prefetcher finds the next.
    pub(super) ahead: [Option<KvHead<'a>>; KEYS / KV_BLOCK_TOKENS],
}

impl<'a> Block<'a> {
    /// Adds the next of the `tokens` keys for prefetching if a single row's kernel computes the block.
    pub(super) fn with_next<'h: 'a>(mut self, tokens: usize, head: &impl Fn(usize) -> KvHead<'h>) -> Self {
        if self.row_kernel.is_some() {
            let next = (self.first_key + KEYS) / KV_BLOCK_TOKENS..tokens.div_ceil(KV_BLOCK_TOKENS);
            for (ahead, block) in self.ahead.iter_mut().zip(next) {
                *ahead = Some(head(block));
            }
        }
        self
    }

    /// Returns the panels to prefetch along with panel `i`.
    fn panels_ahead(&self, i: usize) -> Panels<'a> {
        self.ahead[i].as_ref().map_or_else(Panels::default, Panels::stored)
    }
}

/// The rows of a job, and memory for their results.
pub(super) struct Rows<'a> {
    pub(super) queries: Queries<'a>,
    pub(super) states: &'a mut [RowState],
    /// `[rows, dim]`, with memory up to the next multiple of a tile's rows.
    pub(super) sums: &'a mut [f32],
    /// See [`super::Memory`].
    pub(super) scores: &'a mut [f32],
    pub(super) weights: &'a mut [u32],
}

/// What is the same for all rows.
#[derive(Clone, Copy)]
struct Context<'a> {
    kernel: &'a FlashKernel,
    job: &'a Job<'a>,
    block: &'a Block<'a>,
    dim: usize,
}

/// One row while its scores become weights.
struct Row<'a> {
    scores: &'a mut [f32],
    weights: &'a mut [u32],
    state: &'a mut RowState,
    /// The weighted values of the row so far, `[dim]`.
    sums: &'a mut [f32],
}

/// Adds the keys of the block that the rows see to the results of earlier blocks.
///
/// # Safety
/// Same as for [`super::attend`].
pub(super) unsafe fn attend(kernel: &FlashKernel, job: &Job<'_>, block: &Block<'_>, mut rows: Rows<'_>) {
    let context = Context { kernel, job, block, dim: rows.queries.count * kernel.group };
    // SAFETY: the level is the caller's promise.
    unsafe {
        match (block.row_kernel, kernel.products) {
            (Some(row_kernel), _) => context.single(row_kernel, rows),
            (None, Products::InTurn(products)) => {
                for first in (0..rows.queries.rows).step_by(ROWS) {
                    context.in_turn(products, first, &mut rows);
                }
            }
            (None, Products::Overlapped(products)) => context.overlapped(products, rows),
        }
    }
}

impl Context<'_> {
    /// Returns how many of the block's keys row `i` of the job sees.
    fn seen(&self, i: usize) -> usize {
        self.job.tokens(i).saturating_sub(self.block.first_key).min(KEYS)
    }

    /// Returns the panels of the first `seen` keys. Keys past them are neither multiplied nor read, except to fill up
    /// a register.
    fn panels(&self, seen: usize) -> &[Panels<'_>] {
        &self.block.panels[..seen.div_ceil(KV_BLOCK_TOKENS)]
    }

    /// Turns the scores of the block's first keys into weights. The number of scores is a multiple of
    /// [`SCORES_STEP`]; the row sees the first `valid` of them.
    ///
    /// # Safety
    /// Same as for [`super::attend`].
    unsafe fn softmax(&self, valid: usize, Row { scores, weights, state, sums }: Row<'_>) {
        let Block { key_scales, value_scales, .. } = self.block;
        let scaled = |scales: &'_ [f32]| if scales.is_empty() { 0 } else { scores.len() };
        let row = SoftmaxRow {
            valid,
            scale: 1.0 / (self.dim as f32).sqrt(),
            key_scales: &key_scales[..scaled(key_scales)],
            value_scales: &value_scales[..scaled(value_scales)],
            scores,
            weights,
            state,
        };
        // SAFETY: the level is the caller's promise.
        let factor = unsafe { (self.kernel.softmax)(row) };
        if factor != 1.0 {
            sums.iter_mut().for_each(|sum| *sum *= factor);
        }
    }

    /// Computes a single row with functions that read the panels as they are stored.
    ///
    /// # Safety
    /// Same as for [`super::attend`].
    unsafe fn single(&self, row_kernel: SingleRow, rows: Rows<'_>) {
        let Rows { queries, states, sums, scores, weights } = rows;
        let (seen, sums) = (self.seen(0), &mut sums[..self.dim]);
        let (panels, keys) = (self.panels(seen), seen.next_multiple_of(SCORES_STEP));
        // SAFETY: the level is the caller's promise.
        unsafe {
            for ((i, panel), scores) in
                panels.iter().enumerate().zip(scores.chunks_exact_mut(KV_BLOCK_TOKENS))
            {
                let ahead = Ahead(self.block.panels_ahead(i).keys);
                (row_kernel.scores)(&queries.words[..queries.count], panel.keys, ahead, scores);
            }
            let (scores, weights) = (&mut scores[..keys], &mut weights[..keys / self.kernel.group]);
            self.softmax(seen, Row { scores, weights, state: &mut states[0], sums: &mut *sums });
            let count = seen.next_multiple_of(VALUES_STEP) / self.kernel.group;
            let weights = Queries { words: weights, rows: 1, count, stride: count };
            self.weigh(0..1, weights, sums, |panels, sums| {
                let weights = weights.words[..count].chunks(KV_BLOCK_TOKENS / self.kernel.group);
                for (i, (weights, panel)) in weights.zip(panels).enumerate() {
                    let ahead = Ahead(self.block.panels_ahead(i).values);
                    (row_kernel.values)(weights, panel, ahead, sums);
                    if let Some(head) = &self.block.ahead[i] {
                        fetch(head.key_scales);
                        fetch(head.value_scales);
                    }
                }
            });
        }
    }

    /// Adds to the sums of the rows `rows` of the job the values of the block times their weights; `product`
    /// multiplies with panels of values. A non-finite value affects only the rows that see it.
    fn weigh(
        &self,
        rows: Range<usize>,
        weights: Queries<'_>,
        sums: &mut [f32],
        product: impl FnOnce(&[&[u32]], &mut [f32]),
    ) {
        let weight_group = self.kernel.group;
        let shape = ValueShape { dim: self.dim, group: self.block.group, weight_group };
        let panels = self.block.panels.map(|panel| panel.values);
        // the first row sees the fewest keys, and the weights end where the last row's do
        let (first, end) = (self.seen(rows.start), weights.count * weight_group);
        let panels = &panels[..end.div_ceil(KV_BLOCK_TOKENS)];
        // 8-bit values are finite, whatever their scales are
        let are_finite = !self.block.value_scales.is_empty();
        let found = if are_finite { None } else { FinitePanels::of(panels, &(first..end), shape) };
        let Some(finite) = found else { return product(panels, sums) };
        product(&finite.panels(), sums);
        for ((i, row), sums) in rows.enumerate().zip(sums.chunks_exact_mut(self.dim)) {
            finite.add_taken(self.seen(row), &weights.words[i * weights.stride..], sums);
        }
    }

    /// Computes up to [`ROWS`] rows from row `first` on.
    ///
    /// # Safety
    /// Same as for [`super::attend`].
    unsafe fn in_turn(&self, products: InTurn, first: usize, rows: &mut Rows<'_>) {
        let count = ROWS.min(rows.queries.rows - first);
        let seen = self.seen(first + count - 1);
        if seen == 0 {
            return;
        }
        let (panels, keys) = (self.panels(seen), seen.next_multiple_of(SCORES_STEP));
        let weight_stride = KEYS / self.kernel.group;
        let queries = rows.queries.part(first..first + count);
        // SAFETY: the level is the caller's promise.
        unsafe {
            for (i, panel) in panels.iter().enumerate() {
                let count = KV_BLOCK_TOKENS.min(seen - i * KV_BLOCK_TOKENS);
                (products.scores)(queries, panel.keys, count, &mut rows.scores[i * KV_BLOCK_TOKENS..]);
            }
            for i in 0..count {
                let row = Row {
                    scores: &mut rows.scores[i * KEYS..][..keys],
                    weights: &mut rows.weights[i * weight_stride..][..keys / self.kernel.group],
                    state: &mut rows.states[first + i],
                    sums: &mut rows.sums[(first + i) * self.dim..][..self.dim],
                };
                self.softmax(self.seen(first + i), row);
            }
            let weights = Queries {
                words: rows.weights,
                rows: count,
                count: seen.next_multiple_of(VALUES_STEP) / self.kernel.group,
                stride: weight_stride,
            };
            let sums = &mut rows.sums[first * self.dim..];
            self.weigh(first..first + count, weights, sums, |panels, sums| {
                (products.values)(weights, panels, self.dim, sums);
            });
        }
    }

    /// Computes all rows, in groups of [`OVERLAPPED_ROWS`]. While the products compute the scores of a group and the
    /// weighted values of the group two before it, the softmax of the group between them is computed.
    ///
    /// # Safety
    /// Same as for [`super::attend`].
    unsafe fn overlapped(&self, products: Overlapped, rows: Rows<'_>) {
        let Rows { queries, states, sums, scores, weights } = rows;
        let group = |i: usize| i * OVERLAPPED_ROWS..queries.rows.min((i + 1) * OVERLAPPED_ROWS);
        let seen = |i: usize| self.seen(group(i).end - 1);
        let words = |i: usize| seen(i).next_multiple_of(SCORES_STEP) / self.kernel.group;
        let (dim, weight_stride) = (self.dim, SCORES_STRIDE / self.kernel.group);
        let keys = self.block.panels.map(|panel| panel.keys);
        let groups = queries.rows.div_ceil(OVERLAPPED_ROWS);
        // each row sees at least as much as the one before it
        let Some(begin) = (0..groups).find(|&i| seen(i) > 0) else { return };
        for step in begin..groups + 2 {
            let at = |back: usize| step.checked_sub(back).filter(|i| (begin..groups).contains(i));
            let (scores, scores_before) = halves(scores, step);
            let (weights, weights_after) = halves(weights, step);
            let between = at(1).map_or(0..0, group);
            let words_between = at(1).map_or(0, words);
            let (sums, sums_between) = sums.split_at_mut(step.saturating_sub(1) * OVERLAPPED_ROWS * dim);
            let mut rows_left = between.clone();
            let mut meanwhile = || {
                let Some(i) = rows_left.next() else { return };
                let row = i - between.start;
                let row = Row {
                    scores: &mut scores_before[row * SCORES_STRIDE..][..words_between * self.kernel.group],
                    weights: &mut weights_after[row * weight_stride..][..words_between],
                    state: &mut states[i],
                    sums: &mut sums_between[row * dim..][..dim],
                };
                // SAFETY: the level is the caller's promise.
                unsafe { self.softmax(self.seen(i), row) };
            };
            // SAFETY: the level is the caller's promise.
            unsafe {
                if let Some(i) = at(0) {
                    let panels = &keys[..self.panels(seen(i)).len()];
                    (products.scores)(queries.part(group(i)), panels, seen(i), scores, &mut meanwhile);
                }
                if let Some(i) = at(2) {
                    let (rows, count, stride) = (group(i), words(i), weight_stride);
                    let weights = Queries { words: weights, rows: rows.len(), count, stride };
                    let sums = &mut sums[rows.start * dim..];
                    self.weigh(rows, weights, sums, |panels, sums| {
                        (products.values)(weights, panels, dim, sums, &mut meanwhile);
                    });
                }
            }
            (0..OVERLAPPED_ROWS).for_each(|_| meanwhile());
        }
    }
}

/// Returns the halves of memory for two groups of rows: first the half for groups with the parity of `number`.
fn halves<T>(memory: &mut [T], number: usize) -> (&mut [T], &mut [T]) {
    let (even, odd) = memory.split_at_mut(memory.len() / 2);
    if number.is_multiple_of(2) { (even, odd) } else { (odd, even) }
}
