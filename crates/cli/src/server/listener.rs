//! Sockets: how many, how slow, encrypted or not, and how they end.

use super::limits::Limits;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

/// Wait after a failure to accept, as when file descriptors have run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What a connection is served with.
#[derive(Clone)]
struct Serving {
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    /// Closed when the end begins.
    ending: watch::Receiver<()>,
}

/// Serves connections until `shutdown` resolves, then waits for running requests, as long as `drain` allows.
pub(super) async fn serve(
    listener: TcpListener,
    (router, tls): (Router, Option<TlsAcceptor>),
    limits: &Limits,
    shutdown: impl Future<Output = ()>,
    drain: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let (going_on, ending) = watch::channel(());
    let serving = Serving { router, tls, limits: limits.clone(), ending };
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, permit)) => {
                tokio::spawn(connection(serving.clone(), stream, permit, graceful.watcher()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop((listener, going_on));
    tokio::select! {
        () = graceful.shutdown() => {}
        () = drain => tracing::warn!("requests are still running and are given up"),
    }
}

/// The next connection, when there is room for one.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // tokens are small and are to be seen at once
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

async fn connection(serving: Serving, stream: TcpStream, permit: OwnedSemaphorePermit, watcher: Watcher) {
    let limits = &serving.limits;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_time_max));
    match &serving.tls {
        None => http(&serving, Box::pin(stream), watcher).await,
        Some(tls) => {
            let handshake = tokio::time::timeout(limits.head_time_max, tls.accept(Box::pin(stream)));
            let mut ending = serving.ending.clone();
            let shaken = tokio::select! {
                shaken = handshake => shaken,
                // nobody has asked for anything yet
                _ = ending.changed() => return,
            };
            match shaken {
                Ok(Ok(stream)) => http(&serving, stream, watcher).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    }
    drop(permit);
}

async fn http(
    serving: &Serving,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    watcher: Watcher,
) {
    let limits = &serving.limits;
    let service = TowerToHyperService::new(serving.router.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time_max)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
