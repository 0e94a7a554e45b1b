//! Schedules a step: admission, the prefix cache, how prompts are cut, and restarts of sequences that outgrow the short
//! factors.
//!
//! Pure: the scheduler knows sequences, lengths and block tables, and no tensors. The engine carries out its decisions.

mod sharing;
mod turns;

use super::block_manager::BlockManager;
use super::request::{CacheSalt, RequestId};
use super::sequence::Sequence;
use super::{EngineOptions, Load};
use crate::model::RopeFactors;
use crate::tokenizer::Tokenizer;
use phi3v_kernels::{KV_BLOCK_TOKENS, Sizes};
use sharing::KnownPrefix;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
pub(super) use turns::{Turns, Work};

/// Fewest prompts that splitting a scoring sequence gives to either half. The new half recomputes up to a block and a few
/// tokens, which should be little compared with its own work.
const PART_PROMPTS_MIN: usize = 4;

/// Sequences that wait or run, and their blocks of the KV cache.
pub(super) struct Scheduler {
    options: EngineOptions,
    /// Sequences that may run at the same time, at least one.
    running_max: usize,
    /// Tokens of a prompt's chunk while no sequence decodes.
    prefill_chunk_alone: usize,
    /// Fewest tokens that cutting a prompt may leave. The device multiplies shorter chunks with its kernels for few rows,
    /// those of decoding, which sum in another order: how a prompt is cut must not change its answer.
    prefill_remainder_min: usize,
    /// Most tokens that the device's kernels for decoding compute together.
    few_rows_max: usize,
    blocks: BlockManager,
    waiting: VecDeque<Sequence>,
    /// Ordered by first admission.
    running: Vec<Sequence>,
    /// Counts admissions and turns.
    clock: u64,
    /// Block tables of sequences that have ended. Their blocks are released once all tables have been checked.
    ended_tables: Vec<Vec<u32>>,
}

/// A sequence that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    /// Its index among the running sequences.
    pub(super) index: usize,
    /// Blocks, counted from the first, that the cache must have memory for.
    pub(super) blocks: usize,
}

/// A sequence that was split in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Divided {
    /// The sequence that was split: its index among the running sequences.
    pub(super) whole: usize,
    /// The part that was split off.
    pub(super) part: Admission,
}

/// A chunk of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PromptChunk {
    /// The sequence it belongs to: an index among the running sequences.
    pub(super) index: usize,
    /// Positions to compute.
    pub(super) rows: Range<usize>,
    /// Whether the chunk reaches the prompt's end, whose logits give the next token.
    pub(super) is_last: bool,
}

/// What a decoding sequence computes in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DecodeChunk {
    /// The sequence it belongs to: an index among the running sequences.
    pub(super) index: usize,
    /// Positions to compute, at least one.
    pub(super) rows: Range<usize>,
}

/// A block table that was damaged and has been rebuilt.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repair {
    /// What was found, in words for people.
    pub(super) found: String,
    /// Sequences with a block in doubt; the scheduler has removed them.
    pub(super) failed: Vec<RequestId>,
}

/// Fewest tokens of a prompt that run together, unless the prompt is shorter. Fewer would take the device's kernels for
/// few rows.
pub(super) fn prompt_rows_min(sizes: Sizes) -> usize {
    sizes.few_rows_max + 1
}

/// A scoring sequence, and how many of its prompts another sequence could take over.
struct Division {
    index: usize,
    prompts: usize,
}

impl Scheduler {
    /// Takes from `sizes` what `options` leaves to the device.
    pub(super) fn new(options: EngineOptions, sizes: Sizes) -> Self {
        let blocks_of =
            |tokens: usize| u32::try_from(tokens.div_ceil(KV_BLOCK_TOKENS)).unwrap_or(u32::MAX).max(1);
        let blocks = BlockManager::new(blocks_of(options.context_tokens.max(options.cache_tokens)));
        let at_first = blocks_of(options.context_tokens);
        Self {
            options,
            running_max: options.running_max.unwrap_or(sizes.few_rows_max).max(1),
            prefill_chunk_alone: options.prefill_chunk_alone.unwrap_or(sizes.prefill_chunk),
            prefill_remainder_min: prompt_rows_min(sizes),
            few_rows_max: sizes.few_rows_max,
            blocks: if options.cache_grows_to_keep { blocks } else { blocks.forgetting(at_first) },
            waiting: VecDeque::new(),
            running: Vec::new(),
            clock: 0,
            ended_tables: Vec::new(),
        }
    }

    /// Counts waiting and running sequences, and blocks in use.
    pub(super) fn load(&self) -> Load {
        Load {
            waiting: self.waiting.len(),
            running: self.running.len(),
            blocks_in_use: self.blocks.in_use(),
            blocks_total: self.blocks.total() as usize,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// The running sequences, oldest first.
    pub(super) fn running(&self) -> &[Sequence] {
        &self.running
    }

    pub(super) fn running_mut(&mut self) -> &mut [Sequence] {
        &mut self.running
    }

    /// Adds a sequence to the queue, in which clients, told apart by their salts, take turns. The sequence goes behind
    /// those of its own client, and before the first one that has more of its own client's sequences ahead of it.
    pub(super) fn enqueue(&mut self, sequence: Sequence) {
        let own = self.waiting.iter().filter(|waiting| waiting.cache_salt == sequence.cache_salt).count();
        let mut before: HashMap<CacheSalt, usize> = HashMap::new();
        let has_more = |waiting: &Sequence| {
            let before = before.entry(waiting.cache_salt).or_default();
            *before += 1;
            *before > own + 1
        };
        let place = self.waiting.iter().position(has_more).unwrap_or(self.waiting.len());
        self.waiting.insert(place, sequence);
    }

    /// Marks a request's sequences as cancelled; [`take_cancelled`](Self::take_cancelled) then removes them.
    pub(super) fn cancel(&mut self, id: RequestId) {
        let all = self.waiting.iter_mut().chain(&mut self.running);
        all.filter(|sequence| sequence.id == id).for_each(|sequence| sequence.cancelled = true);
    }

    /// Whether a sequence of the request is waiting.
    pub(super) fn is_waiting(&self, id: RequestId) -> bool {
        self.waiting.iter().any(|sequence| sequence.id == id)
    }

    /// Removes the cancelled sequences and returns them.
    pub(super) fn take_cancelled(&mut self) -> Vec<Sequence> {
        let mut cancelled: Vec<Sequence> =
            self.running.extract_if(.., |sequence| sequence.cancelled).collect();
        self.ended_tables.extend(cancelled.iter_mut().map(|sequence| std::mem::take(&mut sequence.blocks)));
        while let Some(index) = self.waiting.iter().position(|sequence| sequence.cancelled) {
            if let Some(mut sequence) = self.waiting.remove(index) {
                sequence.end_wait();
                cancelled.push(sequence);
            }
        }
        cancelled
    }

    /// Moves sequences whose next token lies beyond the short factors' reach back to the head of the queue. They are
    /// recomputed in full with the long factors. Their images stay encoded, and they keep their order and their rank
    /// before younger sequences.
    pub(super) fn restart_crossing(&mut self, factors_for: impl Fn(usize) -> RopeFactors) {
        let crossed: Vec<Sequence> =
            self.running.extract_if(.., |sequence| sequence.crosses(&factors_for)).collect();
        for mut sequence in crossed.into_iter().rev() {
            self.ended_tables.push(std::mem::take(&mut sequence.blocks));
            sequence.factors = factors_for(sequence.tokens.len());
            (sequence.computed, sequence.prefill_tokens) = (0, sequence.tokens.len());
            sequence.published = (0, sequence.cache_salt);
            self.waiting.push_front(sequence);
        }
    }

    /// Admits the first sequence of the queue, if there are enough blocks for everything it may need.
    pub(super) fn admit(&mut self) -> Option<Admission> {
        if self.places_free() == 0 {
            return None;
        }
        let sequence = self.waiting.front()?;
        let known = self.known_prefix(sequence);
        let Some(table) = self.blocks.reserve(&known.table, sequence.blocks_needed()) else {
            self.end_parts();
            return None;
        };
        let sequence = self.waiting.pop_front()?;
        Some(self.start(sequence, known, table))
    }

    /// Returns the prompts that parts of scoring requests have not begun to the sequences they were split off. Each part
    /// then ends after its current prompt, which frees its blocks for waiting sequences. The original sequence has blocks
    /// for all prompts.
    fn end_parts(&mut self) {
        for index in 0..self.running.len() {
            let id = self.running[index].id;
            let is_whole = |sequence: &Sequence| sequence.id == id && !sequence.is_part;
            if let Some(whole) = self.running.iter().position(is_whole) {
                let unbegun = self.running[index].give_back();
                self.running[whole].rejoin(unbegun);
            }
        }
    }

    /// How many more sequences may be admitted. Parts of requests do not count: they run in addition, as many as
    /// [`divisible`](Self::divisible) allows.
    pub(super) fn places_free(&self) -> usize {
        self.running_max.saturating_sub(self.running.iter().filter(|sequence| !sequence.is_part).count())
    }

    fn start(&mut self, mut sequence: Sequence, known: KnownPrefix, table: Vec<u32>) -> Admission {
        let blocks = BlockManager::high_water(&table);
        sequence.blocks = table;
        sequence.take_over(known.table.len(), known.hash);
        sequence.end_wait();
        Admission { index: self.join(sequence), blocks }
    }

    /// Splits a scoring sequence in two that run together, if one can be split and there are blocks for the part.
    pub(super) fn divide(&mut self, tokenizer: &Arc<Tokenizer>) -> Option<Divided> {
        let Division { index, prompts } = self.divisible()?;
        let part = self.running[index].split_off(prompts, tokenizer)?;
        let known = self.known_prefix(&part);
        let Some(table) = self.blocks.reserve(&known.table, part.blocks_needed()) else {
            self.running[index].rejoin(part.scoring);
            return None;
        };
        Some(Divided { whole: index, part: self.start(part, known, table) })
    }

    /// Undoes [`divide`](Self::divide) if the part cannot run. No sequence may have been admitted or removed since. Of a
    /// request's sequences, only the one that was split is sure to have blocks for the part's prompts.
    pub(super) fn rejoin(&mut self, Divided { whole, part }: Divided) {
        let part = self.end(part.index);
        self.running[whole].rejoin(part.scoring);
    }

    /// The sequence with the most prompts to hand over, if nothing waits and scoring sequences do not fill a decode step.
    /// Scoring thus uses only spare capacity.
    fn divisible(&self) -> Option<Division> {
        if !self.waiting.is_empty() || !self.options.prefix_cache {
            return None;
        }
        let score = self.running.iter().filter(|sequence| sequence.scoring.is_some()).count();
        let index = (0..self.running.len()).max_by_key(|&index| self.running[index].divisible())?;
        let left = self.running[index].divisible();
        let sequences = (left / PART_PROMPTS_MIN).min(1 + self.few_rows_max.saturating_sub(score));
        (sequences > 1).then(|| Division { index, prompts: left / sequences })
    }

    /// Whether any sequence is past its prompt, in which case pieces of other work are kept small.
    pub(super) fn someone_decodes(&self) -> bool {
        self.running.iter().any(Sequence::decoding)
    }

    /// Whether any sequence's prompt is not fully computed.
    pub(super) fn computes_prompts(&self) -> bool {
        self.running.iter().any(|sequence| !sequence.decoding())
    }

    /// The sequence whose image is encoded next: the first in line of the client whose turn it is.
    pub(super) fn needs_image(&self) -> Option<usize> {
        let needs =
            |&index: &usize| self.running[index].image_needed().is_some() && !self.is_held_back(index);
        self.next_in_turn(Work::Image, (0..self.running.len()).filter(needs))
    }

    /// The next chunk of the oldest ready prompt of the client whose turn it is, plus whole remainders of other prompts
    /// that fit the shared chunk, so nobody's first token is delayed. A prompt is ready if its next images are encoded.
    /// Ordered by sequence.
    pub(super) fn prompt_chunks(&self) -> Vec<PromptChunk> {
        let ready = |&index: &usize| {
            let sequence = &self.running[index];
            !sequence.decoding() && sequence.image_needed().is_none() && !self.is_held_back(index)
        };
        let mut ready: Vec<usize> = (0..self.running.len()).filter(ready).collect();
        ready.sort_by_key(|&index| self.place(Work::Prompt, index));
        let Some((&index, others)) = ready.split_first() else { return Vec::new() };
        let (alone, rows_min) = (self.prefill_chunk_alone, self.prefill_remainder_min);
        let shared = self.options.prefill_chunk_shared.min(alone).max(rows_min);
        let chunk = if self.someone_decodes() { shared } else { alone.max(rows_min) };
        let Range { start, end: total } = self.running[index].left_to_compute();
        let end = if total - start < chunk.saturating_add(rows_min) { total } else { start + chunk };
        let mut chunks = vec![PromptChunk { index, rows: start..end, is_last: end == total }];
        // a chunk this short takes the kernels for few rows, and adding others would change that
        let mut spare = if end - start < rows_min { 0 } else { shared.saturating_sub(end - start) };
        for &index in others {
            let rows = self.running[index].left_to_compute();
            // the logits of all chunks together must take the kernels for few rows
            if (rows_min..=spare).contains(&rows.len()) && chunks.len() < self.few_rows_max {
                spare -= rows.len();
                chunks.push(PromptChunk { index, rows, is_last: true });
            }
        }
        chunks.sort_unstable_by_key(|chunk| chunk.index);
        chunks
    }

    /// What each decoding sequence computes in this step: its newest token, plus forced tokens behind it as far as all
    /// rows together fit the kernels for few rows, so that no answer depends on the others. A sequence that crosses the
    /// short factors' reach is left to the next step, which restarts it.
    pub(super) fn decoding(&self, factors_for: impl Fn(usize) -> RopeFactors) -> Vec<DecodeChunk> {
        let decodes = |sequence: &Sequence| sequence.decoding() && !sequence.crosses(&factors_for);
        let indices = || (0..self.running.len()).filter(|&index| decodes(&self.running[index]));
        let mut spare = self.few_rows_max.saturating_sub(indices().count());
        let chunk = |index: usize| {
            // a GPU's attention treats `few_rows_max` rows of one sequence as a prompt
            let rows_max = (1 + spare).min(self.few_rows_max.saturating_sub(1)).max(1);
            let rows = self.running[index].next_rows(rows_max);
            spare -= rows.len() - 1;
            DecodeChunk { index, rows }
        };
        indices().map(chunk).collect()
    }

    /// Most sequences in one decode step.
    pub(super) fn decoding_max(&self) -> usize {
        self.few_rows_max.max(self.running_max)
    }

    /// Records that the first `end` tokens are in the cache.
    pub(super) fn computed_to(&mut self, index: usize, end: usize) {
        if !self.running[index].decoding() {
            self.had_turn(index, Work::Prompt);
        }
        self.running[index].computed = end;
        if end >= self.running[index].prefill_tokens {
            self.had_prompt(index);
        }
    }

    /// Whether the sequence has full blocks that are not published yet.
    pub(super) fn has_unpublished(&self, index: usize) -> bool {
        let sequence = &self.running[index];
        self.options.prefix_cache && sequence.published.0 < sequence.full_blocks()
    }

    /// Publishes the blocks of a sequence that have become full. Call this only once logits computed from them are known
    /// to be finite. A token that overflows also spoils earlier rows in its block of attention, and the hashes do not
    /// show it.
    pub(super) fn publish(&mut self, index: usize) {
        let sequence = &mut self.running[index];
        let (mut published, mut hash) = sequence.published;
        while published < sequence.full_blocks() {
            hash = sequence.block_hash(published, &hash);
            self.blocks.publish(sequence.blocks[published], hash);
            published += 1;
        }
        sequence.published = (published, hash);
    }

    /// Removes a sequence that has ended. [`settle`](Self::settle) releases its blocks.
    pub(super) fn end(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        self.ended_tables.push(std::mem::take(&mut sequence.blocks));
        sequence
    }

    /// Releases the blocks of sequences that have ended. Before blocks are released or handed out, checks the block
    /// table. If the table is damaged, removes the sequences with a block in doubt and rebuilds the table from the
    /// others.
    pub(super) fn settle(&mut self) -> Option<Repair> {
        let admits = !self.waiting.is_empty() && self.places_free() > 0 || self.divisible().is_some();
        if self.ended_tables.is_empty() && !admits {
            return None;
        }
        let ended = std::mem::take(&mut self.ended_tables);
        let running = self.running.iter().map(|sequence| &sequence.blocks);
        let Err(damage) = self.blocks.check(running.chain(&ended).map(Vec::as_slice)) else {
            ended.iter().for_each(|table| self.blocks.release(table));
            return None;
        };
        let in_doubt = |sequence: &Sequence| sequence.blocks.iter().any(|id| damage.blocks.contains(id));
        let failed = self.running.extract_if(.., |sequence| in_doubt(sequence)).map(|sequence| sequence.id);
        let failed = failed.collect();
        let remaining = self.running.iter().map(|sequence| sequence.blocks.as_slice());
        self.blocks = self.blocks.holding(remaining);
        Some(Repair { found: damage.found, failed })
    }

    /// Damages the block table, for tests.
    pub(super) fn damage_blocks(&mut self) {
        self.blocks.damage();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scoring::Scoring;
    use crate::engine::{FinishReason, Request, ScoredPrompt};
    use crate::image::{ImageParams, RgbImage, process};
    use crate::tokenizer::Tokenizer;
    use std::sync::{Arc, LazyLock};

    const SIZES: Sizes = Sizes { few_rows_max: 16, tiles_at_once: 2, prefill_chunk: 1024 };

    pub(super) static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/tiny/tokenizer.json");
        Arc::new(Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap())
    });

    /// A sequence of `prompt` tokens, the same as those of every other, and an answer of up to `answer` tokens.
    pub(super) fn sequence(id: u64, prompt: usize, answer: usize) -> Sequence {
        let request = Request::greedy((0..prompt as i64).collect(), Vec::new(), answer);
        Sequence::new(RequestId(id), request, &TOKENIZER, RopeFactors::Short).unwrap()
    }

    pub(super) fn scheduler(context_tokens: usize) -> Scheduler {
        Scheduler::new(EngineOptions { context_tokens, ..EngineOptions::default() }, SIZES)
    }

    fn short(_tokens: usize) -> RopeFactors {
        RopeFactors::Short
    }

    /// Admits as many sequences as possible; returns the ids of those that run.
    pub(super) fn admit_all(scheduler: &mut Scheduler) -> Vec<u64> {
        assert_eq!(scheduler.settle(), None);
        while scheduler.admit().is_some() {}
        scheduler.running().iter().map(|sequence| sequence.id.0).collect()
    }

    /// The sequences that decode.
    fn decoding(scheduler: &Scheduler, factors_for: impl Fn(usize) -> RopeFactors) -> Vec<usize> {
        scheduler.decoding(factors_for).into_iter().map(|chunk| chunk.index).collect()
    }

    #[test]
    fn what_was_forced_is_computed_as_far_as_the_kernels_for_few_rows_go() {
        let mut scheduler = scheduler(1024);
        (0..3).for_each(|id| scheduler.enqueue(sequence(id, 20 + id as usize, 60)));
        admit_all(&mut scheduler);
        (0..3).for_each(|index| prefill(&mut scheduler, index));
        scheduler.running_mut()[0].tokens.extend([7; 4]);
        scheduler.running_mut()[1].tokens.extend([7; 40]);
        scheduler.running_mut()[2].tokens.extend([7; 4]);
        let rows = |scheduler: &Scheduler| -> Vec<Range<usize>> {
            scheduler.decoding(short).into_iter().map(|chunk| chunk.rows).collect()
        };
        // 16 rows in all: the oldest first, and at least one for each
        assert_eq!(rows(&scheduler), [20..25, 21..31, 22..23]);
        let alone = &scheduler.running()[1];
        assert_eq!((alone.next_rows(99), alone.next_rows(3)), (21..62, 21..24));
        scheduler.computed_to(0, 24);
        scheduler.computed_to(1, 60);
        assert_eq!(rows(&scheduler), [24..25, 60..62, 22..27]);
        // the last token of an answer is never run
        scheduler.running_mut()[2].end = Some(Ok(FinishReason::Length));
        assert_eq!(rows(&scheduler)[2], 22..26);
    }

    pub(super) fn only_chunk(scheduler: &Scheduler) -> PromptChunk {
        let mut chunks = scheduler.prompt_chunks();
        assert_eq!(chunks.len(), 1);
        chunks.remove(0)
    }

    #[test]
    fn short_prompts_are_computed_beside_one_another() {
        let indices = |prompts: &[usize]| {
            let mut scheduler = scheduler(8192);
            for (id, &prompt) in (0..).zip(prompts) {
                scheduler.enqueue(sequence(id, prompt, 10));
            }
            admit_all(&mut scheduler);
            let chunks = scheduler.prompt_chunks();
            assert!(chunks[1..].iter().all(|chunk| chunk.is_last && chunk.rows == (0..prompts[chunk.index])));
            chunks.iter().map(|chunk| chunk.index).collect::<Vec<_>>()
        };
        assert_eq!(indices(&[40, 60, 30, 17, 20]), [0, 1, 3], "no more than 128 tokens, and whole prompts");
        assert_eq!(indices(&[20, 16, 30]), [0, 2], "16 tokens take other kernels alone");
        assert_eq!(indices(&[16, 30]), [0]);
        assert_eq!(indices(&[120, 17]), [0]);
        assert_eq!(indices(&[300, 17]), [0], "a long one is not made longer");
    }

    /// Computes the whole prompt of a sequence and gives it its first token.
    pub(super) fn prefill(scheduler: &mut Scheduler, index: usize) {
        let total = scheduler.running()[index].tokens.len();
        scheduler.computed_to(index, total);
        scheduler.publish(index);
        scheduler.running_mut()[index].tokens.push(7);
    }

    #[test]
    fn sequences_are_let_in_in_order_with_all_the_blocks_they_may_need() {
        let mut scheduler = scheduler(4 * KV_BLOCK_TOKENS);
        for (id, blocks) in [(0, 2), (1, 3), (2, 1)] {
            scheduler.enqueue(sequence(id, KV_BLOCK_TOKENS * blocks - 10, 10));
        }
        assert_eq!(scheduler.load().blocks_total, 4);
        assert_eq!(admit_all(&mut scheduler), [0], "the third does not overtake the second");
        assert_eq!(scheduler.load(), Load { waiting: 2, running: 1, blocks_in_use: 2, blocks_total: 4 });
        scheduler.end(0);
        assert_eq!(scheduler.load().blocks_in_use, 2, "given back when the table has been checked");
        assert_eq!(scheduler.settle(), None);
        assert_eq!(scheduler.admit(), Some(Admission { index: 0, blocks: 3 }));
        assert_eq!(scheduler.admit(), Some(Admission { index: 1, blocks: 4 }));
        assert_eq!(scheduler.admit(), None);
    }

    #[test]
    fn clients_take_turns_in_the_queue() {
        let mut scheduler =
            Scheduler::new(EngineOptions { running_max: Some(1), ..EngineOptions::default() }, SIZES);
        let of = |id: u64, client: u8| {
            let salt = [client; 32];
            Sequence { cache_salt: salt, published: (0, salt), ..sequence(id, 20, 10) }
        };
        let mut order = Vec::new();
        let mut next = |scheduler: &mut Scheduler| {
            order.extend(admit_all(scheduler));
            scheduler.end(0);
        };
        (0..5).for_each(|id| scheduler.enqueue(of(id, 1)));
        next(&mut scheduler);
        [(10, 2), (11, 2), (20, 3), (12, 2)]
            .into_iter()
            .for_each(|(id, client)| scheduler.enqueue(of(id, client)));
        next(&mut scheduler);
        scheduler.enqueue(of(21, 3));
        (0..8).for_each(|_| next(&mut scheduler));
        assert_eq!(order, [0, 1, 10, 20, 2, 11, 3, 21, 12, 4], "each in its order, one at a time");
    }

    #[test]
    fn no_more_run_than_may() {
        let mut scheduler =
            Scheduler::new(EngineOptions { running_max: Some(2), ..EngineOptions::default() }, SIZES);
        (0..3).for_each(|id| scheduler.enqueue(sequence(id, 20, 10)));
        assert_eq!(admit_all(&mut scheduler), [0, 1]);
    }

    #[test]
    fn what_the_prefix_cache_leaves_is_never_too_little_for_the_kernels_of_prompts() {
        for (prompt, known) in [(150, 128), (145, 128), (144, 64), (81, 64), (80, 0)] {
            let mut scheduler = scheduler(1024);
            scheduler.enqueue(sequence(0, prompt, 10));
            admit_all(&mut scheduler);
            prefill(&mut scheduler, 0);
            scheduler.enqueue(sequence(1, prompt, 10));
            admit_all(&mut scheduler);
            let second = &scheduler.running()[1];
            assert_eq!((second.computed, second.usage.cached_tokens), (known, known), "{prompt} tokens");
            assert_eq!(second.blocks[..known / 64], scheduler.running()[0].blocks[..known / 64]);
            let chunks = scheduler.prompt_chunks();
            assert_eq!(chunks, [PromptChunk { index: 1, rows: known..prompt, is_last: true }]);
        }
    }

    #[test]
    fn blocks_are_known_to_others_once_they_are_published() {
        let mut scheduler = scheduler(1024);
        let known = |scheduler: &mut Scheduler, id| {
            scheduler.enqueue(sequence(id, 150, 10));
            admit_all(scheduler);
            scheduler.running().last().unwrap().computed
        };
        assert_eq!(known(&mut scheduler, 0), 0);
        assert!(!scheduler.has_unpublished(0));
        scheduler.computed_to(0, 100);
        assert!(scheduler.has_unpublished(0));
        assert_eq!(known(&mut scheduler, 1), 0);
        scheduler.publish(0);
        assert!(!scheduler.has_unpublished(0));
        assert_eq!(known(&mut scheduler, 2), 64);
        scheduler.computed_to(0, 150);
        // a sequence that fails takes its unpublished blocks with it
        scheduler.end(0);
        assert_eq!(known(&mut scheduler, 3), 64);
    }

    #[test]
    fn prompts_are_cut_into_chunks_that_all_take_the_same_kernels() {
        for shared in [false, true] {
            for prompt in (1..40).chain(120..300).chain([1000, 2100]) {
                let options = EngineOptions { prefill_chunk_alone: Some(200), ..EngineOptions::default() };
                let mut scheduler = Scheduler::new(options, SIZES);
                if shared {
                    scheduler.enqueue(sequence(0, 20, 10));
                    admit_all(&mut scheduler);
                    prefill(&mut scheduler, 0);
                }
                let longest = if shared { options.prefill_chunk_shared } else { 200 };
                let fresh = (0..prompt as i64).map(|id| 1_000 + id).collect();
                let request = Request::greedy(fresh, Vec::new(), 10);
                let fresh = Sequence::new(RequestId(1), request, &TOKENIZER, RopeFactors::Short).unwrap();
                scheduler.enqueue(fresh);
                admit_all(&mut scheduler);
                let mut computed = 0;
                while computed < prompt {
                    let PromptChunk { index, rows, is_last } = only_chunk(&scheduler);
                    assert_eq!((index, rows.start), (usize::from(shared), computed));
                    assert!(rows.len() >= (SIZES.few_rows_max + 1).min(prompt), "{rows:?} of {prompt}");
                    assert!(rows.len() < longest + SIZES.few_rows_max + 1, "{rows:?} of {prompt}");
                    computed = rows.end;
                    assert_eq!(is_last, computed == prompt);
                    scheduler.computed_to(index, computed);
                }
            }
        }
    }

    #[test]
    fn a_sequence_that_crosses_the_reach_begins_again_at_the_head_of_the_queue() {
        let factors_for = |tokens| if tokens > 22 { RopeFactors::Long } else { RopeFactors::Short };
        let options = EngineOptions { running_max: Some(2), ..EngineOptions::default() };
        let mut scheduler = Scheduler::new(options, SIZES);
        (0..3).for_each(|id| scheduler.enqueue(sequence(id, 20 + id as usize, 10)));
        assert_eq!(admit_all(&mut scheduler), [0, 1]);
        prefill(&mut scheduler, 0);
        prefill(&mut scheduler, 1);
        assert_eq!(decoding(&scheduler, factors_for), [0, 1]);
        scheduler.restart_crossing(factors_for);
        assert_eq!(scheduler.running().len(), 2, "tokens 21 and 22 are within the reach");
        scheduler.computed_to(1, 22);
        scheduler.running_mut()[1].tokens.push(8);
        assert_eq!(decoding(&scheduler, factors_for), [0], "23 tokens are not run with the short factors");
        scheduler.restart_crossing(factors_for);
        assert_eq!(scheduler.running().len(), 1);
        assert_eq!(admit_all(&mut scheduler), [0, 1], "before the one that waits already");
        let again = &scheduler.running()[1];
        assert_eq!((again.computed, again.factors, again.prompt_tokens), (0, RopeFactors::Long, 21));
        assert_eq!(only_chunk(&scheduler), PromptChunk { index: 1, rows: 0..23, is_last: true });
    }

    #[test]
    fn options_have_no_greatest_values() {
        let all = usize::MAX;
        let options = EngineOptions {
            context_tokens: all,
            running_max: Some(all),
            cache_tokens: all,
            prefill_chunk_alone: Some(all),
            tiles_shared: all,
            ..EngineOptions::default().for_batch()
        };
        let mut scheduler = Scheduler::new(options, SIZES);
        scheduler.enqueue(sequence(0, 5_000, 10));
        assert_eq!(admit_all(&mut scheduler), [0]);
        assert_eq!(only_chunk(&scheduler), PromptChunk { index: 0, rows: 0..5_000, is_last: true });
    }

    #[test]
    fn a_prompt_waits_for_its_own_images_only() {
        let pixels = vec![9; 20 * 20 * 3];
        let params = ImageParams { num_crops: 1, ..ImageParams::default() };
        let image = process(&RgbImage { width: 20, height: 20, pixels }, &params).unwrap();
        let rows = vec![-1; image.num_img_tokens()];
        let ids = [1, 2].into_iter().chain(rows).chain(3..30).collect();
        let request = Request::greedy(ids, vec![Arc::new(image)], 10);
        let mut scheduler = scheduler(8192);
        scheduler.enqueue(Sequence::new(RequestId(0), request, &TOKENIZER, RopeFactors::Short).unwrap());
        scheduler.enqueue(sequence(1, 30, 10));
        admit_all(&mut scheduler);
        assert_eq!(scheduler.needs_image(), Some(0));
        assert_eq!(only_chunk(&scheduler).index, 1);
        scheduler.running_mut()[0].images[0].inputs = None;
        assert_eq!((scheduler.needs_image(), scheduler.prompt_chunks()[0].index), (None, 0));
    }

    /// A sequence of request 7 that scores `prompts` prompts, each of 10 shared tokens and `own` tokens of its own.
    pub(super) fn scoring(prompts: usize, own: usize) -> Sequence {
        let scored = ScoredPrompt { input_ids: (0..own as i64).collect(), answers: vec![vec![5], vec![6]] };
        let request = Request::greedy((0..10).collect(), Vec::new(), 1);
        let mut request = Request { scored: vec![scored; prompts], ..request };
        let scoring = Scoring::of(&mut request, short, prompt_rows_min(SIZES));
        Sequence::new(RequestId(7), request, &TOKENIZER, RopeFactors::Short).unwrap().scoring(scoring)
    }

    #[test]
    fn a_part_that_cannot_run_goes_back_to_the_sequence_that_it_was_split_off() {
        let mut scheduler = scheduler(8192);
        // the first sequence has no blocks for the second's prompts
        scheduler.enqueue(scoring(2, 20));
        scheduler.enqueue(scoring(20, 500));
        admit_all(&mut scheduler);
        (0..2).for_each(|index| prefill(&mut scheduler, index));
        let left = |scheduler: &Scheduler| -> Vec<usize> {
            scheduler.running().iter().map(Sequence::divisible).collect()
        };
        assert_eq!(left(&scheduler), [1, 19]);
        let divided = scheduler.divide(&TOKENIZER).unwrap();
        assert_eq!((divided.whole, divided.part.index), (1, 2));
        assert!(left(&scheduler)[1] < 19);
        scheduler.rejoin(divided);
        assert_eq!(left(&scheduler), [1, 19]);
    }

    #[test]
    fn parts_give_way_to_who_waits_for_their_blocks() {
        let mut scheduler = scheduler(24 * KV_BLOCK_TOKENS);
        scheduler.enqueue(scoring(20, 500));
        admit_all(&mut scheduler);
        prefill(&mut scheduler, 0);
        while scheduler.divide(&TOKENIZER).is_some() {}
        let unbegun = |scheduler: &Scheduler| -> Vec<usize> {
            let of = |sequence: &Sequence| sequence.scoring.as_ref().map_or(0, Scoring::divisible);
            scheduler.running().iter().map(of).collect()
        };
        let before = unbegun(&scheduler);
        assert!(before.len() == 3 && before[1..].iter().all(|&prompts| prompts > 0), "{before:?}");
        scheduler.enqueue(sequence(9, 600, 10));
        assert_eq!(scheduler.admit(), None, "they have the blocks of the prompts that they are at");
        assert_eq!(unbegun(&scheduler), [17, 0, 0]);
        scheduler.end(2);
        scheduler.end(1);
        assert_eq!(scheduler.settle(), None);
        assert!(scheduler.admit().is_some());
        // once the sequence they were split off has ended, no other has the blocks
        let mut orphans = Scheduler::new(EngineOptions::default(), SIZES);
        orphans.enqueue(scoring(20, 500));
        admit_all(&mut orphans);
        prefill(&mut orphans, 0);
        assert!(orphans.divide(&TOKENIZER).is_some());
        orphans.end(0);
        let before = unbegun(&orphans);
        orphans.end_parts();
        assert_eq!(unbegun(&orphans), before);
    }

    #[test]
    fn cancelled_sequences_are_taken_from_both_places() {
        let mut scheduler =
            Scheduler::new(EngineOptions { running_max: Some(1), ..EngineOptions::default() }, SIZES);
        (0..3).for_each(|id| scheduler.enqueue(sequence(id, 20, 10)));
        admit_all(&mut scheduler);
        [0, 2, 9].into_iter().for_each(|id| scheduler.cancel(RequestId(id)));
        let taken: Vec<u64> = scheduler.take_cancelled().iter().map(|sequence| sequence.id.0).collect();
        assert_eq!(taken, [0, 2]);
        assert_eq!(admit_all(&mut scheduler), [1]);
        assert!(scheduler.take_cancelled().is_empty());
    }

    #[test]
    fn a_damaged_table_is_made_anew_without_the_sequences_in_doubt() {
        let mut scheduler = scheduler(1024);
        scheduler.enqueue(sequence(0, 20, 10));
        admit_all(&mut scheduler);
        scheduler.damage_blocks();
        scheduler.enqueue(sequence(1, 20, 10));
        let repair = scheduler.settle().unwrap();
        assert_eq!(repair.found, "block 0 is in two states or in none");
        assert_eq!(repair.failed, [RequestId(0)]);
        assert_eq!(admit_all(&mut scheduler), [1]);
        assert_eq!(decoding(&scheduler, short), [0; 0]);
        assert_eq!(scheduler.load().blocks_in_use, 1);
        scheduler.end(0);
        assert_eq!((scheduler.settle(), scheduler.load().blocks_in_use), (None, 0));
    }
}
