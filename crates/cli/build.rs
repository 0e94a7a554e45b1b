//! Tells the program from which commit it was built, in release builds alone: others would be built anew with each commit.
//! The commit is that of the repository, or in a package of cargo's what the package says. `PHI3V_COMMIT` names another.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PHI3V_COMMIT");
    let named = std::env::var("PHI3V_COMMIT").ok().filter(|commit| !commit.is_empty());
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let found = || if release { packaged().or_else(of_repository) } else { None };
    if let Some(commit) = named.or_else(found) {
        println!("cargo::rustc-env=PHI3V_BUILD_COMMIT={commit}");
    }
}

/// What `cargo package` wrote of the commit: `{"git": {"sha1": "..."}, ...}`.
fn packaged() -> Option<String> {
    let info = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let commit = info.split("\"sha1\": \"").nth(1)?.split('"').next()?;
    Some(commit.get(..12)?.to_owned())
}

fn of_repository() -> Option<String> {
    // a log grows with every commit, and stands for where HEAD is
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
