//! One log line and one count for each request. Neither holds a path, a key, a text or a picture of a client: the
//! route is the router's own pattern, and the id is ours.

use super::openai::errors::ErrorCode;
use super::state::{App, fresh_id};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives a request its id, and tells how it ended. For a stream this is when its head is sent.
pub(super) async fn request(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = fresh_id("req-");
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let start = Instant::now();
    let span = tracing::info_span!("request", %id);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    let code = response.extensions().get::<ErrorCode>().map(|code| code.0);
    let milliseconds = start.elapsed().as_millis();
    span.in_scope(|| tracing::info!(%method, route, status, code, milliseconds, "answered"));
    app.metrics.http_request(&route, status);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
