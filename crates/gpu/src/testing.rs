//! Helpers for the tests of graphics cards in this crate and in the library. Not part of the interface.
#![allow(missing_docs, reason = "not part of the interface")]

use crate::adapter::choose;
use crate::{Choice, Gpu, GpuOptions, adapters};
use phi3v_kernels::testing::skip;

/// Returns the card that `PHI3V_TEST_DEVICE` names, or the best one.
#[must_use]
pub fn choice() -> Choice {
    std::env::var("PHI3V_TEST_DEVICE").map_or(Choice::Number(0), |name| named(&name))
}

/// Parses the choice of a card as people write it: `gpu`, `gpu:1`, `1` or a part of its name. A larger number, such as
/// 4090, is part of a name.
fn named(name: &str) -> Choice {
    let lower = name.trim().to_ascii_lowercase();
    let numbered = lower.strip_prefix("gpu:").map(str::parse);
    match (numbered, lower.parse()) {
        _ if lower == "gpu" => Choice::Best,
        (Some(Ok(number)), _) => Choice::Number(number),
        (None, Ok(number)) if number < 100 => Choice::Number(number),
        _ => Choice::Name(name.trim().to_owned()),
    }
}

/// Takes the card away from a backend, as a reset of the driver does.
pub fn lose(gpu: &Gpu) {
    gpu.device.raw.destroy();
}

/// Limits the card's memory from now on, as if another program took the rest, or removes the limit. Only on cards with
/// a Vulkan or DirectX 12 driver.
pub fn limit_memory(gpu: &Gpu, bytes: Option<u64>) {
    gpu.device.limit_memory(bytes);
}

/// Makes products of many rows use matrix units from now on, if there are any, or not.
pub fn use_units(gpu: &Gpu, units: bool) {
    gpu.device.use_units(units);
}

/// Makes matrix units compute `side` rows and columns per workgroup from now on, 64 or 128, for every product.
pub fn use_side(gpu: &Gpu, side: u32) {
    gpu.device.use_side(Some(side));
}

/// Counts a submission as complete that the card never receives, as Metal's driver does with a failed one.
pub fn miss_submission(gpu: &Gpu) {
    gpu.recorder().miss_submission();
}

/// Returns that card, opened but not self-tested: tests do that, and a software card takes seconds to compile every
/// kernel. `None` if there is none, which is printed, and is an error if `PHI3V_NEEDS_GPU` is set.
#[must_use]
pub fn card() -> Option<Gpu> {
    card_with(&GpuOptions::default())
}

/// Like [`card`], with other options than the defaults.
#[must_use]
pub fn card_with(options: &GpuOptions) -> Option<Gpu> {
    if adapters().is_empty() {
        let needed = std::env::var_os("PHI3V_NEEDS_GPU").is_some_and(|value| value != "0");
        assert!(!needed, "no graphics card was found, and PHI3V_NEEDS_GPU asks for one");
        skip("no graphics card was found", "run scripts/test-gpu, which installs one in software");
        return None;
    }
    let opened = choose(&choice()).and_then(|adapter| Gpu::untested(adapter, options));
    Some(opened.unwrap_or_else(|error| panic!("{error}")))
}
