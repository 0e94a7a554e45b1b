//! Attention. Few rows use one workgroup per 256 keys of a row, many rows one workgroup per 16 rows. No dispatch has
//! more of either than the card may be busy with at a time.

use crate::backend::Gpu;
use crate::batch::{GpuBatch, TILE_ROWS};
use crate::kernel::{DIM_MAX, Kernel, MANY_DIM_MAX};
use crate::kv::GpuKvPool;
use crate::recorder::{Bound, Dispatch, Recorder, Scratch};
use crate::tensor::{GpuTensor, value_bytes};
use phi3v_kernels::{BackendError, FullAttention, Heads, KV_BLOCK_TOKENS, KvFormat, Precision};

/// Tokens of a chunk, `CHUNK_BLOCKS` of `softmax.wgsl`.
const CHUNK_TOKENS: usize = 4 * KV_BLOCK_TOKENS;
/// Maximum bytes of chunks passed between the two kernels for few rows.
const CHUNKS_BYTES: usize = 32 << 20;
/// Maximum rows or tiles of a dispatch.
const AT_ONCE_MAX: usize = 32_768;

/// Returns the factor by which scores are multiplied.
fn scale(dim: usize) -> u32 {
    (1.0 / (dim as f32).sqrt()).to_bits()
}

/// How `entries` rows of short spans, which see up to `tokens` tokens, are split into dispatches.
pub(crate) struct FewCut {
    /// Chunks of keys of a row.
    chunks: usize,
    /// Bytes that the chunks of a row pass to `join.wgsl`.
    entry_bytes: usize,
    /// Rows of a dispatch.
    pub(crate) at_once: usize,
}

impl FewCut {
    pub(crate) fn new(heads: Heads, tokens: usize, entries: usize, work_max: u64) -> Self {
        let chunks = tokens.div_ceil(CHUNK_TOKENS);
        let entry_bytes = value_bytes(heads.query * chunks, heads.dim + 2);
        // limited by the memory for the chunks, by the size of a dispatch, and by the time the card may be busy
        let by_work = work_max / Self::row_cost(heads, tokens).max(1);
        let by_work = usize::try_from(by_work).unwrap_or(usize::MAX);
        let most = (CHUNKS_BYTES / entry_bytes.max(1)).min(by_work).clamp(1, AT_ONCE_MAX);
        Self { chunks, entry_bytes, at_once: most.min(entries) }
    }

    /// Returns the cost of a row, in the units of the pace.
    pub(crate) fn row_cost(heads: Heads, tokens: usize) -> u64 {
        let kernel = Kernel::AttendFew { format: KvFormat::F32 };
        2 * (tokens * heads.query * heads.dim) as u64 * kernel.cost()
    }

    /// Returns the bytes passed between the two kernels.
    pub(crate) fn scratch_bytes(&self) -> usize {
        self.at_once * self.entry_bytes
    }

    /// Returns the workgroups of the kernel that makes the chunks of `count` rows, and of the one that joins them.
    pub(crate) fn grids(&self, heads: Heads, count: usize) -> [[usize; 3]; 2] {
        [[heads.query, self.chunks, count], [heads.query, count, 1]]
    }
}

/// Returns the number of tiles in a dispatch whose rows see up to `tokens` tokens, limited by the time the card may be
/// busy.
pub(crate) fn tiles_at_once(heads: Heads, tokens: usize, work_max: u64) -> usize {
    let keys = tokens.next_multiple_of(KV_BLOCK_TOKENS);
    let tile_work = 2 * (keys * TILE_ROWS * heads.query * heads.dim) as u64;
    (work_max / (tile_work * Kernel::AttendFull.cost()).max(1)).clamp(1, AT_ONCE_MAX as u64) as usize
}

/// Returns the number of tiles of an attention within groups of `group` rows.
pub(crate) fn full_tiles(rows: usize, group: usize) -> usize {
    rows / group * group.div_ceil(TILE_ROWS)
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
        let FullAttention { group, heads, precision } = shape;
        let Heads { query, key_value, dim } = heads;
        assert_eq!(query, key_value, "heads of a full attention");
        assert!(dim <= MANY_DIM_MAX, "heads of {dim} values; the kernel holds {MANY_DIM_MAX}");
        for tensor in [q, k, v, out] {
            assert_eq!((tensor.rows, tensor.cols), (q.rows, query * dim), "tensors of a full attention");
        }
        assert!(q.rows.is_multiple_of(group), "{} rows in groups of {group}", q.rows);
        let rounded = u32::from(precision == Precision::Bf16);
        let [cols, dim_, query_heads, group_] = [q.cols, dim, query, group].map(|v| v as u32);
        let tiles = full_tiles(q.rows, group);
        let at_once = tiles_at_once(heads, group, self.device.pace.work_max());
        let mut recorder = self.recorder();
        for first in (0..tiles).step_by(at_once) {
            let count = at_once.min(tiles - first);
            let dispatch = Dispatch {
                kernel: Kernel::AttendFull,
                bound: &[q, k, v, out].map(|tensor| Bound::Buffer(&tensor.buffer)),
                numbers: &[cols, dim_, query_heads, group_, rounded, scale(dim), first as u32],
                grid: [query, count, 1],
                reads: 0,
                // these tiles' share of the work for all rows
                work: (2 * q.rows * group * query * dim * count / tiles) as u64,
            };
            recorder.dispatch(&self.device, &dispatch);
        }
    }
}

/// A causal attention.
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

    /// Returns whether long spans are processed by tiles; heads too large for that are processed row by row.
    fn by_tiles(&self) -> bool {
        self.pool.layout.heads.dim <= MANY_DIM_MAX
    }

    /// Attends for rows of short spans, and for rows of all spans if heads are large.
    fn few(&self, recorder: &mut Recorder) -> Result<(), BackendError> {
        let heads = self.pool.layout.heads;
        let Heads { query, key_value, dim } = heads;
        assert!(dim <= DIM_MAX, "heads of {dim} values; the kernel holds {DIM_MAX}");
        let (entries, tokens) = if self.by_tiles() {
            (self.batch.few, self.batch.few_tokens)
        } else {
            (self.batch.entries, self.batch.tokens)
        };
        let (Some(buffer), 1..) = (&self.batch.buffer, entries) else { return Ok(()) };
        let cut = FewCut::new(heads, tokens, entries, self.gpu.device.pace.work_max());
        let [qkv, batch, out] = [&self.qkv.buffer, buffer, &self.out.buffer].map(Bound::Buffer);
        // a single chunk is already the result
        let is_joined = cut.chunks > 1;
        let mut to = out;
        if is_joined {
            recorder.reserve(&self.gpu.device, Scratch::Chunks, cut.scratch_bytes())?;
            to = Bound::Scratch(Scratch::Chunks);
        }
        let block_bytes = self.pool.block_bytes() as u64;
        for first in (0..entries).step_by(cut.at_once) {
            let count = cut.at_once.min(entries - first);
            let [grid, join_grid] = cut.grids(heads, count);
            let numbers = [self.qkv.cols, dim, query, key_value, first, cut.chunks].map(|v| v as u32);
            let [cols, dim_, query_heads, kv_heads, first_, chunks_] = numbers;
            // these rows' share of the blocks of all
            let blocks = self.batch.few_blocks * count as u64 / entries as u64;
            recorder.dispatch(
                &self.gpu.device,
                &Dispatch {
                    kernel: Kernel::AttendFew { format: self.pool.layout.format },
                    bound: &[qkv, self.cache(), batch, to],
                    numbers: &[cols, dim_, query_heads, kv_heads, first_, chunks_, scale(dim)],
                    grid,
                    reads: blocks * block_bytes * (query / key_value) as u64,
                    work: (2 * count * tokens * query * dim) as u64,
                },
            );
            let join = Dispatch {
                kernel: Kernel::Join,
                bound: &[to, batch, out],
                numbers: &[dim_, query_heads, first_, chunks_],
                grid: join_grid,
                reads: 0,
                work: (count * cut.chunks * query * dim) as u64,
            };
            if is_joined {
                recorder.dispatch(&self.gpu.device, &join);
            }
        }
        Ok(())
    }

    /// Attends for rows of long spans, one workgroup per tile of 16. A dispatch after many tokens is limited by the
    /// time the card may be busy.
    fn many(&self, recorder: &mut Recorder) {
        let Heads { query, key_value, dim } = self.pool.layout.heads;
        let GpuBatch { entries, tiles, tokens, tile_blocks, .. } = *self.batch;
        let Some(buffer) = self.batch.buffer.as_ref().filter(|_| self.by_tiles()) else { return };
        let at_once = tiles_at_once(self.pool.layout.heads, tokens, self.gpu.device.pace.work_max());
        for first in (0..tiles).step_by(at_once) {
            let count = at_once.min(tiles - first);
            let numbers = [self.qkv.cols, dim, query, key_value, 4 * (entries + first)].map(|v| v as u32);
            let [cols, dim_, heads, kv_heads, first] = numbers;
            // these tiles' share of the blocks of all
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
