//! Writes the log to stderr on a thread of its own, so that an unread log blocks nothing. Lines that cannot be written,
//! because the reader has gone or the disk is full, are dropped.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines waiting to be written; further lines are dropped.
const LINES_MAX: usize = 4096;

/// Time to write the last lines at the end.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// Accepts log lines from all threads without ever waiting. Lines that do not fit are dropped.
#[derive(Clone)]
pub struct LogWriter(SyncSender<Vec<u8>>);

/// The thread that writes. Dropping this waits for the last lines, for at most a second.
pub struct LogThread {
    /// Set until the thread is told to end.
    end: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

/// Returns a writer whose lines go to stderr, and its thread.
///
/// # Errors
/// The thread cannot be started.
pub fn to_stderr() -> io::Result<(LogWriter, LogThread)> {
    start(io::stderr())
}

fn start(mut to: impl Write + Send + 'static) -> io::Result<(LogWriter, LogThread)> {
    let (sender, lines): (_, Receiver<Vec<u8>>) = sync_channel(LINES_MAX);
    let write = move || {
        // an empty line means the end: the log itself never drops its sender
        for line in lines.into_iter().take_while(|line| !line.is_empty()) {
            let _ = to.write_all(&line);
        }
        let _ = to.flush();
    };
    let thread = std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
    Ok((LogWriter(sender.clone()), LogThread { end: Some(sender), thread: Some(thread) }))
}

impl Drop for LogThread {
    fn drop(&mut self) {
        let (Some(end), Some(thread)) = (self.end.take(), self.thread.take()) else { return };
        let begun = Instant::now();
        // a stalled reader gets no more time
        while begun.elapsed() < END_TIME_MAX && !thread.is_finished() {
            let _ = end.try_send(Vec::new());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !line.is_empty() {
            let _ = self.0.try_send(line.to_vec());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_all_written_before_the_end() {
        let kept = Kept::default();
        let (mut writer, thread) = start(kept.clone()).unwrap();
        for _ in 0..100 {
            writer.write_all(b"a line\n").unwrap();
        }
        drop(thread);
        assert_eq!(kept.0.lock().unwrap().len(), 700);
    }

    #[test]
    fn what_cannot_be_written_troubles_nobody() {
        let (mut writer, thread) = start(Broken).unwrap();
        for _ in 0..3 * LINES_MAX {
            writer.write_all(b"a line\n").unwrap();
        }
        drop(thread);
        let (_never, wait) = mpsc::channel();
        let (mut writer, thread) = start(Stuck(wait)).unwrap();
        for _ in 0..3 * LINES_MAX {
            writer.write_all(b"a line\n").unwrap();
        }
        drop(thread);
        writer.write_all(b"a line\n").unwrap();
    }
}
