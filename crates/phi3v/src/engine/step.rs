//! The step: schedule, forward, postprocess.

use super::block_manager::{BlockHash, BlockManager};
use super::request::{Event, FinishReason, Output, Phase, RequestId, StepProgress};
use super::sequence::Sequence;
use super::{Engine, Observer};
use crate::image::{ImageInputs, TILE_VALUES};
use crate::model::{Chunk, ImageJob, Progress, Segment};
use crate::{Error, Result};
use phi3v_kernels::{Backend, KV_BLOCK_TOKENS};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl<B: Backend> Engine<B> {
    /// Fewest tokens that the cut of a prompt may leave: chunks of few rows are multiplied by the kernels for decoding,
    /// whose sums run in another order, and how a prompt is cut must not change its answer.
    fn prefill_remainder_min(&self) -> usize {
        self.model.backend().sizes().few_rows_max + 1
    }

    /// Does one piece of every kind of work there is, and reports what came of it. What fails is one request, reported
    /// as [`Event::Failed`] beside what others have got.
    pub fn step(&mut self, observer: &mut dyn Observer) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.drop_cancelled(&mut outputs);
        self.restart_crossing();
        self.admit(&mut outputs);
        self.run_vision(observer, &mut outputs);
        self.run_prefill(observer, &mut outputs);
        self.run_decode(&mut outputs);
        if self.is_idle() {
            self.blocks.check_integrity();
        }
        outputs
    }

    fn tiles_at_once(&self) -> usize {
        self.model.backend().sizes().tiles_at_once
    }

    fn drop_cancelled(&mut self, outputs: &mut Vec<Output>) {
        let cancelled = |sequence: &Sequence<B>| sequence.cancelled;
        while let Some(index) = self.running.iter().position(cancelled) {
            self.end(index, FinishReason::Cancelled, outputs);
        }
        while let Some(index) = self.waiting.iter().position(cancelled) {
            if let Some(mut sequence) = self.waiting.remove(index) {
                sequence.end_wait();
                let finished = sequence.finish(FinishReason::Cancelled);
                outputs.push(Output { id: sequence.id, event: Event::Finished(finished) });
            }
        }
    }

    /// Puts sequences whose next token lies beyond the short factors' reach back to the head of the queue, to be
    /// computed again as a whole with the long ones. Their pictures' embeddings stay with them.
    fn restart_crossing(&mut self) {
        let rope = self.model.rope();
        let crossing = |sequence: &Sequence<B>| {
            sequence.decoding() && rope.factors_for(sequence.tokens.len()) != sequence.factors
        };
        let crossed: Vec<usize> =
            (0..self.running.len()).rev().filter(|&index| crossing(&self.running[index])).collect();
        for index in crossed {
            let mut sequence = self.running.remove(index);
            self.blocks.release(&std::mem::take(&mut sequence.blocks));
            sequence.factors = self.model.rope().factors_for(sequence.tokens.len());
            sequence.computed = 0;
            sequence.published = (0, BlockHash::default());
            self.waiting.push_front(sequence);
        }
    }

    /// Lets waiting sequences in, in order, while there is room for all they may come to need. One whose memory the
    /// device refuses fails, and nobody else.
    fn admit(&mut self, outputs: &mut Vec<Output>) {
        while self.running.len() < self.options.running_max.max(1) {
            let Some(sequence) = self.waiting.front() else { break };
            let known = self.known_prefix(sequence);
            let Some(table) = self.blocks.reserve(&known.table, sequence.blocks_needed()) else { break };
            let grown = self.model.grow_cache(&mut self.cache, BlockManager::high_water(&table));
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            if let Err(error) = grown {
                self.blocks.release(&table);
                outputs.push(Output { id: sequence.id, event: Event::Failed(error) });
                continue;
            }
            sequence.blocks = table;
            sequence.computed = known.table.len() * KV_BLOCK_TOKENS;
            sequence.published = (known.table.len(), known.hash);
            if sequence.tokens.len() == sequence.prompt_tokens {
                sequence.usage.cached_tokens = sequence.computed;
            }
            sequence.end_wait();
            self.running.push(sequence);
        }
    }

    /// Leading blocks of the sequence that another one has computed. What is left to compute is never so little that
    /// it would take the kernels for decoding.
    fn known_prefix(&self, sequence: &Sequence<B>) -> KnownPrefix {
        let mut known = KnownPrefix { table: Vec::new(), hash: BlockHash::default() };
        if !self.options.prefix_cache {
            return known;
        }
        for index in 0..sequence.tokens.len().saturating_sub(self.prefill_remainder_min()) / KV_BLOCK_TOKENS {
            let hash = sequence.block_hash(index, &known.hash);
            let Some(block) = self.blocks.find(&hash) else { break };
            known.table.push(block);
            known.hash = hash;
        }
        known
    }

    /// Sends tiles of the oldest sequence that lacks a picture through the vision tower: some of them, or a single
    /// one while others are decoding.
    fn run_vision(&mut self, observer: &mut dyn Observer, outputs: &mut Vec<Output>) {
        for sequence in &mut self.running {
            while let Some(image) = sequence.image_needed() {
                let Some(embedding) = self.images.get(&sequence.images[image].hash) else { break };
                sequence.embeddings[image] = Some(embedding);
            }
        }
        let Some(index) = self.running.iter().position(|sequence| sequence.image_needed().is_some()) else {
            return;
        };
        let tiles_max = if self.running.iter().any(Sequence::decoding) { 1 } else { self.tiles_at_once() };
        let start = Instant::now();
        let result = self.vision_piece(index, tiles_max, observer);
        self.running[index].timings.vision += start.elapsed();
        if let Err(error) = result {
            self.fail(index, error, outputs);
        }
    }

    fn vision_piece(&mut self, index: usize, tiles_max: usize, observer: &mut dyn Observer) -> Result<()> {
        let sequence = &mut self.running[index];
        let Some(image) = sequence.image_needed() else { return Ok(()) };
        let inputs = Arc::clone(&sequence.images[image]);
        let job = match sequence.job.take() {
            Some((of, job)) if of == image => job,
            _ => self.model.begin_image(inputs.distinct_tiles())?,
        };
        let id = sequence.id;
        let seen = self.see(&inputs, job, (id, tiles_max), observer)?;
        let sequence = &mut self.running[index];
        match seen {
            Seen::Part(job) => sequence.job = Some((image, job)),
            Seen::All(embedding) => sequence.embeddings[image] = Some(embedding),
        }
        Ok(())
    }

    /// Sends up to `tiles_max` of the tiles that remain through the vision tower. A picture that is done is kept.
    fn see(
        &mut self,
        inputs: &ImageInputs,
        mut job: ImageJob<B>,
        (id, tiles_max): (RequestId, usize),
        observer: &mut dyn Observer,
    ) -> Result<Seen<B>> {
        let total = inputs.distinct_tiles();
        let first = total - job.remaining();
        let count = job.remaining().min(tiles_max);
        let tiles = &inputs.distinct[first * TILE_VALUES..(first + count) * TILE_VALUES];
        self.model.vision_tower(&mut job, tiles, &mut |progress| {
            let done = first as f64 + count as f64 * fraction(progress);
            observer.progress(StepProgress { id, phase: Phase::Vision, done, total })
        })?;
        if job.remaining() > 0 {
            return Ok(Seen::Part(job));
        }
        let embedding = Arc::new(self.model.finish_image(job, &inputs.grid, &inputs.tile_of)?);
        let (rows, cols) = self.model.backend().shape(&embedding);
        self.images.insert(inputs.hash, Arc::clone(&embedding), rows * cols * size_of::<f32>());
        Ok(Seen::All(embedding))
    }

    /// Sends a picture through the vision tower ahead of the request that will bring it, so that the next picture can
    /// be read and cut meanwhile; the request then finds it among those kept. Returns the time it took: none if the
    /// picture is known, or if it could not be kept without dropping another. Progress bears the next request's id.
    ///
    /// # Errors
    /// [`Error::Stopped`], or the device's refusal.
    pub fn look_at(&mut self, inputs: &ImageInputs, observer: &mut dyn Observer) -> Result<Duration> {
        let bytes = inputs.num_img_tokens() * self.model.config().hidden_size * size_of::<f32>();
        if self.images.get(&inputs.hash).is_some() || !self.images.has_room(bytes) {
            return Ok(Duration::ZERO);
        }
        let start = Instant::now();
        let mut job = self.model.begin_image(inputs.distinct_tiles())?;
        let id = RequestId(self.next_id);
        let tiles_max = self.tiles_at_once();
        while let Seen::Part(rest) = self.see(inputs, job, (id, tiles_max), observer)? {
            job = rest;
        }
        Ok(start.elapsed())
    }

    /// Runs a chunk of the oldest prompt whose pictures are ready.
    fn run_prefill(&mut self, observer: &mut dyn Observer, outputs: &mut Vec<Output>) {
        let ready = |sequence: &Sequence<B>| !sequence.decoding() && sequence.image_needed().is_none();
        let Some(index) = self.running.iter().position(ready) else { return };
        let shared = self.running.iter().any(Sequence::decoding);
        let chunk = if shared { self.options.prefill_chunk_shared } else { self.options.prefill_chunk_alone };
        let chunk = chunk.max(self.prefill_remainder_min());
        let start = Instant::now();
        let result = self.prefill_chunk(index, chunk, observer);
        self.running[index].timings.prefill += start.elapsed();
        match result {
            Ok(false) => {}
            Ok(true) => self.postprocess(index, 0, outputs),
            Err(error) => self.fail(index, error, outputs),
        }
    }

    /// Runs up to `chunk` tokens, and tells whether they reach the end, whose logits are then there.
    fn prefill_chunk(&mut self, index: usize, chunk: usize, observer: &mut dyn Observer) -> Result<bool> {
        let sequence = &self.running[index];
        let (past, total) = (sequence.computed, sequence.tokens.len());
        let end = if total - past < chunk + self.prefill_remainder_min() { total } else { past + chunk };
        let segments = sequence.segments(past..end);
        let batch = [Chunk {
            segments: &segments,
            past,
            blocks: &sequence.blocks,
            factors: sequence.factors,
            logits: end == total,
        }];
        let id = sequence.id;
        self.model.forward(&batch, &mut self.cache, &mut self.logits, &mut |progress| {
            let done = past as f64 + (end - past) as f64 * fraction(progress);
            observer.progress(StepProgress { id, phase: Phase::Prefill, done, total })
        })?;
        self.computed_to(index, end);
        Ok(end == total)
    }

    /// One token for every sequence that is decoding.
    fn run_decode(&mut self, outputs: &mut Vec<Output>) {
        let rope = self.model.rope();
        let decodes = |sequence: &Sequence<B>| {
            // a sequence that crosses the limit is restarted by the next step
            sequence.decoding() && rope.factors_for(sequence.tokens.len()) == sequence.factors
        };
        let indices: Vec<usize> =
            (0..self.running.len()).filter(|&index| decodes(&self.running[index])).collect();
        if indices.is_empty() {
            return;
        }
        let start = Instant::now();
        let decoding = indices.iter().map(|&index| &self.running[index]);
        let segments: Vec<_> = decoding.clone().map(newest_token).collect();
        let batch: Vec<_> = decoding.zip(&segments).map(decode_chunk).collect();
        let never_stop = &mut |_| ControlFlow::Continue(());
        let result = self.model.forward(&batch, &mut self.cache, &mut self.logits, never_stop);
        // from the last to the first, since those that end are removed
        for (row, &index) in indices.iter().enumerate().rev() {
            self.running[index].timings.decode += start.elapsed();
            match &result {
                Ok(()) => {
                    self.computed_to(index, self.running[index].tokens.len());
                    self.postprocess(index, row, outputs);
                }
                Err(error) => self.fail(index, Error::Step { reason: error.to_string() }, outputs),
            }
        }
    }

    /// Notes that the first `end` tokens are in the cache, and publishes the blocks that have become full.
    fn computed_to(&mut self, index: usize, end: usize) {
        let sequence = &mut self.running[index];
        sequence.computed = end;
        if !self.options.prefix_cache {
            return;
        }
        let (mut published, mut hash) = sequence.published;
        while (published + 1) * KV_BLOCK_TOKENS <= end {
            hash = sequence.block_hash(published, &hash);
            self.blocks.publish(sequence.blocks[published], hash);
            published += 1;
        }
        sequence.published = (published, hash);
    }

    /// Chooses the next token of a sequence from row `row` of the logits, and tells of it.
    fn postprocess(&mut self, index: usize, row: usize, outputs: &mut Vec<Output>) {
        let vocab_size = self.model.config().vocab_size;
        let logits = &mut self.logits[row * vocab_size..][..vocab_size];
        let sequence = &mut self.running[index];
        let id = sequence.id;
        match sequence.advance(logits, &self.stop_ids) {
            Ok((token, reason)) => {
                outputs.extend(token.map(|token| Output { id, event: Event::Token(token) }));
                if let Some(reason) = reason {
                    self.end(index, reason, outputs);
                }
            }
            Err(error) => self.fail(index, error, outputs),
        }
    }

    fn end(&mut self, index: usize, reason: FinishReason, outputs: &mut Vec<Output>) {
        let mut sequence = self.running.remove(index);
        self.blocks.release(&sequence.blocks);
        outputs.push(Output { id: sequence.id, event: Event::Finished(sequence.finish(reason)) });
    }

    /// Ends a request by its error; one that its observer stopped was cancelled.
    fn fail(&mut self, index: usize, error: Error, outputs: &mut Vec<Output>) {
        if matches!(error, Error::Stopped) {
            return self.end(index, FinishReason::Cancelled, outputs);
        }
        let sequence = self.running.remove(index);
        self.blocks.release(&sequence.blocks);
        outputs.push(Output { id: sequence.id, event: Event::Failed(error) });
    }
}

/// How far a picture is.
enum Seen<B: Backend> {
    /// Tiles remain.
    Part(ImageJob<B>),
    /// Its rows, `[num_img_tokens, hidden_size]`.
    All(Arc<B::Tensor>),
}

struct KnownPrefix {
    table: Vec<u32>,
    hash: BlockHash,
}

/// What a decoding sequence has not computed yet: a token of its answer, never a row of a picture.
fn newest_token<B: Backend>(sequence: &Sequence<B>) -> [Segment<'_, B::Tensor>; 1] {
    [Segment::Tokens(&sequence.tokens[sequence.computed..])]
}

fn decode_chunk<'a, B: Backend>(
    (sequence, segments): (&'a Sequence<B>, &'a [Segment<'a, B::Tensor>; 1]),
) -> Chunk<'a, B::Tensor> {
    Chunk {
        segments,
        past: sequence.computed,
        blocks: &sequence.blocks,
        factors: sequence.factors,
        logits: true,
    }
}

/// How much of a pass over the layers is done.
fn fraction(progress: Progress) -> f64 {
    let (Progress::Load { done, layers }
    | Progress::VisionLayer { done, layers }
    | Progress::DecoderLayer { done, layers }) = progress;
    done as f64 / layers as f64
}
