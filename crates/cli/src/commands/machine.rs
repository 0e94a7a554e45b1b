//! What commands tell of this machine: its processor and its graphics cards.

use crate::terminal::count;
use phi3v::device::{Card, TRIED, Tried};
use phi3v::memory::size;
use phi3v_kernels::Processor;
use serde::Serialize;
use std::fmt;

/// What is used of the processor.
#[derive(Debug, Serialize)]
pub(super) struct CpuInfo {
    pub(super) level: String,
    pub(super) features: String,
    pub(super) threads: usize,
}

/// A graphics card.
#[derive(Debug, Serialize)]
pub(super) struct CardInfo {
    pub(super) name: String,
    pub(super) kind: String,
    api: String,
    driver: String,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    binding_bytes_max: u64,
    workgroup_bytes: u32,
    /// Side of a tile; absent without matrix units that the kernels can use.
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix_units: Option<u32>,
}

/// What of the support of graphics cards was tried on which.
#[derive(Debug, Serialize)]
pub(super) struct TriedInfo {
    on: &'static str,
    what: &'static str,
}

impl TriedInfo {
    /// All that was tried, and what was not; nothing in a build that runs on no card.
    pub(super) fn all() -> Vec<Self> {
        let told = TRIED.iter().filter(|_| cfg!(feature = "gpu"));
        told.map(|&Tried { on, what }| Self { on, what }).collect()
    }
}

impl From<Processor> for CpuInfo {
    fn from(processor: Processor) -> Self {
        let (level, features) = (processor.level().to_string(), processor.features());
        Self { level, features, threads: processor.threads() }
    }
}

impl From<Card> for CardInfo {
    fn from(card: Card) -> Self {
        let Card { name, kind, api, driver, memory_bytes, available_bytes, .. } = card;
        let Card { binding_bytes_max, workgroup_bytes, matrix_units, .. } = card;
        Self {
            name,
            kind,
            api,
            driver,
            memory_bytes,
            available_bytes,
            binding_bytes_max,
            workgroup_bytes,
            matrix_units,
        }
    }
}

impl fmt::Display for CpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "processor     level {}, {}", self.level, count(self.threads, "thread"))?;
        writeln!(f, "  features    {}", self.features)
    }
}

impl fmt::Display for TriedInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}: {}", self.on, self.what)
    }
}

impl fmt::Display for CardInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  driver      {} by {}", self.driver, self.api)?;
        if let Some(bytes) = self.memory_bytes {
            let available = self.available_bytes.map(|bytes| format!(", {} available", size(bytes)));
            writeln!(f, "  memory      {}{}", size(bytes), available.unwrap_or_default())?;
        }
        let (buffer, workgroup) = (size(self.binding_bytes_max), size(self.workgroup_bytes.into()));
        writeln!(f, "  limits      {buffer} to a buffer, {workgroup} to a workgroup")?;
        if let Some(tile) = self.matrix_units {
            writeln!(f, "  matrix      units of {tile} x {tile}, f16")?;
        }
        if self.kind != "software" {
            writeln!(
                f,
                "  note        phi3v was tried on software Vulkan only, and on no card yet (--verbose)"
            )?;
        }
        Ok(())
    }
}
