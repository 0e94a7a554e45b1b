//! Buffers in host memory.
//!
//! Every buffer starts at a 64-byte boundary: one cache line, one AVX-512 register.

use crate::BackendError;
use bytemuck::{Pod, Zeroable};

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; Line::BYTES]);

impl Line {
    const BYTES: usize = 64;
}

// SAFETY: an array of bytes; all zeros is a valid value.
unsafe impl Zeroable for Line {}
// SAFETY: an array of bytes as large as its alignment: it has no padding, and every bit pattern is valid.
unsafe impl Pod for Line {}

/// Size from which a buffer is mapped: two large pages of 2 MB. Rows of activations are several ordinary pages long,
/// so with ordinary pages a tile of a product would touch a separate page for each of its rows.
const MAPPED_BYTES: usize = 4 << 20;

/// Where the lines of a buffer are stored.
enum Memory {
    Heap(Vec<Line>),
    Mapped(memmap2::MmapMut),
}

impl Memory {
    /// Allocates zeros; `None` if the system has no room for them.
    fn new(lines: usize) -> Option<Self> {
        let bytes = lines.checked_mul(Line::BYTES).filter(|&bytes| isize::try_from(bytes).is_ok())?;
        if bytes >= MAPPED_BYTES {
            let map = memmap2::MmapOptions::new().len(bytes).map_anon().ok()?;
            // only a hint: without large pages everything works, somewhat more slowly
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Some(Self::Mapped(map));
        }
        let mut heap = Vec::new();
        heap.try_reserve_exact(lines).ok()?;
        heap.resize(lines, Line([0; Line::BYTES]));
        Some(Self::Heap(heap))
    }

    fn lines(&self) -> &[Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Mapped(map) => bytemuck::cast_slice(map),
        }
    }

    fn lines_mut(&mut self) -> &mut [Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Mapped(map) => bytemuck::cast_slice_mut(map),
        }
    }
}

/// Growable, 64-byte aligned memory that is released only when the buffer is dropped.
pub(crate) struct Buffer {
    memory: Memory,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { memory: Memory::Heap(Vec::new()) }
    }
}

impl Buffer {
    /// Makes room for at least `len` values. New memory is zeroed; earlier values are kept.
    pub(crate) fn reserve<T: Pod>(&mut self, len: usize) -> Result<(), BackendError> {
        let out_of_memory = BackendError::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) };
        let Some(bytes) = len.checked_mul(size_of::<T>()) else { return Err(out_of_memory) };
        let lines = bytes.div_ceil(Line::BYTES);
        let held = self.memory.lines().len();
        if lines > held {
            let Some(mut memory) = Memory::new(lines) else { return Err(out_of_memory) };
            memory.lines_mut()[..held].copy_from_slice(self.memory.lines());
            self.memory = memory;
        }
        Ok(())
    }

    /// Returns the first `len` values, after making room for them.
    ///
    /// # Panics
    /// If the system has no memory left. Scratch is small compared with the tensors, whose growth reports an error.
    pub(crate) fn take<T: Pod>(&mut self, len: usize) -> &mut [T] {
        self.reserve::<T>(len).expect("the system has memory for scratch");
        self.get_mut(len)
    }

    /// Returns the first `len` values.
    pub(crate) fn get<T: Pod>(&self, len: usize) -> &[T] {
        &bytemuck::cast_slice(self.memory.lines())[..len]
    }

    /// Returns the first `len` values.
    pub(crate) fn get_mut<T: Pod>(&mut self, len: usize) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(self.memory.lines_mut())[..len]
    }
}

/// Activations in host memory, `[rows, cols]`, row-major f32. The memory only grows, whatever shapes the tensor is
/// given.
pub struct CpuTensor {
    buffer: Buffer,
    rows: usize,
    cols: usize,
}

impl CpuTensor {
    pub(crate) fn new(rows: usize, cols: usize) -> Result<Self, BackendError> {
        let mut tensor = Self { buffer: Buffer::default(), rows: 0, cols: 0 };
        tensor.reshape(rows, cols)?;
        Ok(tensor)
    }

    pub(crate) fn reshape(&mut self, rows: usize, cols: usize) -> Result<(), BackendError> {
        self.buffer.reserve::<f32>(rows.saturating_mul(cols))?;
        (self.rows, self.cols) = (rows, cols);
        Ok(())
    }

    /// Returns the number of rows of the current shape.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of values per row of the current shape.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Returns all values of the current shape, `[rows, cols]`, row after row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        self.buffer.get(self.rows * self.cols)
    }

    /// Returns all values of the current shape, `[rows, cols]`, row after row.
    #[must_use]
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.buffer.get_mut(self.rows * self.cols)
    }

    /// Returns the values of row `i` of the current shape, counted from 0, `[cols]`.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values()[i * self.cols..(i + 1) * self.cols]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_keep_values() {
        let mut buffer = Buffer::default();
        buffer.take::<f32>(3).copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(buffer.take::<f32>(1000)[..4], [1.0, 2.0, 3.0, 0.0]);
        assert_eq!(buffer.get::<f32>(1).as_ptr().align_offset(64), 0);
    }

    #[test]
    fn large_buffers_are_zero_and_keep_values() {
        let mut buffer = Buffer::default();
        buffer.take::<u8>(100).fill(7);
        let large = buffer.take::<u8>(2 * MAPPED_BYTES);
        assert!(large[..100].iter().all(|&v| v == 7) && large[128..].iter().all(|&v| v == 0));
        assert_eq!(large.as_ptr().align_offset(64), 0);
        large[MAPPED_BYTES] = 9;
        assert_eq!(buffer.take::<u8>(3 * MAPPED_BYTES)[MAPPED_BYTES], 9);
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(matches!(CpuTensor::new(usize::MAX, 4096), Err(BackendError::OutOfMemory { .. })));
        assert!(matches!(CpuTensor::new(1 << 30, 1 << 30), Err(BackendError::OutOfMemory { .. })));
    }
}
