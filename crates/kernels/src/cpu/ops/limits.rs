//! What this machine can do at most: the peaks that kernels are compared with.
//!
//! Multiply-adds on registers alone, and a read of more memory than any cache holds. A product counts as two
//! operations. Measured on all threads of the pool at once, because cores share power, heat and memory.

use super::runner::Runner;
use super::tensor::Buffer;
use crate::BackendError;
use crate::cpu::table::PeakKernel;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What this machine can do at most at a CPU level, as measured in about a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Billions of int8 operations per second.
    pub int8_gops: f64,
    /// Billions of bf16 operations per second.
    pub bf16_gflops: f64,
    /// Billions of f32 operations per second.
    pub f32_gflops: f64,
    /// Billions of bytes read from memory per second.
    pub read_gb_s: f64,
}

/// Memory read for the bandwidth: eight times the largest usual L3.
const READ_BYTES: usize = 256 << 20;
/// Bytes of a task of the read.
const READ_TASK: usize = 1 << 20;
/// Rounds of a task on registers: some 100 us.
const ROUNDS: usize = 20_000;
/// Tasks per thread between two looks at the clock: some 3 ms, enough to average over a wake-up.
const TASKS: usize = 32;
/// How long each figure is measured; the best of it counts.
const DURATION: Duration = Duration::from_millis(300);

impl Runner {
    /// See [`Cpu::limits`](crate::Cpu::limits).
    pub(crate) fn limits(&self) -> Result<Limits, BackendError> {
        let peak = self.kernels.peak;
        Ok(Limits {
            int8_gops: self.rate(peak.int8),
            bf16_gflops: self.rate(peak.bf16),
            f32_gflops: self.rate(peak.f32),
            read_gb_s: self.read_rate()?,
        })
    }

    fn rate(&self, burn: PeakKernel) -> f64 {
        let tasks = TASKS * self.threads();
        // SAFETY: the kernels are those of a level this processor has.
        let operations = (tasks * unsafe { burn(1) } * ROUNDS) as f64;
        best(operations, || {
            self.pool.run(tasks, |_, _| {
                // SAFETY: as above.
                unsafe { burn(ROUNDS) };
            });
        })
    }

    fn read_rate(&self) -> Result<f64, BackendError> {
        let mut memory = Buffer::default();
        memory.reserve::<u64>(READ_BYTES / size_of::<u64>())?;
        // written, so that the pages are ours and not all the same page of zeros
        let values = memory.get_mut::<u64>(READ_BYTES / size_of::<u64>());
        values.iter_mut().zip(0..).for_each(|(v, i)| *v = i);
        let values = &*values;
        Ok(best(READ_BYTES as f64, || {
            self.pool.run(READ_BYTES / READ_TASK, |task, _| {
                let part = &values[task * READ_TASK / size_of::<u64>()..][..READ_TASK / size_of::<u64>()];
                let mut sums = [0u64; 32];
                for line in part.as_chunks::<32>().0 {
                    sums.iter_mut().zip(line).for_each(|(sum, v)| *sum ^= v);
                }
                black_box(sums);
            });
        }))
    }
}

/// The best rate, in billions per second, of work that does `amount` each time.
fn best(amount: f64, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut least = f64::INFINITY;
    while start.elapsed() < DURATION {
        let now = Instant::now();
        work();
        least = least.min(now.elapsed().as_secs_f64());
    }
    amount / least / 1e9
}
