//! What answers carry in addition to their text, on request: log probabilities, words, and the values of a form.

use super::logprobs::AnswerLogprobs;
use super::types::{Include, Logprobs, WordFields};
use crate::fields::FieldMap;
use crate::server::error::ApiError;
use crate::server::hints::question;
use phi3v::constraint::Grammar;
use phi3v::engine::Token;
use phi3v::fields::FieldReader;
use phi3v::tokenizer::Tokenizer;
use phi3v::words::{Word, WordStream};
use std::sync::Arc;

/// What the answers to a request must carry.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Whether they carry log probabilities.
    pub logprobs: bool,
    /// Whether they carry words with their probabilities.
    pub words: bool,
    /// Finds the values of an answer, if they are wanted.
    pub fields: Option<FieldReader>,
}

impl Extras {
    /// Converts `include`, for answers of the form `form`.
    ///
    /// # Errors
    /// Values are requested of answers that have none.
    pub(super) fn included(include: &[Include], form: Option<&Grammar>) -> Result<Self, ApiError> {
        let fields = include.contains(&Include::Fields);
        if fields && form.is_none() {
            let error = ApiError::invalid_value("include", "include has fields, and the answer has no form");
            return Err(error.hint(question::FORM));
        }
        let (words, fields) = (include.contains(&Include::Words), form.filter(|_| fields));
        Ok(Self { logprobs: false, words, fields: fields.map(FieldReader::of) })
    }
}

/// The extras of one answer, in step with its text.
pub(super) struct AnswerExtras {
    logprobs: Option<AnswerLogprobs>,
    words: Option<WordStream>,
    fields: Option<FieldReader>,
}

/// The extras that accompany a piece of text. What was not requested is `None`.
#[derive(Default)]
pub(super) struct Told {
    /// Log probabilities of tokens up to the end of the text that is now final.
    pub(super) logprobs: Option<Logprobs>,
    /// Words that are complete.
    pub(super) words: Option<Vec<WordFields>>,
    /// The values of the whole answer, at its end.
    pub(super) fields: Option<FieldMap>,
}

impl AnswerExtras {
    /// Creates the extras of an answer that begins.
    pub(super) fn new(Extras { logprobs, words, fields }: &Extras, tokenizer: &Arc<Tokenizer>) -> Self {
        Self {
            logprobs: logprobs.then(|| AnswerLogprobs::new(Arc::clone(tokenizer))),
            words: words.then(WordStream::default),
            fields: fields.clone(),
        }
    }

    /// Creates the extras of `choices` answers that begin.
    pub(super) fn several(choices: usize, extras: &Extras, tokenizer: &Arc<Tokenizer>) -> Vec<Self> {
        (0..choices).map(|_| Self::new(extras, tokenizer)).collect()
    }

    /// Takes the next token.
    pub(super) fn token(&mut self, token: &Token) -> Told {
        self.fields.iter_mut().for_each(|fields| fields.push(token));
        Told {
            logprobs: self.logprobs.as_mut().map(|logprobs| logprobs.token(token)),
            words: self.words.as_mut().map(|words| told_words(words.push(token))),
            fields: None,
        }
    }

    /// Takes the text that was held back until the end of the answer.
    pub(super) fn finish(&mut self, text: &str) -> Told {
        Told {
            logprobs: self.logprobs.as_mut().map(|logprobs| logprobs.finish(text)),
            words: self.words.as_mut().map(|words| told_words(words.finish(text))),
            fields: self.fields.as_mut().map(|fields| fields.finish(text).into()),
        }
    }
}

fn told_words(words: Vec<Word>) -> Vec<WordFields> {
    words.into_iter().map(WordFields::from).collect()
}

/// Appends later extras to earlier ones.
pub(super) fn add<T>(all: &mut Option<Vec<T>>, more: Option<Vec<T>>) {
    if let Some(more) = more {
        all.get_or_insert_default().extend(more);
    }
}
