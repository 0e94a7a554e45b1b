//! A validated request for decisions, independent of the API it came by, and its conversion to an engine request.

use super::ask::{self, RequestImage, Turn, TurnPart};
use super::error::{ApiError, Code};
use super::hints::question as hint;
use super::limits::{Limits, Times};
use super::prepare::{self, Abandoned, Document};
use super::state::{App, ServedModel};
use crate::sources::Budget;
use phi3v::chat_template::{Message, Part, Role};
use phi3v::decide::{Question, Questions};
use phi3v::engine::{CacheSalt, Request};
use phi3v::image::ImageInputs;
use std::sync::Arc;

/// How many times the text of a request may be read in total, counting each question with everything before it. With
/// 400 questions this allows a conversation of 80 KiB, some 20,000 tokens.
const READINGS_MAX: usize = 32;

/// Several questions about a conversation, each with its possible answers.
#[derive(Debug)]
pub struct Decide {
    /// What all questions are about.
    pub turns: Vec<Turn>,
    /// The questions, in order.
    pub questions: Vec<DecideQuestion>,
    /// Keeps the prompt caches of one client apart from those of others.
    pub cache_salt: CacheSalt,
}

/// A question with its possible answers.
#[derive(Debug)]
pub struct DecideQuestion {
    /// The question, and how to answer it.
    pub parts: Vec<TurnPart>,
    /// The possible answers, each of which is scored.
    pub choices: Vec<String>,
    /// The field to report if the choices cannot be used.
    pub param: String,
}

impl Decide {
    /// Checks everything that can be checked without the model.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let parts = || {
            let turns = self.turns.iter().flat_map(|turn| &turn.parts);
            turns.chain(self.questions.iter().flat_map(|question| &question.parts))
        };
        let choices = self.questions.iter().flat_map(|question| &question.choices).map(String::len).sum();
        ask::check_parts(parts, choices, "input", limits)?;
        let shared = ask::text_bytes(self.turns.iter().flat_map(|turn| &turn.parts));
        let own = ask::text_bytes(self.questions.iter().flat_map(|question| &question.parts));
        let bytes = own.saturating_add(shared.saturating_mul(self.questions.len()));
        let bytes_max = limits.text_bytes_max.saturating_mul(READINGS_MAX);
        if bytes > bytes_max {
            let message = format!(
                "the questions have {bytes} bytes of text, the input with each of them, and the limit is {bytes_max}"
            );
            let error = ApiError::new(Code::TextTooLong, message).param("questions");
            return Err(error.hint(hint::QUESTIONS));
        }
        Ok(())
    }

    /// Moves the images out, those of the conversation first. Their parts stay as placeholders.
    fn take_images(&mut self) -> Vec<RequestImage> {
        let mut images = prepare::take_images(self.turns.iter_mut().flat_map(|turn| &mut turn.parts));
        for question in &mut self.questions {
            images.extend(prepare::take_images(&mut question.parts));
        }
        images
    }
}

/// Returns the engine's request for decisions, and the budget charged for the body and the images.
///
/// # Errors
/// An image that cannot be used, choices that cannot be distinguished, a question that does not fit into the context,
/// or more input than the budget has left.
pub async fn request(
    app: &Arc<App>,
    model: &ServedModel,
    mut decide: Decide,
    budget: Budget,
    times: Times,
) -> Result<(Request, Budget), ApiError> {
    let images = prepare::Images { images: decide.take_images(), ahead: Some(decide.cache_salt) };
    let make = move |model: &ServedModel, documents, abandoned: &Abandoned| {
        build(model, decide, documents, abandoned)
    };
    prepare::with_images(app, model, images, budget, times, make).await
}

fn build(
    model: &ServedModel,
    decide: Decide,
    documents: Vec<Document>,
    abandoned: &Abandoned,
) -> Result<Request, ApiError> {
    let Decide { turns, questions, cache_salt } = decide;
    let mut documents = documents.into_iter();
    let shared = turns.iter().map(|turn| count_images(&turn.parts)).sum();
    let shared: Vec<Document> = documents.by_ref().take(shared).collect();
    let messages = prepare::messages(turns, lengths(&shared));
    let before = images(shared);
    let shared = before.len();
    let mut all = Questions::new(&model.tokenizer, model.context_tokens, &messages, before);
    let on_a_new_line = ends_within_a_line(&messages);
    for DecideQuestion { parts, choices, param } in questions {
        abandoned.check()?;
        let own: Vec<Document> = documents.by_ref().take(count_images(&parts)).collect();
        let content = content(parts, lengths(&own), shared, on_a_new_line);
        let question = Question { content, images: images(own), choices };
        all.add(&question).map_err(|error| ApiError::library(&error).param(param))?;
    }
    Ok(Request { cache_salt, ..all.into_request() })
}

fn count_images(parts: &[TurnPart]) -> usize {
    parts.iter().filter(|part| matches!(part, TurnPart::Image(_))).count()
}

/// Returns the number of images of each file.
fn lengths(documents: &[Document]) -> Vec<usize> {
    documents.iter().map(Vec::len).collect()
}

/// Returns the images of all files, in order.
fn images(documents: Vec<Document>) -> Vec<Arc<ImageInputs>> {
    documents.into_iter().flatten().map(|page| page.inputs).collect()
}

/// Returns whether text after the messages must begin with a line feed to start on its own line.
fn ends_within_a_line(messages: &[Message]) -> bool {
    let Some(Message { role: Role::User, content }) = messages.last() else { return false };
    matches!(content.last(), Some(Part::Text(text)) if !text.is_empty() && !text.ends_with('\n'))
}

/// Returns the content of a question. Its images are numbered on from `shared`; the n-th image part becomes `pages[n]`
/// images.
fn content(parts: Vec<TurnPart>, pages: Vec<usize>, shared: usize, on_a_new_line: bool) -> Vec<Part> {
    let turn = Turn { role: Role::User, parts };
    let message = prepare::messages(vec![turn], pages).pop();
    let mut content = message.map(|message| message.content).unwrap_or_default();
    for part in &mut content {
        if let Part::Image(number) = part {
            *number += shared;
        }
    }
    if on_a_new_line {
        content.insert(0, Part::Text("\n".to_owned()));
    }
    content
}
