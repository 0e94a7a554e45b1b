//! The operations, each cut into tasks for the thread pool, the same way for every instruction set.

mod activations;
mod attention;
mod batch;
mod columns;
mod cut;
mod dense;
pub(crate) mod flash;
pub(crate) mod gemm;
mod kv;
mod limits;
mod linear;
mod packed;
mod rows;
mod runner;
mod sweeps;
mod tensor;

pub(crate) use attention::Causal;
pub use batch::CpuBatch;
pub(crate) use gemm::STREAMED_ROWS_MAX;
pub use kv::CpuKvPool;
pub(crate) use limits::ReadRoom;
pub use limits::{Limits, Rate};
pub use linear::{CpuLinear, CpuTable};
pub(crate) use runner::Runner;
pub use tensor::CpuTensor;
