//! A conversation about images, and the request for its next answer: what a frontend needs between a user and the engine.

use crate::Result;
use crate::chat_template::{Message, Part, Role};
use crate::decide::{Question, Questions};
use crate::engine::Request;
use crate::image::ImageInputs;
use crate::processor::{self, ProcessorError};
use crate::sampler::SamplingParams;
use crate::tokenizer::Tokenizer;
use std::sync::Arc;

/// Most tokens of an answer if no limit is set: about 750 words.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 1000;

/// The messages so far, in order, and the images that they are about. Images are numbered from 1 over the whole
/// conversation.
///
/// ```
/// use phi3v::Conversation;
/// use phi3v::chat_template::render;
///
/// let mut conversation = Conversation::new(Some("Be brief."));
/// conversation.ask([], "What is the capital of France?");
/// conversation.answered("Paris.");
/// conversation.ask([], "And of Italy?");
/// assert!(render(conversation.messages()).ends_with("<|user|>\nAnd of Italy?<|end|>\n<|assistant|>\n"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    messages: Vec<Message>,
    images: Vec<Arc<ImageInputs>>,
}

/// How the next answer is chosen, and where it ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationOptions {
    /// How each token is chosen from the logits; greedy by default.
    pub sampling: SamplingParams,
    /// The answer ends after this many tokens at the latest. `None` means [`DEFAULT_MAX_NEW_TOKENS`], or as many as the
    /// context leaves if these are fewer.
    pub max_new_tokens: Option<usize>,
    /// Strings before which the answer ends, see [`StopStrings`](crate::stop::StopStrings).
    pub stop: Vec<String>,
}

impl Conversation {
    /// Creates a conversation with the instructions `system`, if any, and no questions yet.
    #[must_use]
    pub fn new(system: Option<&str>) -> Self {
        let messages = system.map(|text| Message::text(Role::System, text)).into_iter().collect();
        Self { messages, images: Vec::new() }
    }

    /// Adds a question about `images`, which precede it in the prompt, and about all earlier images.
    pub fn ask(&mut self, images: impl IntoIterator<Item = Arc<ImageInputs>>, question: &str) {
        let first = self.images.len() + 1;
        self.images.extend(images);
        let numbers = (first..=self.images.len()).map(Part::Image);
        self.messages.push(Message::user(numbers.chain([Part::Text(question.to_owned())])));
    }

    /// Adds the model's answer to the last question, so that the next question can refer to it.
    pub fn answered(&mut self, text: impl Into<String>) {
        self.messages.push(Message::text(Role::Assistant, text));
    }

    /// The messages so far, oldest first, instructions included.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The images so far; image number `i` of the messages is `images()[i - 1]`.
    #[must_use]
    pub fn images(&self) -> &[Arc<ImageInputs>] {
        &self.images
    }

    /// Returns the ids of the prompt for the next answer, `[tokens]`, with `-i` at the rows of image `i`.
    ///
    /// # Errors
    /// [`ProcessorError::NoMessages`] if there are no messages.
    pub fn input_ids(&self, tokenizer: &Tokenizer) -> Result<Vec<i64>, ProcessorError> {
        let rows: Vec<usize> = self.images.iter().map(|image| image.num_img_tokens()).collect();
        processor::chat_prompt(tokenizer, &self.messages, &rows)
    }

    /// Returns the request for the next answer, for an engine whose context holds `context_tokens` tokens.
    ///
    /// # Errors
    /// Sampling parameters out of range, [`ProcessorError::NoMessages`], or [`ProcessorError::NoQuestion`] if there is no
    /// question yet or the last one has been answered. A prompt that leaves no tokens for an answer is not refused here
    /// but by the engine.
    pub fn request(
        &self,
        tokenizer: &Tokenizer,
        context_tokens: usize,
        options: &GenerationOptions,
    ) -> Result<Request> {
        let GenerationOptions { sampling, max_new_tokens, stop } = options.clone();
        sampling.validate()?;
        self.check_asks()?;
        let input_ids = self.input_ids(tokenizer)?;
        let budget = context_tokens.saturating_sub(input_ids.len()).max(1);
        let max_new_tokens = max_new_tokens.unwrap_or(budget.min(DEFAULT_MAX_NEW_TOKENS));
        Ok(Request { sampling, stop, ..Request::greedy(input_ids, self.images.clone(), max_new_tokens) })
    }

    /// Checks that the last message is the user's. The model would continue any other prompt as if it were another
    /// speaker.
    fn check_asks(&self) -> Result<(), ProcessorError> {
        match self.messages.last().map(|message| message.role) {
            None => Err(ProcessorError::NoMessages),
            Some(Role::User) => Ok(()),
            Some(last) => Err(ProcessorError::NoQuestion { last }),
        }
    }

    /// Returns the request for the scores of the choices of `questions`, at least one, for an engine whose context holds
    /// `context_tokens` tokens. Each question continues the last message, which is the user's.
    ///
    /// # Errors
    /// A question's choices cannot be told apart, or a question exceeds the context.
    pub fn decide<'a>(
        &self,
        tokenizer: &Tokenizer,
        context_tokens: usize,
        questions: impl IntoIterator<Item = &'a Question>,
    ) -> Result<Request> {
        let mut all = Questions::new(tokenizer, context_tokens, &self.messages, self.images.clone());
        questions.into_iter().try_for_each(|question| all.add(question))?;
        Ok(all.into_request())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat_template::render;
    use crate::image::{self, ImageParams, RgbImage};

    fn image(side: usize) -> Arc<ImageInputs> {
        let rgb = RgbImage { width: side, height: side, pixels: vec![200; side * side * 3] };
        let params = ImageParams { num_crops: 1, ..ImageParams::default() };
        Arc::new(image::process(&rgb, &params).unwrap())
    }

    fn tokenizer() -> Tokenizer {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/tiny/tokenizer.json");
        Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Checks that the prompt is the one in the cookbook, and that the ids are those of this prompt.
    fn assert_prompt(conversation: &Conversation, prompt: &str) {
        assert_eq!(render(conversation.messages()), prompt);
        let tokenizer = tokenizer();
        let rows: Vec<usize> = conversation.images().iter().map(|image| image.num_img_tokens()).collect();
        assert_eq!(conversation.input_ids(&tokenizer), processor::raw_prompt(&tokenizer, prompt, &rows));
    }

    #[test]
    fn prompts_are_the_cookbooks() {
        let mut stock = Conversation::new(None);
        stock.ask([image(20)], "Could you please introduce this stock to me?");
        assert_prompt(
            &stock,
            "<|user|>\n<|image_1|>\nCould you please introduce this stock to me?<|end|>\n<|assistant|>\n",
        );
        let mut difference = Conversation::new(None);
        difference.ask([image(20), image(30)], " What is difference in this two images?");
        assert_prompt(
            &difference,
            "<|user|>\n<|image_1|>\n<|image_2|>\n What is difference in this two images?<|end|>\n<|assistant|>\n",
        );
    }

    #[test]
    fn later_turns_go_on_counting_images() {
        let mut conversation = Conversation::new(Some("Be brief."));
        conversation.ask([image(20)], "What is it?");
        conversation.answered("A cat.");
        conversation.ask([image(30)], "And this?");
        assert_prompt(
            &conversation,
            "<|system|>\nBe brief.<|end|>\n<|user|>\n<|image_1|>\nWhat is it?<|end|>\n<|assistant|>\nA cat.<|end|>\n\
             <|user|>\n<|image_2|>\nAnd this?<|end|>\n<|assistant|>\n",
        );
    }

    #[test]
    fn only_a_question_is_answered() {
        let tokenizer = tokenizer();
        let request = |conversation: &Conversation| {
            conversation.request(&tokenizer, 9_000, &GenerationOptions::default())
        };
        let refused = |conversation: &Conversation| match request(conversation) {
            Err(crate::Error::Processor(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&Conversation::default()), ProcessorError::NoMessages);
        let mut conversation = Conversation::new(Some("Be brief."));
        assert_eq!(refused(&conversation), ProcessorError::NoQuestion { last: Role::System });
        conversation.ask([], "What is it?");
        assert!(request(&conversation).is_ok());
        conversation.answered("A cat.");
        let error = refused(&conversation);
        assert_eq!(error.to_string(), "the last message is the assistant's, it must be the user's");
        assert!(error.hint().is_some());
        conversation.ask([], "And whose?");
        assert!(request(&conversation).is_ok());
    }

    #[test]
    fn an_answer_takes_what_is_asked_for_or_what_the_context_leaves() {
        let tokenizer = tokenizer();
        let mut conversation = Conversation::new(None);
        conversation.ask([], "Hello");
        let prompt = conversation.input_ids(&tokenizer).unwrap().len();
        let tokens = |context, max_new_tokens| {
            let options = GenerationOptions { max_new_tokens, ..GenerationOptions::default() };
            conversation.request(&tokenizer, context, &options).unwrap().max_new_tokens
        };
        assert_eq!(tokens(prompt + 5_000, None), DEFAULT_MAX_NEW_TOKENS);
        assert_eq!(tokens(prompt + 30, None), 30);
        assert_eq!(tokens(prompt, None), 1, "for the engine to refuse");
        assert_eq!(tokens(prompt + 30, Some(40)), 40, "for the engine to refuse");
    }
}
