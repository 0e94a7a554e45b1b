//! An answer in progress.

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

/// An answer in progress. Dropping it cancels what the engine still does for it.
pub struct Session {
    /// The updates on the request.
    pub updates: Updates,
    /// Number of answers that are not complete.
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
        // before the work of preparing, which would be wasted if the queue is full
        let places = app.engine.places(ask.cache_salt, ask.choices)?;
        let prepared = prepare::requests(app, model, ask, budget, times);
        let Requests { requests, budget, .. } = times.within(prepared).await?;
        let remaining = requests.len();
        let updates = app.engine.submit(requests.into_iter().zip(places), budget, progress, times)?;
        Ok(Self { updates, remaining })
    }
}

/// Returns OpenAI's name for the reason that ended an answer.
///
/// # Errors
/// The answer was cancelled, which only the engine itself can have done.
pub fn finish_reason(reason: FinishReason) -> Result<&'static str, ApiError> {
    match reason {
        FinishReason::Stop | FinishReason::Length => Ok(reason.name()),
        FinishReason::Cancelled => Err(ApiError::internal("the answer was cancelled")),
    }
}

impl UsageFields {
    /// Adds the token counts of answer `index`. The prompt is the same for all answers and counts once.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::Drawer;
    use crate::server::ask::{Names, Turn, TurnPart};
    use crate::server::engine_thread::EngineHandle;
    use crate::server::error::Code;
    use crate::server::limits::Limits;
    use crate::sources::Sources;
    use phi3v::chat_template::Role;
    use phi3v::engine::CacheSalt;
    use phi3v::sampler::SamplingParams;
    use std::time::Duration;
    use tokio::task::JoinHandle;

    const ALICE: CacheSalt = [1; 32];
    const BOB: CacheSalt = [2; 32];

    fn ask(cache_salt: CacheSalt) -> Ask {
        let parts = vec![TurnPart::Text("What can you do?".to_owned())];
        Ask {
            names: Names { turns: "messages", form: "response_format" },
            turns: vec![Turn { role: Role::User, parts }],
            sampling: SamplingParams::default(),
            choices: 1,
            max_tokens: Some((1, "max_tokens")),
            stop: Vec::new(),
            form: None,
            cache_salt,
        }
    }

    /// Starts a request of a client, which is then on its way to the engine.
    async fn start(app: &Arc<App>, client: CacheSalt) -> JoinHandle<Result<Session, ApiError>> {
        let app = Arc::clone(app);
        let started = tokio::spawn(async move {
            let (budget, times) = (app.budget(client), Times::start(&app.limits));
            Session::start(&app, &ServedModel::demo(), ask(client), budget, false, times).await
        });
        // lets the request proceed as far as it can before the next one starts
        tokio::time::sleep(Duration::from_millis(1)).await;
        started
    }

    #[tokio::test]
    async fn a_full_queue_refuses_before_anything_is_prepared() {
        let app =
            App::new(Limits::default(), EngineHandle::new(1).0, Sources::data_urls_only(), Drawer::default());
        let app = Arc::new(app);
        let held = [app.texts.take(ALICE).await, app.texts.take(ALICE).await];
        let waits = start(&app, ALICE).await;
        // this would never end if the request waited for a turn
        let refused = start(&app, ALICE).await.await.unwrap();
        assert_eq!(refused.err().map(|error| error.code), Some(Code::QueueFull));
        assert!(!waits.is_finished());
        waits.abort();
        assert!(waits.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(app.engine.in_flight(), 0, "who has gone makes room");
        drop(held);
    }

    #[tokio::test]
    async fn one_clients_flood_keeps_no_other_waiting_for_all_of_it() {
        let (engine, mut jobs) = EngineHandle::new(32);
        let app = App::new(Limits::default(), engine, Sources::data_urls_only(), Drawer::default());
        let app = Arc::new(app);
        let held = [app.texts.take(ALICE).await, app.texts.take(ALICE).await];
        let mut asked = Vec::new();
        for client in [ALICE; 16].into_iter().chain([BOB]) {
            asked.push(start(&app, client).await);
        }
        let [turn, _held] = held;
        drop(turn);
        let mut order = Vec::new();
        for _ in 0..asked.len() {
            order.push(jobs.next_client().await);
        }
        // BOB's is the second request, apart from the order in which finished threads report
        assert!(order[..8].contains(&BOB), "{order:?}");
    }
}
