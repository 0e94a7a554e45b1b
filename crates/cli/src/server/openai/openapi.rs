//! `GET /openapi.json`: the routes are written by hand, the bodies derived from the types.

use super::decisions::types::{DecisionObject, DecisionRequest};
use super::responses::types::{ResponseObject, ResponsesRequest};
use super::tokenize::Tokenized;
use super::types::{ChatChunk, ChatCompletion, ChatRequest, ModelEntry, ModelList};
use crate::server::error::ErrorBody;
use crate::version::VERSION;
use axum::Json;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Returns the description of this server, which is built once so that frequent requests delay nobody.
pub async fn openapi() -> Json<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
    Json(&DOCUMENT)
}

/// Builds the OpenAPI 3.1 document; its schemas are JSON Schema 2020-12.
fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let paths = paths(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "phi3v",
            "version": VERSION,
            "description": "Questions about pictures, answered by Phi-3-vision on this machine. The routes below \
                            /v1 follow OpenAI's API.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    })
}

fn paths(schemas: &mut SchemaGenerator) -> Value {
    let text = |kind: &str| json!({kind: {"schema": {"type": "string"}}});
    let status = json!({"application/json": {"schema": {"type": "object"}}});
    let chat = body::<ChatRequest>(schemas);
    let mut completion = body::<ChatCompletion>(schemas);
    completion["text/event-stream"] = json!({"schema": schemas.subschema_for::<ChatChunk>()});
    let responses = body::<ResponsesRequest>(schemas);
    let mut response = body::<ResponseObject>(schemas);
    response["text/event-stream"] = json!({"schema": {"type": "string"}});
    let questions = body::<DecisionRequest>(schemas);
    let decisions = body::<DecisionObject>(schemas);
    let name = json!([{"name": "name", "in": "path", "required": true, "schema": {"type": "string"}}]);
    let mut model = get("The model of this name", &body::<ModelEntry>(schemas), schemas);
    model["get"]["parameters"] = name;
    json!({
        "/v1/chat/completions": post("Answer a conversation", &chat, &completion, schemas),
        "/v1/responses": post("Answer a conversation", &responses, &response, schemas),
        "/v1/decisions": post("How likely statements, choices and levels are", &questions, &decisions, schemas),
        "/tokenize": post("What a chat completion would cost", &chat, &body::<Tokenized>(schemas), schemas),
        "/v1/models": get("The model served", &body::<ModelList>(schemas), schemas),
        "/v1/models/{name}": model,
        "/health": get("The process lives; needs no key", &status, schemas),
        "/ready": get("Requests are accepted", &status, schemas),
        "/metrics": get("Counters in Prometheus' text format", &text("application/openmetrics-text"), schemas),
        "/openapi.json": get("This document", &status, schemas),
        "/": get("The page", &text("text/html"), schemas),
    })
}

fn body<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    json!({"application/json": {"schema": schemas.subschema_for::<T>()}})
}

fn answers(content: &Value, schemas: &mut SchemaGenerator) -> Value {
    let error = body::<ErrorBody>(schemas);
    json!({
        "200": {"description": "The answer", "content": content},
        "default": {"description": "Why there is none", "content": error},
    })
}

fn get(summary: &str, content: &Value, schemas: &mut SchemaGenerator) -> Value {
    json!({"get": {"summary": summary, "responses": answers(content, schemas)}})
}

fn post(summary: &str, request: &Value, content: &Value, schemas: &mut SchemaGenerator) -> Value {
    let request = json!({"required": true, "content": request});
    json!({"post": {"summary": summary, "requestBody": request, "responses": answers(content, schemas)}})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that every reference leads to a schema, and that no schema lacks its fields.
    #[test]
    fn references_are_resolved() {
        let document = document();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 20);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let request = &document["components"]["schemas"]["ChatRequest"]["properties"];
        for field in ["messages", "seed", "response_format", "stop"] {
            assert!(!request[field].is_null(), "{field}");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str().filter(|_| name == "$ref") {
                        Some(reference) => references.push(reference.to_owned()),
                        None => collect(value, references),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
            _ => {}
        }
    }
}
