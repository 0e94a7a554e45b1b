//! Activations and vectors on the card.

use crate::backend::Gpu;
use crate::buffer::Buffer;
use phi3v_kernels::BackendError;
use std::ops::Range;

/// Activations on the card, `[rows, cols]`, row-major f32.
pub struct GpuTensor {
    pub(crate) buffer: Buffer,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// A norm's weight or bias on the card.
pub struct GpuVector {
    pub(crate) buffer: Buffer,
    pub(crate) len: usize,
}

/// Returns the bytes of `[rows, cols]` values.
pub(crate) fn value_bytes(rows: usize, cols: usize) -> usize {
    rows.saturating_mul(cols).saturating_mul(size_of::<f32>())
}

impl Gpu {
    pub(crate) fn new_tensor(&self, rows: usize, cols: usize) -> Result<GpuTensor, BackendError> {
        let buffer = self.recorder().new_buffer(&self.device, value_bytes(rows, cols))?;
        Ok(GpuTensor { buffer, rows, cols })
    }

    pub(crate) fn reshape_tensor(
        &self,
        tensor: &mut GpuTensor,
        rows: usize,
        cols: usize,
    ) -> Result<(), BackendError> {
        let bytes = value_bytes(rows, cols);
        if bytes as u64 > tensor.buffer.size() {
            tensor.buffer = match self.device.buffer(bytes) {
                // frees the smaller tensor, since there is no room for both; if the larger alone does not fit, nothing
                // is left
                Err(BackendError::OutOfMemory { .. }) if bytes as u64 <= self.device.binding_bytes_max => {
                    tensor.buffer = self.device.buffer(0)?;
                    tensor.rows = 0;
                    self.recorder().new_buffer(&self.device, bytes)?
                }
                buffer => buffer?,
            };
        }
        (tensor.rows, tensor.cols) = (rows, cols);
        Ok(())
    }

    pub(crate) fn upload_values(&self, values: &[f32], first_row: usize, out: &GpuTensor) {
        let end = first_row * out.cols + values.len();
        assert!(end <= out.rows * out.cols, "values up to {end} of a tensor [{}, {}]", out.rows, out.cols);
        let at = value_bytes(first_row, out.cols) as u64;
        let mut recorder = self.recorder();
        let result = recorder.write(&self.device, bytemuck::cast_slice(values), &out.buffer, at);
        recorder.keep(result);
    }

    pub(crate) fn download_rows(
        &self,
        tensor: &GpuTensor,
        rows: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        assert!(rows.end <= tensor.rows, "rows {rows:?} of {}", tensor.rows);
        out.clear();
        let at = value_bytes(rows.start, tensor.cols) as u64;
        let bytes = value_bytes(rows.len(), tensor.cols) as u64;
        if bytes == 0 {
            return Ok(());
        }
        self.recorder().read(&self.device, &tensor.buffer, at..at + bytes, out)
    }

    pub(crate) fn new_vector(&self, values: &[f32]) -> Result<GpuVector, BackendError> {
        let buffer = self.recorder().filled(&self.device, bytemuck::cast_slice(values))?;
        Ok(GpuVector { buffer, len: values.len() })
    }
}
