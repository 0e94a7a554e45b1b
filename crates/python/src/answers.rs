//! Requests under way, and what comes of them.

use crate::engine_thread::{Job, Update};
use crate::errors;
use crate::generation::Generation;
use crate::model::{Model, Shared};
use crate::picture::Picture;
use crate::work::{self, SLICE};
use phi3v::constraint::Grammar;
use phi3v::conversation::DEFAULT_MAX_NEW_TOKENS;
use phi3v::decide::{Decision, Question};
use phi3v::engine::{Event, Finished, Request, Token};
use phi3v::{Conversation, GenerationOptions, fields, words};
use phi3v_cli::error::CliError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests of one asker under way, each by a key of its own. Dropping it cancels them.
#[pyclass(frozen, module = "phi3v._phi3v")]
pub(crate) struct Answers {
    shared: Arc<Shared>,
    updates: Sender<Update>,
    received: Mutex<Receiver<Update>>,
    open: Mutex<HashMap<u64, Open>>,
}

/// A request without its end yet.
struct Open {
    cancelled: Arc<AtomicBool>,
    text: String,
    tokens: Vec<Token>,
    /// What its answer is held to.
    form: Option<Grammar>,
}

/// A token of an answer, and the text that has become certain with it.
#[pyclass(frozen, get_all, module = "phi3v._phi3v")]
pub(crate) struct Piece {
    /// Of which request.
    key: u64,
    /// The token's id.
    id: u32,
    /// The text.
    text: String,
}

/// A token that was chosen.
#[derive(Clone, IntoPyObject)]
struct Chosen {
    id: u32,
    text: String,
    logprob: f32,
    top: Vec<(u32, f32)>,
}

/// A word of an answer, as [`words::Word`] has it.
#[derive(Clone, IntoPyObject)]
struct Spoken {
    space: String,
    text: String,
    p: f32,
    mean: f32,
}

/// A value of an answer that has a form, as [`fields::Field`] has it; the value as JSON.
#[derive(Clone, IntoPyObject)]
struct Valued {
    path: String,
    value: String,
    p: f32,
}

/// Token counts of an answer.
#[derive(Clone, Default, IntoPyObject)]
struct Counts {
    prompt_tokens: usize,
    image_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
}

/// Seconds of an answer.
#[derive(Clone, Default, IntoPyObject)]
struct Seconds {
    queued: f64,
    vision: f64,
    prefill: f64,
    decode: f64,
    first_token: Option<f64>,
}

/// The end of a request: its answer, or its failure.
#[pyclass(frozen, get_all, module = "phi3v._phi3v")]
pub(crate) struct Ended {
    /// Of which request.
    key: u64,
    /// The answer.
    text: String,
    /// Its tokens.
    tokens: Vec<Chosen>,
    /// Its words with their probabilities.
    words: Vec<Spoken>,
    /// The values of its form with their probabilities.
    fields: Vec<Valued>,
    /// Of questions: the logarithm of each choice's probability.
    scores: Vec<Vec<f64>>,
    /// `stop`, `length` or `cancelled`.
    finish_reason: &'static str,
    /// Token counts.
    usage: Counts,
    /// Where its time went.
    timings: Seconds,
    /// Why there is no answer.
    error: Option<Py<PyAny>>,
}

/// What [`Answers::next`] tells of.
#[derive(IntoPyObject)]
enum Told {
    Piece(Piece),
    Ended(Ended),
}

/// The same, before it is Python's.
enum Next {
    Piece(u64, u32, String),
    Finished(u64, Open, Box<Finished>),
    Failed(u64, Box<phi3v::Error>),
}

#[pymethods]
impl Answers {
    #[new]
    fn new(py: Python<'_>, model: &Model) -> PyResult<Self> {
        model.shared.check_process(py)?;
        let (updates, received) = channel();
        Ok(Self {
            shared: Arc::clone(&model.shared),
            updates,
            received: Mutex::new(received),
            open: Mutex::default(),
        })
    }

    /// Asks for the answer to a conversation: turns of role, text and number of pictures, the pictures in their order.
    fn submit(
        &self,
        py: Python<'_>,
        key: u64,
        turns: Vec<(String, String, usize)>,
        pictures: Vec<Py<Picture>>,
        generation: Generation,
    ) -> PyResult<()> {
        let conversation = work::held(py, || conversation(&turns, &pictures))?;
        let (request, form) = work::outside(py, || {
            let Shared { tokenizer, context_tokens, .. } = &*self.shared;
            let request = conversation.request(tokenizer, *context_tokens, &generation.options())?;
            Ok(self.constrained(request, &generation)?)
        })?;
        self.send(py, key, request, form)
    }

    /// Asks for what follows ids, `-i` at the rows of picture i.
    fn submit_ids(
        &self,
        py: Python<'_>,
        key: u64,
        ids: Vec<i64>,
        pictures: Vec<Py<Picture>>,
        generation: Generation,
    ) -> PyResult<()> {
        let GenerationOptions { sampling, max_new_tokens, stop } = generation.options();
        let left = self.shared.context_tokens.saturating_sub(ids.len()).max(1);
        let images = pictures.iter().map(|picture| Arc::clone(&picture.get().inputs)).collect();
        let max_new_tokens = max_new_tokens.unwrap_or(left.min(DEFAULT_MAX_NEW_TOKENS));
        let request = Request { sampling, stop, ..Request::greedy(ids, images, max_new_tokens) };
        let (request, form) = work::outside(py, || {
            request.sampling.validate().map_err(phi3v::Error::from)?;
            Ok(self.constrained(request, &generation)?)
        })?;
        self.send(py, key, request, form)
    }

    /// Asks for the scores of the choices of questions about pictures, each question a text with its choices.
    fn submit_questions(
        &self,
        py: Python<'_>,
        key: u64,
        system: Option<String>,
        questions: Vec<(String, Vec<String>)>,
        pictures: Vec<Py<Picture>>,
    ) -> PyResult<()> {
        let mut conversation = Conversation::new(system.as_deref());
        conversation.ask(pictures.iter().map(|picture| Arc::clone(&picture.get().inputs)), "");
        let request = work::outside(py, || {
            let Shared { tokenizer, context_tokens, .. } = &*self.shared;
            let question = |(text, choices): (String, Vec<String>)| Question::new(&text, choices);
            let questions: Vec<Question> = questions.into_iter().map(question).collect();
            Ok(conversation.decide(tokenizer, *context_tokens, &questions)?)
        })?;
        self.send(py, key, request, None)
    }

    /// Waits for what happens next: a piece where `pieces` are wanted, or the end of a request. None where no request
    /// is under way.
    ///
    /// # Errors
    /// This is another process than that which asked: nothing will ever happen here.
    fn next(&self, py: Python<'_>, pieces: bool) -> PyResult<Option<Told>> {
        self.check_process(py)?;
        loop {
            if self.open().is_empty() {
                return Ok(None);
            }
            let next = work::outside(py, || Ok(self.wait(pieces)))?;
            match next {
                Some(next) => return told(py, next).map(Some),
                None if !self.shared.engine.is_alive() => return Err(stopped(py)),
                None => {
                    if let Err(raised) = py.check_signals() {
                        self.cancel();
                        return Err(raised);
                    }
                }
            }
        }
    }

    /// Raises where this process was forked from the one that asked. Whoever may wait for another thread of that one looks
    /// here first.
    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.check_process(py)
    }

    /// Requests under way.
    fn __len__(&self) -> usize {
        self.open().len()
    }

    /// Cancels all requests; each still ends. A process that was forked from the one that asked has none.
    fn cancel(&self) {
        // where a thread that is not there may hold the lock
        if self.shared.is_of_this_process() {
            self.open().values().for_each(|open| open.cancelled.store(true, Ordering::Relaxed));
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Answers {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request held to the form that is asked for, and the form.
    fn constrained(
        &self,
        request: Request,
        generation: &Generation,
    ) -> Result<(Request, Option<Grammar>), phi3v::Error> {
        let Some(form) = generation.form()? else { return Ok((request, None)) };
        let Shared { forms, tokenizer, .. } = &*self.shared;
        let constraint = forms.constraint(tokenizer, &form, generation.form_text())?;
        Ok((Request { constraint: Some(Box::new(constraint)), ..request }, Some(form)))
    }

    fn send(&self, py: Python<'_>, key: u64, request: Request, form: Option<Grammar>) -> PyResult<()> {
        self.check_process(py)?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let (text, tokens) = (String::new(), Vec::new());
        let open = Open { cancelled: Arc::clone(&cancelled), text, tokens, form };
        match self.open().entry(key) {
            Entry::Vacant(place) => place.insert(open),
            Entry::Occupied(_) => {
                return Err(PyRuntimeError::new_err(format!("a request {key} is under way already")));
            }
        };
        let job = Job { key, request, updates: self.updates.clone(), cancelled };
        if self.shared.engine.submit(job) { Ok(()) } else { Err(stopped(py)) }
    }

    /// The next thing to tell, or none within a slice of time.
    fn wait(&self, pieces: bool) -> Option<Next> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + SLICE;
        loop {
            let update = match received.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(update) => update,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            };
            if let Some(next) = self.take(update, pieces) {
                return Some(next);
            }
        }
    }

    fn take(&self, Update { key, event }: Update, pieces: bool) -> Option<Next> {
        let mut open = self.open();
        match event {
            Event::Token(token) => {
                let request = open.get_mut(&key)?;
                request.text.push_str(&token.text);
                let piece = pieces.then(|| Next::Piece(key, token.id, token.text.clone()));
                request.tokens.push(token);
                piece
            }
            Event::Finished(finished) => {
                let mut request = open.remove(&key)?;
                request.text.push_str(&finished.text);
                Some(Next::Finished(key, request, Box::new(finished)))
            }
            Event::Failed(error) => {
                open.remove(&key)?;
                Some(Next::Failed(key, Box::new(error)))
            }
        }
    }
}

fn conversation(turns: &[(String, String, usize)], pictures: &[Py<Picture>]) -> Conversation {
    let mut pictures = pictures.iter().map(|picture| Arc::clone(&picture.get().inputs));
    let system = turns.first().filter(|(role, ..)| role == "system").map(|(_, text, _)| text.as_str());
    let mut conversation = Conversation::new(system);
    for (role, text, count) in turns {
        match role.as_str() {
            "user" => conversation.ask(pictures.by_ref().take(*count), text),
            "assistant" => conversation.answered(text.as_str()),
            _ => {} // the instructions, which are there already
        }
    }
    conversation
}

fn told(py: Python<'_>, next: Next) -> PyResult<Told> {
    Ok(match next {
        Next::Piece(key, id, text) => Told::Piece(Piece { key, id, text }),
        Next::Finished(key, open, finished) => Told::Ended(work::held(py, || ended(key, open, &finished))?),
        Next::Failed(key, error) => {
            let error = CliError::from(*error);
            let raised = errors::exception(py, &error).into_value(py).into_any();
            Told::Ended(Ended::failed(key, raised))
        }
    })
}

fn ended(key: u64, open: Open, finished: &Finished) -> Ended {
    let Finished { reason, usage, timings, .. } = finished;
    let chosen =
        |Token { id, text, logprob, top, .. }| Chosen { id, text, logprob: logprob.unwrap_or(f32::NAN), top };
    let spoken = |words::Word { space, text, p, mean }| Spoken { space, text, p, mean };
    let words = words::words(&open.tokens, &finished.text);
    let valued = |fields::Field { path, value, p }| Valued { path, value: value.to_string(), p };
    let fields = open.form.map(|form| fields::fields(&form, &open.tokens, &finished.text));
    let seconds = |time: Duration| time.as_secs_f64();
    Ended {
        key,
        text: open.text,
        tokens: open.tokens.into_iter().map(chosen).collect(),
        words: words.into_iter().map(spoken).collect(),
        fields: fields.unwrap_or_default().into_iter().map(valued).collect(),
        scores: finished.scores.clone(),
        finish_reason: reason.name(),
        usage: Counts {
            prompt_tokens: usage.prompt_tokens,
            image_tokens: usage.image_tokens,
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.completion_tokens,
        },
        timings: Seconds {
            queued: seconds(timings.queued),
            vision: seconds(timings.vision),
            prefill: seconds(timings.prefill),
            decode: seconds(timings.decode),
            first_token: timings.first_token.map(seconds),
        },
        error: None,
    }
}

impl Ended {
    fn failed(key: u64, error: Py<PyAny>) -> Self {
        Self {
            key,
            text: String::new(),
            tokens: Vec::new(),
            words: Vec::new(),
            fields: Vec::new(),
            scores: Vec::new(),
            finish_reason: "failed",
            usage: Counts::default(),
            timings: Seconds::default(),
            error: Some(error),
        }
    }
}

/// The scores of a question's choices compared at a temperature.
#[pyfunction]
pub(crate) fn compare(scores: Vec<f64>, temperature: f64) -> Compared {
    let decision = Decision::new(scores, temperature);
    Compared { best: decision.best(), covered: decision.covered(), probabilities: decision.probabilities }
}

/// What [`compare`] tells.
#[derive(IntoPyObject)]
pub(crate) struct Compared {
    best: usize,
    covered: f64,
    probabilities: Vec<f64>,
}

/// The exception of who asks an engine that has ended.
fn stopped(py: Python<'_>) -> PyErr {
    work::bug(py, "the engine has stopped")
}
