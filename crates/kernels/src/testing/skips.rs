//! What tests skip is said aloud, once each, and counted for one line at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// Age of a record that is of an earlier run, whose process had the same number.
const RECORD_AGE_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// Says that a test is skipped, past libtest, which keeps what the print macros write while a test passes: the first of
/// each `remedy` in a run at once, and all of them in the last line of `cargo test`, which the test `what_was_skipped`
/// writes. `what` names what is missing, `remedy` what would let the test run.
///
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

/// What [`skip`] was called for since the run began: each remedy with the number of skips, none where it is `None`.
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

/// The record of one run of `cargo test`: beside the test's program, named by cargo's process.
fn skips_path() -> PathBuf {
    #[cfg(unix)]
    let run = std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    let run = 0;
    let program = std::env::current_exe().expect("the system knows the running program");
    program.with_file_name(format!("skipped-{run}.txt"))
}
