//! How much of a shared resource each client holds.

use phi3v::engine::CacheSalt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The amounts held, by the salts of the clients' caches, without entries of 0. Clones share the amounts.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<HashMap<CacheSalt, usize>>>);

impl Held {
    /// Locks all amounts, so that nobody else changes them meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, HashMap<CacheSalt, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subtracts `count` from what `client` holds.
    pub fn give_back(&self, client: &CacheSalt, count: usize) {
        let mut held = self.lock();
        if let Some(own) = held.get_mut(client) {
            *own -= count;
            if *own == 0 {
                held.remove(client);
            }
        }
    }
}
