//! `GET /v1/models`.

use super::types::{ModelEntry, ModelList};
use crate::server::error::{ApiError, Code};
use crate::server::hints;
use crate::server::state::{App, ServedModel};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use std::sync::Arc;

fn entry(app: &App, model: &ServedModel) -> ModelEntry {
    ModelEntry {
        id: model.name.clone(),
        object: "model",
        created: app.started,
        owned_by: "phi3v",
        max_model_len: model.context_tokens,
        max_tokens: app.limits.max_tokens_max.min(model.context_tokens),
        max_images: app.limits.images_max,
        description: model.description.clone(),
    }
}

/// Lists the models served, of which there is one.
///
/// # Errors
/// The model is not loaded yet.
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<ModelList>, ApiError> {
    let model = app.ready()?;
    Ok(Json(ModelList { object: "list", data: vec![entry(&app, model)] }))
}

/// Returns the model of a given name.
///
/// # Errors
/// The model is not loaded yet, or has another name.
pub async fn one(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelEntry>, ApiError> {
    let Path(name) = name.map_err(|_| {
        ApiError::invalid_value("model", "the name of the model in the address is not UTF-8 text")
            .hint(hints::question::MODELS)
    })?;
    let model = app.ready()?;
    check_name(model, Some(&name))?;
    Ok(Json(entry(&app, model)))
}

/// Checks that `name`, if given, is the model served.
///
/// # Errors
/// It is another model.
pub fn check_name(model: &ServedModel, name: Option<&str>) -> Result<(), ApiError> {
    match name {
        Some(name) if name != model.name => {
            let name: String = name.chars().take(100).collect();
            let message = format!("there is no model {name}");
            Err(ApiError::new(Code::ModelNotFound, message)
                .param("model")
                .hint(hints::question::model(&model.name)))
        }
        _ => Ok(()),
    }
}
