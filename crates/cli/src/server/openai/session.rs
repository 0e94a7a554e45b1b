//! An answer on its way.

use super::errors::ApiError;
use super::types::{PromptTokensDetails, UsageFields};
use crate::server::ask::Ask;
use crate::server::engine_thread::Updates;
use crate::server::prepare::Prompt;
use crate::server::state::App;
use phi3v::engine::{FinishReason, Usage};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// An answer on its way. Dropping it cancels what the engine still does for it.
pub struct Session {
    /// What happens to the request.
    pub updates: Updates,
    /// Answers that are not complete.
    pub remaining: usize,
    /// Memory of the body and the pictures.
    _room: Vec<OwnedSemaphorePermit>,
}

impl Session {
    /// Sends a prompt to the engine, to be answered as `ask` says.
    ///
    /// # Errors
    /// It does not fit into the context, or there is no place in the queue.
    pub async fn start(
        app: &Arc<App>,
        (prompt, ask): (Prompt, Ask),
        body: OwnedSemaphorePermit,
        (progress, deadline): (bool, Instant),
    ) -> Result<Self, ApiError> {
        let (requests, mut room) = prompt.requests(app, ask).await?;
        room.push(body);
        let remaining = requests.len();
        let updates = app.engine.submit(requests, progress, deadline)?;
        Ok(Self { updates, remaining, _room: room })
    }
}

/// OpenAI's word for the end of an answer.
///
/// # Errors
/// It was cancelled, which only the engine itself can have done.
pub fn finish_reason(reason: FinishReason) -> Result<&'static str, ApiError> {
    match reason {
        FinishReason::Stop => Ok("stop"),
        FinishReason::Length => Ok("length"),
        FinishReason::Cancelled => Err(ApiError::internal("the answer was cancelled")),
    }
}

impl UsageFields {
    /// Adds what answer `index` took. The prompt is the same for all and counts once.
    pub fn add(&mut self, index: usize, usage: &Usage) {
        if index == 0 {
            self.prompt_tokens = usage.prompt_tokens;
            self.prompt_tokens_details =
                PromptTokensDetails { cached_tokens: usage.cached_tokens, image_tokens: usage.image_tokens };
        }
        self.completion_tokens += usage.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}
