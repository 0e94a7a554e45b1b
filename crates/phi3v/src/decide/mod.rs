//! Decisions: how probable each of some choices is as the answer to a question about images.
//!
//! Nothing is generated and nothing is parsed. A choice is an answer like any other: its text and the token that ends an
//! answer. Its probability is the product of the probabilities that the model gives to its tokens after the prompt. A
//! softmax of the logarithms then compares the choices, at a temperature that [`fit`] can determine from labelled examples.
//!
//! ```
//! use phi3v::decide::Question;
//!
//! let mut session = phi3v::load("demo")?;
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/text.png");
//! let sign = session.image(path)?;
//! let question = Question::new("What is written here?", ["Fresh Bread\nOpen Daily\nWelcome", "No Entry"]);
//! let decisions = session.decide([sign], &[question])?;
//! assert_eq!(decisions[0].best(), 0);
//! assert!(decisions[0].probabilities[0] > 0.99);
//! # Ok::<(), phi3v::Error>(())
//! ```
//!
//! # What the numbers mean
//!
//! - They compare whole answers, including the token that ends an answer: "yes" and "yes and no" are two answers, though
//!   one is a prefix of the other. A choice of many tokens is less probable than one of few. There is no division by
//!   length, since the result would not be a probability. If lengths differ much, ask for short choices.
//! - [`Decision::covered`] is the share of the model's probability that lies on the choices. If it is small, the model
//!   would say something else: "Yes." is another answer than "yes". State in the question how to answer.
//! - Models like this are overconfident; see [`fit`].

mod calibration;

pub use calibration::{
    Calibration, CalibrationError, Fitted, Labelled, Quality, TEMPERATURE_MAX, TEMPERATURE_MIN, fit, quality,
};

use crate::Result;
use crate::chat_template::{Message, Part, Role};
use crate::engine::{EngineError, Request, ScoredPrompt};
use crate::error::count;
use crate::image::ImageInputs;
use crate::processor::{answer_ids, chat_prompt};
use crate::tokenizer::Tokenizer;
use std::fmt;
use std::sync::Arc;

/// Maximum number of choices of a question.
pub const CHOICES_MAX: usize = 255;

/// Why a question cannot be decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// There are too few or too many choices.
    #[error("a question has {}, it must have 2 to {CHOICES_MAX}", count(*.choices, "choice"))]
    ChoiceCount {
        /// The number of choices.
        choices: usize,
    },
    /// A choice has no text.
    #[error("choice {number} is empty")]
    EmptyChoice {
        /// The number of the choice, from 1.
        number: usize,
    },
    /// Two choices are the same answer to the model.
    #[error("the choices {first:?} and {second:?} are the same answer")]
    EqualChoices {
        /// The first of them.
        first: String,
        /// The other, as it was given.
        second: String,
    },
}

impl DecideError {
    /// Returns what the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ChoiceCount { .. } => "give each question its possible answers, two at least".to_owned(),
            Self::EmptyChoice { .. } => "give every choice a text".to_owned(),
            Self::EqualChoices { .. } => {
                "leave one of them out; white space around a choice does not count".to_owned()
            }
        })
    }
}

/// A question, and the answers to choose from.
#[derive(Clone, Debug)]
pub struct Question {
    /// The content of the question. Its image numbers continue those of the messages before it.
    pub content: Vec<Part>,
    /// The images that only this question is about, in the order of their numbers.
    pub images: Vec<Arc<ImageInputs>>,
    /// The possible answers, 2 to [`CHOICES_MAX`], all different.
    pub choices: Vec<String>,
}

impl Question {
    /// Makes a question from text, which is asked unchanged.
    #[must_use]
    pub fn new<C: Into<String>>(text: &str, choices: impl IntoIterator<Item = C>) -> Self {
        let choices = choices.into_iter().map(Into::into).collect();
        Self { content: vec![Part::Text(text.to_owned())], images: Vec::new(), choices }
    }
}

/// How probable each choice of a question is.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Natural logarithm of each choice's probability as the model's whole answer.
    pub log_probs: Vec<f64>,
    /// Probabilities of the choices relative to each other, which add up to 1.
    pub probabilities: Vec<f64>,
}

impl Decision {
    /// Makes a decision from the scores of a question's choices, compared at a temperature; 1 is the model's own. At 0 and
    /// below, the likeliest choice has probability 1.
    ///
    /// ```
    /// use phi3v::decide::Decision;
    ///
    /// assert_eq!(Decision::new(vec![-2.0, -1.0], 0.0).probabilities, [0.0, 1.0]);
    /// ```
    #[must_use]
    pub fn new(log_probs: Vec<f64>, temperature: f64) -> Self {
        let probabilities = softmax(&log_probs, temperature);
        Self { log_probs, probabilities }
    }

    /// Returns the index of the likeliest choice, the first if several are equal.
    #[must_use]
    pub fn best(&self) -> usize {
        let first = |best, index| if self.log_probs[index] > self.log_probs[best] { index } else { best };
        (1..self.log_probs.len()).fold(0, first)
    }

    /// Returns the share of the model's probability that lies on the choices, among all possible answers: from 0 to 1.
    #[must_use]
    pub fn covered(&self) -> f64 {
        self.log_probs.iter().map(|log_prob| log_prob.exp()).sum::<f64>().min(1.0)
    }
}

/// Returns `softmax(log_probs / temperature)`. If all are minus infinity, all choices are equally likely.
fn softmax(log_probs: &[f64], temperature: f64) -> Vec<f64> {
    let highest = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return vec![1.0 / log_probs.len() as f64; log_probs.len()];
    }
    let temperature = temperature.max(f64::MIN_POSITIVE);
    let powers: Vec<f64> = log_probs.iter().map(|log| ((log - highest) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Combines several questions about the same messages and images into one request, so that these are computed once.
///
/// ```
/// use phi3v::chat_template::{Message, Role};
/// use phi3v::decide::{Decision, Question, Questions};
///
/// let session = phi3v::load("demo")?;
/// let (tokenizer, context_tokens) = (session.tokenizer().clone(), session.context_tokens());
/// let messages = [Message::text(Role::User, "A cat sat on a mat.")];
/// let mut questions = Questions::new(&tokenizer, context_tokens, &messages, Vec::new());
/// for text in [" Is it about a cat?", " Is it about a dog?"] {
///     questions.add(&Question::new(text, ["yes", "no"]))?;
/// }
/// let finished = session.into_engine().run(questions.into_request(), &mut ())?;
/// let decisions: Vec<_> = finished.scores.into_iter().map(|scores| Decision::new(scores, 1.0)).collect();
/// assert_eq!(decisions.len(), 2);
/// # Ok::<(), phi3v::Error>(())
/// ```
pub struct Questions<'a> {
    tokenizer: &'a Tokenizer,
    context_tokens: usize,
    messages: &'a [Message],
    /// How many of the images belong to the messages.
    shared_images: usize,
    images: Vec<Arc<ImageInputs>>,
    /// The ids of the first prompt, and how many of them all prompts have in common at their beginning.
    first: Vec<i64>,
    shared: usize,
    prompts: Vec<Prompt>,
}

impl fmt::Debug for Questions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("questions", &self.prompts.len()).finish_non_exhaustive()
    }
}

struct Prompt {
    /// Number of leading ids that equal those of the first prompt.
    common: usize,
    /// The ids after those.
    rest: Vec<i64>,
    answers: Vec<Vec<u32>>,
}

impl<'a> Questions<'a> {
    /// Starts a request about `messages` and their `images`, for an engine whose context holds `context_tokens` tokens. If the
    /// last message is the user's, each question continues it; otherwise it is a message of its own.
    #[must_use]
    pub fn new(
        tokenizer: &'a Tokenizer,
        context_tokens: usize,
        messages: &'a [Message],
        images: Vec<Arc<ImageInputs>>,
    ) -> Self {
        let (first, prompts, shared_images) = (Vec::new(), Vec::new(), images.len());
        Self { tokenizer, context_tokens, messages, shared_images, images, first, shared: 0, prompts }
    }

    /// Adds a question.
    ///
    /// # Errors
    /// If its choices are not distinct, its images do not match their numbers, or it exceeds the context.
    pub fn add(&mut self, question: &Question) -> Result<()> {
        let answers = choice_ids(self.tokenizer, &question.choices)?;
        let mut ids = self.prompt_ids(question)?;
        let answer = answers.iter().map(Vec::len).max().unwrap_or(0);
        let (prompt, context) = (ids.len(), self.context_tokens);
        if prompt.saturating_add(answer) > context {
            return Err(EngineError::ContextLength { prompt, answer, context }.into());
        }
        self.images.extend(question.images.iter().cloned());
        if self.prompts.is_empty() {
            self.shared = ids.len();
            self.first.clone_from(&ids);
        }
        let common = ids.iter().zip(&self.first).take_while(|(a, b)| a == b).count();
        self.shared = self.shared.min(common);
        self.prompts.push(Prompt { common, rest: ids.split_off(common), answers });
        Ok(())
    }

    /// Returns the ids of a question's prompt. The question's own images are numbered after all images so far.
    fn prompt_ids(&self, Question { content, images, .. }: &Question) -> Result<Vec<i64>> {
        let mut messages = self.messages.to_vec();
        match messages.last_mut() {
            Some(Message { role: Role::User, content: before }) => before.extend(content.iter().cloned()),
            _ => messages.push(Message { role: Role::User, content: content.clone() }),
        }
        let shared = &self.images[..self.shared_images];
        let rows: Vec<usize> = shared.iter().chain(images).map(|image| image.num_img_tokens()).collect();
        let mut ids = chat_prompt(self.tokenizer, &messages, &rows)?;
        let others = (self.images.len() - self.shared_images) as i64;
        ids.iter_mut().filter(|id| **id < -(self.shared_images as i64)).for_each(|id| *id -= others);
        Ok(ids)
    }

    /// Returns the request, whose scores are those of the questions in order.
    #[must_use]
    pub fn into_request(self) -> Request {
        let Self { mut first, shared, prompts, images, .. } = self;
        let scored = prompts.into_iter().map(|Prompt { common, rest, answers }| ScoredPrompt {
            input_ids: [&first[shared..common], &rest].concat(),
            answers,
        });
        let scored = scored.collect();
        first.truncate(shared);
        Request::scoring(first, images, scored)
    }
}

/// Checks a question's choices as far as possible without a tokenizer: their number, and that each is a distinct text.
///
/// # Errors
/// If there are fewer than two or more than [`CHOICES_MAX`], if one is empty, or if two differ only in surrounding space.
pub fn check_choices(choices: &[String]) -> Result<(), DecideError> {
    if !(2..=CHOICES_MAX).contains(&choices.len()) {
        return Err(DecideError::ChoiceCount { choices: choices.len() });
    }
    for (index, choice) in choices.iter().enumerate() {
        let word = choice.trim();
        if word.is_empty() {
            return Err(DecideError::EmptyChoice { number: index + 1 });
        }
        if let Some(equal) = choices[..index].iter().find(|other| other.trim() == word) {
            return Err(DecideError::EqualChoices { first: equal.clone(), second: choice.clone() });
        }
    }
    Ok(())
}

/// Returns the ids of the choices, each with the token that ends an answer.
fn choice_ids(tokenizer: &Tokenizer, choices: &[String]) -> Result<Vec<Vec<u32>>, DecideError> {
    check_choices(choices)?;
    let mut answers: Vec<Vec<u32>> = Vec::with_capacity(choices.len());
    for choice in choices {
        let ids = answer_ids(tokenizer, choice.trim());
        if let Some(equal) = answers.iter().position(|other| *other == ids) {
            let (first, second) = (choices[equal].clone(), choice.clone());
            return Err(DecideError::EqualChoices { first, second });
        }
        answers.push(ids);
    }
    Ok(answers)
}
