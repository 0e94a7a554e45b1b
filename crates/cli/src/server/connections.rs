//! Tracks the open connections and what each is doing, and chooses which one gives way when all places are taken.
//!
//! A connection whose request is being answered keeps its place. Any other gives way to a new one: first those that
//! have never presented a key, and among these the one that has been idle longest. So a client that holds connections
//! with half a request, an unread answer or nothing at all cannot lock others out. While every connection is being
//! answered, a few spare ones can still query the server's health. A spare connection takes a place with its first
//! request for which a place is free.

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Connections beyond the limit. Each serves one short answer, or gives way to the next.
const SPARE: usize = 16;

/// How long a client may leave an answer unread while the server shuts down.
const UNREAD_MAX: Duration = Duration::from_secs(5);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Idle, or receiving a handshake or the head of a request.
    Waiting,
    /// Receiving the body of a request.
    Receiving,
    /// A request has arrived and is being answered.
    Answering,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When bytes were last received or sent.
    progress: Instant,
    /// Whether bytes are ready that the client does not read.
    unread: bool,
    /// Whether a valid key has been presented.
    has_key: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    state: Mutex<State>,
    gives_way: Notify,
    /// Whether the connection has no place. Changes only while the lock on all connections is held.
    spare: AtomicBool,
    id: u64,
    connections: Weak<Connections>,
}

impl Connection {
    fn new(connections: &Arc<Connections>, id: u64, spare: bool) -> Self {
        let state = State { phase: Phase::Waiting, progress: Instant::now(), unread: false, has_key: false };
        Self {
            state: Mutex::new(state),
            gives_way: Notify::new(),
            spare: AtomicBool::new(spare),
            id,
            connections: Arc::downgrade(connections),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the connection has no place.
    fn is_spare(&self) -> bool {
        self.spare.load(Ordering::Relaxed)
    }

    /// Returns whether the connection has a place for a request. A connection that arrived when all places were taken
    /// gets one that has since become free, or one that another connection gives up.
    pub(super) fn has_place(&self) -> bool {
        !self.is_spare() || self.connections.upgrade().is_some_and(|connections| connections.promote(self))
    }

    /// Records that a valid key was presented.
    pub(super) fn has_key(&self) {
        self.state().has_key = true;
    }

    /// Records that bytes were received.
    pub(super) fn came(&self) {
        self.state().progress = Instant::now();
    }

    /// Records that bytes were sent.
    pub(super) fn went(&self) {
        let mut state = self.state();
        state.progress = Instant::now();
        state.unread = false;
    }

    /// Records that the client does not read what is ready for it.
    pub(super) fn is_unread(&self) {
        self.state().unread = true;
    }

    /// Returns whether a whole request has arrived and its answer is not completely sent.
    pub(super) fn is_answering(&self) -> bool {
        self.state().phase == Phase::Answering
    }

    /// Resolves when the connection must end.
    pub(super) async fn has_to_go(&self) {
        self.gives_way.notified().await;
    }

    fn enter(&self, phase: Phase) {
        self.state().phase = phase;
    }
}

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Connections {
    all: Mutex<HashMap<u64, Arc<Connection>>>,
    places: usize,
    next: AtomicU64,
}

/// A connection's entry among all connections. Dropping it removes the entry.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.all().remove(&self.id);
    }
}

impl Connections {
    pub(super) fn new(places: usize) -> Self {
        Self { all: Mutex::default(), places, next: AtomicU64::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a place for a new connection; another connection gives way if necessary. `None` if all connections,
    /// including the spare ones, are being answered.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut all = self.all();
        let spare = !self.find_place(&mut all);
        let spares = all.values().filter(|connection| connection.is_spare()).count();
        if spare && spares >= SPARE && !give_way(&mut all, Connection::is_spare) {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(self, id, spare));
        all.insert(id, Arc::clone(&connection));
        Some(Place { connections: Arc::clone(self), id, connection })
    }

    /// Returns whether a place is free, after making another connection give way if necessary.
    fn find_place(&self, all: &mut HashMap<u64, Arc<Connection>>) -> bool {
        let taken = all.values().filter(|connection| !connection.is_spare()).count();
        taken < self.places || give_way(all, |connection| !connection.is_spare())
    }

    /// Gives a spare connection a place, if there is one.
    fn promote(&self, connection: &Connection) -> bool {
        let mut all = self.all();
        // a connection that has given way is about to end
        let promoted = all.contains_key(&connection.id) && self.find_place(&mut all);
        if promoted {
            connection.spare.store(false, Ordering::Relaxed);
        }
        promoted
    }

    /// Ends the connections that a shutdown need not wait for: those without a complete request, and those whose client
    /// has stopped reading.
    pub(super) fn end_idle(&self) {
        for connection in self.all().values() {
            let state = connection.state();
            let stopped = state.unread && state.progress.elapsed() > UNREAD_MAX;
            if stopped || (state.phase != Phase::Answering && !state.unread) {
                connection.gives_way.notify_one();
            }
        }
    }
}

/// Makes one connection that matches `is_of_kind` give way, if any may: those without a key first, then the one idle
/// longest. Returns whether there was one.
fn give_way(all: &mut HashMap<u64, Arc<Connection>>, is_of_kind: impl Fn(&Connection) -> bool) -> bool {
    let order = |connection: &Connection| {
        let state = connection.state();
        let may_go = state.phase != Phase::Answering || state.unread;
        may_go.then_some((state.has_key, state.progress))
    };
    let of_kind = all.iter().filter(|(_, connection)| is_of_kind(connection));
    let idlest = of_kind.filter_map(|(id, connection)| Some((order(connection)?, *id))).min();
    // its place is free at once: the connection releases its resources right after
    let Some(connection) = idlest.and_then(|(_, id)| all.remove(&id)) else { return false };
    connection.gives_way.notify_one();
    true
}

/// The body of a request or of its answer. Its end puts the connection into a new phase.
pub(super) struct NotedBody<B> {
    body: B,
    connection: Arc<Connection>,
    side: Side,
}

/// Whether a body belongs to a request or to an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Answer,
}

impl<B: Body> NotedBody<B> {
    /// Wraps the body of a request that begins now. When the body ends, the answer is due.
    pub(super) fn of_request(body: B, connection: Arc<Connection>) -> Self {
        connection.enter(if body.is_end_stream() { Phase::Answering } else { Phase::Receiving });
        Self { body, connection, side: Side::Request }
    }

    /// Wraps the body of an answer. When it is dropped, the connection waits for the next request.
    pub(super) fn of_answer(body: B, connection: Arc<Connection>) -> Self {
        // even if the request was answered before its whole body had arrived
        connection.enter(Phase::Answering);
        Self { body, connection, side: Side::Answer }
    }
}

impl<B> Drop for NotedBody<B> {
    fn drop(&mut self) {
        if self.side == Side::Answer {
            self.connection.enter(Phase::Waiting);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for NotedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let ended = matches!(frame, Poll::Ready(None)) || self.body.is_end_stream();
        if self.side == Side::Request && ended {
            self.connection.enter(Phase::Answering);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the indices of the connections that had to end.
    fn gone(connections: &Connections, places: &[Place]) -> Vec<usize> {
        let all = connections.all();
        (0..places.len()).filter(|&index| !all.contains_key(&places[index].id)).collect()
    }

    #[test]
    fn the_idlest_gives_way_and_first_those_without_a_key() {
        let connections = Arc::new(Connections::new(4));
        let places: Vec<Place> = (0..4).map(|_| connections.enter().unwrap()).collect();
        places[0].connection.has_key();
        places[1].connection.enter(Phase::Answering);
        places[2].connection.came(); // after number 3
        let mut new = Vec::new();
        for expected in [vec![3], vec![2, 3]] {
            new.push(connections.enter().unwrap());
            assert_eq!(gone(&connections, &places), expected);
            new.last().unwrap().connection.enter(Phase::Answering);
        }
        // the connection with a key gives way if there is no other; the one being answered never does
        new.push(connections.enter().unwrap());
        assert_eq!(gone(&connections, &places), [0, 2, 3]);
        assert!(new.iter().all(|place| !place.connection.is_spare()));
    }

    #[test]
    fn an_answer_that_is_not_read_gives_way() {
        let connections = Arc::new(Connections::new(1));
        let place = connections.enter().unwrap();
        place.connection.enter(Phase::Answering);
        place.connection.is_unread();
        assert!(!connections.enter().unwrap().connection.is_spare());
        assert_eq!(gone(&connections, &[place]), [0]);
    }

    #[test]
    fn when_all_are_being_answered_spare_ones_are_left_and_bounded() {
        let connections = Arc::new(Connections::new(2));
        let answering = || {
            let place = connections.enter()?;
            place.connection.enter(Phase::Answering);
            Some(place)
        };
        let mut places: Vec<Place> = (0..2 + SPARE).map(|_| answering().unwrap()).collect();
        let spare = places.iter().filter(|place| place.connection.is_spare()).count();
        assert_eq!((spare, answering().is_none()), (SPARE, true));
        places.truncate(1);
        assert!(!answering().unwrap().connection.is_spare(), "a place given back is no spare one");
    }

    #[test]
    fn a_spare_connection_takes_a_place_that_has_become_free() {
        let connections = Arc::new(Connections::new(1));
        let answering = connections.enter().unwrap();
        answering.connection.enter(Phase::Answering);
        let spare = connections.enter().unwrap();
        assert!(spare.connection.is_spare() && !spare.connection.has_place());
        // another idle spare connection must not cause more places than the limit
        let other = connections.enter().unwrap();
        assert!(other.connection.is_spare() && !other.connection.has_place());
        drop(answering);
        assert!(spare.connection.has_place() && !spare.connection.is_spare());
        // it waits for a request, and so gives way to the connection that has one
        assert!(other.connection.has_place());
        assert_eq!(gone(&connections, &[spare, other]), [0]);
    }
}
