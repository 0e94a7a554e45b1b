//! Numerical operations that phi3v is built from.
//!
//! [`Backend`] declares them; [`cpu`] runs them on the host, with the best instruction set found at run time. This
//! crate does not know about Phi-3, file formats or text. Only three crates contain `unsafe` code: this one,
//! `phi3v-jpeg`, which calls C, and `phi3v-gpu`, where graphics cards require it.

mod backend;
mod bytes;
mod cores;
pub mod cpu;
mod format;
pub mod quant;
#[doc(hidden)]
pub mod testing;
mod threads;

pub use backend::{
    Backend, BackendError, DeviceMemory, Epilogue, FeedForward, FullAttention, HeadDims, Heads,
    KV_BLOCK_TOKENS, KvFormat, KvLayout, MatrixSource, Norm, Precision, Rotation, Sizes, Span,
};
pub use bytes::Bytes;
pub use cpu::{Cpu, CpuError, CpuLevel, CpuOptions, Feature, Features, Limits, Processor, Rate};
pub use format::Format;
pub(crate) use format::{DenseFormat, PackedFormat, Storage};
