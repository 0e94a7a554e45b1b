//! Runs many requests on one engine and yields each answer as soon as it ends, while other threads prepare further
//! requests.
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

/// How long a step waits for the next request if there is nothing else to do.
const WAIT: Duration = Duration::from_millis(50);

/// Most failed requests taken in one step, so that the caller learns of them and can stop.
const FAILURES_MAX: usize = 16;

/// Requests that wait in the engine beyond those that can run at once, so that a place that becomes free is filled in the
/// same step.
const WAITING: usize = 2;

/// A request with the caller's key, or the reason why there is none, which is returned along with the answers.
#[derive(Debug)]
pub struct Asked<K, E = Error> {
    /// The caller's key; it comes back with the answer.
    pub key: K,
    /// The request, or the reason why it could not be made.
    pub request: Result<Request, E>,
}

/// A request that has ended, with its key.
#[derive(Debug)]
pub struct Ended<K, E = Error> {
    /// The caller's key for the request.
    pub key: K,
    /// The whole answer, or the reason why there is none.
    pub result: Result<Answer, E>,
}

/// A whole answer with its tokens, why it ended and what it took.
#[derive(Clone, Debug)]
pub struct Answer {
    /// All of the answer's text, without the token that ended it.
    pub text: String,
    /// The tokens of the answer, with log probabilities if the request asked for them.
    pub tokens: Vec<Token>,
    /// Why the answer ended, its token counts and how its time was spent.
    pub finished: Finished,
}

/// Requests that run together on one engine. The source yields groups, whose requests are submitted one after another, so
/// that their common parts (an image, the beginning of a conversation) are computed once. The iterator yields the answers
/// in the order in which they end, and waits for the source if necessary.
///
/// The answers do not depend on how many requests run together, see [`EngineOptions`](crate::engine::EngineOptions).
///
/// Dropping a batch before its end cancels what runs, so that the engine is free for others.
pub struct Batch<'e, B: Backend, K, E = Error> {
    engine: &'e mut Engine<B>,
    /// `None` once no more requests will come.
    source: Option<Coming<Vec<Asked<K, E>>>>,
    /// Requests that were taken and are not submitted yet.
    taken: VecDeque<Asked<K, E>>,
    running: HashMap<RequestId, Running<K>>,
    /// Answers that the iterator has yet to yield.
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
    /// Runs the requests of `source` on `engine`; the batch ends when no more are coming. Events of the engine's other
    /// requests are reported by its next [`step`](Engine::step) after the batch.
    pub fn new(engine: &'e mut Engine<B>, source: Coming<Vec<Asked<K, E>>>) -> Self {
        let (taken, ended) = (VecDeque::new(), VecDeque::new());
        Self { engine, source: Some(source), taken, running: HashMap::new(), ended }
    }

    /// Takes requests as long as there is a place for them, does one step of the engine, and returns what has ended. If
    /// nothing runs and nothing has ended, waits a twentieth of a second for the source. A caller can thus do other
    /// things in between, also after a few failures, however many come.
    ///
    /// # Panics
    /// If a thread that prepared requests has panicked: its panic continues here.
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

    /// Whether everything has been answered and nothing more will come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.source.is_none() && self.taken.is_empty() && self.running.is_empty()
    }

    /// Takes no more requests. Those that run continue to their ends; those that wait, here or in the engine, are dropped
    /// without being reported.
    pub fn stop(&mut self) {
        self.source = None;
        self.taken.clear();
        let engine = &*self.engine;
        // a request that waits again because it was restarted has begun
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
        // if a request waits already, it waits for memory
        let free = if self.engine.load().waiting == 0 { self.engine.places_free() } else { 0 };
        // an engine whose queue is shorter would refuse the rest; one with no queue refuses each request, which is then
        // reported
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

    /// Submits a request; if it is refused, the error is its answer.
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

/// Receives what [`read_ahead`] prepares. If one of its threads panics, the panic continues in the receiver; otherwise
/// the missing items would look like the end.
#[derive(Debug)]
pub struct Coming<R>(Receiver<std::thread::Result<R>>);

impl<R> Coming<R> {
    /// Waits up to `time` for the next item.
    ///
    /// # Errors
    /// No item has come within that time, or there are no more.
    ///
    /// # Panics
    /// If the thread that prepared the item has panicked: its panic continues here.
    pub fn recv_timeout(&self, time: Duration) -> Result<R, RecvTimeoutError> {
        self.0.recv_timeout(time).map(sound)
    }

    /// Yields all items still to come, and waits for each.
    ///
    /// # Panics
    /// If a thread that prepared an item has panicked: its panic continues here.
    pub fn iter(&self) -> impl Iterator<Item = R> {
        self.0.iter().map(sound)
    }
}

fn sound<R>(prepared: std::thread::Result<R>) -> R {
    prepared.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Prepares `items` on `threads` new threads, nearly in order. At most `threads` prepared items wait to be received,
/// besides the one that each thread holds. The threads end with the items, or when [`Coming`] is dropped.
///
/// ```
/// let squares = phi3v::batch::read_ahead(1..=100_u32, 3, |number| number * number)?;
/// assert_eq!(squares.iter().sum::<u32>(), 338_350);
/// # Ok::<(), phi3v::Error>(())
/// ```
///
/// # Errors
/// [`Error::Threads`] if the system provides no thread at all. If it provides fewer than `threads`, those do the work.
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
            // one thread can do the work of several
            Err(error) if number == 0 => return Err(Error::Threads(error)),
            Err(_) => break,
            Ok(_) => {}
        }
    }
    Ok(Coming(receiver))
}
