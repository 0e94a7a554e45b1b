//! The thread that owns the engine. Requests arrive by one channel; the updates of each request leave by a channel of
//! its own.
//!
//! - A request holds a place for each of its answers, from before it is prepared until the engine has dropped it. So a
//!   full queue is known at once, whatever step the engine is in; see `Places`.
//! - A client that has disconnected has dropped its receiver. The thread notices this between steps, and within a step
//!   between the layers of vision and prefill, and cancels the request. It also cancels a request whose deadline has
//!   passed, even if the client leaves an answer unread and asks for no update.
//! - The input memory charged to a request is released when its last answer leaves the engine, however long the client
//!   takes to read the answers.
//! - The channel does not bound events; they are bounded by what a request may produce: `max_new_tokens` tokens.
//! - Images of a request that is still being prepared are sent ahead of it, so that the vision tower works on one while
//!   the next is decoded. The engine itself drops an image once its request is given up.

use super::error::ApiError;
use super::limits::{Times, deadline_exceeded};
use super::metrics::Metrics;
use super::places::{Place, Places};
use crate::sources::Budget;
use phi3v::engine::{
    CacheSalt, Engine, Event, FinishReason, Finished, Load, Observer, Output, Request, RequestId,
    StepProgress, Token,
};
use phi3v::image::ImageInputs;
use phi3v_kernels::{Backend, BackendError};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// An update on a request, in order of occurrence. Its answers are identified by their index.
#[derive(Debug)]
pub enum Update {
    /// Progress on the pictures or the prompt.
    Progress(StepProgress),
    /// A token of answer `.0`.
    Token(usize, Token),
    /// Answer `.0` is complete.
    Finished(usize, Box<Finished>),
}

/// An update, or the failure of the request, after which nothing follows.
type Told = Result<Update, Box<phi3v::Error>>;

/// A message on its way to the engine.
enum Job {
    Ask(AskJob),
    /// An image whose request is still being prepared.
    Ahead {
        inputs: Weak<ImageInputs>,
        cache_salt: CacheSalt,
    },
}

/// A request, with one [`Request`] for each answer.
struct AskJob {
    requests: Vec<Admitted>,
    client: Client,
}

/// A request for one answer, with its place.
struct Admitted {
    request: Request,
    holds: Holds,
}

/// What an answer holds until the engine has dropped it.
struct Holds {
    _place: Place,
    /// The memory charged for the request's body and pictures, shared by all its answers.
    _inputs: Arc<Budget>,
}

/// The client that waits for the answers of a request.
#[derive(Clone)]
struct Client {
    updates: UnboundedSender<Told>,
    /// Whether to report progress.
    progress: bool,
    times: Times,
    /// The log span of the request, so that what is logged here carries its id.
    span: tracing::Span,
}

impl Client {
    /// Sends an update. A dropped receiver is noticed before the next step, or at the next layer.
    fn tell(&self, update: Update) {
        let _ = self.updates.send(Ok(update));
    }

    /// Sends the failure of the request, after which nothing follows.
    fn fail(&self, error: phi3v::Error) {
        let _ = self.updates.send(Err(Box::new(error)));
    }

    /// Returns whether nobody waits any more: the receiver was dropped, or the deadline has passed.
    fn has_gone(&self) -> bool {
        self.updates.is_closed() || self.times.is_over()
    }
}

/// The server's access to the engine's thread. Clones share one engine and its limit.
#[derive(Clone)]
pub struct EngineHandle {
    /// Bounded by the places, and by the images of requests that are being prepared.
    jobs: UnboundedSender<Job>,
    places: Places,
}

/// Receives the updates of a request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Updates {
    receiver: UnboundedReceiver<Told>,
    times: Times,
}

impl EngineHandle {
    /// Creates a handle and the thread's end of the channel. At most `capacity` answers of one client run or wait.
    pub fn new(capacity: usize) -> (Self, Jobs) {
        let (jobs, receiver) = unbounded_channel();
        (Self { jobs, places: Places::new(capacity) }, Jobs { receiver })
    }

    /// Takes `answers` places for the client whose cache salt is `client`. Takes all or none, so that two requests for
    /// several answers do not block each other. Take them before the work of preparing the request.
    ///
    /// # Errors
    /// Too many answers run or wait.
    pub fn places(&self, client: CacheSalt, answers: usize) -> Result<Vec<Place>, ApiError> {
        let places = self.places.take(client, answers);
        places.ok_or_else(|| super::limits::queue_full(self.places.capacity()))
    }

    /// Sends a request for one or more answers, each with its place, to the engine. `inputs` has been charged for its
    /// body and pictures.
    ///
    /// # Errors
    /// The engine has stopped.
    pub fn submit(
        &self,
        requests: impl IntoIterator<Item = (Request, Place)>,
        inputs: Budget,
        progress: bool,
        times: Times,
    ) -> Result<Updates, ApiError> {
        let inputs = Arc::new(inputs);
        let holds = |place| Holds { _place: place, _inputs: Arc::clone(&inputs) };
        let admit = |(request, place)| Admitted { request, holds: holds(place) };
        let admitted = requests.into_iter().map(admit).collect();
        let (updates, receiver) = unbounded_channel();
        let span = tracing::Span::current();
        let job = AskJob { requests: admitted, client: Client { updates, progress, times, span } };
        self.jobs.send(Job::Ask(job)).map_err(|_| ApiError::engine_stopped())?;
        Ok(Updates { receiver, times })
    }

    /// Lets the engine begin with an image of a request that is still being prepared; see [`Engine::encode_ahead`]. The
    /// engine does not keep the image alive: if the request is given up, the image is dropped.
    pub fn encode_ahead(&self, inputs: &Arc<ImageInputs>, cache_salt: CacheSalt) {
        // the request itself reports an engine that has stopped
        let _ = self.jobs.send(Job::Ahead { inputs: Arc::downgrade(inputs), cache_salt });
    }

    /// Returns whether the engine thread is running or has yet to start.
    pub fn is_alive(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Resolves when the engine thread has ended, which without a shutdown means a bug.
    pub async fn stopped(&self) {
        self.jobs.closed().await;
    }

    /// Returns the number of answers that run or wait, including those not yet with the engine.
    pub fn in_flight(&self) -> usize {
        self.places.held()
    }
}

impl Updates {
    /// Returns the next update.
    ///
    /// # Errors
    /// The request's failure, its deadline, or the end of the engine.
    pub async fn next(&mut self) -> Result<Update, ApiError> {
        let told = self.times.within(async { Ok(self.receiver.recv().await) }).await?;
        match told {
            // the engine's thread may be the first to notice that the deadline has passed
            Some(Ok(Update::Finished(_, finished)))
                if finished.reason == FinishReason::Cancelled && self.times.is_over() =>
            {
                Err(deadline_exceeded())
            }
            None if self.times.is_over() => Err(deadline_exceeded()),
            Some(update) => update.map_err(|error| ApiError::library(&error)),
            None => Err(ApiError::engine_stopped()),
        }
    }
}

/// The thread's end of the channel. Dropping it, also by a panic, closes the channel.
pub struct Jobs {
    receiver: UnboundedReceiver<Job>,
}

#[cfg(test)]
impl Jobs {
    /// Returns the cache salt of the client whose request comes next.
    pub(super) async fn next_client(&mut self) -> CacheSalt {
        loop {
            if let Some(Job::Ask(job)) = self.receiver.recv().await {
                return job.requests[0].request.cache_salt;
            }
        }
    }

    /// Returns the images that were sent ahead of their requests and are still wanted.
    pub(super) fn images_ahead(&mut self) -> Vec<Arc<ImageInputs>> {
        let image = |job| if let Job::Ahead { inputs, .. } = job { inputs.upgrade() } else { None };
        std::iter::from_fn(|| self.receiver.try_recv().ok()).filter_map(image).collect()
    }
}

/// An answer that the engine is working on.
struct Slot {
    index: usize,
    client: Client,
    /// When its last token was chosen.
    last_token: Option<Instant>,
    holds: Holds,
}

/// Cancels requests that nobody waits for, and passes on progress.
struct Watch<'a> {
    slots: &'a HashMap<RequestId, Slot>,
    /// Why the device failed, if no request reports it.
    lost: Option<String>,
}

impl Observer for Watch<'_> {
    fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
        let Some(slot) = self.slots.get(&progress.id) else { return ControlFlow::Continue(()) };
        if slot.client.has_gone() {
            return ControlFlow::Break(());
        }
        if slot.client.progress {
            slot.client.tell(Update::Progress(progress));
        }
        ControlFlow::Continue(())
    }

    fn damage(&mut self, found: &str) {
        tracing::error!(found, "the table of the cache's blocks was damaged and is made anew");
    }

    fn ahead_failed(&mut self, error: &phi3v::Error) {
        self.lost = device_failure(error);
    }
}

/// Returns why the device failed, if `error` is a device failure.
fn device_failure(error: &phi3v::Error) -> Option<String> {
    match error.root() {
        phi3v::Error::Backend(BackendError::Device { reason }) => Some(reason.clone()),
        _ => None,
    }
}

/// Why the engine loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every [`EngineHandle`] is gone and all work is done.
    Done,
    /// The device failed. Requests that the engine had were failed; new ones wait for another engine.
    DeviceFailed,
}

/// Runs the engine until it has nothing more to do, or its device fails.
pub fn run<B: Backend>(engine: Engine<B>, jobs: &mut Jobs, metrics: &Metrics) -> Ended {
    EngineLoop { engine, jobs, metrics, slots: HashMap::new(), lost: None }.run()
}

struct EngineLoop<'a, B: Backend> {
    engine: Engine<B>,
    jobs: &'a mut Jobs,
    metrics: &'a Metrics,
    slots: HashMap<RequestId, Slot>,
    /// Why the device failed, once it has.
    lost: Option<String>,
}

impl<B: Backend> EngineLoop<'_, B> {
    fn run(mut self) -> Ended {
        loop {
            if self.engine.is_idle() {
                self.publish_load();
                let Some(job) = self.jobs.receiver.blocking_recv() else { return Ended::Done };
                self.accept(job);
            }
            while let Ok(job) = self.jobs.receiver.try_recv() {
                self.accept(job);
            }
            self.cancel_abandoned();
            let mut watch = Watch { slots: &self.slots, lost: None };
            let outputs = self.engine.step(&mut watch);
            self.lost = watch.lost;
            self.publish_load();
            outputs.into_iter().for_each(|output| self.deliver(output));
            if let Some(reason) = self.lost.take() {
                self.give_up(&reason);
                return Ended::DeviceFailed;
            }
        }
    }

    /// Fails all requests that the engine has, since a failed device returns nothing more.
    fn give_up(&mut self, reason: &str) {
        let mut ids: Vec<RequestId> = self.slots.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.fail(id, BackendError::Device { reason: reason.to_owned() }.into());
        }
    }

    fn accept(&mut self, job: Job) {
        match job {
            Job::Ask(AskJob { requests, client }) => {
                for (index, admitted) in requests.into_iter().enumerate() {
                    // only the first answer reports progress: the prompt is computed for it
                    let client = Client { progress: client.progress && index == 0, ..client.clone() };
                    self.submit(admitted, index, client);
                }
            }
            Job::Ahead { inputs, cache_salt } => {
                if let Some(inputs) = inputs.upgrade() {
                    self.engine.encode_ahead(&inputs, &cache_salt);
                }
            }
        }
    }

    fn submit(&mut self, Admitted { request, holds }: Admitted, index: usize, client: Client) {
        if client.has_gone() {
            self.metrics.abandoned();
            return;
        }
        match self.engine.submit(request) {
            Ok(id) => {
                self.slots.insert(id, Slot { index, client, last_token: None, holds });
            }
            Err(error) => {
                drop(holds);
                client.fail(error);
            }
        }
    }

    fn cancel_abandoned(&mut self) {
        for (id, slot) in self.slots.iter().filter(|(_, slot)| slot.client.has_gone()) {
            let _span = slot.client.span.enter();
            tracing::debug!(
                engine_request = id.0,
                answer = slot.index,
                "nobody waits for the answer any more"
            );
            self.engine.cancel(*id);
        }
    }

    fn deliver(&mut self, output: Output) {
        match output.event {
            Event::Token(token) => {
                let Some(slot) = self.slots.get_mut(&output.id) else { return };
                let now = Instant::now();
                match slot.last_token.replace(now) {
                    Some(last) => self.metrics.next_token(now - last),
                    None => self.metrics.first_token(now - slot.client.times.arrived),
                }
                slot.client.tell(Update::Token(slot.index, token));
            }
            Event::Finished(finished) => {
                let Some(slot) = self.slots.remove(&output.id) else { return };
                self.metrics.finished(&finished);
                // an answer may end with the first token chosen, which then is not part of it
                if slot.last_token.is_none() && finished.timings.first_token.is_some() {
                    self.metrics.first_token(slot.client.times.arrived.elapsed());
                }
                drop(slot.holds); // a client that reads the end may send its next request at once
                slot.client.tell(Update::Finished(slot.index, Box::new(finished)));
            }
            Event::Failed(error) => self.fail(output.id, error),
        }
    }

    fn fail(&mut self, id: RequestId, error: phi3v::Error) {
        let Some(slot) = self.slots.remove(&id) else { return };
        let _span = slot.client.span.enter();
        tracing::error!(engine_request = id.0, %error, "a request failed");
        self.metrics.failed();
        self.lost = self.lost.take().or_else(|| device_failure(&error));
        drop(slot.holds);
        slot.client.fail(error);
    }

    fn publish_load(&self) {
        let load: Load = self.engine.load();
        self.metrics.load(&load);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::error::Code;
    use crate::server::limits::Limits;
    use crate::sources::Inputs;
    use phi3v::engine::EngineOptions;
    use phi3v_kernels::testing::Deferred;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    const INPUT_BYTES: usize = 4 << 10;

    /// A request for a few tokens of the built-in model.
    fn request() -> Request {
        Request::greedy((3..30).collect(), Vec::new(), 2)
    }

    /// An engine with the built-in model on a device, one answer at a time.
    fn one_at_a_time<B: Backend>(device: B) -> Engine<B> {
        let checkpoint = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files()).unwrap();
        let (config, weights) = (&checkpoint.config, &checkpoint.weights);
        let options = phi3v::model::ModelOptions::of(weights);
        let model = phi3v::model::Phi3V::load(device, config, weights, options, &mut |_| ()).unwrap();
        let options = EngineOptions { running_max: Some(1), waiting_max: 1000, ..EngineOptions::default() };
        Engine::new(model, checkpoint.tokenizer, Vec::new(), options).unwrap()
    }

    fn device_options() -> phi3v::device::DeviceOptions {
        let choice = phi3v_kernels::testing::test_device().parse().unwrap();
        phi3v::device::DeviceOptions { choice, ..Default::default() }
    }

    fn device() -> phi3v::device::Device {
        phi3v::device::Device::open(&device_options()).unwrap()
    }

    /// The built-in model.
    fn session() -> phi3v::Session {
        let options = phi3v::SessionOptions { device: device_options(), ..Default::default() };
        phi3v::Session::load(phi3v::demo::NAME, &options).unwrap()
    }

    /// Sends a request with a client of its own.
    fn ask(handle: &EngineHandle, times: Times) -> Updates {
        let place = handle.places(CacheSalt::default(), 1).unwrap().remove(0);
        handle.submit([(request(), place)], Inputs::new(0).budget(), false, times).unwrap()
    }

    /// An engine on a device that fails once the model is loaded.
    fn lost_later() -> Engine<Deferred<phi3v::device::Device>> {
        let device = Deferred::new(device());
        let lost = device.lost();
        let engine = one_at_a_time(device);
        lost.store(true, Ordering::Release);
        engine
    }

    #[test]
    fn what_comes_after_a_device_has_failed_waits_for_another_engine() {
        let device = || Deferred::new(device());
        let lost = lost_later();
        let (handle, mut jobs) = EngineHandle::new(1000);
        let times = Times::start(&Limits::default());
        let mut early: Vec<_> = (0..500).map(|_| ask(&handle, times)).collect();
        let mut first = early.remove(0);
        let mut late = std::thread::scope(|scope| {
            let late = scope.spawn(|| {
                let failed = next(&mut first).unwrap_err();
                (failed.code, ask(&handle, times))
            });
            assert_eq!(run(lost, &mut jobs, &Metrics::new()), Ended::DeviceFailed);
            let (code, updates) = late.join().unwrap();
            assert_eq!(code, Code::DeviceFailed);
            updates
        });
        assert!(early.iter_mut().all(|updates| next(updates).unwrap_err().code == Code::DeviceFailed));
        drop(handle);
        assert_eq!(run(one_at_a_time(device()), &mut jobs, &Metrics::new()), Ended::Done);
        assert!(matches!(next(&mut late), Ok(Update::Token(0, _))));
    }

    #[test]
    fn a_device_that_fails_at_a_picture_ahead_of_its_request_has_failed() {
        let lost = lost_later();
        let picture = include_bytes!("../../../../examples/cover.png");
        let picture = session().image_from_bytes(picture).unwrap();
        let (handle, mut jobs) = EngineHandle::new(1);
        handle.encode_ahead(&picture, CacheSalt::default());
        drop(handle);
        assert_eq!(run(lost, &mut jobs, &Metrics::new()), Ended::DeviceFailed);
    }

    /// An engine, a request to it for two answers, and all memory for inputs, which was charged to the request.
    fn asked(limits: &Limits) -> (Engine<phi3v::device::Device>, Jobs, Updates, Inputs) {
        let session = session();
        let mut conversation = phi3v::Conversation::default();
        conversation.ask([], "What can you do?");
        let request = |_| session.request(&conversation).unwrap();
        let inputs = Inputs::new(INPUT_BYTES);
        let mut budget = inputs.budget();
        budget.charge(INPUT_BYTES).unwrap();
        let (handle, jobs) = EngineHandle::new(2);
        let places = handle.places(CacheSalt::default(), 2).unwrap();
        let requests = (0..2).map(request).zip(places);
        let updates = handle.submit(requests, budget, false, Times::start(limits)).unwrap();
        (session.into_engine(), jobs, updates, inputs)
    }

    /// Returns the next update, for code outside a runtime.
    fn next(updates: &mut Updates) -> Result<Update, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(updates.next())
    }

    #[test]
    fn an_answer_that_is_not_read_keeps_no_memory_for_inputs() {
        let (engine, mut jobs, mut updates, inputs) = asked(&Limits::default());
        assert!(inputs.budget().charge(1).is_err(), "both answers are still to come");
        assert_eq!(run(engine, &mut jobs, &Metrics::new()), Ended::Done);
        inputs.budget().charge(INPUT_BYTES).unwrap();
        let mut finished = 0;
        while finished < 2 {
            finished += usize::from(matches!(next(&mut updates).unwrap(), Update::Finished(..)));
        }
    }

    #[test]
    fn an_answer_whose_time_is_over_ends_though_nobody_reads_it() {
        let limits = Limits { request_time_max: Duration::ZERO, ..Limits::default() };
        let (engine, mut jobs, mut updates, inputs) = asked(&limits);
        assert_eq!(run(engine, &mut jobs, &Metrics::new()), Ended::Done);
        inputs.budget().charge(INPUT_BYTES).unwrap();
        assert_eq!(next(&mut updates).unwrap_err().code, Code::DeadlineExceeded);
    }
}
