//! `out = epilogue(x Wᵀ + bias)`: weights, and products with dense ones.
//!
//! Invariant: a row's result does not depend on the other rows, the cut into tasks, or the thread count. With dense
//! weights it depends on whether there are more than [`STREAMED_ROWS_MAX`] rows, because then the sums run in another
//! order.

use super::dense::{Dense, PANEL, Panels, panel_bias};
use super::gemm::STREAMED_ROWS_MAX;
use super::packed::Packed;
use super::runner::{Runner, Scratch};
use super::tensor::{Buffer, CpuTensor};
use crate::threads::SharedMut;
use crate::{BackendError, Epilogue, MatrixSource, Precision, Storage};

/// A weight matrix `[n, k]` with its optional bias: dense, in the layout of its file, or packed.
pub struct CpuLinear(pub(crate) Weight);

/// A dense matrix `[vocab, hidden]` whose rows are looked up by number and widened to f32.
pub struct CpuTable(pub(super) Dense);

impl CpuTable {
    pub(crate) fn new(source: MatrixSource) -> Result<Self, BackendError> {
        match source.format.storage() {
            Storage::Dense(format) => Ok(Self(Dense::new(source, format)?)),
            Storage::Packed(_) => {
                let MatrixSource { n, k, format, .. } = source;
                Err(BackendError::MatrixShape { n, k, format })
            }
        }
    }
}

pub(crate) enum Weight {
    Dense(Dense),
    Packed(Packed),
}

impl CpuLinear {
    pub(crate) fn new(source: MatrixSource) -> Result<Self, BackendError> {
        Ok(Self(match source.format.storage() {
            Storage::Dense(format) => Weight::Dense(Dense::new(source, format)?),
            Storage::Packed(format) => Weight::Packed(Packed::new(source, format)?),
        }))
    }

    /// Returns the weight if it is packed.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match &self.0 {
            Weight::Packed(packed) => Some(packed),
            Weight::Dense(_) => None,
        }
    }
}

/// Returns the weight rows of a task that streams them once: 64 if every thread then gets four tasks, otherwise 16,
/// so that the last task to finish is short.
pub(crate) fn streaming_width(n: usize, threads: usize) -> usize {
    if n / PANEL >= 4 * threads { PANEL } else { PANEL / 4 }
}

impl Runner {
    /// See [`Backend::linear`](crate::Backend::linear).
    pub(crate) fn linear(&self, x: &CpuTensor, weight: &CpuLinear, epilogue: Epilogue, out: &mut CpuTensor) {
        match &weight.0 {
            Weight::Dense(dense) => self.run_linear(x, dense, epilogue, out),
            Weight::Packed(packed) => self.run_packed(x, packed, epilogue, out),
        }
    }

    fn run_linear(&self, x: &CpuTensor, weight: &Dense, epilogue: Epilogue, out: &mut CpuTensor) {
        let panels = Panels::new(weight.n, PANEL, epilogue);
        let shape = (x.rows(), panels.out_cols());
        assert_eq!(x.cols(), weight.k, "input columns of a [{}, {}] matrix", weight.n, weight.k);
        assert_eq!((out.rows(), out.cols()), shape, "output of a [{}, {}] matrix", weight.n, weight.k);
        let kernel = match weight.precision {
            Precision::F32 => self.kernels.dense.gemm_f32,
            Precision::Bf16 => self.kernels.dense.gemm_bf16,
        };
        match kernel {
            Some(kernel) if x.rows() > STREAMED_ROWS_MAX => self.gemm(kernel, x, weight, epilogue, out),
            _ => self.stream(x, weight, epilogue, out),
        }
    }

    /// Computes the product for few rows: every weight row is read once, directly from the mapped file.
    fn stream(&self, x: &CpuTensor, weight: &Dense, epilogue: Epilogue, out: &mut CpuTensor) {
        let width = streaming_width(weight.n, self.pool.threads());
        let panels = Panels::new(weight.n, width, epilogue);
        let (m, cols) = (x.rows(), out.cols());
        self.reserve_work::<f32>(m * width);
        let Scratch { packed, .. } = &mut *self.scratch();
        let rounded = match weight.precision {
            Precision::F32 => &[],
            Precision::Bf16 => self.rounded(x, packed),
        };
        let out = SharedMut::new(out.values_mut());
        self.pool.run(panels.count(), |i, thread| {
            let panel = panels.panel(i);
            let rows = weight.panel_rows(&panel);
            let mut bias = [0.0; PANEL];
            let bias = panel_bias(weight.bias(), &panel, &mut bias);
            let mut scratch = self.thread_scratch(thread);
            let y = scratch.work.take::<f32>(m * rows.len());
            // SAFETY: the kernels are those of a level this processor has.
            unsafe {
                match weight.precision {
                    Precision::F32 => (self.kernels.dense.gemv_f32)(&rows, x.values(), y),
                    Precision::Bf16 => (self.kernels.dense.gemv_bf16)(&rows, rounded, y),
                }
            }
            for (row, y) in y.chunks_exact(rows.len()).enumerate() {
                // SAFETY: panels are disjoint columns, and each panel is one task; the level is as above.
                unsafe {
                    let out = out.slice(row * cols + panel.out.start..row * cols + panel.out.end);
                    (self.kernels.rows.epilogue)(epilogue, y, bias, out);
                }
            }
        });
    }

    /// Returns `x` rounded to bf16, `[rows, cols]`.
    fn rounded<'a>(&self, x: &CpuTensor, packed: &'a mut Buffer) -> &'a [u16] {
        let rounded = packed.take::<u16>(x.rows() * x.cols());
        // SAFETY: the kernels are those of a level this processor has.
        unsafe { (self.kernels.rows.round_bf16)(x.values(), rounded) };
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_cut_finer_for_many_threads() {
        assert_eq!([2, 8, 64].map(|threads| streaming_width(3072, threads)), [64, 64, 16]);
        assert_eq!([2, 8, 64].map(|threads| streaming_width(32_064, threads)), [64, 64, 64]);
        assert_eq!([2, 8, 64].map(|threads| streaming_width(96, threads)), [16, 16, 16]);
    }
}
