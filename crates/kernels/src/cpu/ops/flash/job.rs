//! The input and output of an attention.

use crate::threads::SharedMut;
use std::ops::Range;

/// Query rows of one head, and where their results go.
pub(crate) struct Job<'a> {
    /// The tensor of the queries, `[_, stride]`.
    pub(crate) queries: &'a [f32],
    pub(crate) stride: usize,
    /// First column of the head in the tensor.
    pub(crate) col: usize,
    /// Rows of the tensor.
    pub(crate) rows: Range<usize>,
    /// Number of keys that the first row sees.
    pub(crate) tokens: usize,
    /// Whether each further row sees one key more.
    pub(crate) causal: bool,
    pub(crate) out: &'a SharedMut<'a, f32>,
    pub(crate) out_stride: usize,
    pub(crate) out_col: usize,
}

impl Job<'_> {
    /// Returns the number of keys that row `i` of the job sees.
    pub(super) fn tokens(&self, i: usize) -> usize {
        self.tokens + if self.causal { i } else { 0 }
    }

    /// Returns the results of row `i` of the job, `[dim]`.
    ///
    /// # Safety
    /// No other thread may access the job's rows and columns of `out`, and no other slice of the row may be alive.
    #[expect(clippy::mut_from_ref, reason = "the contract keeps rows apart")]
    pub(super) unsafe fn out_row(&self, i: usize, dim: usize) -> &mut [f32] {
        let start = (self.rows.start + i) * self.out_stride + self.out_col;
        // SAFETY: the contract.
        unsafe { self.out.slice(start..start + dim) }
    }
}
