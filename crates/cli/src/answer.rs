//! Generates one answer: runs a request to its end and sends its text to a sink.

use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::note;
use crate::progress::Progress;
use crate::sources::{NamedImage, NamedImageError, file_and_page};
use crate::terminal::TextSink;
use phi3v::batch::{Answer, Coming};
use phi3v::engine::{CacheSalt, Engine, Event, FinishReason, Finished, Observer, Request, StepProgress};
use phi3v::error::count;
use phi3v::words::{EVEN_MIN, words};
use phi3v_kernels::Backend;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Interval of checks for Ctrl-C while idle.
const INTERRUPT_PERIOD: Duration = Duration::from_millis(50);

/// Shows progress until the first token, and passes Ctrl-C on.
struct Watch<'a> {
    progress: &'a mut Progress,
    interrupt: &'a Interrupt,
}

impl Observer for Watch<'_> {
    fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
        self.progress.step(progress);
        if self.interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Runs `request`, writing its text to `out` token by token. An answer stopped by Ctrl-C ends as
/// [`phi3v::engine::FinishReason::Cancelled`].
///
/// # Errors
/// The request is refused or fails, or `out` cannot be written to.
pub fn generate<B: Backend>(
    engine: &mut Engine<B>,
    request: Request,
    out: &mut dyn TextSink,
    interrupt: &Interrupt,
) -> Result<Answer, CliError> {
    let id = engine.submit(request)?;
    let mut progress = Progress::new();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    loop {
        if interrupt.requested() {
            engine.cancel(id);
        }
        for output in engine.step(&mut Watch { progress: &mut progress, interrupt }) {
            progress.clear();
            match output.event {
                Event::Token(token) => {
                    text.push_str(&token.text);
                    out.token(&token).map_err(CliError::Output)?;
                    tokens.push(token);
                }
                Event::Finished(finished) => {
                    text.push_str(&finished.text);
                    out.end(&finished.text).map_err(CliError::Output)?;
                    return Ok(Answer { text, tokens, finished });
                }
                Event::Failed(error) => return Err(error.into()),
            }
        }
    }
}

/// The moment at which [`encode_pictures`] stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// All pictures have passed through the vision tower.
    Encoded,
    /// All pictures are prepared; the rest of the vision tower's work is left to their request.
    Prepared,
}

/// Why an answer was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The answer reached its limit of tokens.
    Limit,
    /// The context was full.
    Context,
}

impl Cut {
    /// The reason, if an answer in a context of `context_tokens` was cut.
    #[must_use]
    pub fn of(answer: &Answer, context_tokens: usize) -> Option<Self> {
        let Finished { reason, usage, .. } = &answer.finished;
        let is_full = usage.prompt_tokens + usage.completion_tokens >= context_tokens;
        (*reason == FinishReason::Length).then_some(if is_full { Self::Context } else { Self::Limit })
    }
}

/// Reports that an answer was cut, perhaps within a sentence or a form. `room` is the advice for a full context.
pub fn tell_cut(answer: &Answer, cut: Option<Cut>, room: &str) {
    let tokens = count(answer.finished.usage.completion_tokens, "token");
    match cut {
        Some(Cut::Limit) => note!("the answer was cut after {tokens}; --max-new-tokens allows more"),
        Some(Cut::Context) => note!("the answer was cut after {tokens}, where the context is full; {room}"),
        None => {}
    }
}

/// Warns that the built-in model's answer is probably wrong if it was unsure of a word: newcomers cannot know what it can
/// read. The answer's tokens must carry their log probabilities.
pub fn tell_doubt(answer: &Answer) {
    let words = words(&answer.tokens, &answer.finished.text);
    let worst = words.iter().min_by(|a, b| a.p.total_cmp(&b.p)).filter(|word| word.p < EVEN_MIN);
    if let Some(worst) = worst {
        let (text, percent) = (bare(&worst.text), 100.0 * worst.p);
        note!("the demo model is not sure of \"{text}\" ({percent:.0} %): its answer is probably wrong");
    }
}

/// A word without surrounding quotation marks and punctuation, so that it can be quoted.
fn bare(word: &str) -> &str {
    let bare = word.trim_matches(|letter: char| "\"'`“”„‟«»‘’‚‹›.,;:!?()[]".contains(letter));
    if bare.is_empty() { word } else { bare }
}

/// Receives the next picture from the thread that prepares it.
///
/// # Errors
/// The picture could not be prepared, or Ctrl-C was pressed.
pub fn next_picture(
    coming: &Coming<Result<NamedImage, NamedImageError>>,
    interrupt: &Interrupt,
) -> Result<NamedImage, CliError> {
    loop {
        match coming.recv_timeout(INTERRUPT_PERIOD) {
            Ok(picture) => return Ok(picture?),
            Err(_) if interrupt.requested() => return Err(CliError::Interrupted),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(NamedImageError::Unprepared.into()),
        }
    }
}

/// The error for pictures that together exceed the context.
fn too_many(pictures: &[NamedImage], rows: usize, context: usize) -> CliError {
    let of_pages = pictures.iter().any(|picture| file_and_page(&picture.name).1.is_some());
    let of_frames = pictures.iter().any(|picture| picture.time.is_some());
    CliError::Pictures { rows, context, of_pages, of_frames }
}

/// Sends pictures through the vision tower while others are still being prepared on another thread. Returns all pictures
/// and the time taken, and reports incomplete pages. Arrived pictures are received before each step, so that little work is
/// wasted on a request that cannot run: one with an unreadable picture, or with more than fits into the context.
///
/// # Errors
/// A picture that could not be prepared, more pictures than fit into the context, or Ctrl-C.
pub fn encode_pictures<B: Backend>(
    engine: &mut Engine<B>,
    coming: &Receiver<Result<NamedImage, NamedImageError>>,
    until: Until,
    interrupt: &Interrupt,
) -> Result<(Vec<NamedImage>, Duration), CliError> {
    let (mut progress, mut time) = (Progress::new(), Duration::ZERO);
    let (mut pictures, mut rows) = (Vec::<NamedImage>::new(), 0);
    loop {
        let has_work = !engine.is_idle();
        let wait = if has_work { Duration::ZERO } else { INTERRUPT_PERIOD };
        match coming.recv_timeout(wait) {
            Ok(picture) => {
                pictures.push(picture?);
                let Some(picture) = pictures.last() else { continue };
                rows += picture.inputs.num_img_tokens();
                if rows > engine.context_tokens() {
                    // the reading thread ends when the channel closes
                    return Err(too_many(&pictures, rows, engine.context_tokens()));
                }
                engine.encode_ahead(&picture.inputs, &CacheSalt::default());
                continue;
            }
            Err(_) if interrupt.requested() => return Err(CliError::Interrupted),
            // no more pictures will come
            Err(RecvTimeoutError::Disconnected) if !has_work || until == Until::Prepared => break,
            Err(_) => {}
        }
        if has_work {
            let start = Instant::now();
            engine.step(&mut Watch { progress: &mut progress, interrupt });
            time += start.elapsed();
        }
    }
    progress.clear();
    pictures.iter().for_each(NamedImage::tell_incomplete);
    Ok((pictures, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_told_without_what_stands_at_it() {
        for (word, told) in [
            ("Summend", "Summend"),
            ("\"Summend\"", "Summend"),
            ("(\"Summend\").", "Summend"),
            ("„Gärten“,", "Gärten"),
            ("don't", "don't"),
            ("-12.5", "-12.5"),
            ("\"", "\""),
        ] {
            assert_eq!(bare(word), told);
        }
    }
}
