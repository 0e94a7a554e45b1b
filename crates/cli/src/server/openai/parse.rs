//! Bodies of requests: read under limits, parsed, unknown fields refused.

use super::errors::ApiError;
use super::fields;
use crate::server::limits;
use crate::server::state::App;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

/// Characters of a parser's message that are passed on; a client's own value could make it as long as the body.
const MESSAGE_MAX: usize = 200;

/// Reads a JSON body into `T`, whose fields are the known ones. The permit stands for the memory of the body.
///
/// # Errors
/// A body that is too large, too slow, not JSON, or not a `T`.
pub async fn read<T: DeserializeOwned + JsonSchema>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<(T, OwnedSemaphorePermit), ApiError> {
    check_content_type(headers)?;
    let limit = app.limits.body_bytes_max;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limit) {
        return Err(limits::body_too_large(limit));
    }
    // of unknown length: as if it were as long as allowed
    let permit = app.reserve_input(length.unwrap_or(limit))?;
    let collect = Limited::new(body, limit).collect();
    let bytes = match tokio::time::timeout(app.limits.body_time_max, collect).await {
        Err(_) => return Err(limits::body_too_slow(app.limits.body_time_max)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(limits::body_too_large(limit)),
        Ok(Err(_)) => {
            return Err(ApiError::bad_request("body_incomplete", "the body of the request ended early"));
        }
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    Ok((parse(&bytes)?, permit))
}

/// A page of another site can send a form or plain text to this server without asking, but not this type.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body of the request is not declared as application/json";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message)
        .hint("send the header content-type: application/json"))
}

/// Parses a body.
///
/// # Errors
/// It is not JSON, not an object, or not a `T`.
pub fn parse<T: DeserializeOwned + JsonSchema>(body: &[u8]) -> Result<T, ApiError> {
    let value = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!("the body is not valid JSON: see line {line}, column {column}");
        ApiError::bad_request("invalid_json", message)
    })?;
    let Value::Object(mut object) = value else {
        return Err(ApiError::bad_request("invalid_json", "the body must be a JSON object"));
    };
    let schema = schema_for!(T);
    let properties = schema.get("properties").and_then(Value::as_object);
    let known: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    fields::strip(&mut object, &known)?;
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let path = error.path().to_string();
        let message: String = error.inner().to_string().chars().take(MESSAGE_MAX).collect();
        let path = if path == "." { None } else { Some(path) };
        let place = path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
        let mut error = ApiError::bad_request("invalid_value", format!("{place}{message}"));
        error.param = path;
        error
    })
}
