//! What this machine can do at most: the peaks that kernels are compared with.
//!
//! Multiply-adds on registers alone, and a read of more memory than any cache holds. A product counts as two
//! operations. Measured on all threads of the pool at once, because cores share power, heat and memory.

use super::{Cpu, CpuLevel};
use crate::BackendError;
use crate::cpu::tensor::Buffer;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Measured limits of this machine at a CPU level.
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

/// Runs rounds of multiply-adds and returns the operations done.
type Burn = unsafe fn(rounds: usize) -> usize;

impl Cpu {
    /// Measures for about a second.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] where the memory to read cannot be had.
    pub fn limits(&self) -> Result<Limits, BackendError> {
        let [int8, bf16, f32] = burners(self.level());
        Ok(Limits {
            int8_gops: self.rate(int8),
            bf16_gflops: self.rate(bf16),
            f32_gflops: self.rate(f32),
            read_gb_s: self.read_rate()?,
        })
    }

    fn rate(&self, burn: Burn) -> f64 {
        let tasks = TASKS * self.threads();
        // SAFETY: the burner is of a level this processor has.
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

/// The level's int8, bf16 and f32 multiply-adds.
fn burners(level: CpuLevel) -> [Burn; 3] {
    match level {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        CpuLevel::Amx => {
            let [_, bf16, f32] = burners(CpuLevel::Avx512);
            [super::int8::amx::burn, bf16, f32]
        }
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx512 if super::level::has_bf16() => [x86_64::int8_512, x86_64::bf16_512, x86_64::f32_512],
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx512 => [x86_64::int8_512, x86_64::f32_512, x86_64::f32_512],
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx2 if super::level::has_avxvnni() => {
            [x86_64::int8_vnni_256, x86_64::f32_256, x86_64::f32_256]
        }
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx2 => [x86_64::int8_256, x86_64::f32_256, x86_64::f32_256],
        _ => [scalar, scalar, scalar],
    }
}

/// Eight chains of multiply-adds as the compiler makes them.
fn scalar(rounds: usize) -> usize {
    let (mut sums, factor) = ([1.0f32; 8], black_box(0.5f32));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = *sum * factor + factor);
    }
    black_box(sums);
    rounds * 8 * 2
}

/// Enough independent chains to hide the latency of 4 cycles at two instructions per cycle.
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_512(rounds: usize) -> usize {
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbusd_epi32(*sum, a, b));
        }
        black_box(sums);
        rounds * CHAINS * 64 * 2
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_512(rounds: usize) -> usize {
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        let one = _mm512_set1_ps(1.0);
        let (a, b) = (black_box(_mm512_cvtne2ps_pbh(one, one)), black_box(_mm512_cvtne2ps_pbh(one, one)));
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, a, b));
        }
        black_box(sums);
        rounds * CHAINS * 32 * 2
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_512(rounds: usize) -> usize {
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        let (a, b) = (black_box(_mm512_set1_ps(0.5)), black_box(_mm512_set1_ps(0.5)));
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(a, b, *sum));
        }
        black_box(sums);
        rounds * CHAINS * 16 * 2
    }

    /// Without VNNI the most is what q4 does: products of bytes in pairs, summed in 16 bits. q8, whose products need 32,
    /// can reach half of it.
    #[target_feature(enable = "avx2")]
    pub(super) fn int8_256(rounds: usize) -> usize {
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        let a = black_box(_mm256_set1_epi8(3));
        for _ in 0..rounds {
            let b = black_box(a);
            sums.iter_mut().for_each(|sum| *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(b, *sum)));
        }
        black_box(sums);
        rounds * CHAINS * 32 * 2
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn int8_vnni_256(rounds: usize) -> usize {
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        let (a, b) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(5)));
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm256_dpbusd_avx_epi32(*sum, a, b));
        }
        black_box(sums);
        rounds * CHAINS * 32 * 2
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_256(rounds: usize) -> usize {
        let mut sums = [_mm256_setzero_ps(); CHAINS];
        let (a, b) = (black_box(_mm256_set1_ps(0.5)), black_box(_mm256_set1_ps(0.5)));
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(a, b, *sum));
        }
        black_box(sums);
        rounds * CHAINS * 8 * 2
    }
}
