//! Writes one log line and counts one metric per request. Neither contains a path, a key, a text or a picture of a
//! client: the route is the router's own pattern, and the server generates the id.

use super::error::Code;
use super::metrics::Metrics;
use super::state::{App, fresh_id};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The status that is logged and counted for a client that disconnected before its answer had one: nginx's number for
/// it.
const CLIENT_LEFT: u16 = 499;

/// A request in progress. Its log line is written when it is answered, or else when it is dropped.
struct Line {
    metrics: Arc<Metrics>,
    route: String,
    method: Method,
    start: Instant,
    span: tracing::Span,
    answered: bool,
}

impl Line {
    fn write(&self, status: u16, code: Option<&str>) {
        let Self { route, method, .. } = self;
        let milliseconds = self.start.elapsed().as_millis();
        let told = if status == CLIENT_LEFT { "the client left" } else { "answered" };
        self.span.in_scope(|| tracing::info!(%method, route, status, code, milliseconds, "{told}"));
        self.metrics.http_request(route, status);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.answered {
            self.write(CLIENT_LEFT, None);
        }
    }
}

/// Gives a request its id, and logs how it ended. A stream is logged when its head is sent.
pub(super) async fn request(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = fresh_id("req-");
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let mut line = Line {
        metrics: Arc::clone(&app.metrics),
        route,
        method: request.method().clone(),
        start: Instant::now(),
        span: tracing::info_span!("request", %id),
        answered: false,
    };
    let mut response = next.run(request).instrument(line.span.clone()).await;
    let code = response.extensions().get::<Code>().map(|code| code.name());
    line.write(response.status().as_u16(), code);
    line.answered = true;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
