//! What the tests of graphics cards share, those of this crate and of the library. Not part of the interface.
#![allow(missing_docs, reason = "not part of the interface")]

use crate::adapter::choose;
use crate::{Choice, Gpu, GpuOptions, adapters};
use phi3v_kernels::testing::skip;

/// The card that `PHI3V_TEST_DEVICE` names, or the first.
#[must_use]
pub fn choice() -> Choice {
    std::env::var("PHI3V_TEST_DEVICE").map_or(Choice::Number(0), |name| named(&name))
}

/// The choice of a card as people make it: `gpu`, `gpu:1`, `1` or a part of its name, which a larger number is, as 4090.
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

/// Takes the card away from a backend, as a driver does that was reset.
pub fn lose(gpu: &Gpu) {
    gpu.device.raw.destroy();
}

/// Has the card no more memory than this from now on, as where another program takes it, or what it has again. Only on cards whose
/// driver is Vulkan's or DirectX 12's.
pub fn limit_memory(gpu: &Gpu, bytes: Option<u64>) {
    gpu.device.limit_memory(bytes);
}

/// Has products of many rows go through matrix units from now on, where there are any, or not.
pub fn use_units(gpu: &Gpu, units: bool) {
    gpu.device.use_units(units);
}

/// Has matrix units make so many rows and columns in a workgroup from now on, 64 or 128, of whichever product.
pub fn use_side(gpu: &Gpu, side: u32) {
    gpu.device.use_side(Some(side));
}

/// Takes a submission for done that the card never gets, as Metal's driver does with one that failed.
pub fn miss_submission(gpu: &Gpu) {
    gpu.recorder().miss_submission();
}

/// That card, opened and not tried: tests do that, and a card in software takes seconds to compile every kernel. None where there is
/// none, which is said aloud, and is an error where `PHI3V_NEEDS_GPU` is set.
#[must_use]
pub fn card() -> Option<Gpu> {
    card_with(&GpuOptions::default())
}

/// The same with other options than the defaults.
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
