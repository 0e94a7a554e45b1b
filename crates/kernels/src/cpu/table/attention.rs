//! Attention, and storing keys and values. Attention is computed either in blocks, with the functions that
//! [`crate::cpu::ops::flash`] calls, or for one query at a time.

use super::kv::{KvHeadMut, KvRows};
use crate::KvFormat;
use crate::cpu::prefetch::Ahead;
use std::ops::Range;

/// Computes one query: `(query, keys and values, what it sees, scratch, out)`, see [`Seen`].
pub(crate) type SingleQuery = unsafe fn(&[f32], &dyn KeyValues, Seen, &mut [f32], &mut [f32]);

/// The kernels of attention.
#[derive(Clone, Copy)]
pub(crate) struct AttentionKernels {
    /// Stores keys and values of consecutive tokens, beginning at a token of a block.
    pub(crate) store_kv: unsafe fn(&mut KvHeadMut<'_>, usize, &KvRows<'_>),
    pub(crate) single: SingleQuery,
    /// Blocked attention; if `None`, queries are computed one at a time.
    pub(crate) flash_f32: Option<&'static FlashKernel>,
    /// Like `flash_f32`, in bf16; if `None`, bf16 is widened to f32.
    pub(crate) flash_bf16: Option<&'static FlashKernel>,
}

/// Keys and values of one head, in the order of their tokens.
pub(crate) trait KeyValues {
    /// Writes the key of token `t` to `out`, `[dim]`.
    fn key(&self, t: usize, out: &mut [f32]);
    /// Writes the value of token `t` to `out`, `[dim]`.
    fn value(&self, t: usize, out: &mut [f32]);
}

/// Number of keys of a chunk, a multiple of [`KEYS`]. Attention over more keys is computed for each chunk and merged
/// in the order of the chunks, see [`RowState::merge`]. Several threads can therefore compute chunks, and no result
/// depends on the number of threads.
pub(crate) const CHUNK_KEYS: usize = 2048;

/// What a single query attends to.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// The number of tokens, from the first on.
    pub(crate) tokens: usize,
    /// Whether the query and the exponentials of the softmax are rounded to bf16. The divisor is the sum of the
    /// unrounded exponentials.
    pub(crate) bf16: bool,
}

impl Seen {
    /// Returns the number of scratch values for `tokens` tokens of `dim` values: a row, the sums of a chunk, and its
    /// weights.
    pub(crate) fn scratch(dim: usize, tokens: usize) -> usize {
        2 * dim + tokens.min(CHUNK_KEYS)
    }
}

/// Number of keys of a block.
pub(crate) const KEYS: usize = 512;

/// Rows of scores have a multiple of this number of keys: the lanes of two registers of AVX-512.
pub(crate) const SCORES_STEP: usize = 32;

/// This number of values is multiplied by weights at a time: two pairs, as `bfmmla` takes them.
pub(crate) const VALUES_STEP: usize = 4;

/// Number of query rows that are multiplied together if products overlap.
pub(crate) const OVERLAPPED_ROWS: usize = 32;

/// Distance between rows of scores if products overlap, and between rows of weights, in values. It is more than
/// [`KEYS`] because 32 rows 2 KB apart would share two sets of an L1 cache.
pub(crate) const SCORES_STRIDE: usize = KEYS + 32;

/// The functions of attention that depend on the instruction set. Words are f32 or pairs of bf16, as in
/// [`crate::cpu::ops::gemm`].
pub(crate) struct FlashKernel {
    /// Values in a word: 1 (f32) or 2 (bf16).
    pub(crate) group: usize,
    /// `(row, out)`: packs a query row, `[dim]`, as words.
    pub(crate) pack_query: unsafe fn(&[f32], &mut [u32]),
    /// `(panel, format, cols, out)`: widens a panel of a narrower format, `[_, cols, group]`, to a panel of words;
    /// 8-bit values without their scales.
    pub(crate) widen: unsafe fn(&[u8], KvFormat, usize, &mut [u32]),
    pub(crate) products: Products,
    /// The exponential in the unit of [`RowState::largest`].
    pub(crate) exp: fn(f32) -> f32,
    /// Turns a row of scores into weights. Returns the factor by which the row's earlier sums must be multiplied.
    pub(crate) softmax: unsafe fn(SoftmaxRow<'_>) -> f32,
    pub(crate) single_rows: SingleRows,
}

/// Scores and weighted values of a single row against panels as they are stored, for the formats that have a kernel.
/// The sums are the same as those of several rows, but without widening first, and the next panels are prefetched.
#[derive(Clone, Copy)]
pub(crate) struct SingleRows {
    pub(crate) f32: Option<SingleRow>,
    pub(crate) bf16: Option<SingleRow>,
    pub(crate) q8: Option<SingleRow>,
}

impl SingleRows {
    /// Returns the kernel for panels of `format`.
    pub(crate) fn of(&self, format: KvFormat) -> Option<SingleRow> {
        match format {
            KvFormat::F32 => self.f32,
            KvFormat::Bf16 => self.bf16,
            KvFormat::Q8 => self.q8,
        }
    }
}

/// How queries are multiplied by keys, and weights by values.
#[derive(Clone, Copy)]
pub(crate) enum Products {
    /// The products run one after another, with the softmax between them.
    InTurn(InTurn),
    /// The products run while the softmax of other rows is computed.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only AMX has units that work side by side")
    )]
    Overlapped(Overlapped),
}

/// Products of rows that run one after another.
#[derive(Clone, Copy)]
pub(crate) struct InTurn {
    /// `(queries, keys, count, scores)`: multiplies `[rows, dim]` by the first `count` keys of a panel. The results
    /// go to columns of rows of [`KEYS`]; columns up to the next multiple of 16 may be written.
    pub(crate) scores: unsafe fn(Queries<'_>, &[u32], usize, &mut [f32]),
    /// `(weights, values, dim, sums)`: adds the product of weights and value panels to `[rows, dim]`. The weights of
    /// a panel's 64 keys follow those of the panel before. The last panel may have fewer, a multiple of
    /// [`VALUES_STEP`].
    pub(crate) values: unsafe fn(Queries<'_>, &[&[u32]], usize, &mut [f32]),
}

/// Products of up to [`OVERLAPPED_ROWS`] rows on a separate unit of the processor. They call `meanwhile` every few
/// hundred cycles; its work runs at the same time as theirs.
#[derive(Clone, Copy)]
pub(crate) struct Overlapped {
    /// `(queries, keys, count, scores, meanwhile)`: multiplies `[rows, dim]` by the first `count` keys of some
    /// panels. The results go to rows of [`SCORES_STRIDE`]; columns up to the next multiple of [`SCORES_STEP`] are
    /// written.
    pub(crate) scores: OverlappedProduct,
    /// `(weights, values, dim, sums, meanwhile)`: adds the product of weights and value panels to `[rows, dim]`. The
    /// weights of a panel's 64 keys follow those of the panel before. The last panel may have fewer, a multiple of
    /// [`SCORES_STEP`].
    pub(crate) values: OverlappedProduct,
}

/// A product of rows and panels; the number is that of keys or of dimensions.
pub(crate) type OverlappedProduct = unsafe fn(Queries<'_>, &[&[u32]], usize, &mut [f32], Meanwhile<'_>);

/// Other work to do during a product.
pub(crate) type Meanwhile<'a> = &'a mut dyn FnMut();

/// The functions of a format, see [`SingleRows`].
#[derive(Clone, Copy)]
pub(crate) struct SingleRow {
    /// `(query, keys, ahead, scores)`: multiplies a query row, `[dim]` as words, by a key panel, giving the scores of
    /// its 64 keys. Meanwhile another key panel, or nothing, is prefetched.
    pub(crate) scores: unsafe fn(&[u32], &[u32], Ahead<'_>, &mut [f32]),
    /// `(weights, values, ahead, sums)`: adds to `[dim]` the product of up to 64 weights, as words, and a value
    /// panel. The number of weights is a multiple of [`VALUES_STEP`]. Meanwhile another value panel, or nothing, is
    /// prefetched.
    pub(crate) values: unsafe fn(&[u32], &[u32], Ahead<'_>, &mut [f32]),
}

/// Rows of words. The memory extends to the next multiple of a tile's rows.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) rows: usize,
    /// Number of words of a row that are used.
    pub(crate) count: usize,
    /// Distance between rows, in words.
    pub(crate) stride: usize,
}

impl Queries<'_> {
    /// Returns the rows `rows`.
    pub(crate) fn part(self, rows: Range<usize>) -> Self {
        Self { words: &self.words[rows.start * self.stride..], rows: rows.len(), ..self }
    }
}

/// One row of a block's scores, to be turned into weights.
pub(crate) struct SoftmaxRow<'a> {
    /// Scores, a multiple of [`SCORES_STEP`]; overwritten.
    pub(crate) scores: &'a mut [f32],
    /// Number of valid scores; the others get weight zero.
    pub(crate) valid: usize,
    /// Factor of all scores.
    pub(crate) scale: f32,
    /// Factors of each score and, in `value_scales`, of each weight; empty unless 8-bit.
    pub(crate) key_scales: &'a [f32],
    pub(crate) value_scales: &'a [f32],
    /// The weights, as words.
    pub(crate) weights: &'a mut [u32],
    pub(crate) state: &'a mut RowState,
}

/// Returns the factor that scores must still be multiplied by, so that they become exponents once `largest` is
/// subtracted. `largest` is the largest score times `scale`, rounded.
///
/// Subtracting it from an unrounded product leaves the largest score with an exponent above 0 if the rounding was
/// down. Up to 2^24 the excess is at most half of 1. Beyond that, the scores are multiplied here, and so rounded in
/// the same way.
pub(crate) fn scale_left(scores: &mut [f32], scale: f32, largest: f32) -> f32 {
    if largest.abs() < 16_777_216.0 {
        return scale;
    }
    scores.iter_mut().for_each(|score| *score *= scale);
    1.0
}

/// The state of a row's softmax after the keys that the row has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowState {
    /// The largest score, in the kernel's unit.
    pub(crate) largest: f32,
    /// Sum of the weights, where the largest score has weight 1.
    pub(crate) sum: f32,
}

impl RowState {
    pub(crate) const EMPTY: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Merges the results of later keys of the row: their state `later`, and their weighted values `later_values`
    /// into `values`. Both are `[dim]` and not divided by the sums. `exp` is the exponential in the unit of the
    /// largest scores.
    pub(crate) fn merge(
        &mut self,
        values: &mut [f32],
        later: Self,
        later_values: &[f32],
        exp: fn(f32) -> f32,
    ) {
        if later.sum == 0.0 {
            return; // the row saw none of the later keys
        }
        if self.sum == 0.0 {
            *self = later;
            values.copy_from_slice(later_values);
            return;
        }
        let largest = self.largest.max(later.largest);
        let (ours, theirs) = (exp(self.largest - largest), exp(later.largest - largest));
        *self = Self { largest, sum: self.sum * ours + later.sum * theirs };
        values
            .iter_mut()
            .zip(later_values)
            .for_each(|(value, later)| *value = *value * ours + later * theirs);
    }
}
