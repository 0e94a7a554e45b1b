//! CPU levels: which instruction set runs, and the table of kernels each one brings.

use super::flash::FlashKernel;
use super::gemm::GemmKernel;
use super::kv::{KvHeadMut, KvRows};
#[cfg(target_arch = "x86_64")]
use super::x86_64::{avx2, avx512};
use super::{CpuError, scalar};
use crate::{Epilogue, Format};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// An instruction set level, found at run time. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CpuLevel {
    /// Plain Rust, on every processor.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C; AVX-VNNI is used where present.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI; BF16 is used where present.
    Avx512,
    /// As `Avx512`, with AMX for products of bytes; on Linux, which has to be asked for its registers.
    Amx,
}

impl CpuLevel {
    /// All levels, ascending.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx];

    /// The best level of this processor.
    #[must_use]
    pub fn detect() -> Self {
        if has_amx() {
            Self::Amx
        } else if has_avx512() {
            Self::Avx512
        } else if has_avx2() {
            Self::Avx2
        } else {
            Self::Scalar
        }
    }

    /// The name `PHI3V_CPU` knows the level by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CpuLevel {
    type Err = CpuError;

    fn from_str(name: &str) -> Result<Self, CpuError> {
        Self::ALL
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(name.trim()))
            .ok_or_else(|| CpuError::UnknownLevel { name: name.to_owned() })
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// Whether AVX-512 comes with AMX for bytes.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_amx() -> bool {
    has_avx512() && super::int8::amx::is_allowed()
}

/// Whether AVX-512 comes with AMX for bytes.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn has_amx() -> bool {
    false
}

/// Whether AVX2 comes with dot products of bytes.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avxvnni() -> bool {
    has_avx2() && is_x86_feature_detected!("avxvnni")
}

/// Whether AVX-512 comes with bf16 dot products.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bf16() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512bf16")
}

/// Whether AVX-512 comes with bf16 dot products.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_bf16() -> bool {
    false
}

/// Whether AVX2 comes with dot products of bytes.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_avxvnni() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

/// Some rows of a dense weight matrix: one or two runs of consecutive rows, taken as one list.
#[derive(Clone, Debug)]
pub(crate) struct WeightRows<'a> {
    /// The whole matrix, row-major.
    pub(crate) bytes: &'a [u8],
    /// F32, F16 or Bf16.
    pub(crate) format: Format,
    /// Values per row.
    pub(crate) k: usize,
    /// Gate rows, then up rows, for [`Epilogue::SiluMul`]; otherwise the second is empty.
    pub(crate) runs: [Range<usize>; 2],
}

impl<'a> WeightRows<'a> {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.runs[0].len() + self.runs[1].len()
    }

    /// The stored bytes of row `i` of the list.
    pub(crate) fn row(&self, i: usize) -> &'a [u8] {
        let first = self.runs[0].len();
        let row = if i < first { self.runs[0].start + i } else { self.runs[1].start + i - first };
        let bytes = self.k * value_bytes(self.format);
        &self.bytes[row * bytes..(row + 1) * bytes]
    }
}

/// Bytes of one stored value of a dense format.
pub(crate) fn value_bytes(format: Format) -> usize {
    match format {
        Format::F32 => 4,
        Format::F16 | Format::Bf16 => 2,
        Format::Q8 | Format::Q4 => unreachable!("packed formats have no values of their own"),
    }
}

/// Weight and bias of a layer norm.
pub(crate) type Affine<'a> = (&'a [f32], &'a [f32]);

/// The kernels of a level. They do numbers, on one thread; what is cut into tasks, and how, is decided above them and
/// is the same for all levels. [`scalar`] defines what each computes.
///
/// Calling any of them asks for the instruction set of the level the table belongs to.
pub(crate) struct Kernels {
    pub(crate) rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) layer_norm: unsafe fn(&[f32], Affine<'_>, f32, &mut [f32]),
    pub(crate) add: unsafe fn(&[f32], &mut [f32]),
    pub(crate) rope: unsafe fn(&[f32], &mut [f32]),
    pub(crate) epilogue: unsafe fn(Epilogue, &[f32], &[f32], &mut [f32]),
    pub(crate) round_bf16: unsafe fn(&[f32], &mut [u16]),
    pub(crate) gemv_f32: unsafe fn(&WeightRows<'_>, &[f32], &mut [f32]),
    pub(crate) gemv_bf16: unsafe fn(&WeightRows<'_>, &[u16], &mut [f32]),
    /// Products of many rows; without it they are taken row by row. Likewise for bf16.
    pub(crate) gemm_f32: Option<&'static GemmKernel>,
    pub(crate) gemm_bf16: Option<&'static GemmKernel>,
    /// Blocked attention; without it every query is taken alone.
    pub(crate) flash_f32: Option<&'static FlashKernel>,
    /// As `flash_f32` in bf16; without it bf16 is widened to f32.
    pub(crate) flash_bf16: Option<&'static FlashKernel>,
    pub(crate) store_kv: unsafe fn(&mut KvHeadMut<'_>, usize, &KvRows<'_>),
}

impl Kernels {
    /// The table of `level`, which this processor must have.
    pub(crate) fn of(level: CpuLevel) -> &'static Self {
        match level {
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 | CpuLevel::Amx if has_bf16() => &avx512::KERNELS_BF16,
            _ => Self::without_bf16(level),
        }
    }

    /// As [`Self::of`] on a processor without bf16 dot products.
    pub(crate) fn without_bf16(level: CpuLevel) -> &'static Self {
        match level {
            CpuLevel::Scalar => &scalar::KERNELS,
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 | CpuLevel::Amx => &avx512::KERNELS,
            #[cfg(not(target_arch = "x86_64"))]
            CpuLevel::Avx2 | CpuLevel::Avx512 | CpuLevel::Amx => {
                unreachable!("these levels are found on x86-64 only")
            }
        }
    }
}
