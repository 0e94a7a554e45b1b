//! The page in headless Chromium, and the official JavaScript client; where they are installed.

use super::harness::Running;
use phi3v_cli::server::ServerOptions;
use phi3v_cli::server::limits::Limits;
use phi3v_kernels::testing::skip;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What drives the browser.
const BROWSER: &str = "playwright-core";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/page")
}

/// Runs a script of `tests/page`, or says why not.
fn run(script: &str, package: &str, server: impl FnOnce() -> Running) {
    let needs_browser = package == BROWSER;
    let node = Command::new("node").arg("--version").stdout(Stdio::null()).status();
    if !node.is_ok_and(|status| status.success()) || !folder().join("node_modules").join(package).exists() {
        let remedy = "install node, and run `npm install` in crates/cli/tests/page";
        skip(&format!("{script} needs node and its packages"), remedy);
        return;
    }
    let browser =
        std::env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    if needs_browser && !browser.exists() {
        skip(
            &format!("{script} needs Chromium"),
            "install Chromium, and set CHROMIUM where it is not /usr/bin/chromium",
        );
        return;
    }
    let server = server();
    let mut command = Command::new("node");
    command.current_dir(folder()).arg(script).arg(format!("http://{}", server.address));
    command.args(std::env::var_os("PHI3V_SCREENSHOTS"));
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

#[test]
fn the_page_works_in_a_browser() {
    run("page.mjs", BROWSER, || Running::endless(Limits::default()));
}

#[test]
fn the_built_in_model_answers_on_the_page() {
    run("demo.mjs", BROWSER, Running::demo);
}

#[test]
fn the_official_javascript_client_works() {
    run("client.mjs", "openai", || Running::start(ServerOptions::default()));
}
