//! An answer as server-sent events. A [`Render`] determines the shape of the events.
//!
//! While nothing happens a comment line is sent from time to time. It keeps proxies from timing out, and detects
//! clients that have disconnected.

use super::session::Session;
use crate::server::engine_thread::Update;
use crate::server::error::ApiError;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use phi3v::engine::{Finished, StepProgress, Token};
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// Time without events after which a comment is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Tells nginx, and proxies that follow it, to forward events without buffering.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Events ready to be sent.
#[derive(Default)]
pub(super) struct Queue(VecDeque<Event>);

impl Queue {
    /// Adds an event; without a name if `name` is empty.
    pub(super) fn push(&mut self, name: &str, data: &impl Serialize) {
        let json = serde_json::to_string(data).expect("wire types hold only texts and finite numbers");
        // the name precedes the data, for clients that read line by line
        let event = if name.is_empty() { Event::default() } else { Event::default().event(name) };
        self.0.push_back(event.data(json));
    }

    /// Adds a plain text event.
    pub(super) fn push_text(&mut self, text: &str) {
        self.0.push_back(Event::default().data(text));
    }
}

/// Converts the updates on a request to events.
pub(super) trait Render: Send + Sized + 'static {
    /// Called before the first update.
    fn begin(&mut self, queue: &mut Queue);
    /// Reports progress on the pictures or the prompt.
    fn progress(&mut self, _progress: StepProgress, _queue: &mut Queue) {}
    /// Handles a token of answer `index`.
    fn token(&mut self, index: usize, token: &Token, queue: &mut Queue);
    /// Handles the completion of answer `index`; `last` if all answers are complete.
    ///
    /// # Errors
    /// The result is not an answer.
    fn finished(
        &mut self,
        index: usize,
        last: bool,
        finished: Finished,
        queue: &mut Queue,
    ) -> Result<(), ApiError>;
    /// Handles the failure of the request, after which nothing follows.
    fn failed(&mut self, error: &ApiError, queue: &mut Queue);
}

struct EventStream<R> {
    session: Session,
    render: R,
    queue: Queue,
    ended: bool,
    /// The log span of the request. Its line is written when the stream begins.
    span: tracing::Span,
}

impl<R> Drop for EventStream<R> {
    fn drop(&mut self) {
        if !self.ended {
            self.span.in_scope(|| tracing::info!("the client left before the end of a streamed answer"));
        }
    }
}

impl<R: Render> EventStream<R> {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.queue.0.pop_front() {
                return Some((Ok(event), self));
            }
            if self.ended {
                return None;
            }
            let updated = match self.session.updates.next().await {
                Ok(update) => self.update(update),
                Err(error) => Err(error),
            };
            if let Err(error) = updated {
                self.span
                    .in_scope(|| tracing::warn!(code = error.code.name(), "a streamed answer ended early"));
                self.render.failed(&error, &mut self.queue);
                self.ended = true;
            }
        }
    }

    fn update(&mut self, update: Update) -> Result<(), ApiError> {
        let queue = &mut self.queue;
        match update {
            Update::Progress(progress) => self.render.progress(progress, queue),
            Update::Token(index, token) => self.render.token(index, &token, queue),
            Update::Finished(index, finished) => {
                self.session.remaining -= 1;
                let last = self.session.remaining == 0;
                self.render.finished(index, last, *finished, queue)?;
                self.ended = last;
                if last {
                    self.span.in_scope(|| tracing::debug!("a streamed answer is complete"));
                }
            }
        }
        Ok(())
    }
}

/// Returns the response that streams a session.
pub(super) fn response<R: Render>(session: Session, mut render: R) -> Response {
    let mut queue = Queue::default();
    render.begin(&mut queue);
    let events = EventStream { session, render, queue, ended: false, span: tracing::Span::current() };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response =
        Sse::new(stream::unfold(events, EventStream::next)).keep_alive(keep_alive).into_response();
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}
