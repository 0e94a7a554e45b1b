//! The cases on the CPU backend.

use phi3v_kernels::Cpu;

#[path = "cases.rs"]
mod cases;

type Device = Cpu;

fn device(cpu: Cpu) -> Device {
    cpu
}
