//! The rows of a batch and the location of their keys and values, in the layout the kernels read: one buffer of words,
//! written once per step.
//!
//! | words | what |
//! |---|---|
//! | 4 per row | *entries*: row, its token, first word of its sequence's block table, 0; rows of short spans first |
//! | 4 per tile | *tiles* of up to 16 rows of one long span: first row, rows, token of the first, first word of the table |
//! | rest | the block tables |

use crate::backend::Gpu;
use crate::buffer::Buffer;
use phi3v_kernels::{BackendError, KV_BLOCK_TOKENS, Span};

/// Rows of a tile of `attend_many.wgsl`.
pub(crate) const TILE_ROWS: usize = 16;

/// See [`phi3v_kernels::Backend::Batch`]. The memory is reused from step to step.
#[derive(Default)]
pub struct GpuBatch {
    pub(crate) buffer: Option<Buffer>,
    words: Vec<u32>,
    /// Rows with an entry.
    pub(crate) entries: usize,
    /// Of these, rows of short spans, which come first.
    pub(crate) few: usize,
    pub(crate) tiles: usize,
    /// Maximum number of tokens that a row of a short span sees.
    pub(crate) few_tokens: usize,
    /// Maximum number of tokens that any row sees.
    pub(crate) tokens: usize,
    /// Number of blocks that all rows of short spans see, in total.
    pub(crate) few_blocks: u64,
    /// Number of blocks that all tiles see, in total.
    pub(crate) tile_blocks: u64,
}

impl GpuBatch {
    /// # Panics
    /// If spans share rows or are not in order, or if two of them would write one block.
    fn lay_out(&mut self, spans: &[Span<'_>]) {
        assert!(
            spans.is_sorted_by(|a, b| a.rows.end <= b.rows.start),
            "spans have rows of their own, in order"
        );
        assert_distinct(spans);
        let long = |span: &Span<'_>| span.rows.len() >= TILE_ROWS;
        let rows = |long_ones: bool| -> usize {
            spans.iter().filter(|span| long(span) == long_ones).map(|span| span.rows.len()).sum()
        };
        let tiles_of = |span: &Span<'_>| if long(span) { span.rows.len().div_ceil(TILE_ROWS) } else { 0 };
        self.few = rows(false);
        self.entries = self.few + rows(true);
        self.tiles = spans.iter().map(tiles_of).sum();
        (self.few_tokens, self.tokens, self.few_blocks, self.tile_blocks) = (0, 0, 0, 0);
        let tables: usize = spans.iter().map(|span| span.blocks.len()).sum();
        let head = 4 * (self.entries + self.tiles);
        self.words.clear();
        self.words.resize(head, 0);
        self.words.reserve(tables);
        let (mut few, mut many, mut tile) = (0, self.few, self.entries);
        for span in spans {
            let table = self.words.len() as u32;
            self.words.extend_from_slice(span.blocks);
            for (i, row) in span.rows.clone().enumerate() {
                let token = span.past + i;
                let at = if long(span) { &mut many } else { &mut few };
                self.words[4 * *at..4 * *at + 3].copy_from_slice(&[row as u32, token as u32, table]);
                *at += 1;
                self.tokens = self.tokens.max(token + 1);
                if !long(span) {
                    self.few_tokens = self.few_tokens.max(token + 1);
                    self.few_blocks += (token + 1).div_ceil(KV_BLOCK_TOKENS) as u64;
                }
            }
            for i in 0..tiles_of(span) {
                let first = i * TILE_ROWS;
                let rows = TILE_ROWS.min(span.rows.len() - first);
                let words = [span.rows.start + first, rows, span.past + first].map(|v| v as u32);
                self.words[4 * tile..4 * tile + 3].copy_from_slice(&words);
                self.words[4 * tile + 3] = table;
                tile += 1;
                self.tile_blocks += (span.past + first + rows).div_ceil(KV_BLOCK_TOKENS) as u64;
            }
        }
    }
}

/// Asserts that no block occurs twice among those that a batch writes.
fn assert_distinct(spans: &[Span<'_>]) {
    let written = |span: &Span<'_>| {
        let end = span.past + span.rows.len();
        if end == span.past { 0..0 } else { span.past / KV_BLOCK_TOKENS..end.div_ceil(KV_BLOCK_TOKENS) }
    };
    let mut blocks: Vec<u32> =
        spans.iter().flat_map(|span| span.blocks[written(span)].iter().copied()).collect();
    blocks.sort_unstable();
    assert!(blocks.is_sorted_by(|a, b| a < b), "a block stands twice among those that a batch writes");
}

impl Gpu {
    pub(crate) fn lay_out_batch(&self, spans: &[Span<'_>], batch: &mut GpuBatch) -> Result<(), BackendError> {
        batch.lay_out(spans);
        let bytes = 4 * batch.words.len();
        let large_enough = batch.buffer.take().filter(|buffer| buffer.size() >= bytes as u64);
        let buffer = match large_enough {
            Some(buffer) => buffer,
            // a sequence grows by a block every 64 tokens; this avoids a new buffer each time
            None => self.recorder().new_buffer(&self.device, bytes.next_power_of_two().max(4096))?,
        };
        self.recorder().write(&self.device, bytemuck::cast_slice(&batch.words), &buffer, 0)?;
        batch.buffer = Some(buffer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_short_spans_come_first_and_long_ones_are_cut_into_tiles() {
        let spans = [
            Span { rows: 0..18, past: 60, blocks: &[7, 3] },
            Span { rows: 18..19, past: 128, blocks: &[6, 2, 8] },
            Span { rows: 19..19, past: 0, blocks: &[] },
        ];
        let mut batch = GpuBatch::default();
        // the remains of an earlier batch are forgotten
        for _ in 0..2 {
            batch.lay_out(&spans);
            assert_eq!((batch.entries, batch.few, batch.tiles, batch.few_tokens), (19, 1, 2, 129));
            let tables = 4 * (19 + 2) as u32;
            assert_eq!(batch.words[..4], [18, 128, tables + 2, 0]);
            assert_eq!(batch.words[4..8], [0, 60, tables, 0]);
            assert_eq!(batch.words[4 * 19..4 * 21], [0, 16, 60, tables, 16, 2, 76, tables]);
            assert_eq!(batch.words[tables as usize..], [7, 3, 6, 2, 8]);
            assert_eq!((batch.few_blocks, batch.tile_blocks), (3, 4));
        }
    }

    #[test]
    #[should_panic(expected = "a block stands twice")]
    fn two_sequences_cannot_write_one_block() {
        let span = |rows, past| Span { rows, past, blocks: &[4, 5] };
        GpuBatch::default().lay_out(&[span(0..1, 3), span(1..3, 63)]);
    }
}
