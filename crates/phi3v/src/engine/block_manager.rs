//! Decides which sequence may use which block of the KV cache: reservation, reference counts and the prefix cache's
//! index.
//!
//! Only the policy lives here; the storage is the model's [`Cache`](crate::model::Cache). Sequences with the same
//! beginning can share a full block whose contents are known by a hash. Such a block is kept after its last user has
//! ended, until it is needed; the least recently used goes first.
//!
//! Invariant, checked by [`BlockManager::check`]: every block that was ever used is in exactly one of three states. It is
//! in use, with as many references as there are sequences with the block in their tables; idle (known but unused); or
//! free.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Identifies the tokens of a block and of everything before it, images and rotary factors included.
pub(super) type BlockHash = [u8; 32];

#[derive(Clone, Debug, Default)]
struct Block {
    references: usize,
    hash: Option<BlockHash>,
    /// Key in `idle` while the block is known but unused.
    idle_since: Option<u64>,
}

/// Bookkeeping of all blocks.
#[derive(Debug)]
pub(super) struct BlockManager {
    /// The number of blocks there may be.
    total: u32,
    /// Blocks that are used before idle ones are taken.
    at_first: u32,
    /// Blocks that were ever used: like the storage, this grows on demand.
    blocks: Vec<Block>,
    by_hash: HashMap<BlockHash, u32>,
    /// Free blocks among those that were ever used.
    free: BTreeSet<u32>,
    idle: BTreeMap<u64, u32>,
    clock: u64,
}

impl BlockManager {
    pub(super) fn new(total: u32) -> Self {
        Self {
            total,
            at_first: total,
            blocks: Vec::new(),
            by_hash: HashMap::new(),
            free: BTreeSet::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Makes the manager take idle blocks before it uses more than `at_first` blocks.
    pub(super) fn forgetting(self, at_first: u32) -> Self {
        Self { at_first, ..self }
    }

    /// Creates a manager of the same size in which the blocks of `tables` are in use and no contents are known.
    pub(super) fn holding<'a>(&self, tables: impl Iterator<Item = &'a [u32]>) -> Self {
        let mut manager = Self::new(self.total).forgetting(self.at_first);
        for &id in tables.flatten().filter(|&&id| id < self.total) {
            while manager.blocks.len() <= id as usize {
                let unused = manager.add_block();
                manager.free.insert(unused);
            }
            manager.blocks[id as usize].references += 1;
            manager.free.remove(&id);
        }
        manager
    }

    /// The number of all blocks.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// The number of blocks that a new sequence could get.
    pub(super) fn available(&self) -> usize {
        self.total as usize - self.in_use()
    }

    /// The number of blocks that sequences use.
    pub(super) fn in_use(&self) -> usize {
        // with damaged bookkeeping, a block may be in two states
        self.blocks.len().saturating_sub(self.free.len() + self.idle.len())
    }

    /// Starts to use the next block that was never used.
    fn add_block(&mut self) -> u32 {
        self.blocks.push(Block::default());
        self.blocks.len() as u32 - 1
    }

    /// Reserves `known` blocks, found by their hashes, and enough others to make `count`. Returns `None` if there are too
    /// few.
    pub(super) fn reserve(&mut self, known: &[u32], count: usize) -> Option<Vec<u32>> {
        let idle_known = known.iter().filter(|&&id| self.blocks[id as usize].references == 0).count();
        if count.saturating_sub(known.len()) > self.available().saturating_sub(idle_known) {
            return None;
        }
        let mut table = known.to_vec();
        self.share(known);
        while table.len() < count {
            let id = self.take_unused()?;
            self.blocks[id as usize].references = 1;
            table.push(id);
        }
        Some(table)
    }

    /// Adds one reference to each of the `known` blocks, found by their hashes.
    pub(super) fn share(&mut self, known: &[u32]) {
        known.iter().for_each(|&id| self.retain(id));
    }

    /// Drops one reference to each block.
    pub(super) fn release(&mut self, table: &[u32]) {
        // a sequence's last blocks are the least likely to be shared, so they become idle first
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

    /// Records the hash of a full block, unless another block has the same contents.
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

    /// Takes the lowest free block, so that memory grows only on demand; else a block that was never used, up to
    /// `at_first` while there are idle ones; else the block that has been idle for longest.
    fn take_unused(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        let limit = if self.idle.is_empty() { self.total } else { self.at_first.min(self.total) };
        if self.blocks.len() < limit as usize {
            return Some(self.add_block());
        }
        let (_, id) = self.idle.pop_first()?;
        let block = &mut self.blocks[id as usize];
        block.idle_since = None;
        if let Some(hash) = block.hash.take() {
            self.by_hash.remove(&hash);
        }
        Some(id)
    }

    /// Compares the bookkeeping with `tables`, the tables of all sequences.
    ///
    /// # Errors
    /// [`Damage`] if a block is in two states or in none, if its reference count differs from the number of sequences
    /// that have it, or if a table, a list or the index has a wrong entry.
    pub(super) fn check<'a>(&self, tables: impl Iterator<Item = &'a [u32]>) -> Result<(), Damage> {
        let mut held = vec![0; self.blocks.len()];
        let mut damage = Damage::default();
        for &id in tables.flatten() {
            match held.get_mut(id as usize) {
                Some(held) => *held += 1,
                None => damage.add(id, "does not exist"),
            }
        }
        for (id, (block, &held)) in self.blocks.iter().zip(&held).enumerate() {
            let id = id as u32;
            if block.references != held {
                damage.add(id, "is counted for another number of sequences than have it");
            }
            let idle = block.idle_since.is_some_and(|tick| self.idle.get(&tick) == Some(&id));
            let states = [block.references > 0, idle, self.free.contains(&id)];
            if states.iter().filter(|&&is| is).count() != 1 {
                damage.add(id, "is in two states or in none");
            }
            if block.hash.is_some_and(|hash| self.by_hash.get(&hash) != Some(&id)) {
                damage.add(id, "is not found by its hash");
            }
        }
        let idle_since = |id: u32| self.blocks.get(id as usize).and_then(|block| block.idle_since);
        for (_, &id) in self.idle.iter().filter(|&(&tick, &id)| idle_since(id) != Some(tick)) {
            damage.add(id, "is listed as idle and is not");
        }
        for &id in self.free.iter().filter(|&&id| id as usize >= self.blocks.len()) {
            damage.add(id, "does not exist");
        }
        let hash_of = |id: u32| self.blocks.get(id as usize).and_then(|block| block.hash);
        for (&hash, &id) in self.by_hash.iter().filter(|&(&hash, &id)| hash_of(id) != Some(hash)) {
            damage.add(id, &format!("is found by the hash of another, {:02x}{:02x}..", hash[0], hash[1]));
        }
        if damage.blocks.is_empty() { Ok(()) } else { Err(damage) }
    }

    /// Makes every block in use free as well: a bug for tests.
    pub(super) fn damage(&mut self) {
        let in_use = self.blocks.iter().enumerate().filter(|(_, block)| block.references > 0);
        self.free.extend(in_use.map(|(id, _)| id as u32));
    }
}

/// What is wrong with the bookkeeping.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// The first finding, as one sentence.
    pub(super) found: String,
    /// Blocks whose contents cannot be trusted.
    pub(super) blocks: BTreeSet<u32>,
}

impl Damage {
    fn add(&mut self, id: u32, what: &str) {
        if self.blocks.is_empty() {
            self.found = format!("block {id} {what}");
        }
        self.blocks.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> BlockHash {
        [byte; 32]
    }

    /// Checks against `tables`, those in use.
    fn check(manager: &BlockManager, tables: &[&[u32]]) -> Result<(), Damage> {
        manager.check(tables.iter().copied())
    }

    #[test]
    fn reserves_all_or_nothing_and_lowest_first() {
        let mut manager = BlockManager::new(4);
        assert_eq!(manager.reserve(&[], 3), Some(vec![0, 1, 2]));
        assert_eq!(manager.reserve(&[], 2), None);
        assert_eq!(manager.available(), 1);
        manager.release(&[0, 1, 2]);
        assert_eq!(manager.reserve(&[], 4), Some(vec![0, 1, 2, 3]));
        assert_eq!(check(&manager, &[&[0, 1, 2, 3]]), Ok(()));
    }

    #[test]
    fn blocks_that_were_never_used_take_no_memory() {
        let mut manager = BlockManager::new(u32::MAX);
        assert_eq!(manager.reserve(&[], 2), Some(vec![0, 1]));
        assert_eq!((manager.in_use(), manager.available()), (2, u32::MAX as usize - 2));
        assert_eq!(check(&manager, &[&[0, 1]]), Ok(()));
    }

    #[test]
    fn what_was_left_is_forgotten_before_more_than_at_first_are_used() {
        let mut manager = BlockManager::new(4).forgetting(2);
        for byte in 0..3 {
            let table = manager.reserve(&[], 1).unwrap();
            manager.publish(table[0], hash(byte));
            manager.release(&table);
        }
        let found = [0, 1, 2].map(|byte| manager.find(&hash(byte)));
        assert_eq!(found, [None, Some(1), Some(0)], "one after the other they take two");
        assert_eq!(manager.reserve(&[], 3), Some(vec![1, 0, 2]), "together they take more");
        assert_eq!(manager.reserve(&[], 1), Some(vec![3]));
        assert_eq!(manager.reserve(&[], 1), None);
        let tables: [&[u32]; 1] = [&[1, 0, 2, 3]];
        assert_eq!(manager.holding(tables.into_iter()).at_first, 2);
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
        assert_eq!(check(&manager, &[]), Ok(()));
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
        assert_eq!(check(&manager, &[&[1]]), Ok(()));
    }

    #[test]
    fn known_idle_blocks_are_not_counted_twice() {
        let mut manager = BlockManager::new(2);
        let table = manager.reserve(&[], 1).unwrap();
        manager.publish(table[0], hash(1));
        manager.release(&table);
        assert_eq!(manager.reserve(&[0], 3), None);
        assert_eq!(manager.reserve(&[0], 2), Some(vec![0, 1]));
        assert_eq!(check(&manager, &[&[0, 1]]), Ok(()));
    }

    #[test]
    fn damage_is_found_and_mended_from_the_tables() {
        let intact = || {
            let mut manager = BlockManager::new(5);
            let first = manager.reserve(&[], 2).unwrap();
            manager.publish(first[0], hash(1));
            let idle = manager.reserve(&[], 1).unwrap();
            manager.publish(idle[0], hash(2));
            manager.release(&idle);
            assert_eq!(manager.reserve(&[0], 2), Some(vec![0, 3]));
            let free = manager.reserve(&[], 1).unwrap();
            manager.release(&free);
            assert_eq!(check(&manager, &[&[0, 1], &[0, 3]]), Ok(()));
            manager
        };
        type Harm = fn(&mut BlockManager);
        let damages: [(&str, Harm, &[u32]); 9] = [
            ("free and in use", |manager| manager.damage(), &[0, 1, 3]),
            ("counted once too often", |manager| manager.blocks[0].references += 1, &[0]),
            ("given back too early", |manager| manager.release(&[1]), &[1]),
            ("lost", |manager| manager.free.clear(), &[4]),
            ("no longer idle", |manager| manager.idle.clear(), &[2]),
            ("idle and in use", |manager| manager.idle.extend([(9, 3)]), &[3]),
            ("free and nowhere", |manager| manager.free.extend([7]), &[7]),
            ("not found by its hash", |manager| manager.by_hash.retain(|known, _| *known != hash(1)), &[0]),
            ("found by another's hash", |manager| manager.by_hash.extend([(hash(3), 3)]), &[3]),
        ];
        for (name, damage, blocks) in damages {
            let mut manager = intact();
            damage(&mut manager);
            let found = check(&manager, &[&[0, 1], &[0, 3]]).unwrap_err();
            assert_eq!(found.blocks, BTreeSet::from_iter(blocks.iter().copied()), "{name}: {}", found.found);
        }
        let tables: [&[u32]; 2] = [&[0, 1], &[0, 3]];
        let anew = BlockManager::new(5).holding(tables.into_iter());
        assert_eq!(check(&anew, &tables), Ok(()));
        assert_eq!((anew.in_use(), anew.available(), anew.find(&hash(1))), (3, 2, None));
        let beyond = check(&anew, &[&[0, 1], &[0, 3], &[9]]).unwrap_err();
        assert_eq!(beyond.found, "block 9 does not exist");
    }
}
