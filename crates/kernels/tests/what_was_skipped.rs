//! The last line of `cargo test --workspace`: which tests were skipped, and how to run them. Cargo runs the test
//! programs in the order of the names of their crates and files, and this one is the last.

use phi3v_kernels::testing::take_skips;
use std::io::Write;

#[test]
fn what_was_skipped() {
    if let Some(line) = take_skips() {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
