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
use phi3v_kernels::CpuLevel;
use phi3v_kernels::testing::skip;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `path` within the folder of reference material that is not ours to publish: `$PHI3V_SHARED`, or `../shared`
/// beside the repository. Says loudly that a test is skipped where it is absent.
///
/// # Panics
/// If `PHI3V_SHARED` is set and does not have it: whoever sets it wants these tests to run.
pub fn shared(path: &str) -> Option<PathBuf> {
    let given = std::env::var_os("PHI3V_SHARED").map(PathBuf::from);
    let wanted = given.is_some();
    let found = given.unwrap_or_else(|| repository().join("../shared")).join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(!wanted, "{} is not there, and PHI3V_SHARED says that it should be", found.display());
    let what = format!("{} is not there", found.display());
    skip(&what, "set PHI3V_SHARED to the folder of reference material");
    None
}

/// The device that tests run on, with `threads` threads; at the best level where none is given, or what
/// `PHI3V_TEST_DEVICE` names.
pub fn device(cpu_level: Option<CpuLevel>, threads: Option<usize>) -> Device {
    let choice = test_device().filter(|_| cpu_level.is_none()).unwrap_or(DeviceChoice::Cpu);
    Device::open(&DeviceOptions { choice, cpu_level, threads, ..DeviceOptions::default() }).unwrap()
}

/// What `PHI3V_TEST_DEVICE` names: `scripts/test-gpu` sets it.
pub fn test_device() -> Option<DeviceChoice> {
    std::env::var("PHI3V_TEST_DEVICE").ok().map(|name| name.parse().unwrap())
}

/// The device that `PHI3V_TEST_DEVICE` names; says loudly that a test is skipped without it.
pub fn named_device() -> Option<Device> {
    if test_device().is_none() {
        skip(
            "no other device than the processor is named",
            "run scripts/test-gpu, which names a graphics card",
        );
    }
    test_device().map(|_| device(None, None))
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
