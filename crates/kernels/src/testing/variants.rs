//! Every way in which this machine can run the CPU backend.

use crate::{Cpu, CpuError, CpuLevel, CpuOptions, Feature, Features};
use std::fmt;

/// A level with some of the features that it can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub level: CpuLevel,
    pub features: Features,
}

impl Variant {
    /// The definition.
    pub const SCALAR: Self = Self { level: CpuLevel::Scalar, features: Features::NONE };

    /// The variant as a backend.
    ///
    /// # Errors
    /// See [`Cpu::with_features`].
    pub fn cpu(&self, threads: usize) -> Result<Cpu, CpuError> {
        let options = CpuOptions { threads: Some(threads), level: Some(self.level) };
        Cpu::with_features(&options, self.features)
    }

    /// The level on a processor that has none of the features it can do without, and those with one of them each.
    fn of(level: CpuLevel) -> impl Iterator<Item = Self> {
        let least = level.required().iter().fold(Features::NONE, |set, &feature| set.with(feature));
        let more = level.optional().iter().map(move |&feature| least.with(feature));
        std::iter::once(least).chain(more).map(move |features| Self { level, features })
    }

    /// Whether this processor can run it.
    fn is_available(&self) -> bool {
        self.features.and(Features::detect()) == self.features
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU level {}", self.level)?;
        let has = |feature: &&Feature| self.features.contains(**feature);
        self.level.optional().iter().filter(has).try_for_each(|feature| write!(f, " with {feature:?}"))
    }
}

/// Every variant of every level that this machine can run, the definition first, and those that it cannot.
#[must_use]
pub fn variants() -> (Vec<Variant>, Vec<Variant>) {
    CpuLevel::ALL.into_iter().flat_map(Variant::of).partition(Variant::is_available)
}
