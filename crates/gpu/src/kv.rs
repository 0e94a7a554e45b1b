//! Keys and values on the card: one buffer per layer; see `kv.wgsl` for the layout.

use crate::backend::Gpu;
use crate::batch::GpuBatch;
use crate::buffer::Buffer;
use crate::kernel::{DIM_MAX, Kernel};
use crate::recorder::{Bound, Dispatch, row_grid};
use crate::tensor::GpuTensor;
use phi3v_kernels::{BackendError, Heads, KV_BLOCK_TOKENS, KvFormat, KvLayout, Rotation};

/// Blocks of keys and values on the card. All memory is allocated at once: a promised context must not fail later.
pub struct GpuKvPool {
    pub(crate) layers: Vec<Buffer>,
    pub(crate) layout: KvLayout,
    pub(crate) blocks: usize,
}

/// The rows whose keys and values are stored.
struct Store<'a> {
    qkv: &'a GpuTensor,
    batch: &'a GpuBatch,
    pool: &'a GpuKvPool,
    /// Number of heads of a row that have workgroups.
    heads: usize,
}

/// Returns the bytes of one key or value head in one block, including scales.
fn head_bytes(layout: &KvLayout) -> usize {
    let per_word = match layout.format {
        KvFormat::F32 => 1,
        KvFormat::Bf16 => 2,
        KvFormat::Q8 => 4,
    };
    let scale = if layout.format.has_scales() { 1 } else { 0 };
    // number of words, rounded up to a multiple of four
    let words = layout.heads.dim.div_ceil(4 * per_word) * 4;
    4 * KV_BLOCK_TOKENS * (words + scale)
}

impl GpuKvPool {
    /// Returns the bytes of one block in one layer, keys and values.
    pub(crate) fn block_bytes(&self) -> usize {
        2 * self.layout.heads.key_value * head_bytes(&self.layout)
    }
}

impl Gpu {
    pub(crate) fn new_kv_pool(&self, layout: KvLayout, blocks: usize) -> Result<GpuKvPool, BackendError> {
        assert!(
            layout.heads.dim <= DIM_MAX,
            "heads of {} values; the kernels hold {DIM_MAX}",
            layout.heads.dim
        );
        let mut pool = GpuKvPool { layers: Vec::new(), layout, blocks };
        let bytes = pool.block_bytes().saturating_mul(blocks);
        for _ in 0..layout.layers {
            pool.layers.push(self.recorder().new_buffer(&self.device, bytes)?);
        }
        Ok(pool)
    }

    pub(crate) fn run_copy_kv(&self, qkv: &GpuTensor, layer: usize, batch: &GpuBatch, pool: &GpuKvPool) {
        let Some(buffer) = &batch.buffer else { return };
        let bound = [&qkv.buffer, buffer, &pool.layers[layer]].map(Bound::Buffer);
        let call = Store { qkv, batch, pool, heads: 2 * pool.layout.heads.key_value };
        self.store(Kernel::StoreKv { format: pool.layout.format }, &bound, &call);
    }

    pub(crate) fn run_rope_and_copy_kv(
        &self,
        Rotation { cos_sin, heads }: Rotation<'_, GpuTensor>,
        qkv: &GpuTensor,
        layer: usize,
        batch: &GpuBatch,
        pool: &GpuKvPool,
    ) {
        assert_eq!(heads, pool.layout.heads, "heads of rows that are stored");
        crate::rows::check_rotation(cos_sin, heads, qkv);
        let Some(buffer) = &batch.buffer else { return };
        let bound = [&cos_sin.buffer, buffer, &qkv.buffer, &pool.layers[layer]].map(Bound::Buffer);
        let call = Store { qkv, batch, pool, heads: heads.query + 2 * heads.key_value };
        self.store(Kernel::RopeStoreKv { format: pool.layout.format }, &bound, &call);
    }

    fn store(&self, kernel: Kernel, bound: &[Bound<'_>], call: &Store<'_>) {
        let Store { qkv, batch, pool, heads } = *call;
        let Heads { query, key_value, dim } = pool.layout.heads;
        assert_eq!(qkv.cols, (query + 2 * key_value) * dim, "columns of qkv");
        let dispatch = Dispatch {
            kernel,
            bound,
            numbers: &[qkv.cols, query * dim, dim, key_value, batch.entries].map(|v| v as u32),
            grid: row_grid(heads, batch.entries),
            reads: 0,
            work: (batch.entries * heads * dim) as u64,
        };
        self.recorder().dispatch(&self.device, &dispatch);
    }
}
