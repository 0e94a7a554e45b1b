//! Every command with a stdout or stderr that cannot be written to: notes that nobody can read change nothing, an answer
//! that nobody wants is no failure, and one that a full disk has cut is.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports, reason = "most needs /dev/full"))]

use super::{Fixture, Run, tiny};
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

/// The words of a command, what it reads, and the code that it ends with.
struct Case {
    words: Vec<String>,
    input: &'static str,
    code: i32,
    /// Whether it prints something.
    prints: bool,
}

fn cases() -> Vec<Case> {
    let model = tiny().display().to_string();
    let case = |words: &str, code| {
        let words: Vec<String> = words.split(' ').map(|word| word.replace("MODEL", &model)).collect();
        let prints = code == 0 && !matches!(words[0].as_str(), "batch" | "trace" | "man");
        Case { words, input: "", code, prints }
    };
    vec![
        case("ask -v --stats --max-new-tokens 2 small.png What?", 0),
        case("ask -v --model demo --max-new-tokens 2 What?", 0),
        case("ask --json --quant q8 --max-new-tokens 2 What?", 0),
        case("ask nope.png x", 3),
        case("ask small.png", 2),
        case("batch small.png --prompt What? --max-new-tokens 2", 0),
        case("ask --tempereture 1 x", 2),
        Case { input: "What?\n/help\nAnd?\n", ..case("chat --stats --max-new-tokens 2 small.png", 0) },
        case("info", 0),
        case("bench --quick --threads 1 --model MODEL", 0),
        case("bench --quick --json --threads 1 --model MODEL", 0),
        case("quantize MODEL --out q8.safetensors", 0),
        case("eval MODEL --prompt x --quant q8 --max-new-tokens 2", 0),
        case("trace -v --prompt a --out trace", 0),
        case("pull phi-3-vision", 4),
        case("completions bash", 0),
        case("man pages", 0),
        case("export-demo demo", 0),
        case("--help", 0),
        case("ask -h", 0),
        case("--version", 0),
    ]
}

/// A stream that takes nothing.
#[derive(Clone, Copy, Debug)]
enum Broken {
    FullDevice,
    ClosedPipe,
}

impl Broken {
    fn stream(self) -> Stdio {
        match self {
            Self::FullDevice => File::options().write(true).open("/dev/full").unwrap().into(),
            Self::ClosedPipe => std::io::pipe().unwrap().1.into(),
        }
    }
}

/// Runs a case in a folder of its own.
fn run(case: &Case, set: impl FnOnce(&mut Command)) -> Run {
    let fixture = Fixture::new();
    let mut command = fixture.command(&case.words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    set(&mut command);
    let mut child = command.spawn().unwrap();
    // a command that does not read may have ended
    let _ = child.stdin.take().unwrap().write_all(case.input.as_bytes());
    Run::of(child.wait_with_output().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_stderr_that_cannot_be_written_to_changes_nothing() {
    for case in cases() {
        let whole = run(&case, |_| ());
        assert_eq!(whole.code, Some(case.code), "{:?}: {}", case.words, whole.stderr);
        for broken in [Broken::FullDevice, Broken::ClosedPipe] {
            let told = run(&case, |command| {
                command.stderr(broken.stream());
            });
            assert_eq!(told.code, Some(case.code), "{:?} with {broken:?}", case.words);
            // figures and times differ from run to run
            if !matches!(case.words[0].as_str(), "bench" | "info")
                && !case.words.contains(&"--json".to_owned())
            {
                assert_eq!(told.stdout, whole.stdout, "{:?} with {broken:?}", case.words);
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_nobody_reads_is_done_and_one_that_is_cut_has_failed() {
    for case in cases().iter().filter(|case| case.prints) {
        for (broken, code) in [(Broken::FullDevice, 1), (Broken::ClosedPipe, 0)] {
            let told = run(case, |command| {
                command.stdout(broken.stream());
            });
            assert_eq!(told.code, Some(code), "{:?} with {broken:?}: {}", case.words, told.stderr);
            let named = told.stderr.contains("error: cannot write to stdout: the disk is full\n");
            assert_eq!(named, code == 1, "{:?} with {broken:?}: {}", case.words, told.stderr);
        }
    }
}

/// `ulimit -f` counts blocks of 512 bytes or 1 KiB.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_signal() {
    let fixture = Fixture::new();
    let limited = |line: &str| {
        let program = fixture.command::<&str>(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).arg(program.get_program()).arg(tiny()).current_dir(fixture.dir.path());
        shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Run::of(shell.output().unwrap())
    };
    for line in [
        "ulimit -f 8; exec \"$0\" export-demo demo",
        "ulimit -f 8; exec \"$0\" quantize \"$1\" --out q8.safetensors",
        "ulimit -f 0; exec \"$0\" ask --model demo --max-new-tokens 1 x > out",
    ] {
        let told = limited(line);
        assert_eq!(told.code, Some(1), "{line}: {}", told.stderr);
        let words = ": file too large\nhint: raise the limit on the size of files (ulimit -f)";
        assert!(told.stderr.contains(words), "{line}: {}", told.stderr);
    }
    // notes that have no room change nothing
    let told = limited("ulimit -f 0; exec \"$0\" ask --model demo --stats --max-new-tokens 1 x 2> notes");
    assert!(told.code == Some(0) && !told.stdout.is_empty(), "{:?} {}", told.code, told.stdout);
}

#[test]
fn quiet_leaves_out_what_nobody_asked_for() {
    let fixture = Fixture::new();
    let ask = ["ask", "--model", "demo", "--quant", "q8", "--max-new-tokens", "2", "Who are you?"];
    let told = fixture.run(&ask);
    assert!(
        told.stderr.starts_with("demo model: ") || told.stderr.contains("\ndemo model: "),
        "{}",
        told.stderr
    );
    assert_eq!(fixture.run(&[&ask[..], &["-q"]].concat()).answer(), told.stdout);
    assert_eq!(fixture.run(&[&["--quiet"], &ask[..]].concat()).answer(), told.stdout);
    let refusal = fixture.run(&["ask", "-q", "nope.png", "What?"]).refusal(3);
    assert!(refusal.starts_with("error: "), "{refusal}");
    let asked = fixture.run(&[&ask[..], &["-q", "--stats"]].concat());
    assert!(asked.stderr.starts_with("prompt  "), "{}", asked.stderr);
}
