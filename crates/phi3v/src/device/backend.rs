//! Hands each operation to the device that was opened, without allocating.

use super::handles::Handle;
use super::{
    Device, DeviceBatch, DeviceKvPool, DeviceLinear, DeviceTable, DeviceTensor, DeviceVector, devices,
};
use phi3v_kernels::{
    Backend, BackendError, DeviceMemory, Epilogue, FeedForward, FullAttention, HeadDims, Heads, KvLayout,
    MatrixSource, Norm, Rotation, Sizes, Span,
};
use smallvec::SmallVec;
use std::ops::Range;

/// Products of one norm that are handed on without an allocation: queries, keys and values.
const PRODUCTS: usize = 3;

/// Evaluates an expression with the device's backend bound to a name, as in `on!(self, device => device.sizes())`.
macro_rules! on {
    ($self:expr, $device:ident => $body:expr) => {
        devices!(on_each! { $self, $device => $body })
    };
}

macro_rules! on_each {
    ([$($(#[$cfg:meta])* $variant:ident($backend:ty),)+] $self:expr, $device:ident => $body:expr) => {
        match $self {
            $(
                $(#[$cfg])*
                Device::$variant($device) => $body,
            )+
        }
    };
}

/// Like `on!`, with a name for the constructor of a handle of the device's own type, as in `make!(self, device,
/// DeviceBatch as handle => handle(device.batch()))`.
macro_rules! make {
    ($self:expr, $device:ident, $name:ident as $handle:ident => $body:expr) => {
        devices!(make_each! { $self, $device, $name as $handle => $body })
    };
}

macro_rules! make_each {
    (
        [$($(#[$cfg:meta])* $variant:ident($backend:ty),)+]
        $self:expr, $device:ident, $name:ident as $handle:ident => $body:expr
    ) => {
        match $self {
            $(
                $(#[$cfg])*
                Device::$variant($device) => {
                    let $handle = $name::$variant;
                    $body
                }
            )+
        }
    };
}

/// The norm with the device's own vectors in place of handles.
fn own_norm<'a, B>(norm: Norm<'a, DeviceVector>, device: &B) -> Norm<'a, <DeviceVector as Handle<B>>::Own>
where
    DeviceVector: Handle<B>,
{
    match norm {
        Norm::Rms(weight, eps) => Norm::Rms(weight.of(device), eps),
        Norm::Layer((weight, bias), eps) => Norm::Layer((weight.of(device), bias.of(device)), eps),
    }
}

impl Backend for Device {
    type Tensor = DeviceTensor;
    type Linear = DeviceLinear;
    type Table = DeviceTable;
    type Batch = DeviceBatch;
    type Vector = DeviceVector;
    type KvPool = DeviceKvPool;

    fn sizes(&self) -> Sizes {
        on!(self, device => device.sizes())
    }

    fn memory(&self) -> DeviceMemory {
        on!(self, device => device.memory())
    }

    fn buffer_bytes_max(&self) -> u64 {
        on!(self, device => device.buffer_bytes_max())
    }

    fn head_dims_max(&self) -> HeadDims {
        on!(self, device => device.head_dims_max())
    }

    fn tensor(&self, rows: usize, cols: usize) -> Result<DeviceTensor, BackendError> {
        make!(self, device, DeviceTensor as handle => device.tensor(rows, cols).map(handle))
    }

    fn reshape(&self, tensor: &mut DeviceTensor, rows: usize, cols: usize) -> Result<(), BackendError> {
        on!(self, device => device.reshape(tensor.of_mut(device), rows, cols))
    }

    fn shape(&self, tensor: &DeviceTensor) -> (usize, usize) {
        on!(self, device => device.shape(tensor.of(device)))
    }

    fn upload(&self, values: &[f32], first_row: usize, out: &mut DeviceTensor) {
        on!(self, device => device.upload(values, first_row, out.of_mut(device)));
    }

    fn download(
        &self,
        tensor: &DeviceTensor,
        rows: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        on!(self, device => device.download(tensor.of(device), rows, out))
    }

    fn finish(&self) -> Result<(), BackendError> {
        on!(self, device => device.finish())
    }

    fn linear_weight(&self, source: MatrixSource) -> Result<DeviceLinear, BackendError> {
        make!(self, device, DeviceLinear as handle => device.linear_weight(source).map(handle))
    }

    fn embedding(&self, source: MatrixSource) -> Result<DeviceTable, BackendError> {
        make!(self, device, DeviceTable as handle => device.embedding(source).map(handle))
    }

    fn vector(&self, values: &[f32]) -> Result<DeviceVector, BackendError> {
        make!(self, device, DeviceVector as handle => device.vector(values).map(handle))
    }

    fn kv_pool(&self, layout: KvLayout, blocks: usize) -> Result<DeviceKvPool, BackendError> {
        make!(self, device, DeviceKvPool as handle => device.kv_pool(layout, blocks).map(handle))
    }

    fn kv_grow(&self, pool: &mut DeviceKvPool, blocks: usize) -> Result<(), BackendError> {
        on!(self, device => device.kv_grow(pool.of_mut(device), blocks))
    }

    fn batch(&self) -> DeviceBatch {
        make!(self, device, DeviceBatch as handle => handle(device.batch()))
    }

    fn set_batch(&self, spans: &[Span<'_>], batch: &mut DeviceBatch) -> Result<(), BackendError> {
        on!(self, device => device.set_batch(spans, batch.of_mut(device)))
    }

    fn embed(&self, table: &DeviceTable, ids: &[u32], out_row: usize, out: &mut DeviceTensor) {
        on!(self, device => device.embed(table.of(device), ids, out_row, out.of_mut(device)));
    }

    fn gather(&self, src: &DeviceTensor, rows: &[u32], out_row: usize, out: &mut DeviceTensor) {
        on!(self, device => device.gather(src.of(device), rows, out_row, out.of_mut(device)));
    }

    fn linear(&self, x: &DeviceTensor, weight: &DeviceLinear, epilogue: Epilogue, out: &mut DeviceTensor) {
        on!(self, device => {
            device.linear(x.of(device), weight.of(device), epilogue, out.of_mut(device));
        });
    }

    fn norm(&self, x: &DeviceTensor, norm: Norm<'_, DeviceVector>, out: &mut DeviceTensor) {
        on!(self, device => device.norm(x.of(device), own_norm(norm, device), out.of_mut(device)));
    }

    fn normed_linear(
        &self,
        x: &DeviceTensor,
        norm: Norm<'_, DeviceVector>,
        products: &mut [(&DeviceLinear, &mut DeviceTensor)],
        normed: &mut DeviceTensor,
    ) -> Result<(), BackendError> {
        on!(self, device => {
            let own = products.iter_mut().map(|(weight, out)| (weight.of(device), out.of_mut(device)));
            let mut products: SmallVec<[_; PRODUCTS]> = own.collect();
            device.normed_linear(x.of(device), own_norm(norm, device), &mut products, normed.of_mut(device))
        })
    }

    fn feed_forward(
        &self,
        x: &mut DeviceTensor,
        norm: Norm<'_, DeviceVector>,
        block: FeedForward<'_, DeviceLinear>,
        between: [&mut DeviceTensor; 2],
    ) -> Result<(), BackendError> {
        let FeedForward { first, epilogue, hidden, second } = block;
        on!(self, device => {
            let block = FeedForward { first: first.of(device), epilogue, hidden, second: second.of(device) };
            let between = between.map(|tensor| tensor.of_mut(device));
            device.feed_forward(x.of_mut(device), own_norm(norm, device), block, between)
        })
    }

    fn add(&self, addend: &DeviceTensor, x: &mut DeviceTensor) {
        on!(self, device => device.add(addend.of(device), x.of_mut(device)));
    }

    fn rope(&self, cos_sin: &DeviceTensor, heads: Heads, qkv: &mut DeviceTensor) {
        on!(self, device => device.rope(cos_sin.of(device), heads, qkv.of_mut(device)));
    }

    fn copy_kv(&self, qkv: &DeviceTensor, layer: usize, batch: &DeviceBatch, pool: &mut DeviceKvPool) {
        on!(self, device => {
            device.copy_kv(qkv.of(device), layer, batch.of(device), pool.of_mut(device));
        });
    }

    fn rope_and_copy_kv(
        &self,
        rotation: Rotation<'_, DeviceTensor>,
        qkv: &mut DeviceTensor,
        layer: usize,
        batch: &DeviceBatch,
        pool: &mut DeviceKvPool,
    ) {
        let Rotation { cos_sin, heads } = rotation;
        on!(self, device => {
            let rotation = Rotation { cos_sin: cos_sin.of(device), heads };
            let (batch, pool) = (batch.of(device), pool.of_mut(device));
            device.rope_and_copy_kv(rotation, qkv.of_mut(device), layer, batch, pool);
        });
    }

    fn attention_causal(
        &self,
        qkv: &DeviceTensor,
        layer: usize,
        batch: &DeviceBatch,
        pool: &DeviceKvPool,
        out: &mut DeviceTensor,
    ) {
        on!(self, device => {
            let (batch, pool) = (batch.of(device), pool.of(device));
            device.attention_causal(qkv.of(device), layer, batch, pool, out.of_mut(device));
        });
    }

    fn attention_full(&self, qkv: [&DeviceTensor; 3], shape: FullAttention, out: &mut DeviceTensor) {
        on!(self, device => {
            device.attention_full(qkv.map(|tensor| tensor.of(device)), shape, out.of_mut(device));
        });
    }
}
