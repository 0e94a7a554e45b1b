//! `out = epilogue(x Wᵀ + bias)`: dense weights, and how a product is cut into tasks.
//!
//! Dense weights stay where they are mapped, row-major. A task computes a *panel*: up to 64 output columns. For
//! [`Epilogue::SiluMul`] a panel is 32 gate rows and the 32 up rows that belong to them, so that their product can be
//! taken while both are at hand.
//!
//! Invariant: a row's result depends neither on the other rows, nor on the cut into tasks, nor on the thread count.

use super::gemm::STREAMED_ROWS_MAX;
use super::int8::Packed;
use super::level::{WeightRows, value_bytes};
use super::tensor::{Buffer, CpuTensor};
use super::{Cpu, Scratch};
use crate::threads::SharedMut;
use crate::{BackendError, Bytes, Epilogue, Format, MatrixSource, Precision};
use std::ops::Range;

/// A weight matrix with its optional bias.
pub struct CpuLinear(pub(crate) Weight);

pub(crate) enum Weight {
    Dense(Dense),
    Packed(Packed),
}

impl CpuLinear {
    pub(crate) fn new(source: MatrixSource) -> Result<Self, BackendError> {
        match source.format {
            Format::F32 | Format::F16 | Format::Bf16 => Ok(Self(Weight::Dense(Dense::new(source)?))),
            Format::Q8 | Format::Q4 => Ok(Self(Weight::Packed(Packed::new(source)?))),
        }
    }

    /// The weight, if it is packed.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match &self.0 {
            Weight::Packed(packed) => Some(packed),
            Weight::Dense(_) => None,
        }
    }
}

/// A row-major matrix in f32, f16 or bf16.
pub(crate) struct Dense {
    bytes: Bytes,
    format: Format,
    precision: Precision,
    pub(crate) n: usize,
    pub(crate) k: usize,
    bias: Option<Vec<f32>>,
}

impl Dense {
    fn new(source: MatrixSource) -> Result<Self, BackendError> {
        let MatrixSource { bytes, format, precision, n, k, bias } = source;
        if n == 0 || k == 0 {
            return Err(BackendError::MatrixShape { n, k, format });
        }
        let expected = n.saturating_mul(k).saturating_mul(value_bytes(format));
        if bytes.len() != expected {
            return Err(BackendError::MatrixSize { n, k, format, expected, found: bytes.len() });
        }
        assert!(bias.as_ref().is_none_or(|b| b.len() == n), "a bias has one value per output feature");
        Ok(Self { bytes, format, precision, n, k, bias })
    }

    /// The weight rows `range`.
    pub(crate) fn rows(&self, range: Range<usize>) -> WeightRows<'_> {
        let end = range.end;
        WeightRows { bytes: &self.bytes, format: self.format, k: self.k, runs: [range, end..end] }
    }

    /// `[n]`
    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    pub(crate) fn panel_rows(&self, panel: &Panel) -> WeightRows<'_> {
        WeightRows { bytes: &self.bytes, format: self.format, k: self.k, runs: panel.rows.clone() }
    }
}

/// Output columns one task computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panel {
    /// Weight rows: one run, or gate and up.
    pub(crate) rows: [Range<usize>; 2],
    /// Columns of `out`.
    pub(crate) out: Range<usize>,
}

/// How a product's `n` weight rows are cut into panels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels {
    n: usize,
    /// Weight rows of a full panel.
    width: usize,
    epilogue: Epilogue,
}

/// Columns of a panel: 4 registers of 16 lanes, the width of the matrix kernels' tiles.
pub(crate) const PANEL: usize = 64;

impl Panels {
    pub(crate) fn new(n: usize, width: usize, epilogue: Epilogue) -> Self {
        Self { n, width, epilogue }
    }

    /// Columns of `out`.
    pub(crate) fn out_cols(&self) -> usize {
        self.epilogue.out_cols(self.n)
    }

    fn out_width(&self) -> usize {
        self.epilogue.out_cols(self.width)
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        self.out_cols().div_ceil(self.out_width())
    }

    /// Panel `i`.
    pub(crate) fn panel(&self, i: usize) -> Panel {
        let (start, cols) = (i * self.out_width(), self.out_cols());
        let out = start..cols.min(start + self.out_width());
        let second = if self.epilogue.is_gated() { cols + out.start..cols + out.end } else { self.n..self.n };
        Panel { rows: [out.clone(), second], out }
    }
}

/// Weight rows of a task that streams them once: 64 where that gives every thread four tasks, otherwise 16, so that
/// the last task to finish is short.
pub(crate) fn streaming_width(n: usize, threads: usize) -> usize {
    if n / PANEL >= 4 * threads { PANEL } else { PANEL / 4 }
}

/// The panel's bias, zeros where there is none.
pub(crate) fn panel_bias<'a>(bias: Option<&[f32]>, panel: &Panel, out: &'a mut [f32; PANEL]) -> &'a [f32] {
    let mut at = 0;
    for run in panel.rows.clone() {
        if let Some(bias) = bias {
            out[at..at + run.len()].copy_from_slice(&bias[run.clone()]);
        }
        at += run.len();
    }
    &out[..at]
}

impl Cpu {
    pub(crate) fn run_linear(&self, x: &CpuTensor, weight: &Dense, epilogue: Epilogue, out: &mut CpuTensor) {
        let panels = Panels::new(weight.n, PANEL, epilogue);
        let shape = (x.rows(), panels.out_cols());
        assert_eq!(x.cols(), weight.k, "input columns of a [{}, {}] matrix", weight.n, weight.k);
        assert_eq!((out.rows(), out.cols()), shape, "output of a [{}, {}] matrix", weight.n, weight.k);
        let kernel = match weight.precision {
            Precision::F32 => self.kernels.gemm_f32,
            Precision::Bf16 => self.kernels.gemm_bf16,
        };
        match kernel {
            Some(kernel) if x.rows() > STREAMED_ROWS_MAX => self.gemm(kernel, x, weight, epilogue, out),
            _ => self.stream(x, weight, epilogue, out),
        }
    }

    /// The product for few rows: every weight row is read once, straight from where it is mapped.
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
            // SAFETY: the table is that of a level this processor has.
            unsafe {
                match weight.precision {
                    Precision::F32 => (self.kernels.gemv_f32)(&rows, x.values(), y),
                    Precision::Bf16 => (self.kernels.gemv_bf16)(&rows, rounded, y),
                }
            }
            for (row, y) in y.chunks_exact(rows.len()).enumerate() {
                // SAFETY: panels are disjoint columns, and each panel is one task; the level is as above.
                unsafe {
                    let out = out.slice(row * cols + panel.out.start..row * cols + panel.out.end);
                    (self.kernels.epilogue)(epilogue, y, bias, out);
                }
            }
        });
    }

    /// `x` rounded to bf16, `[rows, cols]`.
    fn rounded<'a>(&self, x: &CpuTensor, packed: &'a mut Buffer) -> &'a [u16] {
        let rounded = packed.take::<u16>(x.rows() * x.cols());
        // SAFETY: the table is that of a level this processor has.
        unsafe { (self.kernels.round_bf16)(x.values(), rounded) };
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_every_row_once() {
        for (n, width, epilogue) in [
            (64, 64, Epilogue::Store),
            (100, 64, Epilogue::Add),
            (1, 16, Epilogue::Gelu),
            (32_064, 64, Epilogue::Store),
            (512, 64, Epilogue::SiluMul),
            (500, 64, Epilogue::SiluMul),
            (16_384, 16, Epilogue::SiluMul),
        ] {
            let panels = Panels::new(n, width, epilogue);
            let mut rows = vec![0; n];
            let mut cols = vec![0; panels.out_cols()];
            for panel in (0..panels.count()).map(|i| panels.panel(i)) {
                assert!(panel.rows[0].len() + panel.rows[1].len() <= width);
                panel.rows.iter().cloned().flatten().for_each(|row| rows[row] += 1);
                panel.out.clone().for_each(|col| cols[col] += 1);
            }
            assert!(rows.iter().chain(&cols).all(|&times| times == 1), "{n} {width} {epilogue:?}");
        }
    }

    #[test]
    fn streams_are_cut_finer_for_many_threads() {
        assert_eq!([2, 8, 64].map(|threads| streaming_width(3072, threads)), [64, 64, 16]);
        assert_eq!([2, 8, 64].map(|threads| streaming_width(32_064, threads)), [64, 64, 64]);
        assert_eq!([2, 8, 64].map(|threads| streaming_width(96, threads)), [16, 16, 16]);
    }
}
