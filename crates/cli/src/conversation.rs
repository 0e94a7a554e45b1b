//! Builds the library's conversation from pictures and flags.

use crate::args::GenerationArgs;
use crate::error::CliError;
use crate::runtime::Runtime;
use crate::sources::{NamedImage, times_of};
use phi3v::engine::Request;
use std::sync::Arc;

/// The conversation so far; pictures are numbered over the whole conversation.
#[derive(Clone, Debug, Default)]
pub struct Conversation(phi3v::Conversation);

impl Conversation {
    /// Starts a conversation with a system message, if there are instructions, and without a question.
    #[must_use]
    pub fn new(system: Option<&str>) -> Self {
        Self(phi3v::Conversation::new(system))
    }

    /// Adds a question about the new `pictures` and the earlier ones. The times of a video's frames precede the question.
    pub fn ask(&mut self, pictures: &[NamedImage], question: &str) {
        let times = times_of(pictures, self.0.images().len() + 1);
        let question = times.map_or_else(|| question.to_owned(), |times| format!("{times}\n{question}"));
        self.0.ask(pictures.iter().map(|picture| Arc::clone(&picture.inputs)), &question);
    }

    /// Adds the model's answer, which later questions can refer to.
    pub fn answered(&mut self, text: String) {
        self.0.answered(text);
    }

    /// Makes the request for the next answer.
    ///
    /// # Errors
    /// The prompt leaves no room for an answer in the context, or too little for the requested one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use phi3v::image::{ImageParams, RgbImage, process};
    use std::time::Duration;

    #[test]
    fn the_times_of_frames_stand_before_the_question() {
        let rgb = RgbImage { width: 2, height: 2, pixels: vec![9; 12] };
        let inputs =
            Arc::new(process(&rgb, &ImageParams { num_crops: 1, ..ImageParams::default() }).unwrap());
        let image = |millis: Option<u64>| NamedImage {
            name: String::new(),
            inputs: Arc::clone(&inputs),
            time: millis.map(Duration::from_millis),
            is_incomplete: false,
        };
        let mut conversation = Conversation::new(None);
        conversation.ask(&[image(None)], "What is it?");
        conversation.answered("A cat.".to_owned());
        conversation.ask(&[image(Some(0)), image(None), image(Some(2500))], "What happens?");
        let prompt = phi3v::chat_template::render(conversation.0.messages());
        let told = "<|image_4|>\nFrames of a video: image 2 at 0 s, image 4 at 2.5 s.\nWhat happens?<|end|>";
        assert!(prompt.contains(told) && prompt.contains("<|image_1|>\nWhat is it?<|end|>"), "{prompt}");
    }
}
