//! Sockets: limits on their number and slowness, encryption, and shutdown.

use super::connections::{Connection, Connections, NotedBody, Place};
use super::limits::Limits;
use super::stream::{BadHeads, Socket, Watched};
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

/// Wait after a failure to accept, such as when file descriptors have run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Wait for a place if even the spare ones are taken.
const PLACE_RETRY: Duration = Duration::from_millis(10);

/// Interval, during shutdown, between checks for connections that need not be waited for.
const END_STEP: Duration = Duration::from_millis(100);

/// Interval between checks whether the client has disconnected while it is being answered.
const LEFT_STEP: Duration = Duration::from_secs(1);

/// What is needed to serve a connection.
#[derive(Clone)]
struct Serving {
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
}

/// Serves connections until `shutdown` resolves, then waits for running requests for as long as `drain` allows.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: &Limits,
    shutdown: impl Future<Output = ()>,
    drain: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Connections::new(limits.connections_max));
    let serving = Serving { router, tls, limits: limits.clone() };
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, place)) => {
                tokio::spawn(connection(serving.clone(), stream, place, graceful.watcher()));
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    let end_idle = async {
        loop {
            connections.end_idle();
            tokio::time::sleep(END_STEP).await;
        }
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = end_idle => {}
        () = drain => tracing::warn!("requests are still running and are given up"),
    }
}

/// Returns whether a failure to accept concerns only one connection, which its client or the network has ended. The
/// next connection may already be waiting.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | TimedOut
    )
}

/// Accepts the next connection; another gives way if all places are taken.
async fn accept(listener: &TcpListener, connections: &Arc<Connections>) -> io::Result<(TcpStream, Place)> {
    let (stream, _) = listener.accept().await?;
    // tokens are small and must be visible at once; an error of a connection that has already ended is reported when it
    // is read
    let _ = stream.set_nodelay(true);
    loop {
        match connections.enter() {
            Some(place) => return Ok((stream, place)),
            None => tokio::time::sleep(PLACE_RETRY).await,
        }
    }
}

async fn connection(serving: Serving, stream: TcpStream, place: Place, watcher: Watcher) {
    let socket = Socket::new(stream);
    tokio::select! {
        () = place.connection.has_to_go() => tracing::debug!("an idle connection was ended"),
        () = client_leaves(&socket, &place.connection) => tracing::debug!("a client left before its answer"),
        () = serve_one(&serving, socket.clone(), &place.connection, watcher) => {}
    }
}

/// Resolves when the client closes its side while it is being answered. Hyper also treats that as the end of the
/// connection, but does not see it behind bytes that follow the request.
async fn client_leaves(socket: &Socket, connection: &Connection) {
    loop {
        tokio::time::sleep(LEFT_STEP).await;
        if connection.is_answering() && socket.is_ended() {
            return;
        }
    }
}

async fn serve_one(serving: &Serving, stream: Socket, connection: &Arc<Connection>, watcher: Watcher) {
    let limits = &serving.limits;
    let mut stream = TimeoutStream::new(Watched::new(stream, Arc::clone(connection)));
    stream.set_write_timeout(Some(limits.write_time_max));
    let stream = Box::pin(stream);
    let Some(tls) = &serving.tls else { return http(serving, stream, connection, watcher).await };
    match tokio::time::timeout(limits.head_time_max, tls.accept(stream)).await {
        Ok(Ok(stream)) => http(serving, stream, connection, watcher).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn http(
    serving: &Serving,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: &Arc<Connection>,
    watcher: Watcher,
) {
    let limits = &serving.limits;
    let router = TowerToHyperService::new(serving.router.clone());
    let connection = Arc::clone(connection);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&connection));
        let request = request.map(|body| NotedBody::of_request(body, Arc::clone(&connection)));
        let (answer, connection) = (router.call(request), Arc::clone(&connection));
        async move { answer.await.map(|answer| answer.map(|body| NotedBody::of_answer(body, connection))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time_max)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(BadHeads::new(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_has_ended_holds_up_no_other() {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, OutOfMemory, PermissionDenied};
        for (kind, alone) in [
            (ConnectionAborted, true),
            (ConnectionReset, true),
            (OutOfMemory, false),
            (PermissionDenied, false),
        ] {
            assert_eq!(is_of_one_connection(&kind.into()), alone, "{kind}");
        }
        // running out of file descriptors is not a failure of one connection
        assert!(!is_of_one_connection(&io::Error::from_raw_os_error(24)));
    }
}
