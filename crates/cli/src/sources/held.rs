//! How much of something that all share each client holds.

use phi3v::engine::CacheSalt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is held, by the salts of the clients' caches; none with 0. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<HashMap<CacheSalt, usize>>>);

impl Held {
    /// All of it, which nobody else changes meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, HashMap<CacheSalt, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `count` off what `client` holds.
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
