//! The web page: a few embedded files, no framework, nothing loaded from elsewhere.

use super::state::App;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use std::sync::Arc;

/// Only the server's own files run or are shown, and pictures that the user picked. The page cannot be framed and sends
/// nothing elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob: data:; connect-src 'self'; manifest-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Returns the routes of the page.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", index()) }))
        .route("/app.js", get(|| async { file("text/javascript; charset=utf-8", include_str!("app.js")) }))
        .route(
            "/answer.js",
            get(|| async { file("text/javascript; charset=utf-8", include_str!("answer.js")) }),
        )
        .route(
            "/client.js",
            get(|| async { file("text/javascript; charset=utf-8", include_str!("client.js")) }),
        )
        .route(
            "/markdown.js",
            get(|| async { file("text/javascript; charset=utf-8", include_str!("markdown.js")) }),
        )
        .route("/style.css", get(|| async { file("text/css; charset=utf-8", include_str!("style.css")) }))
        .route(
            "/examples/answers.json",
            get(|| async { file("application/json", include_str!("examples/answers.json")) }),
        )
        .route("/examples/cover.png", example(include_bytes!("examples/cover.png")))
        .route("/examples/chart.png", example(include_bytes!("examples/chart.png")))
        .route("/examples/left.png", example(include_bytes!("examples/left.png")))
        .route("/examples/right.png", example(include_bytes!("examples/right.png")))
        .route("/examples/text.png", example(include_bytes!("examples/text.png")))
        .route("/examples/sign.png", example(include_bytes!("examples/sign.png")))
        .route("/examples/book.png", example(include_bytes!("examples/book.png")))
        .route("/examples/bars.png", example(include_bytes!("examples/bars.png")))
}

/// Returns the page itself, which offers only the formats that this build reads.
fn index() -> String {
    let mut page = include_str!("index.html").to_owned();
    for (is_read, offers) in [
        (cfg!(feature = "pdf"), &[" or a PDF", ",.pdf,application/pdf"][..]),
        (cfg!(feature = "avif"), &[",.avif"]),
        (cfg!(feature = "heic"), &[",.heic,.heif"]),
    ] {
        for offer in offers.iter().filter(|_| !is_read) {
            page = page.replace(offer, "");
        }
    }
    page
}

/// A picture to click while the page is empty. The folder duplicates the repository's `examples`, since cargo packages
/// nothing outside a crate.
fn example(bytes: &'static [u8]) -> MethodRouter<Arc<App>> {
    get(move || async move { file("image/png", bytes) })
}

fn file(content_type: &'static str, contents: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
        // the files belong to this binary: another version must not use old ones from a cache
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, contents).into_response()
}

#[cfg(test)]
mod tests {
    use phi3v::words::{EVEN_MIN, SURE_MIN};

    #[test]
    fn the_page_calls_unsure_what_the_terminal_does() {
        let shaded = format!("const DOUBT = [{SURE_MIN}, {EVEN_MIN}, ");
        assert!(include_str!("answer.js").contains(&shaded), "{shaded}");
    }
}
