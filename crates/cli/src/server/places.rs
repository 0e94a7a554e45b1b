//! Places for answers in the engine: how many run or wait, and which client holds them.
//!
//! As long as there is one client, it may take all places. Every other client can always get an equal share of them,
//! even if the first has taken all; the total then exceeds the capacity. Clients are identified by their cache salts,
//! that is, by their keys. If keys share caches, or there are no keys, all count as one client.

use crate::sources::Held;
use phi3v::engine::CacheSalt;
use std::collections::HashMap;

/// The places of an engine; clones share them.
#[derive(Clone)]
pub(super) struct Places {
    held: Held,
    capacity: usize,
}

/// A place for an answer. Dropping it gives the place back.
pub struct Place {
    places: Places,
    client: CacheSalt,
}

impl Places {
    pub(super) fn new(capacity: usize) -> Self {
        Self { held: Held::default(), capacity }
    }

    /// Returns the number of places for a single client.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the number of places held now, all clients combined.
    pub(super) fn held(&self) -> usize {
        self.held.lock().values().sum()
    }

    /// Takes `count` places for a client: all of them, or `None` if not all are available.
    pub(super) fn take(&self, client: CacheSalt, count: usize) -> Option<Vec<Place>> {
        let mut held = self.held.lock();
        if !self.fits(&held, &client, count) {
            return None;
        }
        if count > 0 {
            *held.entry(client).or_default() += count;
        }
        Some((0..count).map(|_| Place { places: self.clone(), client }).collect())
    }

    fn fits(&self, held: &HashMap<CacheSalt, usize>, client: &CacheSalt, count: usize) -> bool {
        let all: usize = held.values().sum();
        let own = held.get(client).copied().unwrap_or(0);
        let clients = held.len() + usize::from(own == 0);
        all + count <= self.capacity || own + count <= self.capacity / clients
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held.give_back(&self.client, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Places {
        /// Returns whether a client could take `count` places now.
        fn has_room(&self, client: &CacheSalt, count: usize) -> bool {
            self.fits(&self.held.lock(), client, count)
        }
    }

    const ALICE: CacheSalt = [1; 32];
    const BOB: CacheSalt = [2; 32];

    #[test]
    fn one_client_has_all_places_and_no_more() {
        let places = Places::new(4);
        let three = places.take(ALICE, 3).unwrap();
        assert!(places.has_room(&ALICE, 1) && !places.has_room(&ALICE, 2));
        assert!(places.take(ALICE, 2).is_none(), "all or none");
        let last = places.take(ALICE, 1).unwrap();
        assert!(places.take(ALICE, 1).is_none());
        assert_eq!(places.held(), 4);
        drop((three, last));
        assert_eq!(places.held(), 0);
        assert!(places.has_room(&ALICE, 4));
    }

    #[test]
    fn others_get_their_equal_part_of_the_places_however_many_the_first_has() {
        let places = Places::new(4);
        let alice = places.take(ALICE, 4).unwrap();
        let bob = places.take(BOB, 2).unwrap();
        assert!(!places.has_room(&BOB, 1) && !places.has_room(&ALICE, 1));
        let carol = places.take([3; 32], 1).unwrap();
        assert!(!places.has_room(&[3; 32], 1) && places.has_room(&[4; 32], 1));
        drop(alice);
        assert!(places.has_room(&BOB, 1), "what is free is for all");
        assert!(places.has_room(&ALICE, 1) && !places.has_room(&ALICE, 2));
        drop((bob, carol));
        assert!(places.has_room(&ALICE, 4));
    }
}
