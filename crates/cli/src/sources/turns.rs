//! Turns at work that is limited to a few tasks at a time: fetching and decoding pictures, tokenizing text, compiling the
//! forms of answers.
//!
//! Requests of one client are served in order of arrival. Clients take turns, so that many requests of one client do
//! not delay all others. Clients are distinguished by the salts of their caches.

use phi3v::engine::CacheSalt;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Turns at one kind of work. Clones share the turns.
#[derive(Clone)]
pub struct Turns(Arc<Mutex<Queue>>);

/// The free turns and the waiting requests.
struct Queue {
    /// Number of free turns.
    free: usize,
    /// Clients with waiting requests, the next client first. Each has at least one request.
    clients: VecDeque<(CacheSalt, VecDeque<oneshot::Sender<Turn>>)>,
}

/// A turn, which moves into the work. Dropping it ends the turn.
pub struct Turn {
    /// `None` if the turn was returned because no request waits.
    of: Option<Turns>,
}

impl Turns {
    /// Creates `count` turns, all of them free.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue { free: count, clients: VecDeque::new() })))
    }

    /// Waits for a turn for a request of `client`.
    pub async fn take(&self, client: CacheSalt) -> Turn {
        let waiting = {
            let mut queue = self.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return self.turn();
            }
            queue.wait(client)
        };
        waiting.await.expect("who waits stays in the queue until it has a turn")
    }

    fn turn(&self) -> Turn {
        Turn { of: Some(self.clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a turn that has ended to the next request.
    fn pass_on(&self) {
        let mut queue = self.lock();
        if let Err(mut turn) = queue.hand_over(self.turn()) {
            // dropping this value must not end the turn again
            turn.of = None;
            queue.free += 1;
        }
    }
}

impl Queue {
    fn wait(&mut self, client: CacheSalt) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        match self.clients.iter_mut().find(|(other, _)| *other == client) {
            Some((_, waiting)) => {
                waiting.retain(|other| !other.is_closed());
                waiting.push_back(sender);
            }
            None => self.clients.push_back((client, VecDeque::from([sender]))),
        }
        receiver
    }

    /// Hands a turn to the next request, or returns it if no request waits.
    fn hand_over(&mut self, mut turn: Turn) -> Result<(), Turn> {
        while let Some((client, mut waiting)) = self.clients.pop_front() {
            while let Some(next) = waiting.pop_front() {
                match next.send(turn) {
                    Ok(()) => {
                        if !waiting.is_empty() {
                            self.clients.push_back((client, waiting));
                        }
                        return Ok(());
                    }
                    // the request is gone; its client does not lose its turn
                    Err(back) => turn = back,
                }
            }
        }
        Err(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.of.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
impl Turns {
    /// Number of free turns.
    pub(crate) fn free(&self) -> usize {
        self.lock().free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    type Waiting = Pin<Box<dyn Future<Output = Turn>>>;

    /// A request of a client that has begun to wait.
    fn wait(turns: &Turns, client: u8) -> Waiting {
        let turns = turns.clone();
        let mut waiting: Waiting = Box::pin(async move { turns.take([client; 32]).await });
        assert!(has_turn(&mut waiting).is_none(), "all turns are taken");
        waiting
    }

    fn has_turn(waiting: &mut Waiting) -> Option<Turn> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn clients_take_turns_and_each_is_served_in_order() {
        let turns = Turns::new(1);
        let mut turn = turns.take([1; 32]).await;
        let mut waiting: Vec<(&str, Waiting)> = Vec::new();
        for (name, client) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2), ("b2", 2), ("c1", 3)] {
            waiting.push((name, wait(&turns, client)));
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(turn);
            let mut ready: Vec<(usize, Turn)> = Vec::new();
            for (index, (_, waiting)) in waiting.iter_mut().enumerate() {
                ready.extend(has_turn(waiting).map(|turn| (index, turn)));
            }
            assert_eq!(ready.len(), 1, "one at a time");
            let (index, next) = ready.remove(0);
            order.push(waiting.remove(index).0);
            turn = next;
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        drop(turn);
        assert_eq!(turns.free(), 1);
    }

    #[tokio::test]
    async fn who_has_gone_costs_its_client_no_turn() {
        let turns = Turns::new(1);
        let turn = turns.take([1; 32]).await;
        let gone = wait(&turns, 1);
        let mut first = wait(&turns, 1);
        let mut other = wait(&turns, 2);
        drop(gone);
        drop(turn);
        let turn = has_turn(&mut first).expect("it is its client's turn");
        assert!(has_turn(&mut other).is_none());
        drop(turn);
        assert!(has_turn(&mut other).is_some());
    }

    #[tokio::test]
    async fn who_has_gone_is_passed_over() {
        let turns = Turns::new(2);
        let held = [turns.take([1; 32]).await, turns.take([1; 32]).await];
        let gone: Vec<Waiting> = (0..1_000).map(|client| wait(&turns, client as u8)).collect();
        let mut last = wait(&turns, 7);
        drop(gone);
        drop(held);
        let turn = has_turn(&mut last).unwrap();
        assert_eq!(turns.free(), 1, "the other has come back");
        // a turn that was handed over but never taken comes back too
        let held = turns.take([1; 32]).await;
        let handed = wait(&turns, 2);
        drop(turn);
        assert_eq!(turns.free(), 0);
        drop(handed);
        assert_eq!(turns.free(), 1);
        drop(held);
        assert_eq!(turns.free(), 2);
    }
}
