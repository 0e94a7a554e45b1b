//! Progress bars on stderr while the user waits; none if stderr is not a terminal.

use crate::terminal::is_quiet;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use phi3v::engine::{Phase, StepProgress};
use phi3v::error::count;
use phi3v::model::Progress as LoadProgress;
use std::io::IsTerminal;

/// Steps of a bar per tile or token: the engine reports fractions of them.
const STEPS: f64 = 100.0;

/// Progress on stderr, one bar at a time: loading, pictures, prompt, quantizing. Silent without a terminal.
#[derive(Debug, Default)]
pub struct Progress {
    shown: bool,
    bar: Option<(&'static str, ProgressBar)>,
}

impl Progress {
    /// Shows bars if stderr is a terminal and notes are wanted; nothing otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal() && !is_quiet(), bar: None }
    }

    /// Shows how many decoder layers are loaded; called before each of them.
    pub fn load(&mut self, progress: LoadProgress) {
        if let LoadProgress::Load { done, layers } = progress {
            self.update("loading", done as f64, layers, &count(layers, "layer"));
        }
    }

    /// Shows how much of the pictures or of the prompt the engine has processed.
    pub fn step(&mut self, progress: StepProgress) {
        let StepProgress { phase, done, total, .. } = progress;
        match phase {
            Phase::Vision => self.update("looking", done, total, &count(total, "tile")),
            Phase::Prefill => self.update("reading", done, total, &count(total, "token")),
        }
    }

    /// Shows how many documents have had their pages counted.
    pub fn documents(&mut self, done: usize, total: usize) {
        self.update("counting pages", done as f64, total, &count(total, "document"));
    }

    /// Shows how many bytes of a quantized file have been written.
    pub fn quantize(&mut self, done: u64, total: u64) {
        const MEGABYTE: f64 = 1e6;
        let (done, total) = (done as f64 / MEGABYTE, (total as f64 / MEGABYTE) as usize);
        self.update("quantizing", done, total, &format!("{total} MB"));
    }

    /// Removes the bar, so that an answer or a message can use its line.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Updates the bar; `all` is the total in words.
    fn update(&mut self, verb: &'static str, done: f64, total: usize, all: &str) {
        if !self.shown {
            return;
        }
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != verb) {
            self.clear();
        }
        let (_, bar) = self.bar.get_or_insert_with(|| (verb, new_bar(verb)));
        bar.set_length((total as f64 * STEPS) as u64);
        bar.set_message(format!("{} of {all}", done as usize));
        // the one that draws
        bar.set_position((done * STEPS) as u64);
        if bar.is_hidden() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn new_bar(verb: &'static str) -> ProgressBar {
    let bar = ProgressBar::hidden();
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}  {elapsed}")
        .expect("the template has only fields that indicatif knows")
        .progress_chars("=> ");
    bar.set_style(style);
    bar.set_prefix(verb);
    bar
}
