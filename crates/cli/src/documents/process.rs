//! Child processes that are stopped if they take too long or too much memory.

use std::io::{self, Read};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tempfile::TempDir;

/// How often time and memory are checked. In between, a process takes about 100 MB more, at most.
const PERIOD: Duration = Duration::from_millis(20);

/// Why a process was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// It exceeded its time limit.
    Time,
    /// It exceeded its memory limit.
    Memory,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ending {
    /// Why it was stopped; `None` if it ended by itself or was no longer needed.
    pub(super) stopped: Option<Stopped>,
    /// The exit status, if it ended by itself.
    pub(super) status: Option<ExitStatus>,
}

/// A process with its input and output, and a thread that watches it. Dropping this value ends the process.
pub(super) struct Watched {
    /// The input of the process.
    pub(super) stdin: Option<ChildStdin>,
    /// The output of the process.
    pub(super) stdout: ChildStdout,
    deadline: Arc<Mutex<Instant>>,
    /// Dropping this ends the process.
    end: Option<Sender<()>>,
    watch: Option<JoinHandle<Ending>>,
    /// The thread that keeps the last output on stderr, if it is collected.
    heard: Option<JoinHandle<Vec<u8>>>,
}

impl Watched {
    /// Starts `command` with the limits `time`, from now on, and `memory_max` bytes. Discards its stderr.
    pub(super) fn start(command: &mut Command, time: Duration, memory_max: u64) -> io::Result<Self> {
        Self::spawn(command.stdin(Stdio::piped()).stderr(Stdio::null()), time, memory_max)
    }

    /// Starts a third-party tool with the time limit `time`, from now on. `command` defines its stdin.
    pub(super) fn start_tool(command: &mut Command, time: Duration) -> io::Result<Self> {
        Self::spawn(command.stderr(Stdio::piped()), time, TOOL_MEMORY_MAX)
    }

    fn spawn(command: &mut Command, time: Duration, memory_max: u64) -> io::Result<Self> {
        let system = System::new().map_err(io::Error::other)?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // ended by the watching thread, or here if that thread cannot be started
        let mut child = Owned(child);
        let stdout = stdout.ok_or(io::ErrorKind::BrokenPipe)?;
        let hear = |stderr: ChildStderr| {
            std::thread::Builder::new().name("hear".to_owned()).spawn(move || last_bytes(stderr))
        };
        let heard = stderr.map(hear).transpose()?;
        let deadline = Arc::new(Mutex::new(Instant::now() + time));
        let (end, ended) = mpsc::channel();
        let shared = Arc::clone(&deadline);
        let watch = move || {
            let pid = Pid::from_u32(child.0.id());
            let mut memory = Memory { system, pid, bytes_max: memory_max };
            let stopped = |stopped| Ending { stopped: Some(stopped), status: None };
            loop {
                match ended.recv_timeout(PERIOD) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break Ending::default(),
                }
                if Instant::now() > *locked(&shared) {
                    break stopped(Stopped::Time);
                }
                if memory.is_exceeded() {
                    break stopped(Stopped::Memory);
                }
                match child.0.try_wait() {
                    Ok(None) => {}
                    ended => break Ending { stopped: None, status: ended.ok().flatten() },
                }
            }
        };
        let watch = std::thread::Builder::new().name("watch".to_owned()).spawn(watch)?;
        Ok(Self { stdin, stdout, deadline, end: Some(end), watch: Some(watch), heard })
    }

    /// Sets the time limit to `time` from now on.
    pub(super) fn give(&self, time: Duration) {
        *locked(&self.deadline) = Instant::now() + time;
    }

    /// Waits until the process ends by itself or is stopped, and returns how it ended.
    pub(super) fn wait(&mut self) -> Ending {
        drop(self.stdin.take());
        self.watch.take().and_then(|watch| watch.join().ok()).unwrap_or_default()
    }

    /// Returns the first and last lines of stderr after the end of the process. Either may be the more informative one.
    pub(super) fn words(&mut self) -> Option<String> {
        let heard = self.heard.take()?.join().ok()?;
        let heard = String::from_utf8_lossy(&heard);
        let mut lines = heard.lines().map(without_source).filter(|line| !line.is_empty());
        let first = lines.next()?.to_owned();
        Some(lines.next_back().map_or_else(|| first.clone(), |last| format!("{first}; {last}")))
    }

    /// Whether the process has not been ended by [`end`](Self::end). It may have ended by itself.
    pub(super) fn is_wanted(&self) -> bool {
        self.end.is_some()
    }

    /// Ends the process. Returns why it was stopped before, if it was.
    pub(super) fn end(&mut self) -> Option<Stopped> {
        drop(self.end.take());
        self.wait().stopped
    }
}

/// A line of ffmpeg's output without its prefix that names a component, such as `[mov @ 0x5d0]`.
fn without_source(line: &str) -> &str {
    let rest = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    rest.map_or(line, |(_, rest)| rest).trim()
}

/// Reads `stderr` to its end and returns the last bytes.
fn last_bytes(mut stderr: impl Read) -> Vec<u8> {
    const KEPT_MAX: usize = 4 << 10;
    let (mut kept, mut more) = (Vec::new(), [0; 1 << 10]);
    while let Ok(read @ 1..) = stderr.read(&mut more) {
        kept.extend_from_slice(&more[..read]);
        kept.drain(..kept.len().saturating_sub(KEPT_MAX));
    }
    kept
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end();
    }
}

fn locked(deadline: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    deadline.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that ends when this value is dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        finish(&mut self.0);
    }
}

/// Ends a process, which may have ended already, and waits for it, so that no zombie remains.
fn finish(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Memory limit of a third-party tool.
pub(super) const TOOL_MEMORY_MAX: u64 = 2 << 30;

/// Runs `command` and returns its stdout, cut at one byte more than `bytes_max`, after which the process is ended. Its
/// stdin is empty. Its exit status is ignored, since tools without anything to return exit like those that fail.
///
/// # Errors
/// The command cannot be started, or is not done within `time`.
pub fn output_of(command: &mut Command, time: Duration, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut process = Watched::start(command, time, TOOL_MEMORY_MAX)?;
    drop(process.stdin.take());
    let mut output = Vec::new();
    (&mut process.stdout).take((bytes_max as u64).saturating_add(1)).read_to_end(&mut output)?;
    match if output.len() > bytes_max { process.end() } else { process.wait().stopped } {
        Some(Stopped::Time) => Err(io::ErrorKind::TimedOut.into()),
        Some(Stopped::Memory) => Err(io::ErrorKind::OutOfMemory.into()),
        None => Ok(output),
    }
}

/// Measures the memory of a process.
struct Memory {
    system: System,
    pid: Pid,
    bytes_max: u64,
}

impl Memory {
    fn is_exceeded(&mut self) -> bool {
        let what = ProcessRefreshKind::nothing().with_memory().without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), true, what);
        self.system.process(self.pid).is_some_and(|process| process.memory() > self.bytes_max)
    }
}

/// Creates a private folder among the system's temporary files, since screenshots and videos are not for other users.
/// It is deleted when the returned value is dropped.
///
/// # Errors
/// The folder cannot be created.
pub fn private_folder() -> io::Result<TempDir> {
    let mut folder = tempfile::Builder::new();
    #[cfg(unix)]
    folder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    folder.prefix("phi3v-").tempdir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn nothing_is_left_of_a_process_whose_owner_has_gone() {
        let mut sleep = Command::new("sleep");
        let child = Owned(sleep.arg("1000").spawn().unwrap());
        let place = format!("/proc/{}", child.0.id());
        assert!(std::path::Path::new(&place).exists());
        // as if the watching thread could not be started
        let watch = move || child.0.id();
        drop(watch);
        assert!(!std::path::Path::new(&place).exists(), "it would be there until somebody waits for it");
    }

    #[test]
    fn the_end_of_what_is_said_is_kept() {
        let said = [b"first\n".repeat(2000), b"last words".to_vec()].concat();
        let kept = last_bytes(&said[..]);
        assert!(kept.len() == 4096 && said.ends_with(&kept));
    }

    #[cfg(unix)]
    #[test]
    fn how_a_tool_ended_and_what_it_said_last_is_known() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo written; echo '[a @ 0x1] one' >&2; echo two >&2; echo 'three: wrong ' >&2; echo >&2; exit 8"]);
        let mut tool = Watched::start_tool(shell.stdin(Stdio::null()), Duration::from_secs(60)).unwrap();
        let mut output = String::new();
        tool.stdout.read_to_string(&mut output).unwrap();
        let ending = tool.wait();
        assert_eq!((output.as_str(), ending.stopped), ("written\n", None));
        assert_eq!(ending.status.and_then(|status| status.code()), Some(8));
        assert_eq!(tool.words().as_deref(), Some("one; three: wrong"));
    }

    #[test]
    fn a_folder_goes_with_its_end() {
        let folder = private_folder().unwrap();
        let path = folder.path().to_owned();
        std::fs::write(path.join("x"), "").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
