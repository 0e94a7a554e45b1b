//! From a question to what the engine takes: pictures are read, decoded and cut, text becomes ids.
//!
//! The work is done on blocking threads, decoding by a few at a time, so that a large picture delays neither other
//! connections nor the engine's threads for long.

use super::ask::{Ask, Picture, Turn, TurnPart};
use super::openai::errors::ApiError;
use super::openai::types::Detail;
use super::state::{App, ServedModel};
use phi3v::chat_template::{Message, Part, Role};
use phi3v::constraint::{Constraint, Grammar};
use phi3v::engine::{EngineError, Request};
use phi3v::image::{self, ImageInputs, ImageMode, ImageParams};
use phi3v::processor;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

/// Tiles of [`Detail::High`], what Phi-3-vision was trained with.
const NUM_CROPS_HIGH: usize = 16;

/// A prompt with its pictures.
pub struct Prompt {
    /// Ids; the places of picture number i hold -i.
    pub input_ids: Vec<i64>,
    /// The pictures, in the order of the conversation.
    pub images: Vec<Arc<ImageInputs>>,
    /// Room for the pictures, to be held as long as the request.
    pub room: Vec<OwnedSemaphorePermit>,
}

/// Reads and cuts the pictures of a conversation and turns its text into ids.
///
/// # Errors
/// A picture that cannot be used, or a lack of room.
pub async fn prompt(app: &Arc<App>, mut turns: Vec<Turn>) -> Result<Prompt, ApiError> {
    let model = app.ready()?.clone();
    let pictures = take_pictures(&mut turns);
    let files = read_all(app, pictures).await?;
    let _turn = app.decoders.acquire().await.map_err(|_| ApiError::engine_stopped())?;
    let app = Arc::clone(app);
    blocking(move || {
        let (images, room) = decode_all(&app, &model, files)?;
        let num_img_tokens: Vec<usize> = images.iter().map(|image| image.num_img_tokens()).collect();
        let input_ids = processor::chat_prompt(&model.tokenizer, &messages(turns), &num_img_tokens)
            .map_err(|error| ApiError::library(&error.into()))?;
        Ok(Prompt { input_ids, images, room })
    })
    .await
}

impl Prompt {
    /// The engine's requests, one for each answer, and the room for their pictures.
    ///
    /// # Errors
    /// Prompt and answer do not fit into the context, or the answer's form cannot be followed.
    pub async fn requests(
        self,
        app: &Arc<App>,
        ask: Ask,
    ) -> Result<(Vec<Request>, Vec<OwnedSemaphorePermit>), ApiError> {
        let model = app.ready()?.clone();
        let max_new_tokens = max_new_tokens(app, &model, &ask, self.input_ids.len())?;
        let Self { input_ids, images, room } = self;
        let request = move |choice: usize| {
            let mut sampling = ask.sampling.clone();
            sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(choice as u64));
            Ok(Request {
                input_ids: input_ids.clone(),
                images: images.clone(),
                sampling,
                max_new_tokens,
                stop: ask.stop.clone(),
                constraint: ask.form.as_ref().map(|form| constraint(&model, form)).transpose()?,
            })
        };
        // a large schema takes its time
        let requests = blocking(move || (0..ask.choices).map(request).collect()).await?;
        Ok((requests, room))
    }
}

fn constraint(model: &ServedModel, form: &Grammar) -> Result<Box<dyn Constraint>, ApiError> {
    match model.constraints.constraint(form) {
        Ok(constraint) => Ok(Box::new(constraint)),
        Err(error) => Err(ApiError::library(&error.into()).param("response_format")),
    }
}

/// Runs `work` on a blocking thread, within the span of the request.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = tracing::Span::current();
    let done = spawn_blocking(move || span.in_scope(work)).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "preparing a request panicked");
        Err(ApiError::internal("the request could not be prepared"))
    })
}

/// A picture's file and how to cut it.
struct File {
    bytes: Vec<u8>,
    detail: Detail,
    param: String,
}

/// Moves the pictures out of the conversation; their places stay.
fn take_pictures(turns: &mut [Turn]) -> Vec<Picture> {
    let parts = turns.iter_mut().flat_map(|turn| &mut turn.parts);
    parts
        .filter_map(|part| match part {
            TurnPart::Text(_) => None,
            TurnPart::Picture(picture) => Some(Picture {
                url: std::mem::take(&mut picture.url),
                detail: picture.detail,
                param: std::mem::take(&mut picture.param),
            }),
        })
        .collect()
}

async fn read_all(app: &Arc<App>, pictures: Vec<Picture>) -> Result<Vec<File>, ApiError> {
    if pictures.is_empty() {
        return Ok(Vec::new());
    }
    let app = Arc::clone(app);
    let read = move |Picture { url, detail, param }: Picture| {
        let bytes = app.pictures.read(&url, &app.limits, &param)?;
        Ok(File { bytes, detail, param })
    };
    blocking(move || pictures.into_iter().map(read).collect()).await
}

type Images = (Vec<Arc<ImageInputs>>, Vec<OwnedSemaphorePermit>);

fn decode_all(app: &App, model: &ServedModel, files: Vec<File>) -> Result<Images, ApiError> {
    let (mut images, mut room) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
    for File { bytes, detail, param } in files {
        let num_crops = match detail {
            Detail::Auto => model.image_params.num_crops,
            Detail::Low => 1,
            Detail::High => NUM_CROPS_HIGH,
        };
        let params = ImageParams { num_crops, ..model.image_params };
        let inputs = image::decode(&bytes, ImageMode::AsSeen, &app.limits.image)
            .and_then(|rgb| image::process(&rgb, &params))
            .map_err(|error| ApiError::image(&error, &param))?;
        room.push(app.reserve_input(size_of_val(inputs.distinct.as_slice()))?);
        images.push(Arc::new(inputs));
    }
    Ok((images, room))
}

/// The conversation in the library's words; pictures are numbered through it.
fn messages(turns: Vec<Turn>) -> Vec<Message> {
    let mut number = 0;
    let mut part = |part| match part {
        TurnPart::Text(text) => Part::Text(text),
        TurnPart::Picture(_) => {
            number += 1;
            Part::Image(number)
        }
    };
    let message = |turn: Turn| {
        let content: Vec<Part> = turn.parts.into_iter().map(&mut part).collect();
        match turn.role {
            Role::User => Message::user(content),
            role => Message { role, content },
        }
    };
    turns.into_iter().map(message).collect()
}

/// The longest answer: as asked for, or as much of the default as the context leaves.
fn max_new_tokens(app: &App, model: &ServedModel, ask: &Ask, prompt: usize) -> Result<usize, ApiError> {
    let context = model.context_tokens;
    let left = context.saturating_sub(prompt);
    let answer = ask.max_tokens.map_or(app.limits.max_tokens_default.min(left).max(1), |(tokens, _)| tokens);
    if answer > left {
        let error = ApiError::library(&EngineError::ContextLength { prompt, answer, context }.into());
        return Err(error.param(ask.max_tokens.map_or("messages", |(_, name)| name)));
    }
    Ok(answer)
}
