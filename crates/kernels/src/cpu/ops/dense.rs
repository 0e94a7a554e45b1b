//! Dense weights, and the panels that a product with them is cut into.
//!
//! Weights stay where they are mapped, row-major. A task computes a *panel*: up to 64 output columns. For
//! [`Epilogue::SiluMul`] a panel is 32 gate rows and the 32 up rows that belong to them, so that the task has both
//! factors of their product.

use crate::cpu::table::dense::WeightRows;
use crate::{BackendError, Bytes, DenseFormat, Epilogue, Format, MatrixSource, Precision};
use std::ops::Range;

/// A row-major matrix in f32, f16 or bf16.
pub(crate) struct Dense {
    bytes: Bytes,
    format: DenseFormat,
    pub(super) precision: Precision,
    pub(crate) n: usize,
    pub(crate) k: usize,
    bias: Option<Vec<f32>>,
}

impl Dense {
    pub(super) fn new(source: MatrixSource, format: DenseFormat) -> Result<Self, BackendError> {
        let MatrixSource { bytes, precision, n, k, bias, .. } = source;
        if n == 0 || k == 0 {
            return Err(BackendError::MatrixShape { n, k, format: format.into() });
        }
        let expected = n.saturating_mul(k).saturating_mul(format.value_bytes());
        if bytes.len() != expected {
            let (format, found) = (Format::from(format), bytes.len());
            return Err(BackendError::MatrixSize { n, k, format, expected, found });
        }
        assert!(bias.as_ref().is_none_or(|b| b.len() == n), "a bias has one value per output feature");
        Ok(Self { bytes, format, precision, n, k, bias })
    }

    /// Returns the weight rows `range`.
    pub(crate) fn rows(&self, range: Range<usize>) -> WeightRows<'_> {
        let end = range.end;
        WeightRows { bytes: &self.bytes, format: self.format, k: self.k, runs: [range, end..end] }
    }

    /// Returns the bias, `[n]`, if there is one.
    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    pub(crate) fn panel_rows(&self, panel: &Panel) -> WeightRows<'_> {
        WeightRows { bytes: &self.bytes, format: self.format, k: self.k, runs: panel.rows.clone() }
    }
}

/// Output columns that one task computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panel {
    /// Weight rows: one run, or gate rows and up rows.
    pub(crate) rows: [Range<usize>; 2],
    /// Columns of `out`.
    pub(crate) out: Range<usize>,
}

/// How the `n` weight rows of a product are cut into panels.
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

    /// Returns the number of columns of `out`.
    pub(crate) fn out_cols(&self) -> usize {
        self.epilogue.out_cols(self.n)
    }

    fn out_width(&self) -> usize {
        self.epilogue.out_cols(self.width)
    }

    /// Returns the number of panels.
    pub(crate) fn count(&self) -> usize {
        self.out_cols().div_ceil(self.out_width())
    }

    /// Returns panel `i`.
    pub(crate) fn panel(&self, i: usize) -> Panel {
        let (start, cols) = (i * self.out_width(), self.out_cols());
        let out = start..cols.min(start + self.out_width());
        let second = if self.epilogue.is_gated() { cols + out.start..cols + out.end } else { self.n..self.n };
        Panel { rows: [out.clone(), second], out }
    }
}

/// Copies the panel's bias; zeros if there is none.
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
}
