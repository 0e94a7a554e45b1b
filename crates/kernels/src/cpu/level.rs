//! CPU levels: names of the instruction sets that kernels are written for.

use super::features::{Feature, Features};
use std::fmt;
use std::str::FromStr;

/// An instruction set level. A level may include others, see [`includes`](Self::includes); there is no total order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuLevel {
    /// Plain Rust, on every processor.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C; AVX-VNNI is used where present.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI; BF16 is used where present.
    Avx512,
    /// `Avx512` with AMX for products of bytes, and of bf16 where present. Linux only, where the process must request
    /// the tile registers.
    Amx,
    /// Any AArch64 processor, with the vector instructions that all of them have.
    Neon,
    /// `Neon` with dot products of bytes.
    Dotprod,
    /// `Dotprod` with products of small matrices of bytes and of bf16.
    I8mm,
}

/// There is no level with this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown CPU level {name:?}")]
pub struct UnknownLevel {
    /// The name asked for.
    pub name: String,
}

impl CpuLevel {
    /// All levels; those of one architecture are in ascending order.
    pub const ALL: [Self; 7] =
        [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx, Self::Neon, Self::Dotprod, Self::I8mm];

    /// Returns the best level of this processor.
    #[must_use]
    pub fn detect() -> Self {
        Self::best(Features::detect())
    }

    /// Returns the best level that `features` allow.
    #[must_use]
    pub fn best(features: Features) -> Self {
        let can_run = |level: &Self| features.contains_all(level.required());
        Self::ALL.into_iter().rfind(can_run).unwrap_or(Self::Scalar)
    }

    /// Returns the features that a processor must have for the level.
    #[must_use]
    pub fn required(self) -> &'static [Feature] {
        match self {
            Self::Scalar => &[],
            Self::Avx2 => &[Feature::Avx2],
            Self::Avx512 => &[Feature::Avx2, Feature::Avx512],
            Self::Amx => &[Feature::Avx2, Feature::Avx512, Feature::AmxInt8],
            Self::Neon => &[Feature::Neon],
            Self::Dotprod => &[Feature::Neon, Feature::Dotprod],
            Self::I8mm => &[Feature::Neon, Feature::Dotprod, Feature::I8mm],
        }
    }

    /// Returns the features that the level uses in addition if a processor has them.
    #[must_use]
    pub fn optional(self) -> &'static [Feature] {
        match self {
            Self::Scalar | Self::Neon | Self::Dotprod | Self::I8mm => &[],
            Self::Avx2 => &[Feature::AvxVnni],
            Self::Avx512 => &[Feature::Avx512Bf16],
            Self::Amx => &[Feature::Avx512Bf16, Feature::AmxBf16],
        }
    }

    /// Returns whether every processor of this level can also run `other`.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        other.required().iter().all(|feature| self.required().contains(feature))
    }

    /// Returns the name of the level in `PHI3V_CPU`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
        }
    }
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CpuLevel {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(name.trim()))
            .ok_or_else(|| UnknownLevel { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_include_what_their_processors_can_run() {
        use CpuLevel::{Amx, Avx2, Avx512, Dotprod, I8mm, Neon, Scalar};
        for (level, included) in [
            (Scalar, &[Scalar][..]),
            (Avx2, &[Scalar, Avx2]),
            (Avx512, &[Scalar, Avx2, Avx512]),
            (Amx, &[Scalar, Avx2, Avx512, Amx]),
            (Neon, &[Scalar, Neon]),
            (Dotprod, &[Scalar, Neon, Dotprod]),
            (I8mm, &[Scalar, Neon, Dotprod, I8mm]),
        ] {
            for other in CpuLevel::ALL {
                assert_eq!(level.includes(other), included.contains(&other), "{level} includes {other}");
            }
        }
    }

    #[test]
    fn the_best_level_is_the_last_whose_features_are_there() {
        let avx512 = Features::NONE.with(Feature::Avx2).with(Feature::Avx512);
        assert_eq!(CpuLevel::best(Features::NONE), CpuLevel::Scalar);
        assert_eq!(CpuLevel::best(avx512), CpuLevel::Avx512);
        assert_eq!(CpuLevel::best(avx512.with(Feature::AmxInt8)), CpuLevel::Amx);
        // a machine whose hypervisor hides some features
        assert_eq!(CpuLevel::best(avx512.without(Feature::Avx2)), CpuLevel::Scalar);
        assert_eq!(CpuLevel::best(avx512.with(Feature::AvxVnni).without(Feature::Avx512)), CpuLevel::Avx2);
        // Cortex-A72, Cortex-A76 and Neoverse V1
        let neon = Features::NONE.with(Feature::Neon);
        assert_eq!(CpuLevel::best(neon), CpuLevel::Neon);
        assert_eq!(CpuLevel::best(neon.with(Feature::Dotprod)), CpuLevel::Dotprod);
        assert_eq!(CpuLevel::best(neon.with(Feature::Dotprod).with(Feature::I8mm)), CpuLevel::I8mm);
    }
}
