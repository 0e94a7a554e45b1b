//! One answer: a request run to its end, told to a sink as it is made.

use crate::error::CliError;
use crate::images::Picture;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terminal::TextSink;
use phi3v::engine::{Engine, Event, FinishReason, Finished, Observer, Request, StepProgress, Token};
use phi3v_kernels::Backend;
use std::ops::ControlFlow;
use std::time::Duration;

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// All of its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// How it ended, and what it took.
    pub finished: Finished,
}

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

/// Runs `request`, writing its text to `out` token by token; an answer stopped by Ctrl-C ends as
/// [`FinishReason::Cancelled`].
///
/// # Errors
/// The request's refusal or failure, or that `out` cannot be written to.
pub fn generate<B: Backend>(
    engine: &mut Engine<B>,
    request: Request,
    out: &mut dyn TextSink,
    interrupt: &Interrupt,
) -> Result<Answer, CliError> {
    let id = engine.submit(request)?;
    let mut progress = Progress::new();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let mut tell = |piece: &str| -> Result<(), CliError> {
        text.push_str(piece);
        out.piece(piece).map_err(CliError::Output)
    };
    loop {
        if interrupt.requested() {
            engine.cancel(id);
        }
        for output in engine.step(&mut Watch { progress: &mut progress, interrupt })? {
            progress.clear();
            match output.event {
                Event::Token(token) => {
                    tell(&token.text)?;
                    tokens.push(token);
                }
                Event::Finished(finished) => {
                    tell(&finished.text)?;
                    return Ok(Answer { text, tokens, finished });
                }
                Event::Failed(error) => return Err(error.into()),
            }
        }
    }
}

/// Sends each picture through the vision tower as it comes, while the next is prepared elsewhere, and returns them with
/// the time it took. Where Ctrl-C is pressed the rest is only taken.
///
/// # Errors
/// A picture that could not be prepared, or the device's refusal.
pub fn look<B: Backend>(
    engine: &mut Engine<B>,
    coming: impl IntoIterator<Item = Result<Picture, CliError>>,
    interrupt: &Interrupt,
) -> Result<(Vec<Picture>, Duration), CliError> {
    let (mut progress, mut pictures, mut time) = (Progress::new(), Vec::new(), Duration::ZERO);
    for picture in coming {
        let picture = picture?;
        if !interrupt.requested() {
            let seen = engine.look_at(&picture.inputs, &mut Watch { progress: &mut progress, interrupt });
            match seen {
                Ok(seen) => time += seen,
                Err(phi3v::Error::Stopped) => {}
                Err(error) => return Err(error.into()),
            }
        }
        pictures.push(picture);
    }
    progress.clear();
    Ok((pictures, time))
}

/// As OpenAI's API names it.
#[must_use]
pub fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    }
}
