//! phi3v's operations on graphics cards: [`Gpu`] is a [`phi3v_kernels::Backend`] through Vulkan, Metal or DirectX 12, whichever
//! the machine has. Nothing is needed to build it but Rust, and nothing to run it but the card's driver, which is looked for at
//! run time.
//!
//! Packed weights go to the card as they lie in the file. Sums of packed products are exact integers per group of 128
//! values, as on the CPU, so a row's result does not depend on its company, and prefill and decode agree. docs/internals/gpu.md
//! has the design.
//!
//! Tried on Mesa's software Vulkan only, so far; on no real card.

mod adapter;
mod attention;
mod backend;
mod batch;
mod buffer;
mod compiler;
mod device;
mod error;
mod failures;
mod found;
mod kept;
mod kernel;
mod kv;
#[cfg(test)]
mod limits_tests;
mod linear;
mod memory;
mod pace;
mod pipelines;
mod recorder;
mod rows;
mod self_test;
mod tensor;
#[doc(hidden)]
pub mod testing;
mod ticks;
mod timer;
#[cfg(test)]
mod traffic_tests;
mod trial;
mod units;

pub use adapter::{Adapter, AdapterKind, Choice, MatrixUnits, adapters};
pub use backend::Gpu;
pub use batch::GpuBatch;
pub use device::{GpuOptions, UseUnits};
pub use error::GpuError;
pub use kv::GpuKvPool;
pub use linear::{GpuLinear, GpuTable};
pub use recorder::Counts;
pub use tensor::{GpuTensor, GpuVector};
pub use timer::KernelTime;
pub use units::ManyRowsTimes;
