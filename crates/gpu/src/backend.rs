//! [`Gpu`]: the operations of [`Backend`], implemented in one module each.

use crate::adapter::choose;
use crate::device::{Device, GpuOptions};
use crate::found::Found;
use crate::kernel::{DIM_MAX, MANY_DIM_MAX};
use crate::linear::FEW_ROWS_MAX;
use crate::memory::Memory;
use crate::recorder::{Counts, Recorder};
use crate::{
    Adapter, GpuBatch, GpuError, GpuKvPool, GpuLinear, GpuTable, GpuTensor, GpuVector, KernelTime,
    ManyRowsTimes,
};
use phi3v_kernels::{
    Backend, BackendError, DeviceMemory, Epilogue, FeedForward, FullAttention, HeadDims, Heads, KvLayout,
    MatrixSource, Norm, Rotation, Sizes, Span,
};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sizes for cards: all tiles of a picture at once (16 and the global view), and a prompt in few pieces.
pub(crate) const SIZES: Sizes = Sizes { few_rows_max: FEW_ROWS_MAX, tiles_at_once: 17, prefill_chunk: 2048 };
/// The buffer size that a card must support for these sizes: the tower's widest tensor has 161 MB.
pub(crate) const LARGE_BYTES: u64 = 256 << 20;
/// Sizes for software drivers, for cards that use the host's memory, and for cards that can bind only small buffers.
pub(crate) const SIZES_SMALL: Sizes =
    Sizes { few_rows_max: FEW_ROWS_MAX, tiles_at_once: 4, prefill_chunk: 1024 };

/// A graphics card. See the crate documentation.
pub struct Gpu {
    pub(crate) device: Device,
    recorder: Mutex<Recorder>,
    /// Why the card's matrix units are not used.
    pub(crate) units_fault: Option<String>,
    /// Results of the kernels' self-test.
    pub(crate) found: Found,
}

impl Gpu {
    /// Opens the card that `options` select and tests its kernels.
    ///
    /// # Errors
    /// [`GpuError`], see its variants.
    pub fn new(options: &GpuOptions) -> Result<Self, GpuError> {
        Self::open(choose(&options.choice)?, options)
    }

    /// Opens a card and tests its kernels. If those for matrix units fail, the card runs without them; see
    /// [`matrix_units_fault`](Self::matrix_units_fault).
    ///
    /// # Errors
    /// [`GpuError`], see its variants.
    pub fn open(adapter: Adapter, options: &GpuOptions) -> Result<Self, GpuError> {
        crate::units::open(&adapter, options)
    }

    /// Opens the card without testing its kernels.
    pub(crate) fn untested(adapter: Adapter, options: &GpuOptions) -> Result<Self, GpuError> {
        let device = Device::open(adapter, options)?;
        let open_error =
            |e: BackendError| GpuError::Open { name: device.adapter.name.clone(), reason: e.to_string() };
        let recorder = Recorder::new(&device).map_err(open_error)?;
        Ok(Self { recorder: Mutex::new(recorder), units_fault: None, found: Found::default(), device })
    }

    /// Returns the card.
    #[must_use]
    pub fn adapter(&self) -> &Adapter {
        &self.device.adapter
    }

    /// Returns whether products of many rows use matrix units.
    #[must_use]
    pub fn uses_matrix_units(&self) -> bool {
        self.device.used_units().is_some()
    }

    /// Returns the time of products of many rows with and without matrix units, if the card has some that compute
    /// correctly. The faster kernel is used, unless [`GpuOptions::use_units`] says otherwise.
    #[must_use]
    pub fn many_rows_times(&self) -> Option<ManyRowsTimes> {
        self.found.times
    }

    /// Returns why the card's matrix units are not used, if they failed: the first operation with a wrong result, or
    /// the driver's message.
    #[must_use]
    pub fn matrix_units_fault(&self) -> Option<&str> {
        self.units_fault.as_deref()
    }

    /// Returns the first operation found whose rows have different bits in one kernel than in another: an answer may
    /// then depend on how many rows are computed at once. `None` if all promised bits agree.
    #[must_use]
    pub fn bits_differ(&self) -> Option<&str> {
        self.found.bits_differ.as_deref()
    }

    /// Returns the counts since the card was opened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.recorder().counts()
    }

    /// Returns the time of each kernel since the last call, the longest first; empty unless [`GpuOptions::timestamps`]
    /// is set. Kernels that were recorded but not waited for are not included.
    #[must_use]
    pub fn take_kernel_times(&self) -> Vec<KernelTime> {
        self.recorder().take_times()
    }

    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Gpu {
    type Tensor = GpuTensor;
    type Linear = GpuLinear;
    type Table = GpuTable;
    type Batch = GpuBatch;
    type Vector = GpuVector;
    type KvPool = GpuKvPool;

    fn sizes(&self) -> Sizes {
        let large = self.device.adapter.has_own_memory() && self.device.binding_bytes_max >= LARGE_BYTES;
        if large { SIZES } else { SIZES_SMALL }
    }

    fn memory(&self) -> DeviceMemory {
        match crate::memory::of(&self.device.adapter.raw).map(Memory::available) {
            Some(available_bytes) if self.device.adapter.has_own_memory() => {
                DeviceMemory::Own { available_bytes }
            }
            // often half of the host's memory
            Some(available_bytes) => DeviceMemory::Shared { available_bytes },
            None => DeviceMemory::Host,
        }
    }

    fn buffer_bytes_max(&self) -> u64 {
        self.device.binding_bytes_max
    }

    fn head_dims_max(&self) -> HeadDims {
        HeadDims { causal: DIM_MAX, full: MANY_DIM_MAX }
    }

    fn tensor(&self, rows: usize, cols: usize) -> Result<GpuTensor, BackendError> {
        self.new_tensor(rows, cols)
    }

    fn reshape(&self, tensor: &mut GpuTensor, rows: usize, cols: usize) -> Result<(), BackendError> {
        self.reshape_tensor(tensor, rows, cols)
    }

    fn shape(&self, tensor: &GpuTensor) -> (usize, usize) {
        (tensor.rows, tensor.cols)
    }

    fn upload(&self, values: &[f32], first_row: usize, out: &mut GpuTensor) {
        self.upload_values(values, first_row, out);
    }

    fn download(
        &self,
        tensor: &GpuTensor,
        rows: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        self.download_rows(tensor, rows, out)
    }

    fn finish(&self) -> Result<(), BackendError> {
        self.recorder().finish(&self.device)
    }

    fn linear_weight(&self, source: MatrixSource) -> Result<GpuLinear, BackendError> {
        GpuLinear::new(self, &source)
    }

    fn embedding(&self, source: MatrixSource) -> Result<GpuTable, BackendError> {
        GpuTable::new(source)
    }

    fn vector(&self, values: &[f32]) -> Result<GpuVector, BackendError> {
        self.new_vector(values)
    }

    fn kv_pool(&self, layout: KvLayout, blocks: usize) -> Result<GpuKvPool, BackendError> {
        self.new_kv_pool(layout, blocks)
    }

    fn kv_grow(&self, pool: &mut GpuKvPool, blocks: usize) -> Result<(), BackendError> {
        assert!(blocks <= pool.blocks, "{blocks} blocks of a pool of {}", pool.blocks);
        Ok(())
    }

    fn batch(&self) -> GpuBatch {
        GpuBatch::default()
    }

    fn set_batch(&self, spans: &[Span<'_>], batch: &mut GpuBatch) -> Result<(), BackendError> {
        self.lay_out_batch(spans, batch)
    }

    fn embed(&self, table: &GpuTable, ids: &[u32], out_row: usize, out: &mut GpuTensor) {
        self.run_embed(table, ids, out_row, out);
    }

    fn gather(&self, src: &GpuTensor, rows: &[u32], out_row: usize, out: &mut GpuTensor) {
        self.run_gather(src, rows, out_row, out);
    }

    fn linear(&self, x: &GpuTensor, weight: &GpuLinear, epilogue: Epilogue, out: &mut GpuTensor) {
        self.run_linear(x, weight, epilogue, out);
    }

    fn norm(&self, x: &GpuTensor, norm: Norm<'_, GpuVector>, out: &mut GpuTensor) {
        self.run_norm(x, norm, out);
    }

    fn normed_linear(
        &self,
        x: &GpuTensor,
        norm: Norm<'_, GpuVector>,
        products: &mut [(&GpuLinear, &mut GpuTensor)],
        normed: &mut GpuTensor,
    ) -> Result<(), BackendError> {
        let products: Vec<_> =
            products.iter().map(|(weight, out)| (*weight, Epilogue::Store, &**out)).collect();
        self.run_normed(x, norm, &products, normed)
    }

    fn feed_forward(
        &self,
        x: &mut GpuTensor,
        norm: Norm<'_, GpuVector>,
        block: FeedForward<'_, GpuLinear>,
        [normed, hidden]: [&mut GpuTensor; 2],
    ) -> Result<(), BackendError> {
        self.reshape_tensor(hidden, x.rows, block.hidden)?;
        self.run_normed(x, norm, &[(block.first, block.epilogue, hidden)], normed)?;
        self.run_linear(hidden, block.second, Epilogue::Add, x);
        Ok(())
    }

    fn add(&self, addend: &GpuTensor, x: &mut GpuTensor) {
        self.run_add(addend, x);
    }

    fn rope(&self, cos_sin: &GpuTensor, heads: Heads, qkv: &mut GpuTensor) {
        self.run_rope(cos_sin, heads, qkv);
    }

    fn copy_kv(&self, qkv: &GpuTensor, layer: usize, batch: &GpuBatch, pool: &mut GpuKvPool) {
        self.run_copy_kv(qkv, layer, batch, pool);
    }

    fn rope_and_copy_kv(
        &self,
        rotation: Rotation<'_, GpuTensor>,
        qkv: &mut GpuTensor,
        layer: usize,
        batch: &GpuBatch,
        pool: &mut GpuKvPool,
    ) {
        self.run_rope_and_copy_kv(rotation, qkv, layer, batch, pool);
    }

    fn attention_causal(
        &self,
        qkv: &GpuTensor,
        layer: usize,
        batch: &GpuBatch,
        pool: &GpuKvPool,
        out: &mut GpuTensor,
    ) {
        self.run_attention_causal(qkv, layer, batch, pool, out);
    }

    fn attention_full(&self, qkv: [&GpuTensor; 3], shape: FullAttention, out: &mut GpuTensor) {
        self.run_attention_full(qkv, shape, out);
    }
}
