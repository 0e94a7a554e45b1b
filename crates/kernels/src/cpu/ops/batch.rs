//! Which rows of a batch belong to which sequence, and which blocks of the KV cache they go to. Computed once per
//! step, for all layers.

use crate::{KV_BLOCK_TOKENS, Span};
use std::ops::Range;

/// The rows and block tables of a step's sequences: the [`Backend::Batch`](crate::Backend::Batch) of the CPU. Memory
/// is kept from step to step.
#[derive(Debug, Default)]
pub struct CpuBatch {
    sequences: Vec<Sequence>,
    /// The block tables, one after another.
    blocks: Vec<u32>,
    written: Vec<BlockRows>,
    /// The blocks of `written`, sorted.
    sorted: Vec<u32>,
}

/// One span, with the range of its block table within that of the batch.
#[derive(Clone, Debug)]
struct Sequence {
    rows: Range<usize>,
    past: usize,
    blocks: Range<usize>,
}

/// The tokens of one span that are in one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockRows {
    /// Number of the block in the pool.
    pub(super) block: u32,
    /// First token within the block.
    pub(super) token: usize,
    /// Rows of the batch, one per token.
    pub(super) rows: Range<usize>,
}

impl CpuBatch {
    /// Sets this batch to `spans`.
    ///
    /// # Panics
    /// If spans share rows or are not in order, or if two of them would write to the same block.
    pub(crate) fn set(&mut self, spans: &[Span<'_>]) {
        assert!(
            spans.is_sorted_by(|a, b| a.rows.end <= b.rows.start),
            "spans have rows of their own, in order"
        );
        self.sequences.clear();
        self.blocks.clear();
        self.written.clear();
        for span in spans {
            let first = self.blocks.len();
            self.blocks.extend_from_slice(span.blocks);
            let blocks = first..self.blocks.len();
            self.sequences.push(Sequence { rows: span.rows.clone(), past: span.past, blocks });
            self.written.extend(block_rows(span));
        }
        self.sorted.clear();
        self.sorted.extend(self.written.iter().map(|part| part.block));
        self.sorted.sort_unstable();
        let distinct = self.sorted.windows(2).all(|pair| pair[0] != pair[1]);
        assert!(distinct, "a block stands twice among those that a batch writes");
    }

    /// Returns the spans.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span<'_>> {
        self.sequences.iter().map(|sequence| self.span(sequence))
    }

    /// Returns where the keys and values of the rows are stored; the blocks are distinct.
    pub(super) fn written(&self) -> &[BlockRows] {
        &self.written
    }

    /// Returns the span that row `row` belongs to.
    pub(super) fn span_of(&self, row: usize) -> Option<Span<'_>> {
        let index = self.sequences.partition_point(|sequence| sequence.rows.end <= row);
        let sequence = self.sequences.get(index)?;
        sequence.rows.contains(&row).then(|| self.span(sequence))
    }

    fn span(&self, sequence: &Sequence) -> Span<'_> {
        let Sequence { rows, past, blocks } = sequence.clone();
        Span { rows, past, blocks: &self.blocks[blocks] }
    }
}

/// Returns the blocks that the rows of `span` touch, in order.
fn block_rows(span: &Span<'_>) -> impl Iterator<Item = BlockRows> {
    let (past, end) = (span.past, span.past + span.rows.len());
    let touched = past / KV_BLOCK_TOKENS..end.div_ceil(KV_BLOCK_TOKENS);
    let touched = if past == end { 0..0 } else { touched };
    touched.map(move |index| {
        let first = past.max(index * KV_BLOCK_TOKENS);
        let last = end.min((index + 1) * KV_BLOCK_TOKENS);
        let rows = span.rows.start + first - past..span.rows.start + last - past;
        BlockRows { block: span.blocks[index], token: first % KV_BLOCK_TOKENS, rows }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_assigned_to_blocks() {
        let spans = [
            Span { rows: 0..1, past: 128, blocks: &[7, 3, 9] },
            Span { rows: 1..72, past: 60, blocks: &[6, 2, 8] },
            Span { rows: 72..72, past: 0, blocks: &[7] },
        ];
        let mut batch = CpuBatch::default();
        // nothing of an earlier batch remains
        for _ in 0..2 {
            batch.set(&spans);
            let part = |block, token, rows| BlockRows { block, token, rows };
            assert_eq!(
                batch.written(),
                [part(9, 0, 0..1), part(6, 60, 1..5), part(2, 0, 5..69), part(8, 0, 69..72)]
            );
            assert!(batch.spans().zip(&spans).all(|(found, span)| {
                (found.rows, found.past, found.blocks) == (span.rows.clone(), span.past, span.blocks)
            }));
        }
        let owner = |row| batch.span_of(row).map(|span| span.past);
        assert_eq!([0, 1, 71, 72].map(owner), [Some(128), Some(60), Some(60), None]);
    }

    #[test]
    #[should_panic(expected = "a block stands twice")]
    fn two_sequences_cannot_write_one_block() {
        let span = |rows, past| Span { rows, past, blocks: &[4, 5] };
        CpuBatch::default().set(&[span(0..1, 3), span(1..3, 63)]);
    }
}
