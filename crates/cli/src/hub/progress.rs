//! A download's progress on stderr: a bar on a terminal, otherwise occasional lines.

use crate::note;
use crate::terminal::is_quiet;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Pause between two lines if stderr is not a terminal.
const LINE_PAUSE: Duration = Duration::from_secs(10);

/// Shows the progress of a download. Bytes before [`Progress::start`] belong to small files and are not counted. `start` is
/// not called if all weights are in the cache.
pub trait Progress {
    /// The weights of `model` follow, `total` bytes in all.
    fn start(&mut self, model: &str, total: u64);
    /// `bytes` of the current file exist from an earlier run; 0 if the file is restarted.
    fn file_resumed(&mut self, bytes: u64);
    /// `bytes` of the current file have been received.
    fn file_bytes(&mut self, bytes: u64);
    /// The current file of `size` bytes is complete; `was_there` if nothing had to be downloaded.
    fn file_done(&mut self, size: u64, was_there: bool);
    /// A sentence for the user.
    fn note(&mut self, text: &str);
    /// The download is complete.
    fn finish(&mut self);
}

/// The progress display for this process's stderr: a bar on a terminal, lines in a log, nothing if quiet.
#[must_use]
pub fn for_stderr() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() && !is_quiet() {
        Box::new(DownloadBar::default())
    } else {
        Box::new(DownloadLines::default())
    }
}

/// A bar over all bytes of a download, with the speed and the time left.
#[derive(Debug, Default)]
pub struct DownloadBar {
    bar: Option<ProgressBar>,
    /// Bytes of the complete files.
    complete: u64,
}

impl Progress for DownloadBar {
    fn start(&mut self, model: &str, total: u64) {
        let template = "{prefix} [{bar:30}] {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
        let style = ProgressStyle::with_template(template)
            .expect("the template has only fields that indicatif knows")
            .progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        bar.set_style(style);
        bar.set_prefix(format!("downloading {model}"));
        bar.enable_steady_tick(Duration::from_millis(500));
        (self.bar, self.complete) = (Some(bar), 0);
    }

    fn file_resumed(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.complete + bytes);
            // existing bytes say nothing about the speed
            bar.reset_eta();
        }
    }

    fn file_bytes(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.complete + bytes);
        }
    }

    fn file_done(&mut self, size: u64, was_there: bool) {
        let Some(bar) = &self.bar else { return };
        self.complete += size;
        bar.set_position(self.complete);
        if was_there {
            bar.reset_eta();
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note!("{text}")),
            None => note!("{text}"),
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for DownloadBar {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A line with the received bytes every ten seconds, for logs.
#[derive(Debug)]
pub struct DownloadLines {
    model: String,
    total: u64,
    /// Bytes of the complete files.
    complete: u64,
    /// Bytes of complete files that did not have to be downloaded.
    skipped: u64,
    /// Bytes of the current file from an earlier run.
    resumed: u64,
    begun: Instant,
    last_line: Instant,
}

impl Default for DownloadLines {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            model: String::new(),
            total: 0,
            complete: 0,
            skipped: 0,
            resumed: 0,
            begun: now,
            last_line: now,
        }
    }
}

impl Progress for DownloadLines {
    fn start(&mut self, model: &str, total: u64) {
        *self = Self { model: model.to_owned(), total, ..Self::default() };
        note!("downloading {model}, {:.1} MB", total as f64 / 1e6);
    }

    fn file_resumed(&mut self, bytes: u64) {
        self.resumed = bytes;
    }

    fn file_bytes(&mut self, bytes: u64) {
        if self.total > 0 && self.last_line.elapsed() >= LINE_PAUSE {
            self.last_line = Instant::now();
            note!("{}", self.line(bytes, self.begun.elapsed()));
        }
    }

    fn file_done(&mut self, size: u64, was_there: bool) {
        if self.total > 0 {
            self.complete += size;
            self.skipped += if was_there { size } else { self.resumed };
            self.resumed = 0;
        }
    }

    fn note(&mut self, text: &str) {
        note!("{text}");
    }

    fn finish(&mut self) {
        note!("{} is complete", self.model);
    }
}

impl DownloadLines {
    /// Bytes received, speed and time left, with `bytes` of the current file.
    fn line(&self, bytes: u64, elapsed: Duration) -> String {
        let (done, total) = (self.complete + bytes, self.total);
        let fetched = done.saturating_sub(self.skipped + self.resumed);
        let speed = fetched as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = (total.saturating_sub(done)) as f64 / speed.max(1.0);
        format!(
            "{:.1} of {:.1} MB, {:.1} MB/s, {}:{:02} left",
            done as f64 / 1e6,
            total as f64 / 1e6,
            speed / 1e6,
            left as u64 / 60,
            left as u64 % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_speed_and_time_left_without_what_was_there() {
        let two_seconds = Duration::from_secs(2);
        let mut lines = DownloadLines { total: 9_000_000, ..DownloadLines::default() };
        lines.file_resumed(1_000_000);
        assert_eq!(lines.line(3_000_000, two_seconds), "3.0 of 9.0 MB, 1.0 MB/s, 0:06 left");
        // restarted: none of its bytes were kept
        lines.file_resumed(0);
        assert_eq!(lines.line(3_000_000, two_seconds), "3.0 of 9.0 MB, 1.5 MB/s, 0:04 left");
        lines.file_resumed(1_000_000);
        lines.file_done(3_000_000, false);
        lines.file_done(2_000_000, true);
        assert_eq!(lines.line(2_000_000, two_seconds), "7.0 of 9.0 MB, 2.0 MB/s, 0:01 left");
    }
}
