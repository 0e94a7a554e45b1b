//! The cases on a backend that runs nothing before a download.

use phi3v_kernels::Cpu;
use phi3v_kernels::testing::Deferred;

#[path = "cases.rs"]
mod cases;

type Device = Deferred<Cpu>;

fn device(cpu: Cpu) -> Device {
    Deferred::new(cpu)
}
