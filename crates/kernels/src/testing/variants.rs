//! Every way in which this machine can run the CPU backend.

use crate::{Cpu, CpuError, CpuLevel, CpuOptions, Feature, Features};
use std::fmt;

/// A level with some of the features that it can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub level: CpuLevel,
    pub features: Features,
    /// Whether plain Rust replaces the AMX instructions, which is possible on any processor with AVX-512.
    pub plain_tiles: bool,
}

impl Variant {
    /// The scalar level, which is the definition.
    pub const SCALAR: Self = Self { level: CpuLevel::Scalar, features: Features::NONE, plain_tiles: false };

    /// Starts a backend of the variant.
    ///
    /// # Errors
    /// The errors of [`Cpu::with_features`].
    pub fn cpu(&self, threads: usize) -> Result<Cpu, CpuError> {
        let options = CpuOptions { threads: Some(threads), level: Some(self.level) };
        if self.plain_tiles {
            Cpu::on_plain_tiles(&options, self.features)
        } else {
            Cpu::with_features(&options, self.features)
        }
    }

    /// Returns the level without any of its optional features, and with each one of them alone.
    fn of(level: CpuLevel) -> impl Iterator<Item = Self> {
        let least = level.required().iter().fold(Features::NONE, |set, &feature| set.with(feature));
        let more = level.optional().iter().map(move |&feature| least.with(feature));
        let plain_tiles: &[bool] = if level == CpuLevel::Amx { &[false, true] } else { &[false] };
        let features = std::iter::once(least).chain(more);
        features.flat_map(move |features| {
            plain_tiles.iter().map(move |&plain_tiles| Self { level, features, plain_tiles })
        })
    }

    /// Returns whether this processor can run the variant.
    fn is_available(&self) -> bool {
        let found = if self.plain_tiles { Features::with_plain_tiles() } else { Features::detect() };
        self.features.and(found) == self.features
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU level {}", self.level)?;
        let has = |feature: &&Feature| self.features.contains(**feature);
        self.level.optional().iter().filter(has).try_for_each(|feature| write!(f, " with {feature:?}"))?;
        if self.plain_tiles { f.write_str(" on tiles in plain Rust") } else { Ok(()) }
    }
}

/// Returns every variant of every level that this machine can run, the definition first, and those that it cannot
/// run.
#[must_use]
pub fn variants() -> (Vec<Variant>, Vec<Variant>) {
    CpuLevel::ALL.into_iter().flat_map(Variant::of).partition(Variant::is_available)
}
