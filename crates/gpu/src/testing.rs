//! What the tests of graphics cards share, those of this crate and of the library. Not part of the interface.
#![allow(missing_docs, reason = "not part of the interface")]

use crate::adapter::choose;
use crate::{Choice, Gpu, GpuOptions, adapters};
use phi3v_kernels::testing::skip;

/// The card that `PHI3V_TEST_DEVICE` names, as `gpu`, `gpu:1` or by a part of its name, or the first.
#[must_use]
pub fn choice() -> Choice {
    let Ok(name) = std::env::var("PHI3V_TEST_DEVICE") else { return Choice::Number(0) };
    if name.eq_ignore_ascii_case("gpu") {
        return Choice::Best;
    }
    let number = name.rsplit_once(':').map_or(name.as_str(), |(_, number)| number);
    number.parse().map_or(Choice::Name(name), Choice::Number)
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
