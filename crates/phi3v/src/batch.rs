//! Many requests on one engine, each answer given as soon as it ends, while other threads prepare the next requests.
//!
//! ```
//! use phi3v::batch::{Asked, read_ahead};
//!
//! let mut session = phi3v::load("demo")?;
//! session.generation.max_new_tokens = Some(8);
//! let preparer = session.preparer();
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
//! let paths = ["cover.png", "text.png"].map(|name| format!("{dir}/{name}"));
//! let coming = read_ahead(paths, 2, move |path| {
//!     let request = preparer.image(&path).and_then(|image| preparer.ask([image], "What is written here?"));
//!     vec![Asked { key: path, request }]
//! })?;
//! for ended in session.batch(coming) {
//!     println!("{}: {}", ended.key, ended.result?.text);
//! }
//! # Ok::<(), phi3v::Error>(())
//! ```

use crate::engine::{Engine, Event, Finished, Output, Request, RequestId, Token};
use crate::{Error, Result};
use phi3v_kernels::Backend;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a step waits for the next request where there is nothing else to do.
const WAIT: Duration = Duration::from_millis(50);

/// Failures of requests that are taken in one step, so that the caller hears of them and can stop.
const FAILURES_MAX: usize = 16;

/// Requests that wait in the engine beyond those for which there is a place, so that one which becomes free is filled in the
/// same step.
const WAITING: usize = 2;

/// A request with the caller's name for it, or why there is none: the failure comes out again beside the answers.
#[derive(Debug)]
pub struct Asked<K, E = Error> {
    /// What the caller knows the answer by; it comes back with it.
    pub key: K,
    /// The request, or why it could not be made.
    pub request: Result<Request, E>,
}

/// A request that has come to its end, with the key that it was asked with.
#[derive(Debug)]
pub struct Ended<K, E = Error> {
    /// The caller's name for the request.
    pub key: K,
    /// The whole answer, or why there is none.
    pub result: Result<Answer, E>,
}

/// A whole answer with its tokens, why it ended and what it took.
#[derive(Clone, Debug)]
pub struct Answer {
    /// All of the answer's text, without the token that ended it.
    pub text: String,
    /// The tokens of the answer, with log probabilities where the request asked for them.
    pub tokens: Vec<Token>,
    /// Why the answer ended, the tokens that were counted and where the time went.
    pub finished: Finished,
}

/// Requests that run together on one engine. The source gives groups, whose requests come one behind the other: what
/// they have in common (an image, the beginning of a conversation) is computed once. The iterator gives the answers in the
/// order in which they end, and waits for the source where it must.
///
/// What is answered does not depend on how many run together, see [`EngineOptions`](crate::engine::EngineOptions).
///
/// A batch that is dropped before its end cancels what runs, so that the engine is free for others.
pub struct Batch<'e, B: Backend, K, E = Error> {
    engine: &'e mut Engine<B>,
    /// None when there are no more.
    source: Option<Coming<Vec<Asked<K, E>>>>,
    /// Requests that were taken and not submitted yet.
    taken: VecDeque<Asked<K, E>>,
    running: HashMap<RequestId, Running<K>>,
    /// Answers of steps that the iterator has not given out.
    ended: VecDeque<Ended<K, E>>,
}

impl<B: Backend, K, E> fmt::Debug for Batch<'_, B, K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (taken, running) = (self.taken.len(), self.running.len());
        f.debug_struct("Batch").field("taken", &taken).field("running", &running).finish_non_exhaustive()
    }
}

/// A request in the engine.
struct Running<K> {
    key: K,
    text: String,
    tokens: Vec<Token>,
}

impl<'e, B: Backend, K, E: From<Error>> Batch<'e, B, K, E> {
    /// Requests of `source` on `engine`: it ends when no more are coming. What happens meanwhile to others that the engine has
    /// is reported by its next [`step`](Engine::step) behind the batch.
    pub fn new(engine: &'e mut Engine<B>, source: Coming<Vec<Asked<K, E>>>) -> Self {
        let (taken, ended) = (VecDeque::new(), VecDeque::new());
        Self { engine, source: Some(source), taken, running: HashMap::new(), ended }
    }

    /// Takes requests as far as there is a place for them, does one step of the engine, and gives what has ended by it.
    /// Where nothing runs and nothing has ended it waits a twentieth of a second for the source, so that a caller can look at
    /// other things; so it can after some failures, however many come.
    ///
    /// # Panics
    /// As a thread did that prepared requests.
    pub fn step(&mut self) -> Vec<Ended<K, E>> {
        let mut ended = Vec::new();
        self.take(&mut ended);
        if !self.engine.is_idle() {
            for output in self.engine.step_for(|id| self.running.contains_key(&id)) {
                self.deliver(output, &mut ended);
            }
        }
        ended
    }

    /// Whether everything that was asked has been answered and nothing more will come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.source.is_none() && self.taken.is_empty() && self.running.is_empty()
    }

    /// Takes no more requests: those that run come to their ends, those that wait, here or in the engine, are dropped without
    /// a word.
    pub fn stop(&mut self) {
        self.source = None;
        self.taken.clear();
        let engine = &*self.engine;
        // one that waits again, for want of memory, has begun
        let has_begun = |(id, running): &(&RequestId, &Running<K>)| {
            !running.tokens.is_empty() || !engine.is_waiting(**id)
        };
        let unbegun: Vec<_> =
            self.running.iter().filter(|entry| !has_begun(entry)).map(|(id, _)| *id).collect();
        self.running.retain(|id, _| !unbegun.contains(id));
        self.engine.discard(&unbegun);
    }

    /// Moves requests to the engine while it has room for them.
    fn take(&mut self, ended: &mut Vec<Ended<K, E>>) {
        // who waits already waits for memory
        let free = if self.engine.load().waiting == 0 { self.engine.places_free() } else { 0 };
        // an engine that lets fewer wait would refuse the others; one that lets none wait tells each request so
        let places = free.saturating_add(WAITING).min(self.engine.waiting_max().max(1));
        while self.engine.load().waiting < places && ended.len() < FAILURES_MAX {
            while self.taken.is_empty() {
                let may_wait = self.running.is_empty() && ended.is_empty();
                let Some(group) = self.next_group(may_wait) else { return };
                self.taken.extend(group);
            }
            let Some(asked) = self.taken.pop_front() else { return };
            self.submit(asked, ended);
        }
    }

    fn next_group(&mut self, may_wait: bool) -> Option<Vec<Asked<K, E>>> {
        let wait = if may_wait { WAIT } else { Duration::ZERO };
        let group = self.source.as_ref()?.recv_timeout(wait);
        if group.as_ref().is_err_and(|error| *error == RecvTimeoutError::Disconnected) {
            self.source = None;
        }
        group.ok()
    }

    /// Submits a request; the failure of one that cannot be is an answer already.
    fn submit(&mut self, Asked { key, request }: Asked<K, E>, ended: &mut Vec<Ended<K, E>>) {
        match request.and_then(|request| Ok(self.engine.submit(request)?)) {
            Ok(id) => {
                self.running.insert(id, Running { key, text: String::new(), tokens: Vec::new() });
            }
            Err(error) => ended.push(Ended { key, result: Err(error) }),
        }
    }

    fn deliver(&mut self, output: Output, ended: &mut Vec<Ended<K, E>>) {
        let Some(running) = self.running.get_mut(&output.id) else { return };
        let result = match output.event {
            Event::Token(token) => {
                running.text.push_str(&token.text);
                running.tokens.push(token);
                return;
            }
            Event::Finished(finished) => Ok(finished),
            Event::Failed(error) => Err(error.into()),
        };
        let Some(Running { key, mut text, tokens }) = self.running.remove(&output.id) else { return };
        let result = result.map(|finished| {
            text.push_str(&finished.text);
            Answer { text, tokens, finished }
        });
        ended.push(Ended { key, result });
    }
}

impl<B: Backend, K, E> Drop for Batch<'_, B, K, E> {
    fn drop(&mut self) {
        let running: Vec<_> = self.running.keys().copied().collect();
        self.engine.discard(&running);
    }
}

impl<B: Backend, K, E: From<Error>> Iterator for Batch<'_, B, K, E> {
    type Item = Ended<K, E>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ended.is_empty() && !self.is_done() {
            let ended = self.step();
            self.ended.extend(ended);
        }
        self.ended.pop_front()
    }
}

/// What [`read_ahead`] prepares, as it comes. The panic of one of its threads goes on in whoever receives: what is missing for it would
/// pass for the end.
#[derive(Debug)]
pub struct Coming<R>(Receiver<std::thread::Result<R>>);

impl<R> Coming<R> {
    /// The next, for which `time` is waited.
    ///
    /// # Errors
    /// It has not come within that time, or there are no more.
    ///
    /// # Panics
    /// As the thread did that prepared it.
    pub fn recv_timeout(&self, time: Duration) -> Result<R, RecvTimeoutError> {
        self.0.recv_timeout(time).map(sound)
    }

    /// All that are still to come, each of which is waited for.
    ///
    /// # Panics
    /// As a thread did that prepared one.
    pub fn iter(&self) -> impl Iterator<Item = R> {
        self.0.iter().map(sound)
    }
}

fn sound<R>(prepared: std::thread::Result<R>) -> R {
    prepared.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Prepares `items` on `threads` threads of its own, nearly in their order, and no further ahead than one for each thread
/// that has not been received. The threads end with the items, or when [`Coming`] is dropped.
///
/// ```
/// let squares = phi3v::batch::read_ahead(1..=100_u32, 3, |number| number * number)?;
/// assert_eq!(squares.iter().sum::<u32>(), 338_350);
/// # Ok::<(), phi3v::Error>(())
/// ```
///
/// # Errors
/// [`Error::Threads`]: the system gives no thread at all. Where it gives fewer than `threads`, they do.
pub fn read_ahead<T, R: Send + 'static>(
    items: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
    threads: usize,
    prepare: impl Fn(T) -> R + Send + Sync + 'static,
) -> Result<Coming<R>> {
    let threads = threads.max(1);
    let (prepared, receiver) = sync_channel(threads);
    let items = Arc::new(Mutex::new(items.into_iter()));
    let prepare = Arc::new(prepare);
    for number in 0..threads {
        let (items, prepare, prepared) = (Arc::clone(&items), Arc::clone(&prepare), prepared.clone());
        let work = move || {
            let next = || {
                // the lock is not held while an item is prepared
                let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
                item.map(&*prepare)
            };
            while let Some(result) = catch_unwind(AssertUnwindSafe(&next)).transpose() {
                let panicked = result.is_err();
                if prepared.send(result).is_err() || panicked {
                    return; // nobody wants the rest
                }
            }
        };
        match std::thread::Builder::new().spawn(work) {
            // one does the work of several
            Err(error) if number == 0 => return Err(Error::Threads(error)),
            Err(_) => break,
            Ok(_) => {}
        }
    }
    Ok(Coming(receiver))
}
