//! A process that is ended where it takes too long or too much memory.

use std::io::{self, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tempfile::TempDir;

/// How often time and memory are looked at: a process takes some 100 MB more meanwhile, at most.
const PERIOD: Duration = Duration::from_millis(20);

/// Why a process was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Its time was over.
    Time,
    /// It had too much memory.
    Memory,
}

/// A process with its input and output, and a thread that watches it. It ends with this.
pub(super) struct Watched {
    /// What it reads.
    pub(super) stdin: Option<ChildStdin>,
    /// What it writes.
    pub(super) stdout: ChildStdout,
    deadline: Arc<Mutex<Instant>>,
    /// Dropped, it ends the process.
    end: Option<Sender<()>>,
    watch: Option<JoinHandle<Option<Stopped>>>,
}

impl Watched {
    /// Starts `command`, which has `time` from now on and may have `memory_max` bytes. What it says on stderr is not heard.
    pub(super) fn start(command: &mut Command, time: Duration, memory_max: u64) -> io::Result<Self> {
        let system = System::new().map_err(io::Error::other)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // ended by the thread that watches it, or here where that does not start
        let mut child = Owned(child);
        let stdout = stdout.ok_or(io::ErrorKind::BrokenPipe)?;
        let deadline = Arc::new(Mutex::new(Instant::now() + time));
        let (end, ended) = mpsc::channel();
        let shared = Arc::clone(&deadline);
        let watch = move || {
            let pid = Pid::from_u32(child.0.id());
            let mut memory = Memory { system, pid, bytes_max: memory_max };
            loop {
                match ended.recv_timeout(PERIOD) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break None,
                }
                if Instant::now() > *locked(&shared) {
                    break Some(Stopped::Time);
                }
                if memory.is_exceeded() {
                    break Some(Stopped::Memory);
                }
                if !matches!(child.0.try_wait(), Ok(None)) {
                    break None;
                }
            }
        };
        let watch = std::thread::Builder::new().name("watch".to_owned()).spawn(watch)?;
        Ok(Self { stdin, stdout, deadline, end: Some(end), watch: Some(watch) })
    }

    /// Gives it `time` from now on.
    pub(super) fn give(&self, time: Duration) {
        *locked(&self.deadline) = Instant::now() + time;
    }

    /// Waits for its own end, and says why it was ended before, if it was.
    fn wait(&mut self) -> Option<Stopped> {
        drop(self.stdin.take());
        self.watch.take().and_then(|watch| watch.join().ok().flatten())
    }

    /// Whether nobody has ended it. It may have done so by itself.
    pub(super) fn is_wanted(&self) -> bool {
        self.end.is_some()
    }

    /// Ends it, and says why it was ended before, if it was.
    pub(super) fn end(&mut self) -> Option<Stopped> {
        drop(self.end.take());
        self.wait()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end();
    }
}

fn locked(deadline: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    deadline.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that ends with this.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        finish(&mut self.0);
    }
}

/// Ends a process that may have ended already, and waits, so that nothing is left of it.
fn finish(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Memory of a tool that others wrote.
const TOOL_MEMORY_MAX: u64 = 2 << 30;

/// What `command` writes on its stdout, one byte more than `bytes_max` at most, after which it is ended. It reads nothing.
///
/// # Errors
/// It cannot be started, or is not done within `time`.
pub fn output_of(command: &mut Command, time: Duration, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut process = Watched::start(command, time, TOOL_MEMORY_MAX)?;
    drop(process.stdin.take());
    let mut output = Vec::new();
    (&mut process.stdout).take((bytes_max as u64).saturating_add(1)).read_to_end(&mut output)?;
    match if output.len() > bytes_max { process.end() } else { process.wait() } {
        Some(Stopped::Time) => Err(io::ErrorKind::TimedOut.into()),
        Some(Stopped::Memory) => Err(io::ErrorKind::OutOfMemory.into()),
        None => Ok(output),
    }
}

/// What a process has of the machine's memory.
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

/// A new folder that nobody else looks into, among the system's for what is kept for a moment: what is on a screen, or in
/// a video, is not for others. It goes with what is returned.
///
/// # Errors
/// It cannot be made.
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
        // as the thread that is to watch it, where it cannot be started
        let watch = move || child.0.id();
        drop(watch);
        assert!(!std::path::Path::new(&place).exists(), "it would be there until somebody waits for it");
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
