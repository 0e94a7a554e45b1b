//! The binary as people run it, on the tiny random checkpoint in testdata: what it answers is noise, but the same
//! noise every time.
#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![allow(unreachable_pub, reason = "what test binaries share is for themselves")]

mod ask;
mod batch;
mod chat;
mod decide;
mod demo;
mod documents;
mod errors;
mod forms;
mod grab;
mod others;
mod photographs;
mod quantized;
mod sidecars;
#[path = "../common/signals.rs"]
mod signals;
mod streams;
mod windows;

use phi3v_kernels::testing::test_device;
use safetensors::SafeTensors;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// The checkpoint of the tests.
fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A text of the repository.
#[cfg(unix)]
fn repository_text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// A folder with pictures, and the program.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        // wider and higher than one tile, so that both have several
        fixture.write_png("wide.png", 700, 400);
        fixture.write_png("small.png", 90, 60);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_png(&self, name: &str, width: u32, height: u32) {
        let mut encoder = png::Encoder::new(std::fs::File::create(self.path(name)).unwrap(), width, height);
        encoder.set_color(png::ColorType::Rgb);
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, (x / 7 * y / 5) as u8]))
            .collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    }

    /// Copies the pictures of examples/ to a folder called `name`.
    fn copy_examples(&self, name: &str) {
        std::fs::create_dir(self.path(name)).unwrap();
        for entry in std::fs::read_dir(repository().join("examples")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "png") {
                std::fs::copy(&path, self.path(name).join(path.file_name().unwrap())).unwrap();
            }
        }
    }

    /// Copies the checkpoint, so that a test can change it.
    fn copy_model(&self) {
        for file in std::fs::read_dir(tiny()).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, self.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
        }
    }

    /// A copy that never ends an answer: the logits of its stop ids are 0, and among 509 others one is larger.
    fn endless_model(&self) {
        self.copy_model();
        let shard = self.path("model-00002-of-00002.safetensors");
        let mut bytes = std::fs::read(&shard).unwrap();
        let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let (start, end) = metadata.info("lm_head.weight").unwrap().data_offsets;
        let row = (end - start) / 512;
        for stop_id in [2, 467, 474] {
            let first = 8 + header + start + stop_id * row;
            bytes[first..first + row].fill(0);
        }
        std::fs::write(&shard, bytes).unwrap();
    }

    /// The program in the folder, with the tiny checkpoint, on the device that tests run on, and nothing of the user's
    /// environment that matters.
    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phi3v"));
        command.args(args).current_dir(self.dir.path()).env("PHI3V_MODEL", tiny());
        command.env("HF_HOME", self.path("hub")).env("HF_HUB_OFFLINE", "1").env_remove("HF_HUB_CACHE");
        command
            .env("PHI3V_CACHE", self.path("cache"))
            .env("PHI3V_DEVICE", test_device())
            .env_remove("PHI3V_CPU")
            .stdin(Stdio::null());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// Runs with `input` on stdin.
    fn run_with_input<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> Run {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // a program that refuses its arguments does not read, and its pipe may be closed already
        let _ = child.stdin.take().unwrap().write_all(input);
        Run::of(child.wait_with_output().unwrap())
    }
}

/// Examples, which are written for a shell.
#[cfg(unix)]
impl Fixture {
    /// Runs the examples of a page of the guide, on the demo model, with the pictures of examples/ in a folder `photos`;
    /// what each prints.
    fn run_guide(&self, page: &str) -> Vec<String> {
        self.run_guide_but_for(page, &[])
    }

    /// The same without the examples that name one of `absent`.
    fn run_guide_but_for(&self, page: &str, absent: &[&str]) -> Vec<String> {
        self.copy_examples("photos");
        self.run_examples(&repository_text(&format!("docs/guide/{page}")), absent)
    }

    /// Runs the shell's examples of a text but for those that name one of `absent`, on the demo model; what each prints.
    fn run_examples(&self, text: &str, absent: &[&str]) -> Vec<String> {
        let program = Path::new(env!("CARGO_BIN_EXE_phi3v")).parent().unwrap().to_owned();
        let path = std::env::join_paths([program, "/usr/bin".into(), "/bin".into()]).unwrap();
        let run = |block: &str| {
            let script = block.split("```").next().unwrap();
            let mut shell = Command::new("sh");
            shell.args(["-ec", script]).current_dir(self.dir.path()).env("PATH", &path).stdin(Stdio::null());
            shell.env("PHI3V_MODEL", "demo").env("PHI3V_CACHE", self.path("cache"));
            shell.env("PHI3V_DEVICE", test_device()).env_remove("PHI3V_CPU");
            let told = Run::of(shell.output().unwrap());
            assert_eq!(told.code, Some(0), "{script}\n{}", told.stderr);
            told.stdout
        };
        let is_run =
            |block: &&str| !absent.iter().any(|name| block.split("```").next().unwrap().contains(name));
        text.split("```sh\n").skip(1).filter(is_run).map(run).collect()
    }
}

/// The system's words for a file that is not there.
fn absence(path: &str) -> String {
    phi3v_cli::paths::system_words(&std::fs::File::open(path).unwrap_err())
}

/// What a run left behind.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Ctrl-C ends a program whose answer has begun and has no end: silently, with its line.
fn check_ctrl_c_ends(mut child: Child) {
    let mut stdout = child.stdout.take().unwrap();
    // the first byte comes while the end is far away
    stdout.read_exact(&mut [0; 1]).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    signals::interrupt(&child);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (Some(130), ""));
    assert_eq!(rest.last(), Some(&b'\n'));
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// stdout of a run of the demo model that did well and said of nothing else than it, and perhaps that it is not sure.
    fn demo_answer(self) -> String {
        let notice = format!("{}\n", phi3v_cli::runtime::demo_notice());
        let told: Vec<&str> = self.stderr.split_inclusive('\n').collect();
        let is_notice = match told[..] {
            [first] => first == notice,
            [first, doubt] => first == notice && doubt.starts_with("the demo model is not sure of "),
            _ => false,
        };
        assert!(self.code == Some(0) && is_notice, "{:?} {} {}", self.code, self.stderr, self.stdout);
        self.stdout
    }

    /// stdout of a run that did well and said nothing else.
    fn answer(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// stderr of a run that failed with `code` and printed no answer.
    fn refusal(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        self.stderr
    }

    fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}
