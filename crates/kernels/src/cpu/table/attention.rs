//! Attention: blocked, in the parts of [`crate::cpu::ops::flash`], or one query at a time; and the storing of keys and
//! values.

use super::kv::{KvHeadMut, KvRows};
use crate::KvFormat;
use crate::cpu::prefetch::Ahead;
use std::ops::Range;

/// One query at a time: `(query, keys and values, what it sees, scratch, out)`, see [`Seen`].
pub(crate) type SingleQuery = unsafe fn(&[f32], &dyn KeyValues, Seen, &mut [f32], &mut [f32]);

/// The kernels of attention.
#[derive(Clone, Copy)]
pub(crate) struct AttentionKernels {
    /// Stores keys and values of consecutive tokens from a token of a block on.
    pub(crate) store_kv: unsafe fn(&mut KvHeadMut<'_>, usize, &KvRows<'_>),
    pub(crate) single: SingleQuery,
    /// Blocked attention; without it every query is taken alone.
    pub(crate) flash_f32: Option<&'static FlashKernel>,
    /// As `flash_f32` in bf16; without it bf16 is widened to f32.
    pub(crate) flash_bf16: Option<&'static FlashKernel>,
}

/// Keys and values of one head, in the order of their tokens.
pub(crate) trait KeyValues {
    /// The key of token `t`, `[dim]`.
    fn key(&self, t: usize, out: &mut [f32]);
    /// The value of token `t`, `[dim]`.
    fn value(&self, t: usize, out: &mut [f32]);
}

/// Keys of a chunk, a multiple of [`KEYS`]. Attention over more of them is that over each chunk, merged in the order of the
/// chunks, see [`RowState::merge`]: so chunks can be computed by several threads, and no result depends on how many.
pub(crate) const CHUNK_KEYS: usize = 2048;

/// What a single query attends to.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// The first so many tokens.
    pub(crate) tokens: usize,
    /// Whether the query and the softmax's exponentials are rounded to bf16; the divisor sums them unrounded.
    pub(crate) bf16: bool,
}

impl Seen {
    /// Values of scratch for `tokens` of `dim` values: a row, a chunk's sums, and its weights.
    pub(crate) fn scratch(dim: usize, tokens: usize) -> usize {
        2 * dim + tokens.min(CHUNK_KEYS)
    }
}

/// Keys of a block.
pub(crate) const KEYS: usize = 512;

/// Rows of scores have a multiple of so many keys: the lanes of two registers of AVX-512.
pub(crate) const SCORES_STEP: usize = 32;

/// Values are weighed by so many at a time: two pairs, as `bfmmla` takes them.
pub(crate) const VALUES_STEP: usize = 4;

/// Query rows that are multiplied together where products overlap.
pub(crate) const OVERLAPPED_ROWS: usize = 32;

/// Distance of rows of scores where products overlap, and of rows of weights, in values: more than [`KEYS`], for 32 rows
/// 2 KB apart would share two sets of an L1.
pub(crate) const SCORES_STRIDE: usize = KEYS + 32;

/// The parts of an attention that depend on the instruction set. Words are f32 or pairs of bf16, as in
/// [`crate::cpu::ops::gemm`].
pub(crate) struct FlashKernel {
    /// Values in a word: 1 (f32) or 2 (bf16).
    pub(crate) group: usize,
    /// `(row, out)`: a query row `[dim]` as words.
    pub(crate) pack_query: unsafe fn(&[f32], &mut [u32]),
    /// `(panel, format, cols, out)`: a panel of a narrower format, `[_, cols, group]`, as a panel of words, 8-bit
    /// values without their scales.
    pub(crate) widen: unsafe fn(&[u8], KvFormat, usize, &mut [u32]),
    pub(crate) products: Products,
    /// The exponential in the unit of [`RowState::largest`].
    pub(crate) exp: fn(f32) -> f32,
    /// Turns a row of scores to weights; returns by what the row's earlier sums must be multiplied.
    pub(crate) softmax: unsafe fn(SoftmaxRow<'_>) -> f32,
    pub(crate) single_rows: SingleRows,
}

/// Scores and values of a single row against panels as they are stored, where there is a kernel for their format: the same
/// sums as those of several rows, without widening first, and the next panels are fetched ahead.
#[derive(Clone, Copy)]
pub(crate) struct SingleRows {
    pub(crate) f32: Option<SingleRow>,
    pub(crate) bf16: Option<SingleRow>,
    pub(crate) q8: Option<SingleRow>,
}

impl SingleRows {
    /// The kernel for panels of `format`.
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
    /// With the softmax between.
    InTurn(InTurn),
    /// While the softmax of other rows is computed.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only AMX has units that work side by side")
    )]
    Overlapped(Overlapped),
}

/// Products of rows, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct InTurn {
    /// `(queries, keys, count, scores)`: `[rows, dim]` by the first `count` keys of a panel to columns of rows of
    /// [`KEYS`]; columns up to the next multiple of 16 may be written.
    pub(crate) scores: unsafe fn(Queries<'_>, &[u32], usize, &mut [f32]),
    /// `(weights, values, dim, sums)`: adds weights by value panels to `[rows, dim]`. The weights of a panel's 64 keys
    /// follow those of the panel before; the last panel may have fewer, a multiple of [`VALUES_STEP`].
    pub(crate) values: unsafe fn(Queries<'_>, &[&[u32]], usize, &mut [f32]),
}

/// Products of up to [`OVERLAPPED_ROWS`] rows on a unit of their own. They call `meanwhile` every few hundred cycles: what
/// it does is computed beside them.
#[derive(Clone, Copy)]
pub(crate) struct Overlapped {
    /// `(queries, keys, count, scores, meanwhile)`: `[rows, dim]` by the first `count` keys of some panels to rows of
    /// [`SCORES_STRIDE`]; columns up to the next multiple of [`SCORES_STEP`] are written.
    pub(crate) scores: OverlappedProduct,
    /// `(weights, values, dim, sums, meanwhile)`: adds weights by value panels to `[rows, dim]`. The weights of a panel's
    /// 64 keys follow those of the panel before; the last panel may have fewer, a multiple of [`SCORES_STEP`].
    pub(crate) values: OverlappedProduct,
}

/// A product of rows by panels, of so many keys or dimensions.
pub(crate) type OverlappedProduct = unsafe fn(Queries<'_>, &[&[u32]], usize, &mut [f32], Meanwhile<'_>);

/// Something else to do.
pub(crate) type Meanwhile<'a> = &'a mut dyn FnMut();

/// See [`SingleRows`].
#[derive(Clone, Copy)]
pub(crate) struct SingleRow {
    /// `(query, keys, ahead, scores)`: a query row, `[dim]` as words, by a key panel to the scores of its 64 keys. Another
    /// key panel, or nothing, is fetched meanwhile.
    pub(crate) scores: unsafe fn(&[u32], &[u32], Ahead<'_>, &mut [f32]),
    /// `(weights, values, ahead, sums)`: adds up to 64 weights, as words, a multiple of [`VALUES_STEP`], by a value panel
    /// to `[dim]`. Another value panel, or nothing, is fetched meanwhile.
    pub(crate) values: unsafe fn(&[u32], &[u32], Ahead<'_>, &mut [f32]),
}

/// Rows of words; memory up to the next multiple of a tile's rows exists.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) rows: usize,
    /// Words of a row that are used.
    pub(crate) count: usize,
    /// Distance of rows.
    pub(crate) stride: usize,
}

impl Queries<'_> {
    /// Some of the rows.
    pub(crate) fn part(self, rows: Range<usize>) -> Self {
        Self { words: &self.words[rows.start * self.stride..], rows: rows.len(), ..self }
    }
}

/// One row of a block's scores on its way to weights.
pub(crate) struct SoftmaxRow<'a> {
    /// Scores, a multiple of [`SCORES_STEP`]; overwritten.
    pub(crate) scores: &'a mut [f32],
    /// How many of them count; the others get weight zero.
    pub(crate) valid: usize,
    /// Multiplies all scores.
    pub(crate) scale: f32,
    /// Multiply each score and each weight; empty unless 8-bit.
    pub(crate) key_scales: &'a [f32],
    pub(crate) value_scales: &'a [f32],
    /// The weights as words.
    pub(crate) weights: &'a mut [u32],
    pub(crate) state: &'a mut RowState,
}

/// What scores have still to be multiplied by, so that they are exponents once `largest` is subtracted: the largest score
/// times `scale`, rounded. Subtracting it from a product that is not rounded leaves the largest score an exponent above 0
/// where the rounding was down. That is half of 1 at most up to 2^24; larger ones are multiplied here, and so rounded, too.
pub(crate) fn scale_left(scores: &mut [f32], scale: f32, largest: f32) -> f32 {
    if largest.abs() < 16_777_216.0 {
        return scale;
    }
    scores.iter_mut().for_each(|score| *score *= scale);
    1.0
}

/// What a row's softmax knows of the keys it has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowState {
    /// The largest score, in the kernel's unit.
    pub(crate) largest: f32,
    /// Sum of the weights, that of the largest score being 1.
    pub(crate) sum: f32,
}

impl RowState {
    pub(crate) const EMPTY: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Adds what the row's later keys came to: their state, and their weighted values `later_values` to `values`, `[dim]`
    /// each, not divided by the sums. `exp` is the exponential in the unit of the largest scores.
    pub(crate) fn merge(
        &mut self,
        values: &mut [f32],
        later: Self,
        later_values: &[f32],
        exp: fn(f32) -> f32,
    ) {
        if later.sum == 0.0 {
            return; // it saw none of them
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
