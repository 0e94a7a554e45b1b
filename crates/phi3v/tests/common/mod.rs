//! What several test files need.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};

/// `path` within the folder of reference material that is not ours to publish: `$PHI3V_SHARED`, or `../shared`
/// beside the repository. Says loudly that a test is skipped where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PHI3V_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    eprintln!(
        "SKIPPED: {} is not there; set PHI3V_SHARED to the folder of reference material",
        found.display()
    );
    None
}
