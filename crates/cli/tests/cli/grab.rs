//! The clipboard and the screen, by tools that are made up here.
#![cfg(target_os = "linux")]

use super::{Fixture, Run};
use std::os::unix::fs::PermissionsExt;

const SHORT: [&str; 4] = ["--max-new-tokens", "4", "--num-crops", "1"];

/// A fixture with programs of these names in the one folder of its PATH.
struct Tools {
    fixture: Fixture,
    display: Option<&'static str>,
}

impl Tools {
    fn new(display: Option<&'static str>, programs: &[(&str, &str)]) -> Self {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.path("bin")).unwrap();
        for (name, script) in programs {
            let path = fixture.path("bin").join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { fixture, display }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.fixture.command(args);
        // a card would be looked for on the display
        command.env("PATH", self.fixture.path("bin")).env("PHI3V_DEVICE", "cpu");
        command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
        if let Some(display) = self.display {
            command.env(display, "display-0");
        }
        command
    }

    fn ask(&self, flags: &[&str]) -> Run {
        Run::of(self.command(&[&["ask"], &SHORT[..], flags, &["What?"]].concat()).output().unwrap())
    }

    /// The answer about `small.png`.
    fn expected(&self) -> String {
        self.ask(&["small.png"]).answer()
    }
}

#[test]
fn a_picture_is_taken_by_the_tool_of_the_display() {
    let show = "test \"$*\" = \"$ARGUMENTS\" && exec /bin/cat small.png";
    for (display, flag, program, arguments) in [
        ("WAYLAND_DISPLAY", "--clipboard", "wl-paste", "--type image/png"),
        ("DISPLAY", "--clipboard", "xclip", "-selection clipboard -target image/png -out"),
        ("WAYLAND_DISPLAY", "--screen", "grim", "-"),
    ] {
        let script = show.replace("$ARGUMENTS", arguments);
        let tools = Tools::new(Some(display), &[(program, &script)]);
        assert_eq!(tools.ask(&[flag]).answer(), tools.expected(), "{program}");
    }
    for (program, flags) in [("gnome-screenshot", "-f"), ("spectacle", "-bno")] {
        let script = format!("test \"$1\" = {flags} && exec /bin/cp small.png \"$2\"");
        let tools = Tools::new(Some("WAYLAND_DISPLAY"), &[(program, &script)]);
        assert_eq!(tools.ask(&["--screen"]).answer(), tools.expected(), "{program}");
    }
    let scrot = "test \"$1\" = --overwrite && exec /bin/cp small.png \"$2\"";
    let tools = Tools::new(Some("DISPLAY"), &[("scrot", scrot)]);
    assert_eq!(tools.ask(&["--screen"]).answer(), tools.expected());
}

#[test]
fn a_tool_of_another_desktop_leaves_the_screen_to_the_next() {
    let copy = ("spectacle", "exec /bin/cp small.png \"$2\"");
    let tools = Tools::new(Some("WAYLAND_DISPLAY"), &[("grim", "exit 1"), copy]);
    assert_eq!(tools.ask(&["--screen"]).answer(), tools.expected());
    let tools = Tools::new(Some("WAYLAND_DISPLAY"), &[("grim", "exit 1"), ("spectacle", "exit 0")]);
    let refused = tools.ask(&["--screen"]).refusal(3);
    assert!(refused.starts_with("error: grim gave no picture"), "{refused}");
}

#[test]
fn without_wayland_s_tool_that_of_x11_takes_the_clipboard_where_both_are_there() {
    let show = ("xclip", "exec /bin/cat small.png");
    let tools = Tools::new(Some("WAYLAND_DISPLAY"), &[show]);
    let with_both = |flag: &str| {
        let words = [&["ask"], &SHORT[..], &[flag, "What?"]].concat();
        Run::of(tools.command(&words).env("DISPLAY", "display-0").output().unwrap())
    };
    assert_eq!(with_both("--clipboard").answer(), tools.expected());
    // X11 sees nothing of the screen there
    assert!(with_both("--screen").refusal(3).contains("needs the program grim"));
    assert!(tools.ask(&["--clipboard"]).refusal(3).contains("needs the program wl-paste"));
}

#[test]
fn what_is_taken_comes_before_what_is_named() {
    let tools = Tools::new(Some("DISPLAY"), &[("xclip", "exec /bin/cat small.png")]);
    let told = tools.ask(&["--json", "--clipboard", "wide.png"]).json();
    let names: Vec<&str> =
        told["images"].as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["clipboard", "wide.png"]);
}

#[test]
fn a_preset_asks_about_the_screen_by_itself() {
    let tools = Tools::new(Some("DISPLAY"), &[("xclip", "exec /bin/cat small.png")]);
    let ask = |flags: &[&str]| {
        let words = [&["ask", "--max-new-tokens", "300", "--num-crops", "1"], flags].concat();
        Run::of(tools.command(&words).output().unwrap())
    };
    let taken = ask(&["--clipboard", "--schema", "@receipt"]);
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    assert_eq!(taken.stdout, ask(&["--schema", "@receipt", "small.png"]).stdout);
    let refused = ask(&["--clipboard"]).refusal(2);
    assert!(refused.starts_with("error: no question was given\nhint: put it last"), "{refused}");
    let refused = ask(&["--clipboard", "small.png"]).refusal(2);
    assert!(refused.starts_with("error: no question was given: small.png is a picture"), "{refused}");
}

#[test]
fn a_missing_tool_is_named() {
    let refused =
        |display, flag, programs: &[(&str, &str)]| Tools::new(display, programs).ask(&[flag]).refusal(3);
    for (display, flag, program, package) in [
        ("WAYLAND_DISPLAY", "--clipboard", "wl-paste", "wl-clipboard"),
        ("DISPLAY", "--clipboard", "xclip", "xclip"),
        (
            "WAYLAND_DISPLAY",
            "--screen",
            "grim",
            "grim (Sway, Hyprland and their like), gnome-screenshot (GNOME) or spectacle (KDE)",
        ),
        ("DISPLAY", "--screen", "scrot", "scrot"),
    ] {
        let told = refused(Some(display), flag, &[]);
        let expected =
            format!("needs the program {program}, which is not installed\nhint: install {package}, or");
        assert!(told.contains(&expected), "{told}");
    }
    let told = refused(None, "--clipboard", &[]);
    assert!(told.contains("there is no clipboard here: neither WAYLAND_DISPLAY nor DISPLAY"), "{told}");
    let told = refused(Some("DISPLAY"), "--clipboard", &[("xclip", "exit 1")]);
    assert!(told.contains("xclip gave no picture of the clipboard\nhint: copy a picture first"), "{told}");
    let told = refused(Some("DISPLAY"), "--screen", &[("scrot", "exit 1")]);
    assert!(told.contains("scrot gave no picture of the screen"), "{told}");
    let told = refused(Some("DISPLAY"), "--clipboard", &[("xclip", "echo no picture")]);
    assert!(told.contains("clipboard: this is not a picture"), "{told}");
}

#[test]
fn chat_takes_the_clipboard_too() {
    let tools = Tools::new(Some("DISPLAY"), &[("xclip", "exec /bin/cat small.png")]);
    let mut command = tools.command(&[&["chat"], &SHORT[..]].concat());
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"/paste\nWhat?\n").unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert!(run.code == Some(0) && run.stderr.contains("clipboard goes with the next question"), "{run:?}");
}
