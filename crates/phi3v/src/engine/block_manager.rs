//! Who may use which block of the KV cache: reservation, reference counts and the prefix cache's index.
//!
//! Only the policy lives here; the storage is the model's [`Cache`](crate::model::Cache). A full block whose contents
//! are known by a hash can be shared by sequences with the same beginning, and is kept after its last user has gone
//! until its room is needed; the least recently used goes first.
//!
//! Invariant, checked by [`BlockManager::check_integrity`]: every block is in use, idle (known but unused) or free.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Identifies the tokens of a block and of everything before it, pictures and rotary factors included.
pub(super) type BlockHash = [u8; 32];

#[derive(Clone, Debug, Default)]
struct Block {
    references: usize,
    hash: Option<BlockHash>,
    /// Key in `idle` while unused and known.
    idle_since: Option<u64>,
}

/// Book-keeping of all blocks.
#[derive(Debug)]
pub(super) struct BlockManager {
    blocks: Vec<Block>,
    by_hash: HashMap<BlockHash, u32>,
    free: BTreeSet<u32>,
    idle: BTreeMap<u64, u32>,
    clock: u64,
}

impl BlockManager {
    pub(super) fn new(blocks: usize) -> Self {
        Self {
            blocks: vec![Block::default(); blocks],
            by_hash: HashMap::new(),
            free: (0..blocks as u32).collect(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// All blocks.
    pub(super) fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that a new sequence could get.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Blocks in use by a sequence.
    pub(super) fn in_use(&self) -> usize {
        self.total() - self.available()
    }

    /// Reserves `known` blocks, found by their hashes, and enough others to make `count`; nothing if there is no room.
    pub(super) fn reserve(&mut self, known: &[u32], count: usize) -> Option<Vec<u32>> {
        let idle_known = known.iter().filter(|&&id| self.blocks[id as usize].references == 0).count();
        if count - known.len() > self.available() - idle_known {
            return None;
        }
        let mut table = known.to_vec();
        for &id in known {
            self.retain(id);
        }
        while table.len() < count {
            let id = self.take_unused()?;
            self.blocks[id as usize].references = 1;
            table.push(id);
        }
        Some(table)
    }

    /// Gives one reference to each block back.
    pub(super) fn release(&mut self, table: &[u32]) {
        // the last blocks of a sequence are the least likely to be shared, so they become idle first
        for &id in table.iter().rev() {
            let block = &mut self.blocks[id as usize];
            block.references -= 1;
            if block.references > 0 {
                continue;
            }
            if block.hash.is_some() {
                block.idle_since = Some(self.clock);
                self.idle.insert(self.clock, id);
                self.clock += 1;
            } else {
                self.free.insert(id);
            }
        }
    }

    /// Makes a full block's contents known, unless another block already has them.
    pub(super) fn publish(&mut self, id: u32, hash: BlockHash) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.by_hash.entry(hash) {
            entry.insert(id);
            self.blocks[id as usize].hash = Some(hash);
        }
    }

    /// The block with these contents.
    pub(super) fn find(&self, hash: &BlockHash) -> Option<u32> {
        self.by_hash.get(hash).copied()
    }

    /// One more than the highest block of `table`.
    pub(super) fn high_water(table: &[u32]) -> usize {
        table.iter().max().map_or(0, |&id| id as usize + 1)
    }

    fn retain(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        block.references += 1;
        if let Some(tick) = block.idle_since.take() {
            self.idle.remove(&tick);
        }
    }

    /// The lowest free block, so that memory is taken only as it is needed; else the block idle for longest.
    fn take_unused(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        let (_, id) = self.idle.pop_first()?;
        let block = &mut self.blocks[id as usize];
        block.idle_since = None;
        if let Some(hash) = block.hash.take() {
            self.by_hash.remove(&hash);
        }
        Some(id)
    }

    /// Panics if a block is in two states or none. Called by tests, and by the engine whenever it is idle.
    pub(super) fn check_integrity(&self) {
        for (id, block) in self.blocks.iter().enumerate() {
            let id = id as u32;
            let idle = block.idle_since.is_some_and(|tick| self.idle.get(&tick) == Some(&id));
            let states = [block.references > 0, idle, self.free.contains(&id)];
            assert_eq!(states.iter().filter(|&&is| is).count(), 1, "block {id} is in states {states:?}");
            if let Some(hash) = &block.hash {
                assert_eq!(self.by_hash.get(hash), Some(&id), "block {id} is not found by its hash");
            }
        }
        assert_eq!(self.by_hash.len(), self.blocks.iter().filter(|block| block.hash.is_some()).count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> BlockHash {
        [byte; 32]
    }

    #[test]
    fn reserves_all_or_nothing_and_lowest_first() {
        let mut manager = BlockManager::new(4);
        assert_eq!(manager.reserve(&[], 3), Some(vec![0, 1, 2]));
        assert_eq!(manager.reserve(&[], 2), None);
        assert_eq!(manager.available(), 1);
        manager.release(&[0, 1, 2]);
        assert_eq!(manager.reserve(&[], 4), Some(vec![0, 1, 2, 3]));
        manager.check_integrity();
    }

    #[test]
    fn a_published_block_is_shared_and_outlives_its_user() {
        let mut manager = BlockManager::new(3);
        let first = manager.reserve(&[], 2).unwrap();
        manager.publish(first[0], hash(1));
        let known = manager.find(&hash(1)).unwrap();
        assert_eq!(manager.reserve(&[known], 2), Some(vec![0, 2]));
        manager.release(&first);
        assert_eq!(manager.in_use(), 2);
        manager.release(&[0, 2]);
        assert_eq!((manager.in_use(), manager.find(&hash(1))), (0, Some(0)));
        manager.check_integrity();
    }

    #[test]
    fn the_block_idle_for_longest_is_evicted_first_and_forgotten() {
        let mut manager = BlockManager::new(2);
        let table = manager.reserve(&[], 2).unwrap();
        manager.publish(table[0], hash(1));
        manager.publish(table[1], hash(2));
        manager.release(&table);
        assert_eq!(manager.reserve(&[], 1), Some(vec![1]), "the end of a sequence goes before its beginning");
        assert_eq!((manager.find(&hash(1)), manager.find(&hash(2))), (Some(0), None));
        manager.check_integrity();
    }

    #[test]
    fn known_idle_blocks_are_not_counted_twice() {
        let mut manager = BlockManager::new(2);
        let table = manager.reserve(&[], 1).unwrap();
        manager.publish(table[0], hash(1));
        manager.release(&table);
        assert_eq!(manager.reserve(&[0], 3), None);
        assert_eq!(manager.reserve(&[0], 2), Some(vec![0, 1]));
        manager.check_integrity();
    }
}
