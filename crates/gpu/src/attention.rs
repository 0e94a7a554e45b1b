//! Attention: few rows by a workgroup for every 256 keys, many by one for 16 rows.

use crate::backend::Gpu;
use crate::batch::GpuBatch;
use crate::kernel::{DIM_MAX, Kernel, MANY_DIM_MAX};
use crate::kv::GpuKvPool;
use crate::recorder::{Bound, Dispatch, Recorder, Scratch};
use crate::tensor::{GpuTensor, value_bytes};
use phi3v_kernels::{BackendError, FullAttention, Heads, KV_BLOCK_TOKENS, Precision};

/// Tokens of a chunk, `CHUNK_BLOCKS` of `softmax.wgsl`.
const CHUNK_TOKENS: usize = 4 * KV_BLOCK_TOKENS;
/// Rows of a tile of `attend_many.wgsl`.
const TILE_ROWS: usize = 16;
/// Most bytes of chunks between the two kernels for few rows.
const CHUNKS_BYTES: usize = 32 << 20;

/// By what scores are multiplied.
fn scale(dim: usize) -> u32 {
    (1.0 / (dim as f32).sqrt()).to_bits()
}

impl Gpu {
    pub(crate) fn run_attention_causal(
        &self,
        qkv: &GpuTensor,
        layer: usize,
        batch: &GpuBatch,
        pool: &GpuKvPool,
        out: &GpuTensor,
    ) {
        let Heads { query, key_value, dim } = pool.layout.heads;
        assert_eq!(qkv.cols, (query + 2 * key_value) * dim, "columns of qkv");
        assert_eq!((out.rows, out.cols), (qkv.rows, query * dim), "output of an attention");
        let mut recorder = self.recorder();
        let call = Causal { gpu: self, qkv, layer, batch, pool, out };
        let result = call.few(&mut recorder);
        recorder.keep(result);
        call.many(&mut recorder);
    }

    pub(crate) fn run_attention_full(
        &self,
        [q, k, v]: [&GpuTensor; 3],
        shape: FullAttention,
        out: &GpuTensor,
    ) {
        let FullAttention { group, heads: Heads { query, key_value, dim }, precision } = shape;
        assert_eq!(query, key_value, "heads of a full attention");
        assert!(dim <= MANY_DIM_MAX, "heads of {dim} values; the kernel holds {MANY_DIM_MAX}");
        for tensor in [q, k, v, out] {
            assert_eq!((tensor.rows, tensor.cols), (q.rows, query * dim), "tensors of a full attention");
        }
        assert!(q.rows.is_multiple_of(group), "{} rows in groups of {group}", q.rows);
        let rounded = u32::from(precision == Precision::Bf16);
        let [cols, dim_, heads, group_] = [q.cols, dim, query, group].map(|v| v as u32);
        let dispatch = Dispatch {
            kernel: Kernel::AttendFull,
            bound: &[q, k, v, out].map(|tensor| Bound::Buffer(&tensor.buffer)),
            numbers: &[cols, dim_, heads, group_, rounded, scale(dim)],
            grid: [query, q.rows / group * group.div_ceil(TILE_ROWS), 1],
            reads: 0,
            work: (2 * q.rows * group * query * dim) as u64,
        };
        self.recorder().dispatch(&self.device, &dispatch);
    }
}

/// One causal attention.
struct Causal<'a> {
    gpu: &'a Gpu,
    qkv: &'a GpuTensor,
    layer: usize,
    batch: &'a GpuBatch,
    pool: &'a GpuKvPool,
    out: &'a GpuTensor,
}

impl Causal<'_> {
    fn cache(&self) -> Bound<'_> {
        Bound::Buffer(&self.pool.layers[self.layer])
    }

    /// Whether long spans go by tiles; heads too large for that go row by row.
    fn by_tiles(&self) -> bool {
        self.pool.layout.heads.dim <= MANY_DIM_MAX
    }

    /// Rows of short spans, and those of all spans where heads are large.
    fn few(&self, recorder: &mut Recorder) -> Result<(), BackendError> {
        let Heads { query, key_value, dim } = self.pool.layout.heads;
        assert!(dim <= DIM_MAX, "heads of {dim} values; the kernel holds {DIM_MAX}");
        let (entries, tokens) = if self.by_tiles() {
            (self.batch.few, self.batch.few_tokens)
        } else {
            (self.batch.entries, self.batch.tokens)
        };
        let chunks = tokens.div_ceil(CHUNK_TOKENS);
        let (Some(buffer), 1..) = (&self.batch.buffer, entries) else { return Ok(()) };
        let entry_bytes = value_bytes(query * chunks, dim + 2);
        // not so many at once that their chunks take much memory, nor more than a dispatch can have
        let at_once = (CHUNKS_BYTES / entry_bytes).clamp(1, 32_768).min(entries);
        recorder.reserve(&self.gpu.device, Scratch::Chunks, at_once * entry_bytes)?;
        let [qkv, batch, out] = [&self.qkv.buffer, buffer, &self.out.buffer].map(Bound::Buffer);
        let chunks_at = Bound::Scratch(Scratch::Chunks);
        let block_bytes = self.pool.block_bytes() as u64;
        for first in (0..entries).step_by(at_once) {
            let count = at_once.min(entries - first);
            let numbers = [self.qkv.cols, dim, query, key_value, first, chunks].map(|v| v as u32);
            let [cols, dim_, heads, kv_heads, first_, chunks_] = numbers;
            // the blocks of all, by the share of these rows
            let blocks = self.batch.few_blocks * count as u64 / entries as u64;
            recorder.dispatch(
                &self.gpu.device,
                &Dispatch {
                    kernel: Kernel::AttendFew { format: self.pool.layout.format },
                    bound: &[qkv, self.cache(), batch, chunks_at],
                    numbers: &[cols, dim_, heads, kv_heads, first_, chunks_, scale(dim)],
                    grid: [query, chunks, count],
                    reads: blocks * block_bytes * (query / key_value) as u64,
                    work: (2 * count * tokens * query * dim) as u64,
                },
            );
            recorder.dispatch(
                &self.gpu.device,
                &Dispatch {
                    kernel: Kernel::Join,
                    bound: &[chunks_at, batch, out],
                    numbers: &[dim_, heads, first_, chunks_],
                    grid: [query, count, 1],
                    reads: 0,
                    work: (count * chunks * query * dim) as u64,
                },
            );
        }
        Ok(())
    }

    /// Rows of long spans, a tile of 16 to a workgroup; after many tokens no more of them at once than the card shall be busy with.
    fn many(&self, recorder: &mut Recorder) {
        let Heads { query, key_value, dim } = self.pool.layout.heads;
        let GpuBatch { entries, tiles, tokens, tile_blocks, .. } = *self.batch;
        let Some(buffer) = self.batch.buffer.as_ref().filter(|_| self.by_tiles()) else { return };
        let tile_work = 2 * (tokens.next_multiple_of(KV_BLOCK_TOKENS) * TILE_ROWS * query * dim) as u64;
        let at_once = (self.gpu.device.work_max / tile_work.max(1)).clamp(1, 32_768) as usize;
        for first in (0..tiles).step_by(at_once) {
            let count = at_once.min(tiles - first);
            let numbers = [self.qkv.cols, dim, query, key_value, 4 * (entries + first)].map(|v| v as u32);
            let [cols, dim_, heads, kv_heads, first] = numbers;
            // the blocks of all, by the share of these tiles
            let blocks = tile_blocks * count as u64 / tiles as u64;
            let dispatch = Dispatch {
                kernel: Kernel::AttendMany { format: self.pool.layout.format },
                bound: &[
                    Bound::Buffer(&self.qkv.buffer),
                    self.cache(),
                    Bound::Buffer(buffer),
                    Bound::Buffer(&self.out.buffer),
                ],
                numbers: &[cols, dim_, heads, kv_heads, first, scale(dim)],
                grid: [query, count, 1],
                reads: blocks * (self.pool.block_bytes() * query / key_value) as u64,
                work: 2 * blocks * (KV_BLOCK_TOKENS * TILE_ROWS * query * dim) as u64,
            };
            recorder.dispatch(&self.gpu.device, &dispatch);
        }
    }
}
