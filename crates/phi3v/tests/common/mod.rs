//! What several test files need.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part; tests may panic"
)]

pub mod forms;
pub mod photographs;
pub mod schemas;
pub mod tolerances;

use phi3v::device::{Device, DeviceChoice, DeviceOptions};
use phi3v::{Session, SessionOptions};
use phi3v_kernels::CpuLevel;
use phi3v_kernels::testing::{self, skip};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `path` within the folder of reference material, as [`testing::shared`] finds it.
pub fn shared(path: &str) -> Option<PathBuf> {
    testing::shared(path)
}

/// The device that tests run on, with `threads` threads; the processor where a level is given.
pub fn device(cpu_level: Option<CpuLevel>, threads: Option<usize>) -> Device {
    let choice = if cpu_level.is_some() { DeviceChoice::Cpu } else { test_device() };
    Device::open(&DeviceOptions { choice, cpu_level, threads, ..DeviceOptions::default() }).unwrap()
}

/// The device that tests run on.
pub fn test_device() -> DeviceChoice {
    testing::test_device().parse().unwrap()
}

/// The built-in model on the device that tests run on.
pub fn demo() -> Session {
    let device = DeviceOptions { choice: test_device(), ..DeviceOptions::default() };
    let options = SessionOptions { device, ..SessionOptions::default() };
    Session::load(phi3v::demo::NAME, &options).unwrap()
}

/// The device that tests run on, where it is not the processor; says loudly that a test is skipped otherwise.
pub fn named_device() -> Option<Device> {
    if test_device() == DeviceChoice::Cpu {
        skip(
            "no other device than the processor is named",
            "run scripts/test-gpu, which names a graphics card",
        );
        return None;
    }
    Some(device(None, None))
}

/// What `work` makes of 0 and of 1, each on a thread of its own.
pub fn halves<T: Send>(work: impl Fn(usize) -> T + Sync) -> [T; 2] {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| work(1));
        [work(0), other.join().unwrap()]
    })
}

/// Writes a line to stderr that is seen although the test passes: only what the print macros write is captured.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The tensors of a small safetensors file by name; integers are widened.
pub fn safetensors_f32(path: &Path) -> std::collections::BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let data = &bytes[8 + header_len..];
    let entries = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let tensor = |(name, entry): (&String, &serde_json::Value)| {
        let offset = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        let bytes = &data[offset(0)..offset(1)];
        let values = match entry["dtype"].as_str() {
            Some("F32") => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Some("I32") => {
                bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32).collect()
            }
            Some("I64") => {
                bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect()
            }
            other => panic!("{name} is of type {other:?}"),
        };
        (name.clone(), values)
    };
    entries.map(tensor).collect()
}

/// Largest difference between two arrays, relative to the largest reference value.
pub fn relative_error(found: &[f32], reference: &[f32]) -> f32 {
    max_diff(found, reference) / reference.iter().fold(0f32, |max, value| max.max(value.abs()))
}

/// Largest absolute difference.
pub fn max_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    // a maximum alone would pass over values that are no numbers
    assert!(a.iter().chain(b).all(|value| value.is_finite()), "not a number among the values");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
