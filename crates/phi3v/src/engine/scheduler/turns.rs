//! The order in which sequences get work. Sequences of one client go in the order in which their prompts came into line.
//! Clients take turns, so that one that asks for much does not make another wait for all of it. Each prompt of a scoring
//! sequence comes into line anew, behind those already there. So neither many questions nor requests that come after them
//! keep the others waiting. How work is cut and ordered changes no answer.

use super::Scheduler;
use crate::engine::sequence::Sequence;

/// The kinds of work that clients take turns with.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) enum Work {
    /// An image on its way through the vision tower.
    Image,
    /// A chunk of a prompt.
    Prompt,
}

/// Times by the scheduler's clock: a sequence's first admission, and its client's last turns since then.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Turns {
    /// 0 before admission.
    admission: u64,
    /// When its current prompt came into line: at admission, or for a scoring sequence when its previous prompt ended.
    in_line: u64,
    /// Last turn with each kind of [`Work`]; at first the admission, behind everyone in line.
    last: [u64; 2],
}

impl Scheduler {
    /// Inserts a sequence among those that run: behind all others, or at its former place if it was restarted. Returns
    /// its index.
    pub(super) fn join(&mut self, mut sequence: Sequence) -> usize {
        if sequence.turns.admission == 0 {
            let admission = self.tick();
            sequence.turns = Turns { admission, in_line: admission, last: [admission; 2] };
        }
        let is_before = |running: &Sequence| running.turns.admission < sequence.turns.admission;
        let index = self.running.partition_point(is_before);
        self.running.insert(index, sequence);
        index
    }

    /// Among `indices`, the sequence whose client's last turn with this work is longest ago; of equals, the one whose
    /// prompt came into line first.
    pub(super) fn next_in_turn(&self, work: Work, indices: impl Iterator<Item = usize>) -> Option<usize> {
        indices.min_by_key(|&index| self.place(work, index))
    }

    /// The sort key of sequences that have such work.
    pub(super) fn place(&self, work: Work, index: usize) -> (u64, u64) {
        let Turns { in_line, last, .. } = self.running[index].turns;
        (last[work as usize], in_line)
    }

    /// Records that a sequence's prompt is computed. The next prompt of a scoring sequence goes behind those in line.
    pub(super) fn had_prompt(&mut self, index: usize) {
        if self.running[index].scoring.is_some() {
            self.running[index].turns.in_line = self.tick();
        }
    }

    /// Records that the client of a sequence has had its turn. Clients are told apart by their salts.
    pub(in crate::engine) fn had_turn(&mut self, index: usize, work: Work) {
        let now = self.tick();
        let client = self.running[index].cache_salt;
        let of_client = self.running.iter_mut().filter(|sequence| sequence.cache_salt == client);
        of_client.for_each(|sequence| sequence.turns.last[work as usize] = now);
    }

    /// Records that a sequence has begun work that must end before other work of its kind.
    pub(in crate::engine) fn comes_first(&mut self, index: usize, work: Work) {
        // older than any turn
        self.running[index].turns.last[work as usize] = 0;
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::super::PromptChunk;
    use super::super::tests::{TOKENIZER, admit_all, prefill, scheduler, scoring, sequence};
    use super::*;
    use crate::engine::{Request, RequestId};
    use crate::image::{ImageParams, RgbImage, process};
    use crate::model::RopeFactors;
    use std::sync::Arc;

    /// A sequence of `prompt` tokens that belongs to `client`.
    fn of(client: u8, id: u64, prompt: usize) -> Sequence {
        let salt = [client; 32];
        Sequence { cache_salt: salt, published: (0, salt), ..sequence(id, prompt, 10) }
    }

    /// Computes the next chunk of a prompt and returns its sequence's id. A sequence ends with its prompt.
    fn next(scheduler: &mut Scheduler) -> u64 {
        let PromptChunk { index, rows, is_last } = scheduler.prompt_chunks().remove(0);
        scheduler.computed_to(index, rows.end);
        let id = scheduler.running()[index].id.0;
        if is_last {
            scheduler.end(index);
        }
        id
    }

    #[test]
    fn clients_take_turns_with_the_chunks_of_their_prompts() {
        let mut scheduler = scheduler(65_536);
        [of(1, 10, 5_000), of(1, 11, 3_000)].into_iter().for_each(|sequence| scheduler.enqueue(sequence));
        admit_all(&mut scheduler);
        assert_eq!([next(&mut scheduler), next(&mut scheduler)], [10, 10], "the older first");
        scheduler.enqueue(of(2, 20, 1_500));
        admit_all(&mut scheduler);
        let order: Vec<u64> = (0..8).map(|_| next(&mut scheduler)).collect();
        assert_eq!(order, [10, 20, 10, 20, 10, 11, 11, 11]);
    }

    #[test]
    fn a_long_prompt_goes_on_whoever_else_comes() {
        let mut scheduler = scheduler(65_536);
        scheduler.enqueue(of(1, 1, 10_000));
        admit_all(&mut scheduler);
        let mut order = Vec::new();
        for client in 2..12 {
            scheduler.enqueue(of(client, client.into(), 100));
            admit_all(&mut scheduler);
            order.push(next(&mut scheduler));
        }
        assert_eq!(order, [1, 2, 1, 3, 4, 1, 5, 6, 7, 1], "behind those who are in line, and no others");
    }

    /// Computes a step's chunks, and scores the prompts that end with them, whose answers have one token. Other sequences
    /// end with their prompts. Returns the ids of the chunks' sequences.
    fn step(scheduler: &mut Scheduler) -> Vec<u64> {
        let chunks = scheduler.prompt_chunks();
        let ids = chunks.iter().map(|chunk| scheduler.running()[chunk.index].id.0).collect();
        for PromptChunk { index, rows, is_last } in chunks.into_iter().rev() {
            scheduler.computed_to(index, rows.end);
            if is_last && scheduler.running_mut()[index].score(&[0.0; 8]).unwrap() {
                scheduler.end(index);
            }
        }
        ids
    }

    #[test]
    fn many_questions_and_other_prompts_of_one_client_keep_none_waiting_for_all_of_them() {
        for parts in [1, 16] {
            let mut scheduler = scheduler(65_536);
            scheduler.enqueue(scoring(2_000, 24));
            admit_all(&mut scheduler);
            prefill(&mut scheduler, 0);
            while scheduler.running().len() < parts && scheduler.divide(&TOKENIZER).is_some() {}
            assert_eq!(scheduler.running().len(), parts);
            assert!(!scheduler.running_mut()[0].score(&[0.0; 8]).unwrap());
            assert!((0..8).all(|_| step(&mut scheduler).iter().all(|&id| id == 7)), "all score");
            scheduler.enqueue(sequence(9, 3_000, 10));
            admit_all(&mut scheduler);
            // a step takes five of the prompts in line, or 1,024 of the 3,000 tokens
            let steps = (1..).find(|_| step(&mut scheduler).contains(&9)).unwrap();
            assert!(steps <= parts.div_ceil(5) + 1, "{parts} parts: begun in step {steps}");
            assert_eq!([9, 9], [0; 2].map(|_| step(&mut scheduler)[0]), "and goes on");
            // scoring prompts do not wait either when others keep coming
            let mut scored = 0;
            for id in 100..130 {
                scheduler.enqueue(sequence(id, 200, 10));
                admit_all(&mut scheduler);
                while !scheduler.running().iter().all(|sequence| sequence.id.0 == 7) {
                    scored += step(&mut scheduler).iter().filter(|&&id| id == 7).count();
                }
            }
            assert!(scored >= 29 * parts, "{parts} parts: {scored} prompts of 30 rounds");
        }
    }

    #[test]
    fn what_is_computed_beside_a_prompt_is_in_the_order_of_all() {
        let mut scheduler = scheduler(8192);
        [of(1, 1, 40), of(2, 2, 60), of(3, 3, 100)]
            .into_iter()
            .for_each(|sequence| scheduler.enqueue(sequence));
        admit_all(&mut scheduler);
        [0, 2].into_iter().for_each(|index| scheduler.had_turn(index, Work::Prompt));
        let indices: Vec<usize> = scheduler.prompt_chunks().iter().map(|chunk| chunk.index).collect();
        assert_eq!(indices, [0, 1], "the second's turn");
    }

    #[test]
    fn clients_take_turns_with_their_images() {
        let with_images = |client, shades: &[u8]| {
            let image = |&shade: &u8| {
                let pixels = vec![shade; 20 * 20 * 3];
                let params = ImageParams { num_crops: 1, ..ImageParams::default() };
                Arc::new(process(&RgbImage { width: 20, height: 20, pixels }, &params).unwrap())
            };
            let images: Vec<_> = shades.iter().map(image).collect();
            let rows = (1..).zip(&images).flat_map(|(number, image)| vec![-number; image.num_img_tokens()]);
            let request = Request::greedy([1].into_iter().chain(rows).collect(), images, 10);
            let request = Request { cache_salt: [client; 32], ..request };
            Sequence::new(RequestId(client.into()), request, &TOKENIZER, RopeFactors::Short).unwrap()
        };
        let mut scheduler = scheduler(8192);
        [with_images(1, &[1, 2]), with_images(2, &[1])]
            .into_iter()
            .for_each(|sequence| scheduler.enqueue(sequence));
        assert_eq!(admit_all(&mut scheduler), [1, 2]);
        let before = scheduler.running()[1].turns;
        scheduler.comes_first(1, Work::Image);
        assert_eq!(scheduler.needs_image(), Some(1), "one that is begun");
        scheduler.running_mut()[1].turns = before;
        for expected in [0, 1, 0] {
            assert_eq!(scheduler.needs_image(), Some(expected));
            let sequence = &mut scheduler.running_mut()[expected];
            let image = sequence.image_needed().unwrap();
            sequence.images[image].inputs = None;
            scheduler.had_turn(expected, Work::Image);
        }
        assert_eq!(scheduler.needs_image(), None);
    }

    #[test]
    fn a_sequence_that_begins_again_comes_before_whom_it_came_before() {
        let factors_for = |tokens| if tokens > 22 { RopeFactors::Long } else { RopeFactors::Short };
        let mut scheduler = scheduler(8192);
        scheduler.enqueue(sequence(0, 22, 10));
        admit_all(&mut scheduler);
        prefill(&mut scheduler, 0);
        (1..3).for_each(|id| scheduler.enqueue(sequence(id, 2_000, 10)));
        admit_all(&mut scheduler);
        assert_eq!(next(&mut scheduler), 1);
        scheduler.restart_crossing(factors_for);
        assert_eq!(admit_all(&mut scheduler), [0, 1, 2]);
        scheduler.enqueue(of(1, 9, 2_000));
        admit_all(&mut scheduler);
        // next comes the other client, which has had no turn since
        assert_eq!([0; 4].map(|_| next(&mut scheduler)), [0, 9, 1, 9]);
    }
}
