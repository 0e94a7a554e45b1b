//! phi3v's operations on graphics cards: [`Gpu`] is a [`phi3v_kernels::Backend`] through Vulkan, Metal or DirectX 12,
//! whichever the machine has. Building it needs only Rust, and running it only the card's driver, which is loaded at
//! run time.
//!
//! Packed weights are copied to the card as they are in the file. Sums of packed products are exact integers per group
//! of 128 values, as on the CPU. So a row's result does not depend on the other rows, and prefill and decode agree. See
//! docs/internals/gpu.md for the design.
//!
//! So far tested only on Mesa's software Vulkan, on no real card.

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
