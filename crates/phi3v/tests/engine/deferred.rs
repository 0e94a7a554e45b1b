//! The cases on a backend that runs nothing before a download.

use phi3v_kernels::testing::Deferred;

#[path = "cases.rs"]
mod cases;

type Device = Deferred<phi3v::device::Device>;

fn device(threads: usize) -> Device {
    Deferred::new(crate::common::device(None, Some(threads)))
}
