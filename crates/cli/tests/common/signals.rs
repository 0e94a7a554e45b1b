//! What a terminal and a manager of services tell a program that a test has started.

use std::process::{Child, Command};

/// Names a program for Windows that presses Ctrl-C in the console of the process whose number it is given.
#[cfg(windows)]
const PRESSES: &str = "PHI3V_PRESSES_CTRL_C";

/// Whether signals can be sent here; said where not.
pub fn can_be_sent() -> bool {
    #[cfg(windows)]
    if std::env::var_os(PRESSES).is_none() {
        phi3v_kernels::testing::skip("Ctrl-C needs a program that presses it", "use scripts/test-windows");
        return false;
    }
    true
}

/// Lets the program be reached by signals that do not reach the test: on Windows Ctrl-C goes to a whole console.
pub fn hear(command: &mut Command) {
    #[cfg(windows)]
    {
        /// `CREATE_NEW_CONSOLE`.
        const NEW_CONSOLE: u32 = 0x10;
        std::os::windows::process::CommandExt::creation_flags(command, NEW_CONSOLE);
    }
    #[cfg(unix)]
    let _ = command;
}

/// Presses Ctrl-C.
pub fn interrupt(child: &Child) {
    send("-INT", child);
}

/// Asks the program to end, as a manager of services does; on Windows by Ctrl-C.
pub fn terminate(child: &Child) {
    send("-TERM", child);
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[cfg(windows)]
fn send(_: &str, child: &Child) {
    let presses = std::env::var_os(PRESSES).unwrap();
    assert!(Command::new(presses).arg(child.id().to_string()).status().unwrap().success());
}
