//! Cache of image embeddings for further questions about the images. It is limited in bytes; the least recently used goes
//! first.

use std::collections::HashMap;
use std::sync::Arc;

struct Entry<T> {
    embedding: Arc<T>,
    bytes: usize,
    last_use: u64,
}

/// Image hash to embedding, `[num_img_tokens, hidden_size]`.
pub(super) struct ImageCache<T> {
    entries: HashMap<[u8; 32], Entry<T>>,
    bytes: usize,
    bytes_max: usize,
    clock: u64,
}

impl<T> ImageCache<T> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, bytes_max, clock: 0 }
    }

    pub(super) fn get(&mut self, hash: &[u8; 32]) -> Option<Arc<T>> {
        self.clock += 1;
        let entry = self.entries.get_mut(hash)?;
        entry.last_use = self.clock;
        Some(Arc::clone(&entry.embedding))
    }

    /// Caches `embedding`, and drops the least recently used embeddings while the limit is exceeded. A sequence that
    /// still needs a dropped embedding holds its own reference.
    pub(super) fn insert(&mut self, hash: [u8; 32], embedding: Arc<T>, bytes: usize) {
        if bytes > self.bytes_max {
            return; // it would drop all others and then itself
        }
        self.clock += 1;
        if let Some(old) = self.entries.insert(hash, Entry { embedding, bytes, last_use: self.clock }) {
            self.bytes -= old.bytes;
        }
        self.bytes += bytes;
        while self.bytes > self.bytes_max {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_use).map(|(hash, _)| *hash);
            let Some(entry) = oldest.and_then(|hash| self.entries.remove(&hash)) else { break };
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_the_least_recently_used_beyond_its_bound() {
        let mut cache = ImageCache::new(20);
        for key in 0..2u8 {
            cache.insert([key; 32], Arc::new(key), 10);
        }
        assert!(cache.get(&[0; 32]).is_some());
        cache.insert([2; 32], Arc::new(2), 10);
        assert!(cache.get(&[1; 32]).is_none());
        assert!(cache.get(&[0; 32]).is_some() && cache.get(&[2; 32]).is_some());
        cache.insert([3; 32], Arc::new(3), 100);
        assert_eq!(cache.bytes, 20, "what is larger than the bound is not kept, and drops nothing");
    }
}
