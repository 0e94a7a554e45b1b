//! The thread that owns a model's engine. Requests come in by a channel; what happens to each goes out by a channel of
//! its asker. The thread knows nothing of Python and never waits for it.
//!
//! - A request that the engine has no room for waits here: who asks from a hundred threads is answered in turn.
//! - A request is cancelled by its flag, which the thread sees between steps, and within a step between the layers of
//!   vision and prefill.
//! - The thread ends, and the model is freed, when everybody who could ask has gone.

use phi3v::engine::{
    Engine, Event, FinishReason, Finished, Observer, Output, Request, RequestId, StepProgress, Timings, Usage,
};
use phi3v_kernels::Backend;
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Requests that wait in the engine itself, so that it can plan the next step.
const WAITING_MAX: usize = 16;

/// What happened to the request that its asker calls `key`.
pub(crate) struct Update {
    pub(crate) key: u64,
    pub(crate) event: Event,
}

/// A request on its way to the engine.
pub(crate) struct Job {
    pub(crate) key: u64,
    pub(crate) request: Request,
    pub(crate) updates: Sender<Update>,
    /// Set by who does not want the answer any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// The askers' end of the thread; the thread ends when all of them are gone.
#[derive(Clone)]
pub(crate) struct EngineHandle {
    jobs: Sender<Job>,
    alive: Arc<AtomicBool>,
}

impl EngineHandle {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread.
    pub(crate) fn start<B: Backend + Send + 'static>(engine: Engine<B>) -> std::io::Result<Self>
    where
        Engine<B>: Send,
    {
        let (jobs, receiver) = channel();
        let alive = Arc::new(AtomicBool::new(true));
        let ending = Ending(Arc::clone(&alive));
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let _ending = ending;
            let engine = EngineLoop { engine, jobs: receiver, queue: VecDeque::new(), slots: HashMap::new() };
            // the askers find that the thread has ended
            let _ = catch_unwind(AssertUnwindSafe(|| engine.run()));
        })?;
        Ok(Self { jobs, alive })
    }

    /// Sends a request; false where the thread has ended.
    pub(crate) fn submit(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }

    /// Whether the thread runs; it ends early by a bug only.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }
}

/// Says at its end that the thread has ended.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A request in the engine.
struct Slot {
    key: u64,
    updates: Sender<Update>,
    cancelled: Arc<AtomicBool>,
}

impl Slot {
    fn is_unwanted(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn tell(&self, event: Event) {
        // an asker that has gone has set the flag
        let _ = self.updates.send(Update { key: self.key, event });
    }
}

/// Stops the work for what nobody wants any more.
struct Watch<'a>(&'a HashMap<RequestId, Slot>);

impl Observer for Watch<'_> {
    fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
        match self.0.get(&progress.id) {
            Some(slot) if slot.is_unwanted() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Whether somebody still wants a request that waits; ends it where nobody does.
fn is_wanted(job: &Job) -> bool {
    let unwanted = job.cancelled.load(Ordering::Relaxed);
    if unwanted {
        let event = Event::Finished(never_begun());
        let _ = job.updates.send(Update { key: job.key, event });
    }
    !unwanted
}

/// The end of a request that was cancelled before the engine had it.
fn never_begun() -> Finished {
    Finished {
        reason: FinishReason::Cancelled,
        text: String::new(),
        usage: Usage::default(),
        timings: Timings::default(),
        scores: Vec::new(),
    }
}

struct EngineLoop<B: Backend> {
    engine: Engine<B>,
    jobs: Receiver<Job>,
    queue: VecDeque<Job>,
    slots: HashMap<RequestId, Slot>,
}

impl<B: Backend> EngineLoop<B> {
    fn run(mut self) {
        loop {
            if self.engine.is_idle() && self.queue.is_empty() {
                let Ok(job) = self.jobs.recv() else { return };
                self.queue.push_back(job);
            }
            self.queue.extend(self.jobs.try_iter());
            self.queue.retain(is_wanted);
            self.fill();
            for (id, _) in self.slots.iter().filter(|(_, slot)| slot.is_unwanted()) {
                self.engine.cancel(*id);
            }
            for output in self.engine.step(&mut Watch(&self.slots)) {
                self.deliver(output);
            }
        }
    }

    /// Hands requests on to the engine as long as it has room.
    fn fill(&mut self) {
        while self.engine.load().waiting < WAITING_MAX {
            let Some(Job { key, request, updates, cancelled }) = self.queue.pop_front() else { return };
            let slot = Slot { key, updates, cancelled };
            match self.engine.submit(request) {
                Ok(id) => {
                    self.slots.insert(id, slot);
                }
                Err(error) => slot.tell(Event::Failed(error)),
            }
        }
    }

    fn deliver(&mut self, Output { id, event }: Output) {
        let Some(slot) = self.slots.get(&id) else { return };
        let goes_on = matches!(event, Event::Token(_));
        slot.tell(event);
        if !goes_on {
            self.slots.remove(&id);
        }
    }
}
