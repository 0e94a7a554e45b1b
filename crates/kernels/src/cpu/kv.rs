//! The KV cache: blocks of 64 tokens, each one allocation for all layers and heads.
//!
//! Keys and values are stored as the very panels the attention kernels multiply, so that a prefill packs nothing and
//! a decode step streams them once. With groups of `P` = 1 (f32), 2 (bf16) or 4 (8-bit) values, as the dot product
//! instructions take them, a head of a block is
//!
//! - keys `[dim / P, 64 tokens, P]`: a register holds the same dimensions of 16 keys, so scores need no horizontal sum;
//! - values `[64 / P tokens, dim, P]`: a register holds 16 dimensions of the same tokens;
//! - for 8 bit, the scales of 64 keys, then of 64 values; a byte `b` stands for `(b - 128) * scale`.
//!
//! Invariants: a block's memory never moves; tokens that were never stored read as finite numbers.

use super::tensor::Buffer;
use crate::{BackendError, KV_BLOCK_TOKENS, KvFormat, KvLayout, Span};
use half::bf16;

/// What is added to a stored 8-bit value: the unsigned operand of the dot product instructions.
pub(crate) const Q8_OFFSET: f32 = 128.0;

/// Blocks of keys and values in host memory.
pub struct CpuKvPool {
    shape: HeadShape,
    layout: KvLayout,
    blocks: Vec<Block>,
    blocks_max: usize,
}

struct Block {
    /// Owns the memory `base` points to.
    _memory: Buffer,
    base: *mut u8,
}

// SAFETY: `base` points to memory the block owns; shared access only reads it, and writing asks for `&mut CpuKvPool`
// (see `KvWriter`).
unsafe impl Send for Block {}
// SAFETY: see above.
unsafe impl Sync for Block {}

/// How one head of a block lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadShape {
    pub(crate) format: KvFormat,
    /// Values per head, as the model has them.
    pub(crate) dim: usize,
    /// `P` of the module's introduction.
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

    /// Bytes of one value.
    fn value_bytes(self) -> usize {
        4 / self.group
    }

    /// Bytes of the keys (or values) of one head of a block.
    pub(crate) fn panel_bytes(self) -> usize {
        KV_BLOCK_TOKENS * self.dim.next_multiple_of(self.group) * self.value_bytes()
    }

    fn scale_bytes(self) -> usize {
        if self.format == KvFormat::Q8 { KV_BLOCK_TOKENS * size_of::<f32>() } else { 0 }
    }

    fn head_bytes(self) -> usize {
        2 * (self.panel_bytes() + self.scale_bytes())
    }

    /// Where dimension `d` of token `t` lies in a key panel, in values.
    pub(crate) fn key_index(self, t: usize, d: usize) -> usize {
        ((d / self.group) * KV_BLOCK_TOKENS + t) * self.group + d % self.group
    }

    /// Where dimension `d` of token `t` lies in a value panel, in values.
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
    /// From the first token's key on.
    pub(crate) keys: &'a [f32],
    /// From the first token's value on.
    pub(crate) values: &'a [f32],
    /// Distance of tokens.
    pub(crate) stride: usize,
    pub(crate) dim: usize,
    /// Number of tokens.
    pub(crate) count: usize,
}

impl<'a> KvRows<'a> {
    /// Key and value of token `i`, `[dim]` each.
    pub(crate) fn token(&self, i: usize) -> (&'a [f32], &'a [f32]) {
        let start = i * self.stride;
        (&self.keys[start..start + self.dim], &self.values[start..start + self.dim])
    }
}

/// One head of one block, to be written.
pub(crate) struct KvHeadMut<'a> {
    pub(crate) shape: HeadShape,
    pub(crate) keys: &'a mut [u8],
    pub(crate) values: &'a mut [u8],
    pub(crate) key_scales: &'a mut [f32],
    pub(crate) value_scales: &'a mut [f32],
}

impl<'a> KvHead<'a> {
    /// A head without scales: keys, then values.
    pub(crate) fn of_panels(shape: HeadShape, panels: &'a [u8]) -> Self {
        let (keys, values) = panels.split_at(shape.panel_bytes());
        Self { shape, keys, values, key_scales: &[], value_scales: &[] }
    }

    /// The key of token `t`, `[dim]`.
    pub(crate) fn read_key(&self, t: usize, out: &mut [f32]) {
        let scale = self.key_scales.get(t).copied().unwrap_or(1.0);
        for (d, out) in out.iter_mut().enumerate() {
            *out = self.decode(self.keys, self.shape.key_index(t, d)) * scale;
        }
    }

    /// The value of token `t`, `[dim]`.
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
    /// A head without scales: keys, then values.
    pub(crate) fn of_panels(shape: HeadShape, panels: &'a mut [u8]) -> Self {
        let (keys, values) = panels.split_at_mut(shape.panel_bytes());
        Self { shape, keys, values, key_scales: &mut [], value_scales: &mut [] }
    }

    /// Stores key and value, `[dim]` each, of token `t`. The definition of the format.
    pub(crate) fn store(&mut self, t: usize, key: &[f32], value: &[f32]) {
        let shape = self.shape;
        let key_scale = scale(shape.format, key);
        let value_scale = scale(shape.format, value);
        if shape.format == KvFormat::Q8 {
            (self.key_scales[t], self.value_scales[t]) = (key_scale, value_scale);
        }
        for d in 0..shape.dim {
            encode(shape.format, self.keys, shape.key_index(t, d), key[d] / key_scale);
            encode(shape.format, self.values, shape.value_index(t, d), value[d] / value_scale);
        }
    }
}

/// The largest magnitude becomes 127; zeros keep a scale of 1 so that nothing is divided by zero.
fn scale(format: KvFormat, values: &[f32]) -> f32 {
    if format != KvFormat::Q8 {
        return 1.0;
    }
    let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if largest > 0.0 { largest / 127.0 } else { 1.0 }
}

fn encode(format: KvFormat, panel: &mut [u8], i: usize, value: f32) {
    match format {
        KvFormat::F32 => bytemuck::cast_slice_mut::<u8, f32>(panel)[i] = value,
        KvFormat::Bf16 => bytemuck::cast_slice_mut::<u8, u16>(panel)[i] = bf16::from_f32(value).to_bits(),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 1..=255 by the scale"
        )]
        KvFormat::Q8 => panel[i] = (value.round_ties_even() + Q8_OFFSET) as u8,
    }
}

impl CpuKvPool {
    pub(crate) fn new(layout: KvLayout, blocks_max: usize) -> Self {
        let shape = HeadShape::new(layout.format, layout.heads.dim);
        Self { shape, layout, blocks: Vec::new(), blocks_max }
    }

    pub(crate) fn grow(&mut self, blocks: usize) -> Result<(), BackendError> {
        assert!(blocks <= self.blocks_max, "{blocks} blocks of a pool of {}", self.blocks_max);
        let bytes = self.layout.layers * self.layout.heads.key_value * self.shape.head_bytes();
        while self.blocks.len() < blocks {
            let mut memory = Buffer::default();
            memory.reserve::<u8>(bytes)?;
            let base = memory.get_mut::<u8>(bytes).as_mut_ptr();
            self.blocks.push(Block { _memory: memory, base });
        }
        Ok(())
    }

    /// What the pool was made for.
    #[must_use]
    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    pub(crate) fn shape(&self) -> HeadShape {
        self.shape
    }

    /// Start of a head's memory.
    fn head_start(&self, block: u32, layer: usize, head: usize) -> *mut u8 {
        let KvLayout { layers, heads, .. } = self.layout;
        assert!(layer < layers && head < heads.key_value, "layer {layer}, head {head} of {:?}", self.layout);
        let offset = (layer * heads.key_value + head) * self.shape.head_bytes();
        // SAFETY: `grow` took layers * heads * head_bytes bytes for the block, and layer and head are within.
        unsafe { self.blocks[block as usize].base.add(offset) }
    }

    /// Keys and values of one head in one block.
    pub(crate) fn head(&self, block: u32, layer: usize, head: usize) -> KvHead<'_> {
        let (shape, start) = (self.shape, self.head_start(block, layer, head));
        let (panel, scales) = (shape.panel_bytes(), shape.scale_bytes());
        // SAFETY: a head is head_bytes = 2 * (panel + scales) bytes from `start` on, allocated and zeroed by `grow` on a
        // 64-byte border; panels are multiples of 64 bytes, so the scales are aligned. `&self` excludes writers.
        unsafe {
            let scale = |at| std::slice::from_raw_parts(start.add(2 * panel + at).cast::<f32>(), scales / 4);
            KvHead {
                shape,
                keys: std::slice::from_raw_parts(start, panel),
                values: std::slice::from_raw_parts(start.add(panel), panel),
                key_scales: scale(0),
                value_scales: scale(scales),
            }
        }
    }

    /// The right to write heads of blocks from several threads.
    pub(crate) fn writer(&mut self) -> KvWriter<'_> {
        KvWriter(self)
    }
}

/// See [`CpuKvPool::writer`].
pub(crate) struct KvWriter<'a>(&'a mut CpuKvPool);

impl KvWriter<'_> {
    /// One head of one block, to be written.
    ///
    /// # Safety
    /// No other thread may have the same head of the same block and layer at the same time.
    pub(crate) unsafe fn head(&self, block: u32, layer: usize, head: usize) -> KvHeadMut<'_> {
        let (shape, start) = (self.0.shape, self.0.head_start(block, layer, head));
        let (panel, scales) = (shape.panel_bytes(), shape.scale_bytes());
        // SAFETY: as in `CpuKvPool::head`; the pool is borrowed mutably, and the caller keeps heads apart.
        unsafe {
            let scale =
                |at| std::slice::from_raw_parts_mut(start.add(2 * panel + at).cast::<f32>(), scales / 4);
            KvHeadMut {
                shape,
                keys: std::slice::from_raw_parts_mut(start, panel),
                values: std::slice::from_raw_parts_mut(start.add(panel), panel),
                key_scales: scale(0),
                value_scales: scale(scales),
            }
        }
    }
}

/// The tokens of one span that lie in one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockRows {
    /// Number of the block in the pool.
    pub(crate) block: u32,
    /// First token within the block.
    pub(crate) token: usize,
    /// Rows of the batch, one per token.
    pub(crate) rows: std::ops::Range<usize>,
}

/// How many blocks the rows of `span` touch.
pub(crate) fn blocks_touched(span: &Span<'_>) -> usize {
    if span.rows.is_empty() {
        return 0;
    }
    (span.past + span.rows.len() - 1) / KV_BLOCK_TOKENS - span.past / KV_BLOCK_TOKENS + 1
}

/// The `i`-th block the rows of the spans touch, counting over all spans.
pub(crate) fn block_rows(spans: &[Span<'_>], mut i: usize) -> BlockRows {
    for span in spans {
        let touched = blocks_touched(span);
        if i >= touched {
            i -= touched;
            continue;
        }
        let index = span.past / KV_BLOCK_TOKENS + i;
        let first = span.past.max(index * KV_BLOCK_TOKENS);
        let end = (span.past + span.rows.len()).min((index + 1) * KV_BLOCK_TOKENS);
        let rows = span.rows.start + first - span.past..span.rows.start + end - span.past;
        return BlockRows { block: span.blocks[index], token: first % KV_BLOCK_TOKENS, rows };
    }
    panic!("block {i} past the last of the spans");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Heads;
    use crate::cpu::CpuLevel;
    use crate::cpu::level::Kernels;
    use crate::testing::Noise;

    fn pool(format: KvFormat, dim: usize) -> CpuKvPool {
        let heads = Heads { query: 4, key_value: 2, dim };
        let mut pool = CpuKvPool::new(KvLayout { layers: 2, heads, format }, 3);
        pool.grow(3).unwrap();
        pool
    }

    #[test]
    fn what_is_stored_is_read() {
        // relative to the row's largest value: exact; 8 significant bits, halved by rounding; half a step of 1/127
        for (format, error) in
            [(KvFormat::F32, 0.0), (KvFormat::Bf16, 1.0 / 256.0), (KvFormat::Q8, 0.51 / 127.0)]
        {
            for dim in [2, 6, 16, 96] {
                let mut pool = pool(format, dim);
                let row =
                    |t: usize| (0..dim).map(|d| ((t * 31 + d * 7) % 19) as f32 - 9.3).collect::<Vec<_>>();
                let writer = pool.writer();
                for t in 0..KV_BLOCK_TOKENS {
                    // SAFETY: there is one thread.
                    unsafe { writer.head(1, 1, 1) }.store(t, &row(t), &row(t + 500));
                }
                let head = pool.head(1, 1, 1);
                for t in 0..KV_BLOCK_TOKENS {
                    let (mut key, mut value) = (vec![0.0; dim], vec![0.0; dim]);
                    head.read_key(t, &mut key);
                    head.read_value(t, &mut value);
                    for (found, stored) in [(key, row(t)), (value, row(t + 500))] {
                        let close = found.iter().zip(&stored).all(|(a, b)| (a - b).abs() <= 9.7 * error);
                        assert!(close, "{format:?} {found:?} {stored:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_level_stores_the_bytes_of_the_definition() {
        let mut noise = Noise::new(5);
        for (format, dim) in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8]
            .into_iter()
            .flat_map(|format| [2, 8, 24, 96].map(|dim| (format, dim)))
        {
            let (keys, values) = (noise.normal(40 * (dim + 3)), noise.normal(40 * (dim + 3)));
            let rows = KvRows { keys: &keys, values: &values, stride: dim + 3, dim, count: 40 };
            let stored = |level| {
                let mut pool = pool(format, dim);
                // SAFETY: there is one thread, and the processor has the level.
                unsafe { (Kernels::of(level).store_kv)(&mut pool.writer().head(0, 1, 1), 5, &rows) };
                let head = pool.head(0, 1, 1);
                let scales = [head.key_scales, head.value_scales].map(<[f32]>::to_vec);
                (head.keys.to_vec(), head.values.to_vec(), scales)
            };
            let expected = stored(CpuLevel::Scalar);
            for level in CpuLevel::ALL.into_iter().skip(1) {
                let same = level > CpuLevel::detect() || stored(level) == expected;
                assert!(same, "{level} {format:?} {dim}");
            }
        }
    }

    #[test]
    fn memory_is_as_the_layout_says() {
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let pool = pool(format, 96);
            assert_eq!(pool.layout.block_bytes(), 4 * pool.shape.head_bytes());
        }
    }

    #[test]
    fn rows_are_assigned_to_blocks() {
        let blocks = [7, 3, 9];
        let spans = [
            Span { rows: 0..1, past: 128, blocks: &blocks },
            Span { rows: 1..72, past: 60, blocks: &blocks },
            Span { rows: 72..72, past: 0, blocks: &blocks },
        ];
        let found: Vec<_> = (0..4).map(|i| block_rows(&spans, i)).collect();
        let expected = |block, token, rows| BlockRows { block, token, rows };
        assert_eq!(
            found,
            [expected(9, 0, 0..1), expected(7, 60, 1..5), expected(3, 0, 5..69), expected(9, 0, 69..72)]
        );
        assert_eq!(spans.iter().map(blocks_touched).sum::<usize>(), 4);
    }
}
