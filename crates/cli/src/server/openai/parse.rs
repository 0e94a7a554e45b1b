//! Request bodies: read under limits, parsed, with unknown fields refused.

use super::{fields, unique_keys};
use crate::server::error::{ApiError, Code};
use crate::server::hints;
use crate::server::limits;
use crate::server::state::App;
use crate::sources::Budget;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use phi3v::engine::CacheSalt;
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Maximum characters of a parser's message that are passed on; the client's own value could make it as long as the
/// body.
const MESSAGE_MAX: usize = 200;

/// Bodies from this size are parsed on another thread: others on the same thread would wait for milliseconds.
const LARGE: usize = 256 << 10;

/// Reads a JSON body into `T`, whose fields are the known ones. The budget, a share of `client`'s, has been charged for
/// the body.
///
/// # Errors
/// A body that is too large, too slow, not JSON, or not a `T`; or no budget is left.
pub async fn read<T: DeserializeOwned + JsonSchema + Send + 'static>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    client: CacheSalt,
) -> Result<(T, Budget), ApiError> {
    check_content_type(headers)?;
    check_content_encoding(headers)?;
    let limit = app.limits.body_bytes_max;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limit) {
        return Err(limits::body_too_large(limit));
    }
    let mut budget = app.budget(client);
    let time = app.limits.body_time_max;
    let bytes = tokio::time::timeout(time, collect(body, limit, &mut budget)).await;
    let bytes = bytes.unwrap_or_else(|_| Err(limits::body_too_slow(time)))?;
    if bytes.len() < LARGE {
        return Ok((parse(&bytes)?, budget));
    }
    let parsed = tokio::task::spawn_blocking(move || Ok((parse(&bytes)?, budget))).await;
    parsed.unwrap_or_else(|_| Err(ApiError::internal("the request could not be read")))
}

/// Collects the bytes of a body, charging them to the budget as they arrive.
async fn collect(body: Body, limit: usize, budget: &mut Budget) -> Result<Vec<u8>, ApiError> {
    let mut body = Limited::new(body, limit);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return limits::body_too_large(limit);
            }
            ApiError::new(Code::BodyIncomplete, "the body of the request ended early")
                .hint(hints::body::WHOLE)
        })?;
        if let Ok(data) = frame.into_data() {
            budget.charge(data.len())?;
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// A page of another site can send a form or plain text to this server without a preflight request, but not this type.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let count = headers.get_all(header::CONTENT_TYPE).iter().count();
    if count > 1 {
        // a proxy before the server may have checked another of the headers than the server would
        let message = format!("the request has {count} content-type headers");
        return Err(ApiError::new(Code::HeadInvalid, message).hint(hints::body::ONE_TYPE));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body of the request is not declared as application/json";
    Err(ApiError::new(Code::ContentType, message).hint(hints::body::TYPE))
}

/// Refuses compressed bodies: a small body could become a large one.
fn check_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let identity = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let codings = value.to_str().unwrap_or("?");
        if let Some(coding) = codings.split(',').map(str::trim).find(|coding| !identity(coding)) {
            let coding: String = coding.chars().take(32).collect();
            let message =
                format!("the body has the content-encoding {coding}, which the server does not read");
            return Err(ApiError::new(Code::ContentEncoding, message).hint(hints::body::ENCODING));
        }
    }
    Ok(())
}

/// Maximum number of values in a body: more than conversations and schemas have. Each takes some hundred bytes once
/// parsed.
const VALUES_MAX: usize = 100_000;

/// Counts the characters that separate or enclose values, outside texts: roughly the number of values.
fn values(body: &[u8]) -> usize {
    let (mut in_text, mut escaped, mut count) = (false, false, 0);
    for &byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Converts numbers such as 100.0 to integers, as JSON Schema and the clients that send them regard them.
fn whole_numbers(object: &mut Map<String, Value>) {
    /// Integers up to this value are exact in a double.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    for value in object.values_mut() {
        if let Some(number) =
            value.as_f64().filter(|n| value.is_f64() && n.fract() == 0.0 && n.abs() < EXACT_MAX)
        {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
            let whole = number as i64;
            *value = whole.into();
        }
    }
}

/// Rewrites the parser's message in the terms of JSON, without the names of Rust types.
fn in_plain_words(message: &str) -> String {
    const WORDS: [(&str, &str); 9] = [
        ("expected usize", "expected a whole number from 0 on"),
        ("expected u64", "expected a whole number from 0 on"),
        ("expected i64", "expected a whole number from -2^63 to 2^63 - 1"),
        ("expected f32", "expected a number"),
        ("expected string or map", "expected a string"),
        ("expected a map", "expected an object"),
        ("expected a sequence", "expected a list"),
        ("invalid type: map", "invalid type: object"),
        ("invalid type: sequence", "invalid type: list"),
    ];
    // each is followed by the name of a type
    const TYPES: [(&str, &str); 4] = [
        ("expected internally tagged enum ", "expected an object with a type"),
        ("expected struct variant ", "expected an object"),
        ("expected struct ", "expected an object"),
        ("expected enum ", "expected a string"),
    ];
    let message = WORDS.iter().fold(message.to_owned(), |message, (from, to)| message.replace(from, to));
    TYPES.iter().fold(message, |message, (from, to)| {
        let Some((before, after)) = message.split_once(from) else { return message };
        let rest = after.trim_start_matches(|letter: char| letter.is_alphanumeric() || "_:".contains(letter));
        format!("{before}{to}{rest}")
    })
}

/// Returns the body without a byte order mark, which some clients send. Refuses a body in UTF-16 by that name.
fn text(body: &[u8]) -> Result<&[u8], ApiError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // JSON begins with two ASCII characters, which contain zero bytes in UTF-16 and UTF-32
    let wide = body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff");
    if wide || body.iter().take(2).any(|byte| *byte == 0) {
        let message = "the body is in UTF-16 or UTF-32, it must be in UTF-8";
        return Err(ApiError::new(Code::InvalidJson, message).hint(hints::body::UTF_8));
    }
    if let Err(error) = std::str::from_utf8(body) {
        let message = format!("the body is not valid UTF-8: see byte {}", error.valid_up_to() + 1);
        return Err(ApiError::new(Code::InvalidJson, message).hint(hints::body::UTF_8));
    }
    Ok(body)
}

/// Returns the names of a type's fields, which are determined once for each type.
fn known_fields<T: JsonSchema + 'static>() -> &'static [String] {
    static KNOWN: LazyLock<Mutex<HashMap<TypeId, &'static [String]>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(TypeId::of::<T>()).or_insert_with(|| {
        let schema = schema_for!(T);
        let properties = schema.get("properties").and_then(Value::as_object);
        let names: Vec<String> = properties.into_iter().flatten().map(|(name, _)| name.clone()).collect();
        names.leak()
    })
}

/// Parses a body.
///
/// # Errors
/// The body has too many values or a key twice, is not JSON, not an object, or not a `T`.
pub fn parse<T: DeserializeOwned + JsonSchema + 'static>(body: &[u8]) -> Result<T, ApiError> {
    let body = text(body)?;
    let count = values(body);
    if count > VALUES_MAX {
        let message = format!("the body has some {count} values, the limit is {VALUES_MAX}");
        return Err(ApiError::new(Code::InvalidJson, message).hint(hints::body::VALUES));
    }
    unique_keys::check(body)?;
    let value = serde_json::from_slice(body).map_err(|error| ApiError::not_json(&error))?;
    let Value::Object(mut object) = value else {
        let error = ApiError::new(Code::InvalidJson, "the body must be a JSON object");
        return Err(error.hint(hints::body::OBJECT));
    };
    fields::strip(&mut object, known_fields::<T>())?;
    fields::drop_nulls(&mut object);
    whole_numbers(&mut object);
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let path = error.path().to_string();
        let message: String = in_plain_words(&error.inner().to_string()).chars().take(MESSAGE_MAX).collect();
        if path == "." {
            return ApiError::new(Code::InvalidValue, message).hint(hints::body::NEEDED_FIELDS);
        }
        ApiError::invalid_value(path.clone(), format!("{path}: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::types::ChatRequest;
    use super::*;

    #[test]
    fn messages_name_no_type_of_rust() {
        for (message, told) in [
            (
                "invalid type: string \"data:\", expected struct ImageUrl",
                "invalid type: string \"data:\", expected an object",
            ),
            ("invalid type: map, expected a string", "invalid type: object, expected a string"),
            (
                "invalid type: sequence, expected struct variant ContentPart::ImageUrl at",
                "invalid type: list, expected an object at",
            ),
            (
                "invalid type: null, expected internally tagged enum ContentPart",
                "invalid type: null, expected an object with a type",
            ),
            (
                "invalid value: string \"x\", expected usize",
                "invalid value: string \"x\", expected a whole number from 0 on",
            ),
            (
                "invalid type: string \"x\", expected i64",
                "invalid type: string \"x\", expected a whole number from -2^63 to 2^63 - 1",
            ),
            (
                "invalid length 1, expected struct NamedSchema with 4 elements",
                "invalid length 1, expected an object with 4 elements",
            ),
        ] {
            assert_eq!(in_plain_words(message), told);
        }
    }

    #[test]
    fn a_seed_beyond_what_is_taken_is_told_the_range() {
        let parsed = |seed: u64| {
            let body = format!(r#"{{"messages": [{{"role": "user", "content": "x"}}], "seed": {seed}}}"#);
            parse::<ChatRequest>(body.as_bytes())
        };
        let largest = i64::MAX.unsigned_abs();
        assert_eq!(parsed(largest).unwrap().seed, Some(i64::MAX));
        let refused = parsed(largest + 1).unwrap_err();
        assert_eq!((refused.code, refused.param.as_deref()), (Code::InvalidValue, Some("seed")));
        assert!(refused.message.ends_with("from -2^63 to 2^63 - 1"), "{}", refused.message);
    }
}
