//! Skipped tests are printed once each, and counted for one line at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// Age from which a record belongs to an earlier run whose process had the same number.
const RECORD_AGE_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// Prints that a test is skipped. The message bypasses libtest, which captures the output of the print macros if a
/// test passes. The first skip of each `remedy` in a run is printed at once; the test `what_was_skipped` prints all
/// of them in the last line of `cargo test`. `what` names what is missing, `remedy` what would let the test run.
/// # Panics
/// If the record cannot be written: a silent skip looks like a passed test.
pub fn skip(what: &str, remedy: &str) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let path = skips_path();
    let modified = std::fs::metadata(&path).and_then(|record| record.modified());
    if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > RECORD_AGE_MAX)) {
        let _ = std::fs::remove_file(&path);
    }
    let line = format!("{remedy}\n");
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let mut record = File::options().create(true).append(true).open(path).expect("the target folder is ours");
    record.write_all(line.as_bytes()).expect("the target folder has room");
    if !known.lines().any(|known| known == remedy) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {what}; to run it, {remedy}");
    }
}

/// Returns the reasons of all [`skip`] calls since the run began, each remedy with its number of skips; `None` if
/// there were none.
#[must_use]
pub fn take_skips() -> Option<String> {
    let path = skips_path();
    let record = std::fs::read_to_string(&path).ok()?;
    let _ = std::fs::remove_file(path);
    let mut counts = BTreeMap::new();
    for remedy in record.lines() {
        *counts.entry(remedy).or_insert(0) += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(remedy, count)| format!("{remedy} ({count})")).collect();
    let skips: i32 = counts.values().sum();
    Some(format!("SKIPPED in all {skips} checks; to run them: {}", parts.join("; ")))
}

/// Returns the path of the record of one run of `cargo test`: next to the test's program, named after cargo's
/// process.
fn skips_path() -> PathBuf {
    #[cfg(unix)]
    let run = std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    let run = 0;
    let program = std::env::current_exe().expect("the system knows the running program");
    program.with_file_name(format!("skipped-{run}.txt"))
}
