//! The memory layout of keys and values of a block of 64 tokens.
//!
//! Keys and values are stored as the panels that the attention kernels multiply, so that a prefill packs nothing and
//! a decode step streams them once. Values are in groups of `P` = 1 (f32), 2 (bf16) or 4 (8-bit), as the dot product
//! instructions take them. A head of a block is
//!
//! - keys `[dim / P, 64 tokens, P]`: a register holds the same dimensions of 16 keys, so scores need no horizontal
//!   sum;
//! - values `[64 / P tokens, dim, P]`: a register holds 16 dimensions of the same tokens;
//! - for 8 bit, the scales of 64 keys, then of 64 values; a byte `b` represents `(b - 128) * scale`. If any value of
//!   a row is non-finite, the scale is NaN, so that it shows.
//!
//! Invariant: tokens that were never stored read as finite numbers.

use crate::{KV_BLOCK_TOKENS, KvFormat};
use half::bf16;

/// Offset added to a stored 8-bit value, for the unsigned operand of the dot product instructions.
pub(crate) const Q8_OFFSET: f32 = 128.0;

/// The memory layout of one head of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadShape {
    pub(crate) format: KvFormat,
    /// Values per head of the model.
    pub(crate) dim: usize,
    /// `P` of the [module documentation](self).
    pub(crate) group: usize,
}

impl HeadShape {
    pub(crate) fn new(format: KvFormat, dim: usize) -> Self {
        let group = match format {
            KvFormat::F32 => 1,
            KvFormat::Bf16 => 2,
            KvFormat::Q8 => 4,
        };
        Self { format, dim, group }
    }

    /// Returns the bytes of one value.
    fn value_bytes(self) -> usize {
        4 / self.group
    }

    /// Returns the bytes of the keys (or values) of one head of a block.
    pub(crate) fn panel_bytes(self) -> usize {
        KV_BLOCK_TOKENS * self.dim.next_multiple_of(self.group) * self.value_bytes()
    }

    pub(crate) fn scale_bytes(self) -> usize {
        if self.format.has_scales() { KV_BLOCK_TOKENS * size_of::<f32>() } else { 0 }
    }

    pub(crate) fn head_bytes(self) -> usize {
        2 * (self.panel_bytes() + self.scale_bytes())
    }

    /// Returns the index of dimension `d` of token `t` in a key panel, in values.
    pub(crate) fn key_index(self, t: usize, d: usize) -> usize {
        ((d / self.group) * KV_BLOCK_TOKENS + t) * self.group + d % self.group
    }

    /// Returns the index of dimension `d` of token `t` in a value panel, in values.
    pub(crate) fn value_index(self, t: usize, d: usize) -> usize {
        ((t / self.group) * self.dim + d) * self.group + t % self.group
    }
}

/// One head of one block.
#[derive(Clone, Copy)]
pub(crate) struct KvHead<'a> {
    pub(crate) shape: HeadShape,
    pub(crate) keys: &'a [u8],
    pub(crate) values: &'a [u8],
    /// `[64]`; empty unless 8-bit.
    pub(crate) key_scales: &'a [f32],
    /// `[64]`; empty unless 8-bit.
    pub(crate) value_scales: &'a [f32],
}

/// Keys and values of one head for consecutive tokens, as columns of tensors.
#[derive(Clone, Copy)]
pub(crate) struct KvRows<'a> {
    /// Begins with the first token's key.
    pub(crate) keys: &'a [f32],
    /// Begins with the first token's value.
    pub(crate) values: &'a [f32],
    /// Distance between tokens, in values.
    pub(crate) stride: usize,
    pub(crate) dim: usize,
    /// Number of tokens.
    pub(crate) count: usize,
}

impl<'a> KvRows<'a> {
    /// Returns key and value of token `i`, `[dim]` each.
    pub(crate) fn token(&self, i: usize) -> (&'a [f32], &'a [f32]) {
        let start = i * self.stride;
        (&self.keys[start..start + self.dim], &self.values[start..start + self.dim])
    }
}

/// One head of one block, for writing.
pub(crate) struct KvHeadMut<'a> {
    pub(crate) shape: HeadShape,
    pub(crate) keys: &'a mut [u8],
    pub(crate) values: &'a mut [u8],
    pub(crate) key_scales: &'a mut [f32],
    pub(crate) value_scales: &'a mut [f32],
}

impl<'a> KvHead<'a> {
    /// Returns a head without scales from its panels: keys, then values.
    pub(crate) fn of_panels(shape: HeadShape, panels: &'a [u8]) -> Self {
        let (keys, values) = panels.split_at(shape.panel_bytes());
        Self { shape, keys, values, key_scales: &[], value_scales: &[] }
    }

    /// Reads the key of token `t`, `[dim]`.
    pub(crate) fn read_key(&self, t: usize, out: &mut [f32]) {
        let scale = self.key_scales.get(t).copied().unwrap_or(1.0);
        for (d, out) in out.iter_mut().enumerate() {
            *out = self.decode(self.keys, self.shape.key_index(t, d)) * scale;
        }
    }

    /// Reads the value of token `t`, `[dim]`.
    pub(crate) fn read_value(&self, t: usize, out: &mut [f32]) {
        let scale = self.value_scales.get(t).copied().unwrap_or(1.0);
        for (d, out) in out.iter_mut().enumerate() {
            *out = self.decode(self.values, self.shape.value_index(t, d)) * scale;
        }
    }

    fn decode(&self, panel: &[u8], i: usize) -> f32 {
        match self.shape.format {
            KvFormat::F32 => bytemuck::cast_slice::<u8, f32>(panel)[i],
            KvFormat::Bf16 => bf16::from_bits(bytemuck::cast_slice::<u8, u16>(panel)[i]).to_f32(),
            KvFormat::Q8 => f32::from(panel[i]) - Q8_OFFSET,
        }
    }
}

impl<'a> KvHeadMut<'a> {
    /// Returns a head without scales from its panels: keys, then values.
    pub(crate) fn of_panels(shape: HeadShape, panels: &'a mut [u8]) -> Self {
        let (keys, values) = panels.split_at_mut(shape.panel_bytes());
        Self { shape, keys, values, key_scales: &mut [], value_scales: &mut [] }
    }

    /// Stores key and value, `[dim]` each, of token `t`. This function defines the format.
    pub(crate) fn store(&mut self, t: usize, key: &[f32], value: &[f32]) {
        let shape = self.shape;
        let key_scale = scale(shape.format, key);
        let value_scale = scale(shape.format, value);
        if shape.format.has_scales() {
            (self.key_scales[t], self.value_scales[t]) = (key_scale, value_scale);
        }
        for d in 0..shape.dim {
            encode(shape.format, self.keys, shape.key_index(t, d), key[d] / key_scale);
            encode(shape.format, self.values, shape.value_index(t, d), value[d] / value_scale);
        }
    }
}

/// If the largest magnitude is below this, values count as zeros: their scale would be subnormal, and too coarse for
/// the quotients to fit a byte.
const TINY: f32 = 127.0 * f32::MIN_POSITIVE;

/// Returns the scale of 8-bit values whose largest magnitude is `largest`. The caller finds it by comparing bits as
/// integers, which orders infinity above all numbers and NaN above infinity; either makes the scale NaN. The largest
/// magnitude becomes 127. Zeros have a scale of 1, so that nothing is divided by zero.
pub(crate) fn q8_scale(largest: f32) -> f32 {
    if !largest.is_finite() {
        f32::NAN
    } else if largest < TINY {
        1.0
    } else {
        largest / 127.0
    }
}

fn scale(format: KvFormat, values: &[f32]) -> f32 {
    if !format.has_scales() {
        return 1.0;
    }
    q8_scale(f32::from_bits(values.iter().fold(0, |most, value| most.max(value.abs().to_bits()))))
}

fn encode(format: KvFormat, panel: &mut [u8], i: usize, value: f32) {
    match format {
        KvFormat::F32 => bytemuck::cast_slice_mut::<u8, f32>(panel)[i] = value,
        KvFormat::Bf16 => bytemuck::cast_slice_mut::<u8, u16>(panel)[i] = bf16::from_f32(value).to_bits(),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 1..=255 by the scale, or the offset alone if that is NaN"
        )]
        KvFormat::Q8 => panel[i] = (value.round_ties_even() as i32 + Q8_OFFSET as i32) as u8,
    }
}
