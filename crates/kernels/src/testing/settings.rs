//! What whoever runs the tests says of the machine: which device they run on, and where the reference material is.

use super::skip;
use std::path::{Path, PathBuf};

/// The device that tests run on, by the name that people give it: what `PHI3V_TEST_DEVICE` names, which `scripts/test-gpu`
/// sets, or the processor, whatever else the machine has and its user has chosen.
#[must_use]
pub fn test_device() -> String {
    std::env::var("PHI3V_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

/// `path` within the folder of reference material that is not ours to publish: `$PHI3V_SHARED`, or `../shared`
/// beside the repository. Says loudly that a test is skipped where it is absent.
///
/// # Panics
/// If `PHI3V_SHARED` is set and does not have it: whoever sets it wants these tests to run.
#[must_use]
pub fn shared(path: &str) -> Option<PathBuf> {
    let given = std::env::var_os("PHI3V_SHARED").map(PathBuf::from);
    let wanted = given.is_some();
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let found = given.unwrap_or(beside).join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(!wanted, "{} is not there, and PHI3V_SHARED says that it should be", found.display());
    let what = format!("{} is not there", found.display());
    skip(&what, "set PHI3V_SHARED to the folder of reference material");
    None
}
