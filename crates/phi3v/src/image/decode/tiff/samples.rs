//! Converts the bytes of a strip or tile to 8-bit samples.

use super::super::raster::unpack_bits;
use super::compression::Compression;
use super::header::{Header, SampleFormat};
use super::{ImageError, ImageMode, gathered};

/// Reduces every `N` bytes to one, in place: a strip may be as large as the image and must not be in memory twice.
fn narrowed<const N: usize>(mut bytes: Vec<u8>, narrow: impl Fn(&[u8]) -> u8) -> Vec<u8> {
    let values = bytes.len() / N;
    for value in 0..values {
        bytes[value] = narrow(&bytes[value * N..][..N]);
    }
    bytes.truncate(values);
    bytes
}

impl Header<'_> {
    /// Converts a chunk's bytes to 8-bit samples. Samples of fewer than 8 bits are not yet stretched.
    pub(super) fn to_samples(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, ImageError> {
        let row_bytes = self.row_bytes();
        match self.predictor {
            2 => bytes.chunks_exact_mut(row_bytes).for_each(|row| self.undo_differences(row)),
            3 => bytes.chunks_exact_mut(row_bytes).for_each(|row| self.undo_float_differences(row)),
            _ => {}
        }
        let width = self.chunk.width as usize;
        match self.bits {
            8 => Ok(bytes),
            12 => {
                let rows = bytes.chunks_exact(row_bytes);
                gathered(rows.len() * width, rows.flat_map(|row| self.narrow_12(row)))
            }
            16 => Ok(narrowed::<2>(bytes, |v| self.narrow_16(self.number(v) as u16))),
            32 => Ok(narrowed::<4>(bytes, |v| self.narrow_32(self.number_32(v)))),
            bits => unpack_bits(&bytes, width, row_bytes, bits),
        }
    }

    /// The number stored in two or four bytes.
    fn number(&self, bytes: &[u8]) -> u32 {
        let push = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        if self.directory.little_endian {
            bytes.iter().rev().fold(0, push)
        } else {
            bytes.iter().fold(0, push)
        }
    }

    /// The number stored in four bytes. libtiff unpacks big-endian numbers to the machine's byte order, but Pillow
    /// still reads them as big-endian.
    fn number_32(&self, bytes: &[u8]) -> u32 {
        let swapped = !self.directory.little_endian && self.compression != Compression::None;
        let number = self.number(bytes);
        if self.clips() && swapped { number.swap_bytes() } else { number }
    }

    /// Writes a number to two or four bytes.
    fn set_number(&self, bytes: &mut [u8], number: u32) {
        let size = bytes.len();
        for (i, byte) in bytes.iter_mut().enumerate() {
            let place = if self.directory.little_endian { i } else { size - 1 - i };
            *byte = (number >> (8 * place)) as u8;
        }
    }

    /// Whether plain gray of more than 8 bits is clipped at 255, as in the reference.
    fn clips(&self) -> bool {
        self.mode == ImageMode::Reference && self.samples == 1
    }

    /// Converts a row of 12-bit samples, two in three bytes: keeps the high 8 bits of each, or clips.
    fn narrow_12(&self, row: &[u8]) -> Vec<u8> {
        let narrow = |value: u16| if self.clips() { value.min(255) as u8 } else { (value >> 4) as u8 };
        let sample = |x: usize| {
            let at = x / 2 * 3;
            let pair = |i: usize| u16::from(row.get(at + i).copied().unwrap_or(0));
            narrow(if x.is_multiple_of(2) {
                pair(0) << 4 | pair(1) >> 4
            } else {
                (pair(1) & 15) << 8 | pair(2)
            })
        };
        (0..self.chunk.width as usize).map(sample).collect()
    }

    /// Keeps the high byte, or clips. Signed samples are shifted so that the lowest is black.
    fn narrow_16(&self, value: u16) -> u8 {
        match (self.format, self.clips()) {
            (SampleFormat::Signed, true) => (value as i16).clamp(0, 255) as u8,
            (SampleFormat::Signed, false) => ((value ^ 0x8000) >> 8) as u8,
            (_, true) => value.min(255) as u8,
            (_, false) => (value >> 8) as u8,
        }
    }

    /// Keeps the high byte, or clips: the reference reads all integers as signed. Floats range from 0 to 1.
    fn narrow_32(&self, value: u32) -> u8 {
        match (self.format, self.clips()) {
            // NaN becomes 0
            (SampleFormat::Float, true) => f32::from_bits(value) as u8,
            (SampleFormat::Float, false) => (f32::from_bits(value) * 255.0).round() as u8,
            (_, true) => (value as i32).clamp(0, 255) as u8,
            (SampleFormat::Signed, false) => ((value ^ 0x8000_0000) >> 24) as u8,
            (SampleFormat::Unsigned, false) => (value >> 24) as u8,
        }
    }

    /// Undoes differencing: each sample was stored as the difference from the previous one in its row.
    fn undo_differences(&self, row: &mut [u8]) {
        let size = self.bits / 8;
        let step = self.chunk_depth() * size;
        if size == 1 {
            for i in step..row.len() {
                row[i] = row[i].wrapping_add(row[i - step]);
            }
            return;
        }
        for i in (step..row.len()).step_by(size) {
            let sum = self.number(&row[i..i + size]).wrapping_add(self.number(&row[i - step..][..size]));
            self.set_number(&mut row[i..i + size], sum);
        }
    }

    /// Undoes float differencing: the bytes of a row's 32-bit floats were grouped by significance, the highest first,
    /// and then differenced.
    fn undo_float_differences(&self, row: &mut [u8]) {
        for i in 1..row.len() {
            row[i] = row[i].wrapping_add(row[i - 1]);
        }
        let sorted = row.to_vec();
        let count = row.len() / 4;
        for (i, value) in row.chunks_exact_mut(4).enumerate() {
            let bits = (0..4).fold(0, |bits, place| bits << 8 | u32::from(sorted[place * count + i]));
            self.set_number(value, bits);
        }
    }
}
