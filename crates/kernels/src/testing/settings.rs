//! Settings of the person who runs the tests: the device the tests run on, and where the reference material is.

use super::skip;
use std::path::{Path, PathBuf};

/// Returns the name of the device that tests run on: the value of `PHI3V_TEST_DEVICE`, which `scripts/test-gpu` sets,
/// or else the processor, whatever other devices the machine has and its user has chosen.
#[must_use]
pub fn test_device() -> String {
    std::env::var("PHI3V_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

/// Returns `path` within the folder of reference material, which we may not publish: `$PHI3V_SHARED`, or `../shared`
/// next to the repository. If it is absent, prints that a test is skipped.
///
/// # Panics
/// If `PHI3V_SHARED` is set but does not contain `path`: a user who sets it wants these tests to run.
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
