//! `POST /tokenize`: what a request would cost, without running it. Takes the same body as a chat completion.

use super::types::ChatRequest;
use super::{chat, models, parse};
use crate::server::error::ApiError;
use crate::server::guard::Caller;
use crate::server::limits::Times;
use crate::server::prepare::{self, Abandoned};
use crate::server::state::App;
use crate::sources::thumbnail;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use base64::Engine;
use phi3v::image::{ImageInputs, ImageParams, Size};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// What a request would cost in tokens, were it sent to chat completions.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tokenized {
    /// Tokens of the prompt, pictures included.
    pub count: usize,
    /// Prompt tokens that stand for pictures.
    pub image_tokens: usize,
    /// The prompt's ids; the places of picture number i hold -i.
    pub tokens: Vec<i64>,
    /// The pictures in their order.
    pub images: Vec<TokenizedImage>,
    /// Tokens of prompt and answer that fit.
    pub max_model_len: usize,
}

/// How a picture is cut into tiles, and how many tokens stand for it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TokenizedImage {
    /// Pixels in each row, once the picture is turned upright.
    pub width: u32,
    /// Rows of pixels, once the picture is turned upright.
    pub height: u32,
    /// Rows of tiles in the grid.
    pub rows: usize,
    /// Columns of tiles in the grid.
    pub columns: usize,
    /// Tiles, the view of the whole included.
    pub tiles: usize,
    /// Tiles that differ from each other; only these are computed.
    pub distinct_tiles: usize,
    /// Tokens of the prompt that stand for the picture.
    pub tokens: usize,
    /// Its page, from 1, where it is one of a document with several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<usize>,
    /// The picture small, as a data URL, where `?thumbnails=true` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<String>,
}

impl From<&ImageInputs> for TokenizedImage {
    fn from(image: &ImageInputs) -> Self {
        let Size { width, height } = image.original_size;
        Self {
            width,
            height,
            rows: image.grid.h_crop,
            columns: image.grid.w_crop,
            tiles: 1 + image.grid.tiles(),
            distinct_tiles: image.distinct_tiles(),
            tokens: image.num_img_tokens(),
            page: None,
            thumbnail: None,
        }
    }
}

/// Tokenizes a conversation.
///
/// # Errors
/// What is wrong with the request.
pub async fn tokenize(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Tokenized>, ApiError> {
    let times = Times::start(&app.limits);
    let model = app.ready()?.clone();
    let (request, budget) = parse::read::<ChatRequest>(&app, &headers, body, caller.cache_salt).await?;
    models::check_name(&model, request.model.as_deref())?;
    let ask = chat::ask(request)?;
    ask.check(&app.limits)?;
    let prepared = times.within(prepare::prompt(&app, &model, ask.turns, None, budget, times)).await?;
    let with_thumbnails = query.as_deref() == Some("thumbnails=true");
    let params = with_thumbnails.then_some(model.image_params);
    let told = move |abandoned: &Abandoned| {
        let told = |(image, page): (&Arc<ImageInputs>, &Option<usize>)| {
            abandoned.check()?;
            let thumbnail = params.and_then(|params| thumbnail_url(image, &params));
            Ok(TokenizedImage { page: *page, thumbnail, ..TokenizedImage::from(image.as_ref()) })
        };
        let images =
            prepared.images.iter().zip(&prepared.numbers).map(told).collect::<Result<_, ApiError>>()?;
        Ok((images, prepared))
    };
    // thumbnails are encoded as files, which takes time
    let (images, prepared) = times.within(prepare::blocking(told)).await?;
    Ok(Json(Tokenized {
        count: prepared.input_ids.len(),
        image_tokens: prepared.input_ids.iter().filter(|id| **id < 0).count(),
        images,
        tokens: prepared.input_ids,
        max_model_len: model.context_tokens,
    }))
}

/// Returns a thumbnail of a picture, as a PNG in a data URL.
fn thumbnail_url(image: &ImageInputs, params: &ImageParams) -> Option<String> {
    let small = thumbnail(image, params);
    let mut file = Vec::new();
    let side = |side: usize| u32::try_from(side).ok();
    let mut encoder = png::Encoder::new(&mut file, side(small.width)?, side(small.height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&small.pixels)).ok()?;
    Some(format!("data:image/png;base64,{}", base64::prelude::BASE64_STANDARD.encode(&file)))
}
