//! How sequences with the same beginning share blocks: they take over published blocks, and wait for blocks that an older
//! sequence is about to publish.

use super::Scheduler;
use crate::engine::block_manager::BlockHash;
use crate::engine::sequence::Sequence;
use phi3v_kernels::KV_BLOCK_TOKENS;

/// Blocks that a sequence can take over, after those that it has published or taken over.
pub(super) struct KnownPrefix {
    pub(super) table: Vec<u32>,
    /// Hash of the last of them, or if there are none, of the last block before them.
    pub(super) hash: BlockHash,
}

impl Scheduler {
    /// Gives sequences that have not begun the blocks that others have published since their admission.
    /// [`settle`](Self::settle) releases the blocks that these replace.
    pub(in crate::engine) fn share_published(&mut self) {
        for index in 0..self.running.len() {
            if self.running[index].has_begun() {
                continue;
            }
            let KnownPrefix { table, hash } = self.known_prefix(&self.running[index]);
            if table.is_empty() {
                continue;
            }
            self.blocks.share(&table);
            let sequence = &mut self.running[index];
            let first = sequence.published.0;
            sequence.take_over(table.len(), hash);
            let own = sequence.blocks.splice(first..first + table.len(), table);
            self.ended_tables.push(own.collect());
        }
    }

    /// The next blocks of a sequence that has not begun, as far as other sequences have published them.
    pub(super) fn known_prefix(&self, sequence: &Sequence) -> KnownPrefix {
        let (first, hash) = sequence.published;
        let mut known = KnownPrefix { table: Vec::new(), hash };
        for index in first..self.shareable_blocks(sequence) {
            let hash = sequence.block_hash(index, &known.hash);
            let Some(block) = self.blocks.find(&hash) else { break };
            known.table.push(block);
            known.hash = hash;
        }
        known
    }

    /// Leading blocks that a sequence may take over from others. Enough remains to compute that it does not take the
    /// kernels for decoding.
    fn shareable_blocks(&self, sequence: &Sequence) -> usize {
        if !self.options.prefix_cache {
            return 0;
        }
        let usable = sequence.tokens.len().saturating_sub(self.prefill_remainder_min);
        usable.min(sequence.lasting_tokens()) / KV_BLOCK_TOKENS
    }

    /// Whether a sequence waits for an older one that needs the same next block and has yet to publish it. Shared
    /// beginnings are thus computed once, however quickly requests follow one another. If the older one ends without
    /// publishing the block, the next sequence becomes the older one. No sequence waits for images that only another
    /// needs.
    pub(super) fn is_held_back(&self, index: usize) -> bool {
        let sequence = &self.running[index];
        let next = sequence.published.0;
        if sequence.has_begun() || next >= self.shareable_blocks(sequence) {
            return false;
        }
        let hash = sequence.block_hash(next, &sequence.published.1);
        self.running[..index].iter().any(|older| {
            let waits_alone = older.image_needed().is_some() && sequence.image_needed().is_none();
            !waits_alone && older.will_publish(next) && older.hash_of(next) == hash
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TOKENIZER, admit_all, only_chunk, prefill, scheduler, sequence};
    use super::super::{PromptChunk, Scheduler};
    use crate::engine::sequence::Sequence;
    use crate::engine::{Request, RequestId};
    use crate::image::{ImageParams, RgbImage, process};
    use crate::model::RopeFactors;
    use std::sync::Arc;

    #[test]
    fn what_prompts_begin_with_is_computed_once() {
        let three = || {
            let mut scheduler = scheduler(4096);
            (0..3).for_each(|id| scheduler.enqueue(sequence(id, [300, 320, 250][id as usize], 10)));
            assert_eq!(admit_all(&mut scheduler), [0, 1, 2]);
            assert_eq!(only_chunk(&scheduler), PromptChunk { index: 0, rows: 0..300, is_last: true });
            assert_eq!(scheduler.load().blocks_in_use, 5 + 6 + 5);
            scheduler
        };
        let mut shared = three();
        prefill(&mut shared, 0);
        shared.share_published();
        assert_eq!(shared.settle(), None);
        assert_eq!(shared.load().blocks_in_use, 5 + 2 + 2, "blocks that were meant for the same are free");
        let of = |sequence: &Sequence| (sequence.computed, sequence.usage.cached_tokens);
        assert_eq!(shared.running().iter().map(of).collect::<Vec<_>>(), [(300, 0), (256, 256), (192, 192)]);
        let chunks: Vec<_> = shared.prompt_chunks().into_iter().map(|chunk| chunk.rows).collect();
        assert_eq!(chunks, [256..320, 192..250], "what is left of both is their own");
        // if the oldest ends before its prompt is computed, the second begins anew, and the third waits for the second
        let mut failed = three();
        failed.computed_to(0, 100);
        failed.end(0);
        failed.share_published();
        assert_eq!(only_chunk(&failed), PromptChunk { index: 0, rows: 0..320, is_last: true });
        prefill(&mut failed, 0);
        failed.share_published();
        assert_eq!(failed.running()[1].computed, 192);
    }

    #[test]
    fn sequences_that_begin_again_together_compute_what_they_share_once() {
        let factors_for = |tokens| if tokens > 300 { RopeFactors::Long } else { RopeFactors::Short };
        let mut scheduler = scheduler(4096);
        for id in 0..2 {
            scheduler.enqueue(sequence(id, 300, 10));
            admit_all(&mut scheduler);
            prefill(&mut scheduler, id as usize);
        }
        scheduler.running_mut()[1].tokens[300] = 8;
        scheduler.restart_crossing(factors_for);
        assert_eq!(admit_all(&mut scheduler), [0, 1]);
        assert_eq!(only_chunk(&scheduler), PromptChunk { index: 0, rows: 0..301, is_last: true });
        prefill(&mut scheduler, 0);
        scheduler.share_published();
        assert_eq!(only_chunk(&scheduler), PromptChunk { index: 1, rows: 256..301, is_last: true });
        assert_eq!(scheduler.running()[1].usage.cached_tokens, 256, "of the prompt's first time");
    }

    #[test]
    fn nobody_waits_for_pictures_that_only_another_needs() {
        let image = |shade: u8| {
            let pixels = vec![shade; 20 * 20 * 3];
            let params = ImageParams { num_crops: 1, ..ImageParams::default() };
            Arc::new(process(&RgbImage { width: 20, height: 20, pixels }, &params).unwrap())
        };
        let with_image = |id, shade| {
            let image = image(shade);
            let rows = vec![-1; image.num_img_tokens()];
            let ids = (0..100).chain(rows).chain(3..30).collect();
            let request = Request::greedy(ids, vec![image], 10);
            Sequence::new(RequestId(id), request, &TOKENIZER, RopeFactors::Short).unwrap()
        };
        let mut scheduler = scheduler(8192);
        [with_image(0, 1), with_image(1, 1), with_image(2, 2), sequence(3, 100, 10)]
            .into_iter()
            .for_each(|sequence| scheduler.enqueue(sequence));
        admit_all(&mut scheduler);
        assert_eq!((scheduler.needs_image(), only_chunk(&scheduler).index), (Some(0), 3));
        scheduler.running_mut()[0].images[0].inputs = None;
        assert_eq!(scheduler.needs_image(), None, "the others may find theirs computed");
        prefill(&mut scheduler, 3);
        scheduler.share_published();
        let computed = |scheduler: &Scheduler| -> Vec<usize> {
            scheduler.running().iter().map(|sequence| sequence.computed).collect()
        };
        assert_eq!(
            computed(&scheduler),
            [64, 64, 64, 100],
            "an older one takes over what a newer has computed"
        );
        assert_eq!(scheduler.needs_image(), Some(2), "the first block of its own begins alike");
    }
}
