//! A batch's progress on stderr: a bar on a terminal, otherwise a line every half minute.

use crate::terminal::is_quiet;
use crate::{note, tell};
use indicatif::{ProgressBar, ProgressStyle};
use phi3v::error::count;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two lines if stderr is not a terminal.
const LINE_PERIOD: Duration = Duration::from_secs(30);

/// Counts rows, and shows the rate, the time left and the failures.
pub struct Meter {
    total: usize,
    done: usize,
    failed: usize,
    cut: usize,
    /// The name of the limit that cuts answers.
    limit: &'static str,
    started: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Meter {
    /// A meter for `total` rows; `limit` names the limit of tokens that ends answers.
    #[must_use]
    pub fn new(total: usize, limit: &'static str) -> Self {
        let now = Instant::now();
        let shown = std::io::stderr().is_terminal() && !is_quiet();
        let bar = shown.then(|| new_bar(total));
        Self { total, done: 0, failed: 0, cut: 0, limit, started: now, told: now, bar }
    }

    /// Counts a written row; `failed` if it has an error, `cut` if its answer reached the token limit.
    pub fn row(&mut self, failed: bool, cut: bool) {
        self.done += 1;
        self.failed += usize::from(failed);
        self.cut += usize::from(cut);
        if let Some(bar) = &self.bar {
            bar.set_message(self.words());
            bar.set_position(self.done as u64);
        }
        self.moment();
    }

    /// Updates the display; to be called regularly, with or without new rows.
    pub fn moment(&mut self) {
        let now = Instant::now();
        if let Some(bar) = &self.bar {
            if self.done == 0 {
                bar.set_message(self.words());
            }
            bar.tick();
        } else if now - self.told >= LINE_PERIOD {
            self.told = now;
            note!("{} of {}: {}", self.done, self.total, self.words());
        }
    }

    /// Runs `tell` so that its lines appear above the bar, if there is one.
    pub fn above(&self, tell: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(tell),
            None => tell(),
        }
    }

    /// Rate, time left and failures.
    fn words(&self) -> String {
        words(self.done, self.total, self.failed, self.started.elapsed())
    }

    /// Removes the bar and prints a summary. `before` rows existed already.
    pub fn finish(self, before: usize, stopped: bool) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        note!("{}", self.summary(before, self.started.elapsed().as_secs_f64()));
        if stopped && self.done < self.total {
            let left = self.total - self.done;
            tell!("stopped, {left} {} left; the same command goes on", if left == 1 { "is" } else { "are" });
        }
    }

    /// The summary after `seconds`.
    fn summary(&self, before: usize, seconds: f64) -> String {
        let answers = self.done - self.failed;
        let mut line = format!("{} in {seconds:.1} s", count(answers, "answer"));
        if answers > 0 && seconds > 0.0 {
            line += &format!(", {:.1} a second", answers as f64 / seconds);
        }
        if self.failed > 0 {
            line += &format!("; {} failed", self.failed);
        }
        if self.cut > 0 {
            let (cut, limit) = (self.cut, self.limit);
            line += &format!("; {cut} cut at the limit of tokens ({limit}) or of the context (--context)");
        }
        if before > 0 {
            let were = if before == 1 { "was" } else { "were" };
            line += &format!("; {before} {were} there before");
        }
        line
    }
}

fn words(done: usize, total: usize, failed: usize, elapsed: Duration) -> String {
    if done == 0 {
        return format!("none yet after {}", time(elapsed.as_secs_f64()));
    }
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
    let left = (total - done.min(total)) as f64 / rate.max(1e-9);
    let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("{rate:.1} a second, {} left{failures}", time(left))
}

/// Formats seconds for people.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

fn new_bar(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:30}] {pos} of {len}  {msg}")
        .expect("the template has only fields that indicatif knows")
        .progress_chars("=> ");
    let bar = ProgressBar::new(total as u64).with_style(style);
    // shown at once: the first row may take minutes
    bar.tick();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_is_no_answer() {
        let mut meter = Meter::new(4, "--max-new-tokens");
        for (failed, cut) in [(false, false), (true, false), (false, true)] {
            meter.row(failed, cut);
        }
        let told = "2 answers in 4.0 s, 0.5 a second; 1 failed; \
                    1 cut at the limit of tokens (--max-new-tokens) or of the context (--context)";
        assert_eq!(meter.summary(0, 4.0), told);
        let mut meter = Meter::new(1, "--max-new-tokens");
        meter.row(true, false);
        assert_eq!(meter.summary(1, 4.0), "0 answers in 4.0 s; 1 failed; 1 was there before");
    }

    #[test]
    fn rate_and_time_left_are_said_in_words() {
        let told = |done, failed, seconds| words(done, 1000, failed, Duration::from_secs(seconds));
        assert_eq!(told(100, 0, 10), "10.0 a second, 2 min left");
        assert_eq!(told(500, 3, 50), "10.0 a second, 50 s left, 3 failed");
        assert_eq!(told(10, 0, 100), "0.1 a second, 2.8 h left");
        assert_eq!(told(1000, 0, 100), "10.0 a second, 0 s left");
        assert_eq!(told(0, 0, 40), "none yet after 40 s");
        assert_eq!(time(864_000.0), "10.0 days");
    }
}
