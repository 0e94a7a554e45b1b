//! The last line of `cargo test --workspace`: what was skipped, and how to run it. Cargo runs the test programs by the
//! names of their crates and files, and this one is the last.

use phi3v_kernels::testing::take_skips;
use std::io::Write;

#[test]
fn what_was_skipped() {
    if let Some(line) = take_skips() {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
