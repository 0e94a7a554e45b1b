//! `phi3v chat`, spoken to by a pipe.

use super::{Fixture, Run};
use std::io::Write;
use std::process::Stdio;

fn chat(fixture: &Fixture, args: &[&str], input: &str) -> Run {
    fixture.run_with_input(&[&["chat", "--max-new-tokens", "8"], args].concat(), input.as_bytes())
}

#[test]
fn a_first_turn_answers_as_ask_does() {
    let fixture = Fixture::new();
    let asked = fixture.run(&["ask", "--max-new-tokens", "8", "wide.png", "What is this?"]).answer();
    let chatted = chat(&fixture, &["wide.png"], "What is this?\n");
    assert_eq!((chatted.code, chatted.stdout), (Some(0), asked));
    assert_eq!(chatted.stderr, "wide.png goes with the next question (757 tokens)\n");
}

#[test]
fn a_later_turn_pays_only_for_what_is_new() {
    let fixture = Fixture::new();
    let run = chat(&fixture, &["--stats", "wide.png"], "What is this?\nAnd what else?\n");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let prompts: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("prompt")).collect();
    assert_eq!(prompts.len(), 2);
    assert!(prompts[0].contains(" 0 known from before"), "{}", prompts[0]);
    // at least the whole blocks of 64 tokens that the picture fills
    let known = prompts[1].split(", ").find_map(|part| part.split(" known").next()?.parse::<usize>().ok());
    assert!(known.is_some_and(|known| known >= 704), "{}", prompts[1]);
}

#[test]
fn commands_add_pictures_forget_and_leave() {
    let fixture = Fixture::new();
    let alone = fixture.run(&["ask", "--max-new-tokens", "8", "small.png", "What?"]).answer();
    let input = "Hello.\n/reset\n/image \"small.png\"\n\nWhat?\n/help\n/quit\nNever asked.\n";
    let run = chat(&fixture, &["wide.png"], input);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    // what was forgotten has no part in the answer after it
    assert!(run.stdout.ends_with(&alone), "{:?} {alone:?}", run.stdout);
    assert!(run.stderr.contains("the conversation begins anew"));
    assert!(run.stderr.contains("/image PATH"));
}

#[test]
fn a_failed_turn_ends_a_script() {
    let fixture = Fixture::new();
    let run = chat(&fixture, &[], "/image absent.png\nHello.\n");
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""));
    assert!(run.stderr.starts_with("error: cannot read absent.png"), "{}", run.stderr);
    for (args, input) in [(&["-"][..], ""), (&[], "/image -\nWhat?\n")] {
        let refusal = chat(&fixture, args, input).refusal(2);
        assert!(refusal.contains("the questions come from it"), "{refusal}");
    }
    for input in ["/imgae wide.png\nWhat?\n", "/image\nWhat?\n"] {
        let refusal = chat(&fixture, &[], input).refusal(2);
        assert!(refusal.ends_with("\nhint: /help lists the commands\n"), "{refusal}");
    }
    let absent = chat(&fixture, &[], "/image absent.png\n").refusal(3);
    assert!(absent.ends_with("\nhint: check the path; after /image Tab completes it\n"), "{absent}");
    let address = chat(&fixture, &[], "/image https://example.org/a.png\n").refusal(3);
    assert!(address.contains("begin with phi3v chat --allow-url example.org"), "{address}");
    assert!(!address.contains("phi3v ask"), "{address}");
}

#[test]
fn a_picture_that_a_script_names_is_text_and_noted() {
    let fixture = Fixture::new();
    let run = chat(&fixture, &[], "What is in small.png?\n");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stderr.starts_with("note: small.png is there, but not shown to the model; /image"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stdout, fixture.run(&["ask", "--max-new-tokens", "8", "What is in small.png?"]).answer());
}

#[cfg(unix)]
#[test]
fn a_path_is_taken_as_a_terminal_gives_it() {
    let fixture = Fixture::new();
    std::fs::rename(fixture.path("small.png"), fixture.path("a b.png")).unwrap();
    let home = fixture.path("");
    for path in ["a b.png", "'a b.png'", "a\\ b.png", "~/a\\ b.png"] {
        let mut command = fixture.command(&["chat", "--max-new-tokens", "1"]);
        command.env("HOME", &home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("/image {path}\n").as_bytes()).unwrap();
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!(run.code, Some(0), "{path}: {}", run.stderr);
    }
}
