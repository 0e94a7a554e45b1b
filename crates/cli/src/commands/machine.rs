//! Describes this machine in reports: its processor and its graphics cards.

use phi3v::device::{Card, ManyRowsTimes, TRIED, Tried};
use phi3v::memory::size;
use phi3v_kernels::Processor;
use serde::Serialize;
use std::fmt;

/// The parts of the processor in use.
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
    /// Side of a tile; absent without usable matrix units.
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix_units: Option<u32>,
    /// Why the card runs without matrix units, if they fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix_units_fault: Option<String>,
    /// Nanoseconds of a product of many rows with and without matrix units; the faster way is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    many_rows_nanos: Option<ManyRowsNanos>,
    /// The first operation whose result rows differ in bits between kernels.
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_differ: Option<String>,
}

/// The time of a product of many rows.
#[derive(Clone, Copy, Debug, Serialize)]
struct ManyRowsNanos {
    dot4: u64,
    units: u64,
}

impl From<ManyRowsTimes> for ManyRowsNanos {
    fn from(times: ManyRowsTimes) -> Self {
        let [dot4, units] = [times.dot4, times.units].map(|time| time.as_nanos() as u64);
        Self { dot4, units }
    }
}

impl fmt::Display for ManyRowsNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dot4, units } = *self;
        let ratio = dot4.max(units) as f64 / dot4.min(units).max(1) as f64;
        if units < dot4 {
            write!(f, ", {ratio:.1} times as fast as integer products")
        } else {
            write!(f, ", left alone, for integer products are {ratio:.1} times as fast")
        }
    }
}

/// A part of the graphics support, and the cards it was tested on.
#[derive(Debug, Serialize)]
pub(super) struct TriedInfo {
    on: &'static str,
    what: &'static str,
}

impl TriedInfo {
    /// All parts, tested or not; empty in a build without graphics support.
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
        let Card { binding_bytes_max, workgroup_bytes, bits_differ, .. } = card;
        let Card { matrix_units, matrix_units_fault, many_rows_times, .. } = card;
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
            matrix_units_fault,
            many_rows_nanos: many_rows_times.map(ManyRowsNanos::from),
            bits_differ,
        }
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
            let fault = self.matrix_units_fault.as_ref();
            let fault = fault.map(|fault| format!(", left out, for they fail the test ({fault})"));
            let speed = self.many_rows_nanos.map(|times| times.to_string());
            let note = fault.or(speed).unwrap_or_default();
            writeln!(f, "  matrix      units of {tile} x {tile}, f16{note}")?;
        }
        if let Some(what) = &self.bits_differ {
            writeln!(f, "  last bits   depend on how many rows are computed at once ({what})")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_way_of_many_rows_is_told() {
        let told = |dot4, units| ManyRowsNanos { dot4, units }.to_string();
        assert_eq!(told(300, 200), ", 1.5 times as fast as integer products");
        assert_eq!(told(200, 460), ", left alone, for integer products are 2.3 times as fast");
    }

    #[test]
    fn matrix_units_that_fail_are_told_with_their_fault() {
        let card = |matrix_units_fault: Option<&str>| Card {
            number: 0,
            name: "A card".to_owned(),
            kind: "discrete".to_owned(),
            api: "Vulkan".to_owned(),
            driver: "a driver 1.2".to_owned(),
            memory_bytes: None,
            available_bytes: None,
            binding_bytes_max: 1 << 31,
            workgroup_bytes: 32_768,
            matrix_units: Some(16),
            matrix_units_fault: matrix_units_fault.map(str::to_owned),
            many_rows_times: None,
            bits_differ: matrix_units_fault.map(|_| "a norm of 1 row and of 20 rows".to_owned()),
        };
        let told = |fault| CardInfo::from(card(fault)).to_string();
        assert!(told(None).contains("units of 16 x 16, f16\n"), "{}", told(None));
        assert!(!told(None).contains("last bits"));
        let wrong = told(Some("a Q8 product of 20 rows"));
        assert!(
            wrong.contains(
                "units of 16 x 16, f16, left out, for they fail the test (a Q8 product of 20 rows)\n"
            ),
            "{wrong}"
        );
        assert!(
            wrong.contains(
                "last bits   depend on how many rows are computed at once (a norm of 1 row and of 20 rows)"
            ),
            "{wrong}"
        );
    }
}
