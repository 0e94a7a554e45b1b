//! The limits on requests, and the errors for exceeding them.

use super::error::{ApiError, Code};
use super::hints;
use crate::sources::SourceLimits;
use phi3v::error::count;
use phi3v::image::ImageLimits;
use std::time::Duration;
use tokio::time::Instant;

const MIB: usize = 1 << 20;

/// The input memory for all requests holds at least this number of bodies of the largest size.
pub const BODIES_MIN: usize = 4;

/// Requests whose pictures are decoded at the same time. Enough that one decodes while another waits for input; few
/// enough for the transient memory of decoders ([`Limits::decoders_bytes_max`]).
pub(super) const DECODERS: usize = 2;

/// Requests with files that other processes draw, at the same time. Such a file may take a minute; the other pictures of these requests
/// are decoded here.
pub(super) const DRAWERS: usize = 2;

/// Limits on requests, connections, memory and time, so that no client can monopolize the server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Time for a body to arrive.
    pub body_time_max: Duration,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// Time for a head to arrive, and how long an unused connection is kept.
    pub head_time_max: Duration,
    /// Time for a client to read what is sent to it.
    pub write_time_max: Duration,
    /// Simultaneous connections; the idlest give way to new ones.
    pub connections_max: usize,
    /// Answers that run or wait at the same time.
    pub queue_max: usize,
    /// Time from a request's arrival to the end of its answer.
    pub request_time_max: Duration,
    /// Time given to running requests after SIGTERM.
    pub drain_time_max: Duration,
    /// Pictures in a request.
    pub images_max: usize,
    /// Limits on each picture.
    pub image: ImageLimits,
    /// Bytes of text in a request, all messages combined.
    pub text_bytes_max: usize,
    /// Messages in a request.
    pub messages_max: usize,
    /// Maximum tokens of an answer. If a request sets no `max_tokens`, [`Limits::max_tokens_default`] applies.
    pub max_tokens_max: usize,
    /// Maximum tokens of an answer if the request does not set it.
    pub max_tokens_default: usize,
    /// Answers to one request.
    pub choices_max: usize,
    /// Bytes of bodies, picture files and preprocessed pictures held at the same time, all requests combined.
    pub input_bytes_max: usize,
    /// Bytes of a picture from another server.
    pub remote_bytes_max: usize,
    /// Time for a picture from another server, redirects included.
    pub remote_time_max: Duration,
    /// Total time to draw the documents of a request and to decode its HEIC and AVIF files.
    pub draw_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 * MIB,
            body_time_max: Duration::from_secs(60),
            head_bytes_max: 32 << 10,
            head_time_max: Duration::from_secs(30),
            write_time_max: Duration::from_secs(60),
            connections_max: 256,
            queue_max: 64,
            request_time_max: Duration::from_secs(1800),
            drain_time_max: Duration::from_secs(60),
            images_max: 16,
            // decoding a photograph of 50 megapixels takes 150 MB, a progressive one up to 300 MB more, and rare kinds
            // 800 MB in all
            image: ImageLimits { bytes_max: 24 * MIB, pixels_max: 50_000_000, ..ImageLimits::default() },
            text_bytes_max: crate::bounded::TEXT_BYTES_MAX,
            messages_max: 1024,
            max_tokens_max: 8192,
            max_tokens_default: 1024,
            choices_max: 8,
            // the tiles of a picture at num_crops 16 take 17 x 1.35 MB = 23 MB
            input_bytes_max: 1024 * MIB,
            remote_bytes_max: 20 * MIB,
            remote_time_max: Duration::from_secs(15),
            // two pages of the slowest kind; other requests wait meanwhile, and 16 ordinary pages take a few seconds
            draw_time_max: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// Limits the input memory of all requests to what the model leaves of the machine's memory (`left`), but to no
    /// less than [`BODIES_MIN`] bodies.
    pub fn bound_input(&mut self, left: Option<u64>) {
        let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        self.input_bytes_max = self.input_bytes_max.min(left.max(BODIES_MIN * self.body_bytes_max));
    }

    /// Returns the most memory that the pictures decoded at the same time take, excluding those that another process
    /// decodes.
    pub fn decoders_bytes_max(&self) -> u64 {
        self.image.decoder_bytes_max().saturating_mul((DECODERS + DRAWERS) as u64)
    }

    /// Returns the limits on picture files, wherever they come from.
    pub fn sources(&self) -> SourceLimits {
        SourceLimits {
            bytes_max: self.image.bytes_max,
            remote_bytes_max: self.remote_bytes_max,
            remote_time_max: self.remote_time_max,
        }
    }
}

/// When a request arrived, and its deadline.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When the request's head had arrived.
    pub arrived: Instant,
    /// When its answer must be complete.
    pub deadline: Instant,
}

impl Times {
    /// Returns the arrival time and the deadline of a request whose head has just arrived.
    pub fn start(limits: &Limits) -> Self {
        let arrived = Instant::now();
        Self { arrived, deadline: arrived + limits.request_time_max }
    }

    /// Returns whether the deadline has passed.
    pub fn is_over(self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Returns the result of `work` if it completes before the deadline, and otherwise drops `work`.
    ///
    /// # Errors
    /// The error of `work`, or [`deadline_exceeded`].
    pub async fn within<T>(self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        tokio::time::timeout_at(self.deadline, work).await.unwrap_or_else(|_| Err(deadline_exceeded()))
    }
}

/// Returns the error for a body of more than `limit` bytes, whether announced or sent.
pub fn body_too_large(limit: usize) -> ApiError {
    ApiError::new(
        Code::BodyTooLarge,
        format!("the body of the request has more than {limit} bytes, the limit"),
    )
    .hint(hints::size::SMALLER_BODY)
}

/// Returns the error for a body that has not arrived completely within `limit`.
pub fn body_too_slow(limit: Duration) -> ApiError {
    let message = format!("the body of the request took longer than {} s, the limit", limit.as_secs());
    ApiError::new(Code::BodyTimeout, message).hint(hints::size::FASTER_BODY)
}

/// Returns the error for a full queue, in which `capacity` answers run or wait, with a time to retry after.
pub fn queue_full(capacity: usize) -> ApiError {
    let message = format!("{} running or waiting already, the limit", count(capacity, "answer"));
    ApiError::new(Code::QueueFull, message).hint(hints::load::LATER).retry_after(Duration::from_secs(2))
}

/// Returns the error for a new connection while all places are taken by requests that are being answered.
pub fn connections_full() -> ApiError {
    let message = "all connections are taken by requests that are being answered";
    ApiError::new(Code::ConnectionsFull, message).hint(hints::load::LATER).retry_after(Duration::from_secs(2))
}

/// Returns the error for a request whose answer is not complete at its deadline.
pub fn deadline_exceeded() -> ApiError {
    let message = "the answer was not complete within the time a request may take";
    ApiError::new(Code::DeadlineExceeded, message).hint(hints::load::LESS_TIME)
}

/// Returns the error for requests that arrive while the model is still being loaded.
pub fn loading() -> ApiError {
    ApiError::new(Code::Loading, "the model is being loaded")
        .hint(hints::load::WHEN_READY)
        .retry_after(Duration::from_secs(2))
}

/// Returns the error for requests that arrive while the server is shutting down.
pub fn draining() -> ApiError {
    ApiError::new(Code::Draining, "the server is shutting down")
        .hint(hints::load::AFTER_RESTART)
        .retry_after(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_takes_what_the_model_leaves_and_some_bodies_always_fit() {
        let bounded = |left| {
            let mut limits = Limits { body_bytes_max: 32 * MIB, ..Limits::default() };
            limits.bound_input(left);
            limits.input_bytes_max / MIB
        };
        assert_eq!([None, Some(u64::MAX), Some(2 << 30)].map(bounded), [1024; 3]);
        assert_eq!([Some(500 << 20), Some(100 << 20), Some(0)].map(bounded), [500, 128, 128]);
    }
}
