//! How the causal attention of a batch is cut into tasks of one head. Rows are cut by [`TASK_ROWS`]; single rows are
//! cut by chunks of keys if the heads alone do not feed the threads. The results do not depend on the cut.

use super::batch::CpuBatch;
use super::flash::TASK_ROWS;
use crate::cpu::table::attention::CHUNK_KEYS;
use crate::{KV_BLOCK_TOKENS, Span};
use std::ops::Range;

/// Minimum number of tasks per thread: with four, a thread that falls behind leaves work to the others.
const TASKS_PER_THREAD: usize = 4;

/// A batch, and whether the keys of single rows are split.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a> {
    batch: &'a CpuBatch,
    split: bool,
}

/// What a task computes for each head.
pub(super) struct Part<'a> {
    pub(super) span: Span<'a>,
    /// Rows of the batch.
    pub(super) rows: Range<usize>,
    /// The chunk of the keys; `None` for all keys.
    pub(super) chunk: Option<usize>,
}

/// A row whose keys are split.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SplitRow {
    /// Row of the batch.
    pub(super) row: usize,
    /// The parts that compute its chunks, in the order of the chunks.
    pub(super) parts: Range<usize>,
}

impl<'a> Cut<'a> {
    /// Cuts the attention of `batch`, with `heads` query heads, for `threads` threads.
    pub(super) fn new(batch: &'a CpuBatch, heads: usize, threads: usize) -> Self {
        Self { batch, split: heads < TASKS_PER_THREAD * threads }
    }

    /// Returns the number of chunks into which the keys of a span are split; 1 if they are not split.
    fn chunks(self, span: &Span<'_>, tokens: usize) -> usize {
        if self.split && span.rows.len() == 1 { tokens.div_ceil(CHUNK_KEYS) } else { 1 }
    }

    fn parts_of(self, span: &Span<'_>) -> usize {
        match self.chunks(span, span.past + 1) {
            1 => span.rows.len().div_ceil(TASK_ROWS),
            chunks => chunks,
        }
    }

    /// Returns the number of parts.
    pub(super) fn parts(self) -> usize {
        self.batch.spans().map(|span| self.parts_of(&span)).sum()
    }

    /// Returns the maximum number of parts, reached once every sequence has all the tokens for which it has blocks; 0
    /// if no keys are ever split.
    pub(super) fn parts_max(self) -> usize {
        let tokens_max = |span: &Span<'_>| span.blocks.len() * KV_BLOCK_TOKENS;
        if self.batch.spans().all(|span| self.chunks(&span, tokens_max(&span)) == 1) {
            return 0;
        }
        let parts = |span: Span<'_>| self.parts_of(&span).max(self.chunks(&span, tokens_max(&span)));
        self.batch.spans().map(parts).sum()
    }

    /// Returns part `i`. The last rows of a span, which see the most keys, come first.
    pub(super) fn part(self, i: usize) -> Part<'a> {
        let mut first = 0;
        for span in self.batch.spans() {
            let (parts, chunks) = (self.parts_of(&span), self.chunks(&span, span.past + 1));
            if i < first + parts {
                let at = i - first;
                if chunks > 1 {
                    return Part { rows: span.rows.clone(), span, chunk: Some(at) };
                }
                let start = span.rows.start + (parts - 1 - at) * TASK_ROWS;
                let rows = start..span.rows.end.min(start + TASK_ROWS);
                return Part { span, rows, chunk: None };
            }
            first += parts;
        }
        panic!("part {i} past the last of the spans");
    }

    /// Returns the rows whose keys are split.
    pub(super) fn split_rows(self) -> impl Iterator<Item = SplitRow> + use<'a> {
        let mut first = 0;
        self.batch.spans().filter_map(move |span| {
            let parts = first..first + self.parts_of(&span);
            first = parts.end;
            (self.chunks(&span, span.past + 1) > 1).then_some(SplitRow { row: span.rows.start, parts })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(spans: &[Span<'_>]) -> CpuBatch {
        let mut batch = CpuBatch::default();
        batch.set(spans);
        batch
    }

    #[test]
    fn parts_cover_every_row_once_the_longest_first() {
        let batch = batch(&[
            Span { rows: 0..1, past: 9, blocks: &[0] },
            Span { rows: 1..500, past: 0, blocks: &[1, 2, 3, 4, 5, 6, 7, 8] },
            Span { rows: 500..500, past: 0, blocks: &[] },
            Span { rows: 500..692, past: 0, blocks: &[9, 10, 11] },
        ]);
        for threads in [1, 64] {
            let cut = Cut::new(&batch, 32, threads);
            let rows: Vec<_> = (0..cut.parts()).map(|i| cut.part(i).rows).collect();
            assert_eq!(rows, [0..1, 385..500, 193..385, 1..193, 500..692]);
            assert_eq!((cut.split_rows().count(), cut.parts_max()), (0, 0));
        }
    }

    /// Returns spans of one row each after `past` tokens.
    fn decoding<'a>(past: &[usize], blocks: &'a [u32]) -> Vec<Span<'a>> {
        let of = |past: &usize| (past / KV_BLOCK_TOKENS + 1).min(blocks.len());
        let starts = past.iter().scan(0, |start, past| {
            *start += of(past);
            Some(*start - of(past))
        });
        let span = |((row, past), start): ((usize, &usize), usize)| Span {
            rows: row..row + 1,
            past: *past,
            blocks: &blocks[start..start + of(past)],
        };
        past.iter().enumerate().zip(starts).map(span).collect()
    }

    #[test]
    fn keys_are_split_where_heads_do_not_feed_the_threads() {
        let blocks: Vec<u32> = (0..4096).collect();
        let deep = 16 * 1024 - 1;
        // past tokens of the sequences, threads, tasks of 32 heads
        for (past, threads, tasks) in [
            (vec![deep], 2, 32),
            (vec![deep], 8, 32),
            (vec![deep], 16, 32 * 8),
            (vec![deep], 64, 32 * 8),
            (vec![4 * deep + 3], 64, 32 * 32),
            (vec![1000], 64, 32),
            ([vec![deep], vec![1000; 15]].concat(), 64, 32 * (8 + 15)),
        ] {
            let spans = decoding(&past, &blocks);
            let batch = batch(&spans);
            let cut = Cut::new(&batch, 32, threads);
            assert_eq!(32 * cut.parts(), tasks, "{past:?} on {threads} threads");
            let chunks: Vec<_> = (0..cut.parts()).filter_map(|i| cut.part(i).chunk).collect();
            let rows: Vec<_> = cut.split_rows().collect();
            assert_eq!(chunks.len(), rows.iter().map(|row| row.parts.len()).sum::<usize>());
            for row in rows {
                for (chunk, part) in row.parts.enumerate() {
                    let part = cut.part(part);
                    assert_eq!((part.rows, part.chunk), (row.row..row.row + 1, Some(chunk)));
                }
            }
        }
    }
}
