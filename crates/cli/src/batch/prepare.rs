//! Turns inputs into requests, on separate threads while the engine works.

use super::inputs::PictureItem;
use super::lines::Lines;
use super::questions::Question;
use super::row::{RowKey, salt};
use crate::documents::OpenFiles;
use crate::server::error::{ApiError, Code};
use crate::server::openai::offline::{Extras, Offered, Offline, Requests, settle_seed};
use crate::sources::{ImageOptions, NamedImage, NamedImageError, read_page};
use phi3v::batch::Asked;
use phi3v::constraint::{Constraint, GrammarConstraint};
use phi3v::engine::Request;
use phi3v::fields::FieldReader;
use phi3v::tokenizer::Tokenizer;
use phi3v::{Conversation, GenerationOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// Identifies the answer of a request.
pub struct Key {
    /// The row the answer belongs to.
    pub row: Arc<RowKey>,
    /// Index of the answer within the row.
    pub choice: usize,
}

/// Requests for one input.
pub type Group = Vec<Asked<Key, ApiError>>;

/// Makes requests of pictures: one for each question of the job.
pub struct PictureAsker {
    /// How pictures are read.
    pub options: ImageOptions,
    /// Documents kept open between their pages.
    pub open: OpenFiles,
    /// Tokenizes the questions.
    pub tokenizer: Arc<Tokenizer>,
    /// Limit of tokens for a prompt and its answer.
    pub context_tokens: usize,
    /// Instructions before each question.
    pub system: Option<String>,
    /// Sampling and limits of answers.
    pub generation: GenerationOptions,
    /// The questions asked about every picture.
    pub questions: Vec<Prepared>,
    /// The digest that names the job, for rows and seeds.
    pub job: String,
}

/// A question with the form of its answer.
pub struct Prepared {
    /// The question as it was given.
    pub question: Question,
    /// The constraint that enforces the form, in its initial state. Only one thread at a time may clone it.
    pub constraint: Option<Mutex<GrammarConstraint>>,
    /// Finds the values in such an answer.
    pub fields: Option<FieldReader>,
}

/// A picture, with the questions that have no row yet.
pub struct PictureWork {
    /// The picture's location and name.
    pub item: PictureItem,
    /// Indices of questions, from 0.
    pub questions: Vec<usize>,
}

impl PictureAsker {
    /// Reads and cuts a picture and asks about it. If the picture cannot be read, every question gets its error.
    #[must_use]
    pub fn prepare(&self, work: &PictureWork) -> Group {
        let PictureItem { source, page, .. } = &work.item;
        let read = || read_page(source, *page, &self.options, &self.open).map_err(|error| refusal(&error));
        let picture = caught(read);
        let ask = |&number: &usize| {
            let prepared = &self.questions[number];
            let custom_id = prepared.question.row_id(&work.item.id);
            let request = picture.as_ref().map_err(Clone::clone);
            let request = request.and_then(|picture| caught(|| self.request(picture, prepared, &custom_id)));
            let fields = prepared.fields.clone();
            let extras = Extras { fields, ..Extras::default() };
            let warning = picture.as_ref().ok().filter(|picture| picture.is_incomplete);
            let warning = warning.map(NamedImage::incomplete_notice);
            let row = RowKey { custom_id, choices: 1, extras, warning, _budget: None };
            Asked { key: Key { row: Arc::new(row), choice: 0 }, request }
        };
        work.questions.iter().map(ask).collect()
    }

    fn request(
        &self,
        picture: &NamedImage,
        prepared: &Prepared,
        custom_id: &str,
    ) -> Result<Request, ApiError> {
        let mut conversation = Conversation::new(self.system.as_deref());
        conversation.ask([Arc::clone(&picture.inputs)], &prepared.question.prompt);
        let mut request = conversation.request(&self.tokenizer, self.context_tokens, &self.generation)?;
        settle_seed(&mut request.sampling, &salt(&self.job, custom_id));
        if let Some(constraint) = &prepared.constraint {
            let constraint = constraint.lock().unwrap_or_else(PoisonError::into_inner).clone();
            request.constraint = Some(Box::new(constraint) as Box<dyn Constraint>);
            // the probabilities of the row's values are computed from those of the tokens
            request.sampling.logprobs = Some(0);
        }
        Ok(request)
    }
}

/// The result of `work`. A panic becomes an error, so that it affects only this input's row.
fn caught<T>(work: impl FnOnce() -> Result<T, ApiError>) -> Result<T, ApiError> {
    let failed = || ApiError::internal("the request could not be prepared");
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(failed()))
}

/// Why a named picture cannot be used, worded as on the command line: the rows are for the same user.
fn refusal(error: &NamedImageError) -> ApiError {
    let code = match error {
        NamedImageError::Image { error, .. } => ApiError::image(error, "").code,
        NamedImageError::Document { error, .. } => ApiError::document(error, "").code,
        NamedImageError::Fetch { error, .. } => ApiError::source(error).code,
        NamedImageError::Url { .. } => Code::ImageSourceNotAllowed,
        NamedImageError::Unprepared => Code::InternalError,
        NamedImageError::File { .. } | NamedImageError::Grab(_) | NamedImageError::StdinTwice => {
            Code::ImageUnreadable
        }
    };
    let hint = error.hint_in_batch().map(|hint| Box::new(hint.into()));
    ApiError { hint, ..ApiError::new(code, error.to_string()) }
}

/// The warning for a request with a page that is incomplete.
const LINE_INCOMPLETE: &str = "a picture or a font on a page could not be drawn, and is missing";

/// Makes the requests that JSON lines contain.
pub struct LineAsker {
    /// The file's lines, each of them a request.
    pub lines: Lines,
    /// Converts bodies to requests.
    pub offline: Offline,
    /// The digest that names the job, for rows and seeds.
    pub job: String,
}

impl LineAsker {
    /// Makes the requests of line `index`, named `custom_id`.
    #[must_use]
    pub fn prepare(&self, index: usize, custom_id: &str) -> Group {
        let body = self.lines.body(index);
        let salt = salt(&self.job, custom_id);
        let offered = body.and_then(|body| caught(|| self.offline.prepare(&body, salt)));
        let custom_id = custom_id.to_owned();
        match offered {
            Ok(Offered { requests: Requests { requests, is_incomplete, budget }, extras }) => {
                let warning = is_incomplete.then(|| format!("{custom_id}: {LINE_INCOMPLETE}"));
                let choices = requests.len();
                let row = RowKey { custom_id, choices, extras, warning, _budget: Some(budget) };
                let row = Arc::new(row);
                let asked = |(choice, request)| {
                    let key = Key { row: Arc::clone(&row), choice };
                    Asked { key, request: Ok(request) }
                };
                requests.into_iter().enumerate().map(asked).collect()
            }
            Err(error) => {
                let extras = Extras::default();
                let row = RowKey { custom_id, choices: 1, extras, warning: None, _budget: None };
                vec![Asked { key: Key { row: Arc::new(row), choice: 0 }, request: Err(error) }]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{FetchFault, SourceError, Unallowed};
    use phi3v::image::ImageError;

    #[test]
    fn a_row_of_a_picture_advises_flags_of_the_batch_and_none_of_the_server() {
        let fetch = |error| NamedImageError::Fetch { url: "https://example.org/a.png".to_owned(), error };
        let url = |url: &str| NamedImageError::Url { url: url.to_owned() };
        let too_wide = ImageError::Side { width: 9, height: 1, limit: 8 };
        let cases = [
            (fetch(SourceError::NotAllowed(Unallowed::Host)), Code::ImageSourceNotAllowed, "--allow-url"),
            (
                fetch(SourceError::NotAllowed(Unallowed::PrivateHost)),
                Code::ImageSourceNotAllowed,
                "fetch it yourself",
            ),
            (fetch(SourceError::TooLarge { limit: 4 }), Code::ImageTooLarge, "--max-image-bytes"),
            (fetch(FetchFault::Status.into()), Code::ImageFetchFailed, "--retry-errors"),
            (url("https://example.org/a.png"), Code::ImageSourceNotAllowed, "--allow-url example.org"),
            (url("ftp://example.org/a.png"), Code::ImageSourceNotAllowed, "fetch it yourself"),
            (
                NamedImageError::Image { name: "a".to_owned(), error: too_wide },
                Code::ImageTooLarge,
                "--max-side",
            ),
        ];
        for (error, code, advice) in cases {
            let told = refusal(&error);
            let hint = told.hint.unwrap().to_string();
            assert!(told.code == code && hint.contains(advice), "{error}: {hint}");
            for foreign in ["data URL", "server", "--allow-image-host"] {
                assert!(!hint.contains(foreign), "{error}: {hint}");
            }
        }
    }

    #[test]
    fn a_panic_is_an_error_of_the_input_that_it_comes_from() {
        let told = caught::<()>(|| panic!("a bug")).unwrap_err();
        assert_eq!(told.code, Code::InternalError);
        assert_eq!(caught(|| Ok(7)).unwrap(), 7);
    }
}
