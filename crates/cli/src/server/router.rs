//! The routes, and the layers that every request passes before them: log, CORS, guard.

use super::error::{ApiError, Code};
use super::guard::{self, Guard};
use super::hints;
use super::openai::{chat, decisions, models, openapi, responses, tokenize};
use super::state::App;
use super::{cors, linger, log, ui};
use crate::origin::Origin;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::json;
use std::sync::Arc;

/// Returns the whole server without its sockets: every route, and the layers before it.
pub fn router(app: Arc<App>, guard: Guard, cors_origins: &[Origin]) -> Router {
    let router = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/decisions", post(decisions::decisions))
        .route("/openapi.json", get(openapi::openapi))
        .route("/tokenize", post(tokenize::tokenize))
        .merge(ui::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::new(guard), guard::check))
        .layer(middleware::from_fn(linger::request));
    let router = match cors_origins {
        [] => router,
        origins => router.layer(middleware::from_fn_with_state(Arc::from(origins), cors::cors)),
    };
    router.layer(middleware::from_fn_with_state(Arc::clone(&app), log::request)).with_state(app)
}

/// Reports that the process is alive.
async fn health() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

/// Reports whether requests are accepted.
async fn ready(State(app): State<Arc<App>>) -> Result<Json<serde_json::Value>, ApiError> {
    let model = app.loaded()?;
    Ok(Json(json!({"status": "ready", "model": model.name, "in_flight": app.engine.in_flight()})))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], app.metrics.text()).into_response()
}

async fn not_found() -> ApiError {
    ApiError::new(Code::RouteNotFound, "there is nothing at this address").hint(hints::access::ROUTES)
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this address takes another method").hint(hints::access::ROUTES)
}
