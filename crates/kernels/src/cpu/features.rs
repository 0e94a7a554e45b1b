//! What this processor has beyond the baseline of its architecture, as far as kernels use it.

/// Instructions that kernels require. Instructions that always come together are one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// AVX2, FMA and F16C: 8 lanes of f32.
    Avx2,
    /// AVX-VNNI: dot products of bytes in 8 lanes.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI: 16 lanes, with dot products of bytes.
    Avx512,
    /// AVX-512 BF16: dot products of bf16 in 16 lanes, on processors where they are faster than products of f32.
    /// Intel's do half as many operations per second, so kernels widen bf16 there instead. The decision depends on
    /// the vendor, not on a measurement: results differ in their last bits, and must not change from one start to the
    /// next.
    Avx512Bf16,
    /// AMX-TILE and AMX-INT8: products of tiles of bytes. Linux only, where the process must request the tile
    /// registers.
    AmxInt8,
    /// AMX-BF16: products of tiles of bf16; and AVX-512 BF16, which converts f32 to bf16.
    AmxBf16,
    /// NEON, which every AArch64 has: 4 lanes of f32.
    Neon,
    /// Dot products of bytes on AArch64: `sdot`.
    Dotprod,
    /// Products of small matrices of bytes and of bf16 on AArch64, `usmmla` and `bfmmla`: together since Armv8.6.
    I8mm,
}

impl Feature {
    /// All features, in the order of their variants.
    pub const ALL: [Self; 9] = [
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::AmxInt8,
        Self::AmxBf16,
        Self::Neon,
        Self::Dotprod,
        Self::I8mm,
    ];

    /// Returns whether this processor has the feature and the system lets this process use it.
    #[cfg(target_arch = "x86_64")]
    fn is_present(self) -> bool {
        match self {
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Self::AvxVnni => is_x86_feature_detected!("avxvnni"),
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::Avx512Bf16 => is_x86_feature_detected!("avx512bf16") && !is_of_intel(),
            // AMX-TILE, and AMX-INT8 or AMX-BF16
            Self::AmxInt8 => has_amx(1 << 24 | 1 << 25) && amx_is_allowed(),
            Self::AmxBf16 => {
                is_x86_feature_detected!("avx512bf16") && has_amx(1 << 24 | 1 << 22) && amx_is_allowed()
            }
            Self::Neon | Self::Dotprod | Self::I8mm => false,
        }
    }

    /// Returns whether this processor has the feature and the system lets this process use it.
    #[cfg(target_arch = "aarch64")]
    fn is_present(self) -> bool {
        use std::arch::is_aarch64_feature_detected as detected;
        match self {
            Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Avx512Bf16 | Self::AmxInt8 | Self::AmxBf16 => {
                false
            }
            Self::Neon => detected!("neon"),
            Self::Dotprod => detected!("dotprod"),
            Self::I8mm => detected!("i8mm") && detected!("bf16") || windows_tells_of_i8mm(),
        }
    }

    /// Returns false: no feature is known for this architecture.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_present(self) -> bool {
        false
    }
}

/// Returns whether Intel made the processor.
#[cfg(target_arch = "x86_64")]
fn is_of_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

/// Returns whether leaf 7 of `cpuid` has these bits set in edx.
#[cfg(target_arch = "x86_64")]
fn has_amx(bits: u32) -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & bits == bits
}

/// Returns whether the system lets this process use tiles.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_is_allowed() -> bool {
    use std::sync::LazyLock;
    static ALLOWED: LazyLock<bool> = LazyLock::new(|| {
        /// `ARCH_REQ_XCOMP_PERM` and `XFEATURE_XTILEDATA` of Linux's asm/prctl.h.
        const ASK: [libc::c_long; 2] = [0x1023, 18];
        // SAFETY: the call changes only which registers the system saves for this process.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ASK[0], ASK[1]) == 0 }
    });
    *ALLOWED
}

/// Returns false: AMX is used on Linux only.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_is_allowed() -> bool {
    false
}

/// Returns whether Windows reports both features, which std of Rust 1.95 does not query. An older Windows that does
/// not know a feature reports it as absent.
#[cfg(all(target_arch = "aarch64", windows))]
fn windows_tells_of_i8mm() -> bool {
    use windows_sys::Win32::System::Threading::IsProcessorFeaturePresent;
    /// `PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE` and `PF_ARM_V86_BF16_INSTRUCTIONS_AVAILABLE` of winnt.h.
    const ASK: [u32; 2] = [66, 68];
    // SAFETY: the call accepts any number and changes nothing.
    ASK.into_iter().all(|feature| unsafe { IsProcessorFeaturePresent(feature) } != 0)
}

/// Returns false: this is not Windows.
#[cfg(all(target_arch = "aarch64", not(windows)))]
fn windows_tells_of_i8mm() -> bool {
    false
}

/// A set of [`Feature`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// The empty set: a processor that runs only the scalar level.
    pub const NONE: Self = Self(0);

    /// Returns all features that this processor has and the system allows.
    #[must_use]
    pub fn detect() -> Self {
        Feature::ALL.into_iter().filter(|feature| feature.is_present()).fold(Self::NONE, Self::with)
    }

    /// Returns the features of this processor if plain Rust replaces the AMX instructions.
    pub(crate) fn with_plain_tiles() -> Self {
        let found = Self::detect();
        #[cfg(target_arch = "x86_64")]
        if found.contains(Feature::Avx512) && is_x86_feature_detected!("avx512bf16") {
            return found.with(Feature::AmxInt8).with(Feature::AmxBf16);
        }
        found
    }

    /// Returns the set with `feature` added.
    #[must_use]
    pub fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u32)
    }

    /// Returns the set without `feature`.
    #[must_use]
    pub fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u32))
    }

    /// Returns whether `feature` is in the set.
    #[must_use]
    pub fn contains(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u32 != 0
    }

    /// Returns whether all of `features` are in the set.
    #[must_use]
    pub fn contains_all(self, features: &[Feature]) -> bool {
        features.iter().all(|&feature| self.contains(feature))
    }

    /// Returns the features that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn the_maker_is_the_one_that_the_system_names() {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let vendor = text.lines().find(|line| line.starts_with("vendor_id")).unwrap();
        assert_eq!(is_of_intel(), vendor.ends_with("GenuineIntel"), "{vendor}");
    }

    #[test]
    fn a_set_has_what_was_put_in_and_not_taken_out() {
        let set = Features::NONE.with(Feature::Avx2).with(Feature::AmxInt8);
        assert!(set.contains_all(&[Feature::Avx2, Feature::AmxInt8]) && !set.contains(Feature::Avx512));
        assert_eq!(set.without(Feature::AmxInt8), Features::NONE.with(Feature::Avx2));
        assert_eq!(set.and(Features::NONE.with(Feature::AmxInt8)), Features::NONE.with(Feature::AmxInt8));
    }
}
