//! One answer: a request run to its end, told to a sink as it is made.

use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::sources::{NamedImage, NamedImageError};
use crate::terminal::TextSink;
use phi3v::batch::Answer;
use phi3v::engine::{Engine, Event, Observer, Request, StepProgress};
use phi3v_kernels::Backend;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often Ctrl-C is looked for while nothing else is done.
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

/// Runs `request`, writing its text to `out` token by token; an answer stopped by Ctrl-C ends as
/// [`phi3v::engine::FinishReason::Cancelled`].
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

/// Sends pictures through the vision tower while others are still being prepared elsewhere, and returns all of them with
/// the time it took. What has come is taken before each, so that little is done for a request that cannot be run: one
/// with a picture that cannot be read, or with more than fits into the context.
///
/// # Errors
/// A picture that could not be prepared, the device's refusal, or Ctrl-C.
///
/// # Panics
/// If the thread that prepares what was named, `names` times one picture or more, did.
pub fn encode_pictures<B: Backend>(
    engine: &mut Engine<B>,
    names: usize,
    coming: &Receiver<Result<NamedImage, NamedImageError>>,
    interrupt: &Interrupt,
) -> Result<(Vec<NamedImage>, Duration), CliError> {
    let (mut progress, mut time) = (Progress::new(), Duration::ZERO);
    let (mut pictures, mut encoded) = (Vec::<NamedImage>::new(), 0);
    loop {
        while let Ok(picture) = coming.try_recv() {
            pictures.push(picture?);
        }
        let Some(picture) = pictures.get(encoded) else {
            match coming.recv_timeout(INTERRUPT_PERIOD) {
                Ok(picture) => pictures.push(picture?),
                Err(RecvTimeoutError::Timeout) if interrupt.requested() => return Err(CliError::Interrupted),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break, // there are no more
            }
            continue;
        };
        let rows: usize = pictures.iter().map(|picture| picture.inputs.num_img_tokens()).sum();
        if rows < engine.context_tokens() {
            time +=
                engine.encode_ahead(&picture.inputs, &mut Watch { progress: &mut progress, interrupt })?;
        }
        encoded += 1;
    }
    progress.clear();
    assert!(pictures.len() >= names, "the thread that prepares pictures has ended early");
    Ok((pictures, time))
}
