//! `phi3v chat`, spoken to by a pipe.

use super::{Fixture, Run, check_ctrl_c_ends, signals};
use std::io::{Read, Write};
#[cfg(target_os = "linux")]
use std::process::Command;
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
fn several_pictures_are_those_of_ask_and_come_in_order() {
    let fixture = Fixture::new();
    let names = ["wide.png", "small.png", "wide.png"];
    let question = "What is the difference?";
    let ask = [&["ask", "--max-new-tokens", "8"], &names[..], &[question]].concat();
    let asked = fixture.run(&ask).answer();
    let chatted = chat(&fixture, &names, &format!("{question}\n"));
    assert_eq!((chatted.code, chatted.stdout), (Some(0), asked));
    let told: Vec<&str> =
        chatted.stderr.lines().filter_map(|line| line.split_once(" goes with")).map(|told| told.0).collect();
    assert_eq!(told, names);
}

#[test]
fn a_picture_that_cannot_be_read_ends_chat_before_its_first_question() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("broken.png"), "no picture").unwrap();
    let refusal = chat(&fixture, &["small.png", "broken.png"], "What?\n").refusal(3);
    assert!(refusal.starts_with("error: broken.png"), "{refusal}");
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
    assert!(
        absent.ends_with("\nhint: check the path; within chat, Tab completes it after /image\n"),
        "{absent}"
    );
    // what stands behind the picture is taken for a part of its path, wherever it is named
    for (args, input) in
        [(&[][..], "/image small.png What is this?\n"), (&["small.png", "What is this?"][..], "")]
    {
        let absent = chat(&fixture, args, input).refusal(3);
        let hint = "\nhint: check the path; a question is a line of its own, not behind a picture\n";
        assert!(absent.ends_with(hint), "{absent}");
    }
    let address = chat(&fixture, &[], "/image https://example.org/a.png\n").refusal(3);
    assert!(address.contains("begin with phi3v chat --allow-url example.org"), "{address}");
    assert!(!address.contains("phi3v ask"), "{address}");
}

#[test]
fn ctrl_c_ends_a_script() {
    if !signals::can_be_sent() {
        return;
    }
    let fixture = Fixture::new();
    fixture.endless_model();
    let mut command = fixture.command(&["chat", "--model", ".", "--max-new-tokens", "4000"]);
    signals::hear(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&b"Go on.\n".repeat(3)).unwrap();
    check_ctrl_c_ends(child);
}

/// `chat` on a terminal of its own.
#[cfg(target_os = "linux")]
struct Terminal {
    child: std::process::Child,
    seen: String,
}

#[cfg(target_os = "linux")]
impl Terminal {
    /// Begins; nothing where `script`, which makes the terminal, is not installed.
    fn start(fixture: &Fixture, kind: &str) -> Option<Self> {
        Self::start_with(fixture, kind, "--max-new-tokens 1")
    }

    /// The same with these flags.
    fn start_with(fixture: &Fixture, kind: &str, flags: &str) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            phi3v_kernels::testing::skip("chat on a terminal needs script", "install util-linux");
            return None;
        }
        // without exec a shell may stay, and Ctrl-C ends it
        let chat = format!("exec {} chat {flags}", env!("CARGO_BIN_EXE_phi3v"));
        let mut command = fixture.command(&["chat"]);
        let environment: Vec<_> =
            command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        command = Command::new("script");
        command.args(["-qec", &chat, "/dev/null"]).envs(environment).env("TERM", kind);
        command.current_dir(fixture.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
        Some(Self { child: command.spawn().unwrap(), seen: String::new() })
    }

    fn send(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until `words` come, and returns what was seen up to their end.
    fn wait_for(&mut self, words: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(words) {
                let rest = self.seen.split_off(at + words.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let mut bytes = [0; 1000];
            let count = self.child.stdout.as_mut().unwrap().read(&mut bytes).unwrap();
            assert!(count > 0, "chat has ended without {words:?}: {}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes[..count]);
        }
    }

    /// Leaves, and returns what was said since the last words waited for.
    ///
    /// The keys stay open until the end: `script` writes an end of its own to the terminal where they close, and fails
    /// where chat was quicker.
    fn leave(mut self) -> String {
        self.send("/quit\r");
        let mut rest = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        let keys = self.child.stdin.take();
        let status = self.child.wait().unwrap();
        drop(keys);
        let seen = self.seen + &String::from_utf8_lossy(&rest);
        assert!(status.success(), "{status}: {seen}");
        seen
    }
}

#[cfg(target_os = "linux")]
#[test]
fn on_every_terminal_ctrl_c_at_the_prompt_does_not_leave() {
    let fixture = Fixture::new();
    for kind in ["dumb", "xterm"] {
        let Some(mut terminal) = Terminal::start(&fixture, kind) else { return };
        terminal.wait_for("/help lists the commands");
        terminal.wait_for("> ");
        for _ in 0..2 {
            terminal.send("\u{3}");
            terminal.wait_for("(Ctrl-D or /quit to leave)");
        }
        terminal.leave();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_terminal_ctrl_c_stops_the_answer_and_chat_goes_on() {
    let fixture = Fixture::new();
    fixture.endless_model();
    let asked = fixture.run(&["ask", "--model", ".", "--max-new-tokens", "8", "Go on."]).answer();
    let begin = asked.split_whitespace().next().unwrap();
    let flags = "--model . --max-new-tokens 100000 --context 101000";
    let Some(mut terminal) = Terminal::start_with(&fixture, "dumb", flags) else { return };
    terminal.wait_for("/help lists the commands");
    terminal.wait_for("> ");
    terminal.send("Go on.\r");
    terminal.wait_for("Go on.");
    terminal.wait_for(begin);
    terminal.send("\u{3}");
    terminal.wait_for("(stopped)");
    terminal.wait_for("> ");
    terminal.leave();
}

#[cfg(target_os = "linux")]
#[test]
fn a_picture_dropped_on_a_terminal_is_offered() {
    let fixture = Fixture::new();
    let Some(mut terminal) = Terminal::start(&fixture, "dumb") else { return };
    terminal.wait_for("/help lists the commands");
    terminal.wait_for("> ");
    terminal.send(&format!("{}\r", fixture.path("small.png").display()));
    terminal.wait_for("small.png to the model? [Y/n] ");
    terminal.send("\r");
    terminal.wait_for("small.png goes with the next question");
    terminal.wait_for("> ");
    terminal.send("wide.png What?\r");
    terminal.wait_for("Show wide.png to the model? [Y/n] ");
    terminal.send("n\r");
    terminal.wait_for("> ");
    let seen = terminal.leave();
    assert!(!seen.contains("goes with"), "{seen}");
}

#[cfg(target_os = "linux")]
#[test]
fn of_pictures_dropped_together_all_are_added_or_none() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("broken.png"), "no picture").unwrap();
    let Some(mut terminal) = Terminal::start(&fixture, "dumb") else { return };
    terminal.wait_for("/help lists the commands");
    terminal.wait_for("> ");
    terminal.send("small.png broken.png\r");
    terminal.wait_for("small.png, broken.png to the model? [Y/n] ");
    terminal.send("\r");
    let said = terminal.wait_for("hint: ");
    assert!(said.contains("error: ") && !said.contains("goes with"), "{said}");
    terminal.wait_for("> ");
    terminal.send("small.png wide.png\r");
    terminal.wait_for("small.png, wide.png to the model? [Y/n] ");
    terminal.send("\r");
    terminal.wait_for("small.png goes with the next question");
    terminal.wait_for("wide.png goes with the next question");
    terminal.wait_for("> ");
    terminal.leave();
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
fn an_absolute_path_is_no_command() {
    let fixture = Fixture::new();
    for name in ["clip.avi", "a scan"] {
        std::fs::copy(fixture.path("small.png"), fixture.path(name)).unwrap();
        let path = fixture.path(name).display().to_string().replace(' ', "\\ ");
        let run = chat(&fixture, &[], &format!("{path} What happens?\n"));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let told = format!("{name} is there, but not shown to the model");
        assert!(run.stderr.contains(&told) && run.stdout.len() > 1, "{}", run.stderr);
    }
    let typo = chat(&fixture, &[], "/tmp/absent.avi What happens?\n").refusal(2);
    assert!(typo.contains("there is no command /tmp/absent.avi"), "{typo}");
}

#[test]
fn a_line_has_a_limit() {
    let fixture = Fixture::new();
    // a line without an end too, and as much as a pipe takes
    for length in [(1 << 20) + 1, 50 << 20] {
        let refusal = chat(&fixture, &[], &"a".repeat(length)).refusal(1);
        assert_eq!(
            refusal,
            "error: cannot read stdin: the line has more than 1048576 bytes, the limit\n\
             hint: check that it is the text you mean, or shorten it\n"
        );
    }
    let words = "a ".repeat(1 << 19);
    let refusal = chat(&fixture, &[], &(words + "\n")).refusal(5);
    assert!(refusal.contains("exceed the context"), "{refusal}");
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
