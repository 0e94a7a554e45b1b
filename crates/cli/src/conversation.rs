//! Messages and pictures to requests.

use crate::args::{DEFAULT_MAX_NEW_TOKENS, GenerationArgs};
use crate::error::CliError;
use crate::runtime::Runtime;
use crate::sources::Picture;
use phi3v::chat_template::{Message, Part, Role};
use phi3v::engine::{CacheSalt, Request};
use phi3v::processor;
use std::sync::Arc;

/// What was said so far; pictures are numbered over the whole conversation.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    messages: Vec<Message>,
    pictures: Vec<Picture>,
}

impl Conversation {
    /// A conversation that begins with instructions, if there are any.
    #[must_use]
    pub fn new(system: Option<&str>) -> Self {
        let messages = system.map(|text| Message::text(Role::System, text)).into_iter().collect();
        Self { messages, pictures: Vec::new() }
    }

    /// Adds a question about `pictures` and those before.
    pub fn ask(&mut self, pictures: Vec<Picture>, question: &str) {
        let first = self.pictures.len() + 1;
        let numbers = first..first + pictures.len();
        self.pictures.extend(pictures);
        let text = Part::Text(question.to_owned());
        self.messages.push(Message::user(numbers.map(Part::Image).chain([text])));
    }

    /// Adds what the model said.
    pub fn answered(&mut self, text: String) {
        self.messages.push(Message::text(Role::Assistant, text));
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
        let sampling = generation.sampling(logprobs);
        sampling.validate().map_err(phi3v::Error::from)?;
        let rows: Vec<usize> = self.pictures.iter().map(|picture| picture.inputs.num_img_tokens()).collect();
        let input_ids =
            processor::chat_prompt(&runtime.tokenizer, &self.messages, &rows).map_err(phi3v::Error::from)?;
        // asked for nothing, an answer may take what the context leaves; the engine refuses where that is nothing
        let budget = runtime.engine.context_tokens().saturating_sub(input_ids.len()).max(1);
        let max_new_tokens = generation.max_new_tokens.unwrap_or(budget.min(DEFAULT_MAX_NEW_TOKENS));
        let images = self.pictures.iter().map(|picture| Arc::clone(&picture.inputs)).collect();
        Ok(Request {
            input_ids,
            images,
            sampling,
            max_new_tokens,
            stop: generation.stop.clone(),
            constraint: None,
            cache_salt: CacheSalt::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3v::chat_template::render;
    use phi3v::image::{self, ImageParams, RgbImage};
    use phi3v::tokenizer::Tokenizer;

    fn picture(side: usize) -> Picture {
        let rgb = RgbImage { width: side, height: side, pixels: vec![200; side * side * 3] };
        let params = ImageParams { num_crops: 1, ..ImageParams::default() };
        Picture { name: "p".to_owned(), inputs: Arc::new(image::process(&rgb, &params).unwrap()) }
    }

    /// The prompt as the cookbook writes it, and that the ids are those of this prompt.
    fn assert_prompt(conversation: &Conversation, prompt: &str) {
        assert_eq!(render(&conversation.messages), prompt);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/tiny/tokenizer.json");
        let tokenizer = Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap();
        let rows: Vec<usize> =
            conversation.pictures.iter().map(|picture| picture.inputs.num_img_tokens()).collect();
        let ids = processor::chat_prompt(&tokenizer, &conversation.messages, &rows);
        assert_eq!(ids, processor::raw_prompt(&tokenizer, prompt, &rows));
    }

    #[test]
    fn prompts_are_the_cookbooks() {
        let mut stock = Conversation::new(None);
        stock.ask(vec![picture(20)], "Could you please introduce this stock to me?");
        assert_prompt(
            &stock,
            "<|user|>\n<|image_1|>\nCould you please introduce this stock to me?<|end|>\n<|assistant|>\n",
        );
        let mut difference = Conversation::new(None);
        difference.ask(vec![picture(20), picture(30)], " What is difference in this two images?");
        assert_prompt(
            &difference,
            "<|user|>\n<|image_1|>\n<|image_2|>\n What is difference in this two images?<|end|>\n<|assistant|>\n",
        );
    }

    #[test]
    fn later_turns_go_on_counting_pictures() {
        let mut conversation = Conversation::new(Some("Be brief."));
        conversation.ask(vec![picture(20)], "What is it?");
        conversation.answered("A cat.".to_owned());
        conversation.ask(vec![picture(30)], "And this?");
        assert_prompt(
            &conversation,
            "<|system|>\nBe brief.<|end|>\n<|user|>\n<|image_1|>\nWhat is it?<|end|>\n<|assistant|>\nA cat.<|end|>\n\
             <|user|>\n<|image_2|>\nAnd this?<|end|>\n<|assistant|>\n",
        );
    }
}
