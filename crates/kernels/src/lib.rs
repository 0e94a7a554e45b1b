//! Numbers in, numbers out: the operations phi3v is built from.
//!
//! [`Backend`] names them; [`cpu`] runs them on the host, on the best instruction set found at run time.
//! This crate knows nothing of Phi-3, of files' formats or of text. Besides `phi3v-jpeg`, the seam to
//! C, it is the only crate with `unsafe` code, but for what graphics cards ask for in `phi3v-gpu`.

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
