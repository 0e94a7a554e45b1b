//! The cases on the device that people use.

pub(crate) use phi3v::device::Device;

#[path = "cases.rs"]
mod cases;
#[path = "forced.rs"]
mod forced;

fn device(threads: usize) -> Device {
    crate::common::device(None, Some(threads))
}
