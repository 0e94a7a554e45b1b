//! `phi3v serve`: an OpenAI-compatible server with a page, on the library's engine.
//!
//! One thread owns the engine ([`engine_thread`]); everything else is asynchronous and holds no model state. A
//! connection goes through `listener` and has a place among `connections`. A request goes through `log`, `cors`,
//! `linger`, `guard`, its route, [`openai::parse`] (JSON to wire types), [`ask`] (wire types to a checked question) and
//! [`prepare`] (pictures and text to ids), and then waits for the engine's updates.
//!
//! Only this module answers HTTP and knows OpenAI's JSON; `hub` and `sources` are HTTP clients, for models and
//! pictures. Nothing here panics on what a client sends.

pub mod ask;
mod codes;
mod connections;
mod cors;
pub mod decide;
pub mod engine_thread;
pub mod error;
pub mod guard;
mod hints;
mod keys;
pub mod limits;
mod linger;
mod listener;
mod log;
pub mod log_writer;
pub mod metrics;
pub mod openai;
mod places;
pub mod prepare;
pub mod router;
pub mod state;
mod stream;
pub mod tls;
mod ui;

use crate::documents::Drawer;
use crate::origin::Origin;
use crate::sources::Sources;
use engine_thread::{Ended, EngineHandle};
use guard::Guard;
use limits::Limits;
use phi3v::engine::Engine;
use phi3v_kernels::Backend;
use state::{App, ServedModel};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// How to run a server: where it listens, who may use it, and within which limits.
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Access control: hosts, origins and keys.
    pub guard: Guard,
    /// Origins whose pages may read answers.
    pub cors_origins: Vec<Origin>,
    /// Certificate and key, if connections are encrypted.
    pub tls: Option<TlsAcceptor>,
    /// Where pictures may come from.
    pub sources: Sources,
    /// Draws the documents of requests.
    pub drawer: Drawer,
    /// Limits on requests, connections and times.
    pub limits: Limits,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            guard: Guard::default(),
            cors_origins: Vec::new(),
            tls: None,
            sources: Sources::data_urls_only(),
            drawer: Drawer::default(),
            limits: Limits::default(),
        }
    }
}

/// A loaded model: the engine that runs it, and what the server needs to know of it.
pub struct Loaded<B: Backend> {
    /// The engine that runs the model. The server limits the queue itself, so the engine's `waiting_max` should not:
    /// with several keys, more than [`queue_max`](Limits::queue_max) may wait.
    pub engine: Engine<B>,
    /// What requests need to know of the model.
    pub model: ServedModel,
}

/// Why a server cannot start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError<E: std::error::Error + 'static> {
    /// The address is in use, or is not an address of this machine.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// The requested host and port.
        address: SocketAddr,
        /// Why the system refuses it.
        error: std::io::Error,
    },
    /// The system refuses threads or sockets.
    #[error("the server cannot start: {0}")]
    Start(std::io::Error),
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(E),
    /// The engine's thread has ended, which is a bug.
    #[error("the engine has stopped unexpectedly")]
    EngineStopped,
}

/// A server that already listens and loads its model in the background.
pub struct Server<E> {
    /// Host and port on which it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    app: Arc<App>,
    options: ServerOptions,
    engine: JoinHandle<Result<(), E>>,
    runtime: Runtime,
}

/// Time for connections to end after their requests were given up.
const ABORT_TIME: Duration = Duration::from_secs(1);

/// Returns whether the thread ends within `time`.
fn ends_within<T>(thread: &JoinHandle<T>, time: Duration) -> bool {
    const PERIOD: Duration = Duration::from_millis(10);
    let begun = Instant::now();
    while !thread.is_finished() && begun.elapsed() < time {
        std::thread::sleep(PERIOD);
    }
    thread.is_finished()
}

/// Resolves when the engine has stopped and its last errors have had time to reach their clients.
async fn given_up(app: &App) {
    app.engine.stopped().await;
    tokio::time::sleep(ABORT_TIME).await;
}

impl<E: std::error::Error + Send + 'static> Server<E> {
    /// Checks that the server could listen now. Accepts no connections: clients are refused meanwhile, as before.
    ///
    /// # Errors
    /// The address is in use, or is not an address of this machine.
    pub fn check(options: &ServerOptions) -> Result<(), ServeError<E>> {
        let listen = |error| ServeError::Listen { address: options.address, error };
        std::net::TcpListener::bind(options.address).map(drop).map_err(listen)
    }

    /// Listens, and begins to load the model on the engine's thread. If the device fails later, the model is loaded
    /// once more.
    ///
    /// # Errors
    /// The address is in use, or is not an address of this machine.
    pub fn start<B, L>(options: ServerOptions, mut load: L) -> Result<Self, ServeError<E>>
    where
        B: Backend,
        L: FnMut() -> Result<Loaded<B>, E> + Send + 'static,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Start)?;
        let listen = |error| ServeError::Listen { address: options.address, error };
        let listener = runtime.block_on(TcpListener::bind(options.address)).map_err(listen)?;
        let address = listener.local_addr().map_err(ServeError::Start)?;
        let (engine, mut jobs) = EngineHandle::new(options.limits.queue_max);
        let app = Arc::new(App::new(
            options.limits.clone(),
            engine,
            options.sources.clone(),
            options.drawer.clone(),
        ));
        // the engine's thread must not keep the application alive: it ends when the application is dropped
        let (weak, metrics) = (Arc::downgrade(&app), Arc::clone(&app.metrics));
        let work = move || {
            for last in [false, true] {
                let Loaded { engine, model } = load()?;
                metrics.load(&engine.load()); // a client that finds the server ready also finds its metrics
                if let Some(app) = weak.upgrade() {
                    app.set_model(model);
                }
                if engine_thread::run(engine, &mut jobs, &metrics) == Ended::Done {
                    break;
                }
                tracing::error!(again = !last, "the device failed; the model is loaded anew, once");
                if let Some(app) = weak.upgrade() {
                    app.reload();
                }
            }
            Ok(())
        };
        let engine =
            std::thread::Builder::new().name("engine".to_owned()).spawn(work).map_err(ServeError::Start)?;
        Ok(Self { address, listener, app, options, engine, runtime })
    }

    /// Serves until `shutdown` resolves and running requests are done, or until `hurry` resolves. A model that is still
    /// being loaded then, and work for abandoned requests, get at most two more seconds. What has not ended by then
    /// goes on until it does, or the process ends.
    ///
    /// # Errors
    /// The model cannot be loaded, or the engine has stopped.
    pub fn run(
        self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), ServeError<E>> {
        let Self { listener, app, options, engine, runtime, .. } = self;
        let router = router::router(Arc::clone(&app), options.guard, &options.cors_origins);
        let limits = options.limits;
        runtime.block_on(async {
            let shutdown = async {
                tokio::select! {
                    () = shutdown => tracing::info!("shutting down"),
                    () = app.engine.stopped() => tracing::error!("the engine has stopped"),
                }
                app.drain();
            };
            let drain = async {
                tokio::select! {
                    () = tokio::time::sleep(limits.drain_time_max) => {}
                    () = given_up(&app) => {}
                    () = hurry => {}
                }
            };
            listener::serve(listener, router, options.tls, &limits, shutdown, drain).await;
        });
        let died = !app.engine.is_alive();
        drop(app);
        // abandoned requests are cancelled as their connections are dropped
        runtime.shutdown_timeout(ABORT_TIME);
        // signals are no longer handled: a model that is being loaded, and work that does not notice within a picture,
        // end with the process
        if !died && !ends_within(&engine, ABORT_TIME) {
            return Ok(());
        }
        match engine.join() {
            Ok(Ok(())) if !died => Ok(()),
            Ok(Err(error)) => Err(ServeError::Load(error)),
            _ => Err(ServeError::EngineStopped),
        }
    }
}
