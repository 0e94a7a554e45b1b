//! Reads what is left of a body before a refusal is sent: a client that is still sending, as browsers and Node are, would
//! meet a closed connection and never see the reason. Bodies that are coded for their transfer in a way that is not
//! undone here are refused.

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

/// Bytes that are read and thrown away: eight bodies at the default limit.
const REST_BYTES_MAX: usize = 256 << 20;
/// Time for them to come.
const REST_TIME_MAX: Duration = Duration::from_secs(10);

/// A body that can be read on after its reader has dropped it.
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

/// Answers a request, and an early refusal only when its body has come.
pub(super) async fn request(request: Request, next: Next) -> Response {
    // such a client waits to be told before it sends
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
    // who was too slow once is not waited for again
    if refused && status != StatusCode::REQUEST_TIMEOUT {
        let mut rest = Limited::new(body, REST_BYTES_MAX);
        let read = async { while let Some(Ok(_)) = rest.frame().await {} };
        // who sends for longer does not see the reason
        let _ = tokio::time::timeout(REST_TIME_MAX, read).await;
    }
    response
}

/// Hyper undoes `chunked` and takes what is within as it is, also where it was compressed before.
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
