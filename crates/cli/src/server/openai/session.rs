//! An answer on its way.

use super::types::{PromptTokensDetails, UsageFields};
use crate::server::ask::Ask;
use crate::server::engine_thread::Updates;
use crate::server::error::ApiError;
use crate::server::limits::Times;
use crate::server::prepare::{self, Requests};
use crate::server::state::{App, ServedModel};
use crate::sources::Budget;
use phi3v::engine::{FinishReason, Usage};
use std::sync::Arc;

/// An answer on its way. Dropping it cancels what the engine still does for it.
pub struct Session {
    /// What happens to the request.
    pub updates: Updates,
    /// Answers that are not complete.
    pub remaining: usize,
}

impl Session {
    /// Prepares a question and sends it to the engine. `budget` has been charged for the body.
    ///
    /// # Errors
    /// A picture or a form that cannot be used, a prompt that does not fit into the context, no place in the queue, or
    /// no time left.
    pub async fn start(
        app: &Arc<App>,
        model: &ServedModel,
        ask: Ask,
        budget: Budget,
        progress: bool,
        times: Times,
    ) -> Result<Self, ApiError> {
        // before the work of preparing; a place can still be gone when it is done
        app.engine.check_places(&ask.cache_salt, ask.choices)?;
        let prepared = prepare::requests(app, model, ask, budget, times);
        let Requests { requests, budget, .. } = times.within(prepared).await?;
        let remaining = requests.len();
        let updates = app.engine.submit(requests, budget, progress, times)?;
        Ok(Self { updates, remaining })
    }
}

/// OpenAI's word for the end of an answer.
///
/// # Errors
/// It was cancelled, which only the engine itself can have done.
pub fn finish_reason(reason: FinishReason) -> Result<&'static str, ApiError> {
    match reason {
        FinishReason::Stop | FinishReason::Length => Ok(reason.name()),
        FinishReason::Cancelled => Err(ApiError::internal("the answer was cancelled")),
    }
}

impl UsageFields {
    /// Adds what answer `index` took. The prompt is the same for all and counts once.
    pub fn add(&mut self, index: usize, usage: &Usage) {
        if index == 0 {
            self.prompt_tokens = usage.prompt_tokens;
            self.prompt_tokens_details = PromptTokensDetails {
                cached_tokens: Some(usage.cached_tokens),
                image_tokens: usage.image_tokens,
            };
        }
        self.completion_tokens += usage.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}
