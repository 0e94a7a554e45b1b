//! Reads the rest of a body before a refusal is sent. A client that is still sending, as browsers and Node do, would
//! otherwise find the connection closed and never see the reason. Bodies with a transfer coding that is not decoded
//! here are refused.

use super::error::{ApiError, Code};
use super::hints;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes to read and discard: eight bodies at the default limit.
const REST_BYTES_MAX: usize = 256 << 20;
/// Time for these bytes to arrive.
const REST_TIME_MAX: Duration = Duration::from_secs(10);

/// A body that can still be read after its first reader has dropped it.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

/// Answers a request; sends an early refusal only once the body has arrived.
pub(super) async fn request(request: Request, next: Next) -> Response {
    // such a client waits for permission before it sends the body
    if request.headers().contains_key(header::EXPECT) {
        return match check_transfer_coding(request.headers()) {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        };
    }
    let (parts, body) = request.into_parts();
    let body = Shared(Arc::new(Mutex::new(body)));
    let response = match check_transfer_coding(&parts.headers) {
        Ok(()) => next.run(Request::from_parts(parts, Body::new(body.clone()))).await,
        Err(error) => error.into_response(),
    };
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    // a client that was too slow once gets no more time
    if refused && status != StatusCode::REQUEST_TIMEOUT {
        let mut rest = Limited::new(body, REST_BYTES_MAX);
        let read = async { while let Some(Ok(_)) = rest.frame().await {} };
        // a client that sends for longer does not see the reason
        let _ = tokio::time::timeout(REST_TIME_MAX, read).await;
    }
    response
}

/// Refuses transfer codings other than `chunked`. Hyper decodes `chunked` and passes on the contents as they are, even
/// if they were compressed first.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next().map(HeaderValue::as_bytes);
    if first.is_none_or(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
    {
        return Ok(());
    }
    let message = "the body of the request has a transfer coding other than chunked";
    Err(ApiError::new(Code::TransferEncoding, message).hint(hints::size::PLAIN_BODY))
}
