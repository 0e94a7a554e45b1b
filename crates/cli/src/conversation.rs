//! The library's conversation, of pictures and flags.

use crate::args::GenerationArgs;
use crate::error::CliError;
use crate::runtime::Runtime;
use crate::sources::NamedImage;
use phi3v::engine::Request;
use std::sync::Arc;

/// What was said so far; pictures are numbered over the whole conversation.
#[derive(Clone, Debug, Default)]
pub struct Conversation(phi3v::Conversation);

impl Conversation {
    /// A conversation that begins with a system message, if there are instructions, and has no question yet.
    #[must_use]
    pub fn new(system: Option<&str>) -> Self {
        Self(phi3v::Conversation::new(system))
    }

    /// Adds a question about `pictures`, which are new, and about those that were given before.
    pub fn ask(&mut self, pictures: &[NamedImage], question: &str) {
        self.0.ask(pictures.iter().map(|picture| Arc::clone(&picture.inputs)), question);
    }

    /// Adds what the model said, which later questions can then refer to.
    pub fn answered(&mut self, text: String) {
        self.0.answered(text);
    }

    /// The request for the next answer.
    ///
    /// # Errors
    /// The prompt leaves no tokens of the context for an answer, or too few for the one asked for.
    pub fn request(
        &self,
        runtime: &Runtime,
        generation: &GenerationArgs,
        logprobs: Option<usize>,
    ) -> Result<Request, CliError> {
        let context_tokens = runtime.engine.context_tokens();
        Ok(self.0.request(&runtime.tokenizer, context_tokens, &generation.options(logprobs))?)
    }
}
