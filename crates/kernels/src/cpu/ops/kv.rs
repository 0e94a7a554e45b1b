//! The KV cache: blocks of 64 tokens, each a single allocation for all layers and heads. [`crate::cpu::table::kv`]
//! defines where each value is stored.
//!
//! Invariant: the memory of a block never moves.

use super::batch::CpuBatch;
use super::runner::Runner;
use super::tensor::{Buffer, CpuTensor};
use crate::cpu::table::kv::{HeadShape, KvHead, KvHeadMut, KvRows};
use crate::{BackendError, Heads, KV_BLOCK_TOKENS, KvLayout};

/// Blocks of keys and values in host memory, which is allocated as the pool grows.
pub struct CpuKvPool {
    shape: HeadShape,
    layout: KvLayout,
    blocks: Vec<Block>,
    blocks_max: usize,
}

struct Block {
    /// Owns the memory that `base` points to.
    _memory: Buffer,
    base: *mut u8,
}

// SAFETY: `base` points to memory that the block owns. Shared access only reads it, and writing requires `&mut
// CpuKvPool` (see `KvWriter`).
unsafe impl Send for Block {}
// SAFETY: see above.
unsafe impl Sync for Block {}

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

    /// Returns the layers, heads and format of the model that the pool was made for.
    #[must_use]
    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    pub(crate) fn shape(&self) -> HeadShape {
        self.shape
    }

    /// Returns the start of a head's memory.
    fn head_start(&self, block: u32, layer: usize, head: usize) -> *mut u8 {
        let KvLayout { layers, heads, .. } = self.layout;
        assert!(layer < layers && head < heads.key_value, "layer {layer}, head {head} of {:?}", self.layout);
        let offset = (layer * heads.key_value + head) * self.shape.head_bytes();
        // SAFETY: `grow` allocated layers * heads * head_bytes bytes for the block, and layer and head are in range.
        unsafe { self.blocks[block as usize].base.add(offset) }
    }

    /// Returns the keys and values of one head in one block.
    pub(crate) fn head(&self, block: u32, layer: usize, head: usize) -> KvHead<'_> {
        let (shape, start) = (self.shape, self.head_start(block, layer, head));
        let (panel, scales) = (shape.panel_bytes(), shape.scale_bytes());
        // SAFETY: a head is head_bytes = 2 * (panel + scales) bytes from `start` on, allocated and zeroed by `grow`
        // at a 64-byte boundary. Panels are multiples of 64 bytes, so the scales are aligned. `&self` excludes
        // writers.
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

    /// Returns a writer with which several threads can write heads of blocks.
    pub(crate) fn writer(&mut self) -> KvWriter<'_> {
        KvWriter(self)
    }
}

/// Writes heads of blocks, see [`CpuKvPool::writer`].
pub(crate) struct KvWriter<'a>(&'a mut CpuKvPool);

impl KvWriter<'_> {
    /// Returns one head of one block for writing.
    ///
    /// # Safety
    /// No other thread may access the same head of the same block and layer at the same time.
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

impl Runner {
    /// See [`Backend::copy_kv`](crate::Backend::copy_kv).
    pub(crate) fn copy_kv(&self, qkv: &CpuTensor, layer: usize, batch: &CpuBatch, pool: &mut CpuKvPool) {
        let Heads { query, key_value, dim } = pool.layout().heads;
        assert_eq!(qkv.cols(), (query + 2 * key_value) * dim, "columns of qkv");
        let written = batch.written();
        let writer = pool.writer();
        self.pool.run(written.len() * key_value, |task, _| {
            let (part, head) = (&written[task / key_value], task % key_value);
            // SAFETY: every task has its own head of its own block, because the blocks of a batch are distinct.
            let mut stored = unsafe { writer.head(part.block, layer, head) };
            let first = &qkv.values()[part.rows.start * qkv.cols()..];
            let keys = (query + head) * dim;
            let rows = KvRows {
                keys: &first[keys..],
                values: &first[keys + key_value * dim..],
                stride: qkv.cols(),
                dim,
                count: part.rows.len(),
            };
            if part.token == 0 && rows.count < KV_BLOCK_TOKENS {
                // values of later tokens have a weight of zero in sums, but zero times a leftover infinity is NaN
                stored.values.fill(0);
                stored.value_scales.fill(0.0);
            }
            // SAFETY: the kernels are those of a level this processor has.
            unsafe { (self.kernels.attention.store_kv)(&mut stored, part.token, &rows) };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvFormat;

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
    fn memory_is_as_the_layout_says() {
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let pool = pool(format, 96);
            assert_eq!(pool.layout.block_bytes(), 4 * pool.shape.head_bytes());
        }
    }
}
