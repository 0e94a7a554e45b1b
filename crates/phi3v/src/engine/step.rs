//! The step: schedule, forward, postprocess.

use super::advance::{Advance, Bounds};
use super::request::{Event, FinishReason, Output, Phase, RequestId, StepProgress};
use super::scheduler::{Admission, DecodeChunk, PromptChunk, Repair, Work};
use super::sequence::Sequence;
use super::stopwatch::timed;
use super::{Engine, EngineError, Observer};
use crate::model::{Chunk, Progress, Segment};
use crate::sampler::check_logits;
use crate::{Error, Result};
use phi3v_kernels::Backend;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

impl<B: Backend> Engine<B> {
    /// Does at most one piece of each kind of work, and returns what happened. An error fails a single request: it is
    /// reported as [`Event::Failed`] along with the events of the others.
    ///
    /// ```
    /// use phi3v::engine::Event;
    ///
    /// let session = phi3v::load("demo")?;
    /// let mut conversation = phi3v::Conversation::default();
    /// conversation.ask([], "What can you do?");
    /// let request = session.request(&conversation)?;
    /// let mut engine = session.into_engine();
    /// engine.submit(request)?;
    /// let mut answer = String::new();
    /// while !engine.is_idle() {
    ///     for output in engine.step(&mut ()) {
    ///         match output.event {
    ///             Event::Token(token) => answer += &token.text,
    ///             Event::Finished(finished) => answer += &finished.text,
    ///             Event::Failed(error) => return Err(error),
    ///         }
    ///     }
    /// }
    /// assert!(!answer.is_empty());
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    pub fn step(&mut self, observer: &mut dyn Observer) -> Vec<Output> {
        let mut outputs = std::mem::take(&mut self.unreported);
        outputs.extend(self.work(observer));
        outputs
    }

    /// Does the step itself and returns what happened.
    pub(super) fn work(&mut self, observer: &mut dyn Observer) -> Vec<Output> {
        let mut outputs = Vec::new();
        for sequence in self.scheduler.take_cancelled() {
            self.finish(sequence, FinishReason::Cancelled, &mut outputs);
        }
        let rope = self.model.rope();
        self.scheduler.restart_crossing(|tokens| rope.factors_for(tokens));
        self.scheduler.share_published();
        self.settle(observer, &mut outputs);
        self.admit(observer, &mut outputs);
        self.run_vision(observer, &mut outputs);
        self.run_prefill(observer, &mut outputs);
        if !(self.options.prompts_first && self.scheduler.computes_prompts()) {
            self.run_decode(&mut outputs);
        }
        self.settle(observer, &mut outputs);
        outputs
    }

    /// Ends cancelled sequences and releases their memory.
    pub(super) fn end_cancelled(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        for sequence in self.scheduler.take_cancelled() {
            self.finish(sequence, FinishReason::Cancelled, &mut outputs);
        }
        self.settle(&mut (), &mut outputs);
        outputs
    }

    /// Releases the blocks of sequences that have ended, and reports any damage that had to be repaired first.
    fn settle(&mut self, observer: &mut dyn Observer, outputs: &mut Vec<Output>) {
        let Some(Repair { found, failed }) = self.scheduler.settle() else { return };
        observer.damage(&found);
        for id in failed {
            self.report_failure(id, EngineError::DamagedCache.into(), outputs);
        }
    }

    /// Admits waiting sequences in order. If the device refuses memory for one, only that one fails, and its blocks are
    /// there for the next. Blocks that remain are for parts of scoring requests.
    fn admit(&mut self, observer: &mut dyn Observer, outputs: &mut Vec<Output>) {
        while let Some(Admission { index, blocks }) = self.scheduler.admit() {
            if let Err(error) = self.model.grow_cache(&mut self.cache, blocks) {
                self.fail(index, error, outputs);
                // otherwise the next sequence would get other blocks, for which there is no memory either
                self.settle(observer, outputs);
            }
        }
        while let Some(divided) = self.scheduler.divide(&self.tokenizer) {
            if self.model.grow_cache(&mut self.cache, divided.part.blocks).is_err() {
                return self.scheduler.rejoin(divided);
            }
            self.parts.split(self.scheduler.running()[divided.part.index].id);
        }
    }

    /// Sends tiles through the vision tower: those of an image that a sequence of the client whose turn it is needs, or
    /// else of an image whose request is still to come. Fewer tiles while others decode.
    fn run_vision(&mut self, observer: &mut dyn Observer, outputs: &mut Vec<Output>) {
        for sequence in self.scheduler.running_mut() {
            let id = sequence.id;
            self.images.take_kept(sequence, &mut tiles_told(observer, id));
        }
        let tiles_at_once = self.model.backend().sizes().tiles_at_once;
        let shared = self.options.tiles_shared.clamp(1, tiles_at_once);
        let tiles_max = if self.scheduler.someone_decodes() { shared } else { tiles_at_once };
        let Some(index) = self.scheduler.needs_image() else { return self.run_ahead(tiles_max, observer) };
        let sequence = &mut self.scheduler.running_mut()[index];
        let id = sequence.id;
        let result = self.images.encode(&self.model, sequence, tiles_max, &mut tiles_told(observer, id));
        match result {
            // each image that is begun holds all of its rows, so it is finished first
            Ok(false) => self.scheduler.comes_first(index, Work::Image),
            Ok(true) => self.scheduler.had_turn(index, Work::Image),
            Err(error) => self.fail(index, error, outputs),
        }
    }

    /// Sends tiles of an image whose request is still to come through the vision tower. After a failure, the request
    /// encodes the image itself.
    fn run_ahead(&mut self, tiles_max: usize, observer: &mut dyn Observer) {
        let id = RequestId(self.next_id);
        let result = self.images.encode_ahead(&self.model, tiles_max, &mut tiles_told(observer, id));
        match result {
            Err(error) if !matches!(error.root(), Error::Stopped) => observer.ahead_failed(&error),
            _ => {}
        }
    }

    /// Runs a chunk of a prompt whose images are encoded, of the client whose turn it is, together with short prompts.
    fn run_prefill(&mut self, observer: &mut dyn Observer, outputs: &mut Vec<Output>) {
        let chunks = self.scheduler.prompt_chunks();
        if chunks.is_empty() {
            return;
        }
        let mut stopped = vec![false; chunks.len()];
        let (result, took) = self.forward_prompts(&chunks, &mut stopped, observer);
        for chunk in &chunks {
            self.scheduler.running_mut()[chunk.index].timings.prefill += took;
        }
        if let Err(error) = result {
            return self.fail_each(chunks.iter().map(|chunk| chunk.index), error, outputs);
        }
        let mut end = chunks.iter().filter(|chunk| chunk.is_last).count();
        for (PromptChunk { index, rows, is_last }, stopped) in chunks.into_iter().zip(stopped).rev() {
            let start = end - usize::from(is_last);
            if stopped {
                self.fail(index, Error::Stopped, outputs);
            } else {
                self.scheduler.computed_to(index, rows.end);
                if is_last {
                    self.let_images_go(index);
                    self.postprocess(index, start..end, outputs);
                }
            }
            end = start;
        }
    }

    /// Drops the images of a sequence whose prompt is computed, unless the prompt may have to be computed again.
    fn let_images_go(&mut self, index: usize) {
        let rope = self.model.rope();
        let sequence = &mut self.scheduler.running_mut()[index];
        if !sequence.may_begin_again(|tokens| rope.factors_for(tokens)) {
            sequence.images.iter_mut().for_each(|image| image.inputs = None);
            self.images.forget(sequence.id);
        }
    }

    /// Runs chunks of prompts, and marks those that their observer has stopped; if it has stopped all, the pass ends.
    /// Returns the result and how long the pass took.
    fn forward_prompts(
        &mut self,
        chunks: &[PromptChunk],
        stopped: &mut [bool],
        observer: &mut dyn Observer,
    ) -> (Result<()>, Duration) {
        let running = self.scheduler.running();
        let segments = |chunk: &PromptChunk| self.images.segments(&running[chunk.index], chunk.rows.clone());
        let segments: Vec<_> = chunks.iter().map(segments).collect();
        let batch =
            chunks.iter().zip(&segments).map(|(PromptChunk { index, rows, is_last }, segments)| Chunk {
                segments,
                past: rows.start,
                blocks: &running[*index].blocks,
                factors: running[*index].factors,
                logits: usize::from(*is_last),
            });
        let batch: Vec<_> = batch.collect();
        let observe = &mut |progress: Progress| {
            for (PromptChunk { index, rows, .. }, stopped) in chunks.iter().zip(&mut *stopped) {
                let (id, total) = (running[*index].id, running[*index].tokens.len());
                let done = rows.start as f64 + rows.len() as f64 * progress.fraction();
                let progress = StepProgress { id, phase: Phase::Prefill, done, total };
                *stopped = *stopped || observer.progress(progress).is_break();
            }
            if stopped.iter().all(|&stopped| stopped) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let (model, cache, logits) = (&self.model, &mut self.cache, &mut self.logits);
        timed(model.backend(), || model.forward(&batch, cache, logits, observe))
    }

    /// Runs the newest token of every decoding sequence, and tokens that were forced after it. Sequences beyond the size
    /// of one pass go into another.
    fn run_decode(&mut self, outputs: &mut Vec<Output>) {
        let rope = self.model.rope();
        let chunks = self.scheduler.decoding(|tokens| rope.factors_for(tokens));
        // from the last to the first, since sequences that end are removed
        for pass in chunks.rchunks(self.scheduler.decoding_max()) {
            self.decode_together(pass, outputs);
        }
    }

    fn decode_together(&mut self, chunks: &[DecodeChunk], outputs: &mut Vec<Output>) {
        let running = self.scheduler.running();
        let newest = |chunk: &DecodeChunk| newest_tokens::<B>(&running[chunk.index], &chunk.rows);
        let segments: Vec<_> = chunks.iter().map(newest).collect();
        let batch = chunks.iter().zip(&segments);
        let batch: Vec<_> = batch
            .map(|(chunk, segments)| decode_chunk(&running[chunk.index], &chunk.rows, segments))
            .collect();
        let wanted: Vec<usize> = batch.iter().map(|chunk| chunk.logits).collect();
        let never_stop = &mut |_| ControlFlow::Continue(());
        let (model, cache, logits) = (&self.model, &mut self.cache, &mut self.logits);
        let (result, took) = timed(model.backend(), || model.forward(&batch, cache, logits, never_stop));
        if let Err(error) = result {
            return self.fail_each(chunks.iter().map(|chunk| chunk.index), error, outputs);
        }
        let mut end = wanted.iter().sum();
        for (DecodeChunk { index, rows }, wanted) in chunks.iter().rev().zip(wanted.iter().rev()) {
            self.scheduler.running_mut()[*index].timings.decode += took;
            self.scheduler.computed_to(*index, rows.end);
            self.postprocess(*index, end - wanted..end, outputs);
            end -= wanted;
        }
    }

    /// Advances a sequence by its `rows` of the logits, and reports what happened.
    fn postprocess(&mut self, index: usize, rows: Range<usize>, outputs: &mut Vec<Output>) {
        let (vocab_size, rope) = (self.model.config().vocab_size, self.model.rope());
        let logits = &mut self.logits[rows.start * vocab_size..rows.end * vocab_size];
        if self.scheduler.has_unpublished(index) && !logits.is_empty() && check_logits(logits).is_ok() {
            self.scheduler.publish(index);
        }
        let sequence = &mut self.scheduler.running_mut()[index];
        let (id, factors) = (sequence.id, sequence.factors);
        let keeps_factors = &|tokens| rope.factors_for(tokens) == factors;
        let bounds = Bounds { stop_ids: &self.stop_ids, keeps_factors };
        let Advance { tokens, end } = sequence.advance(logits, vocab_size, bounds);
        outputs.extend(tokens.into_iter().map(|token| Output { id, event: Event::Token(token) }));
        match end {
            None => {}
            Some(Ok(reason)) => {
                let sequence = self.scheduler.end(index);
                self.finish(sequence, reason, outputs);
            }
            Some(Err(error)) => self.fail(index, error, outputs),
        }
    }

    /// Reports the end of an answer whose sequence the scheduler has removed. If a request has several sequences, reports
    /// it once all have ended or one was cancelled.
    fn finish(&mut self, mut sequence: Sequence, reason: FinishReason, outputs: &mut Vec<Output>) {
        let id = sequence.id;
        let finished = self.parts.finish(id, sequence.finish(reason));
        if reason == FinishReason::Cancelled {
            self.scheduler.cancel(id);
        }
        self.forget_images(id);
        outputs.extend(finished.map(|finished| Output { id, event: Event::Finished(finished) }));
    }

    /// Ends a request with an error. A request that its observer stopped is reported as cancelled.
    fn fail(&mut self, index: usize, error: Error, outputs: &mut Vec<Output>) {
        let sequence = self.scheduler.end(index);
        if matches!(error.root(), Error::Stopped) {
            return self.finish(sequence, FinishReason::Cancelled, outputs);
        }
        self.report_failure(sequence.id, error, outputs);
    }

    /// Ends the requests of the sequences at `indices`, which are in order, with the error of a pass that they shared.
    fn fail_each(
        &mut self,
        indices: impl DoubleEndedIterator<Item = usize> + ExactSizeIterator,
        error: Error,
        outputs: &mut Vec<Output>,
    ) {
        let errors = error.for_each(indices.len());
        indices.rev().zip(errors).for_each(|(index, error)| self.fail(index, error, outputs));
    }

    /// Reports the failure of a request, one of whose sequences has been removed, and cancels its other sequences.
    fn report_failure(&mut self, id: RequestId, error: Error, outputs: &mut Vec<Output>) {
        self.scheduler.cancel(id);
        if self.parts.fail(id) {
            outputs.push(Output { id, event: Event::Failed(error) });
        }
        self.forget_images(id);
    }

    /// Drops the images of a request once all of its sequences have ended.
    fn forget_images(&mut self, id: RequestId) {
        if !self.parts.are_open(id) {
            self.images.forget(id);
        }
    }
}

/// Reports to `observer` how many tiles of a request's image are done, and how many there are.
fn tiles_told(observer: &mut dyn Observer, id: RequestId) -> impl FnMut(f64, usize) -> ControlFlow<()> {
    move |done, total| observer.progress(StepProgress { id, phase: Phase::Vision, done, total })
}

/// The segment of an answer's newest tokens, which are never rows of an image.
fn newest_tokens<'a, B: Backend>(sequence: &'a Sequence, rows: &Range<usize>) -> [Segment<'a, B::Tensor>; 1] {
    [Segment::Tokens(&sequence.tokens[rows.clone()])]
}

fn decode_chunk<'a, T>(
    sequence: &'a Sequence,
    rows: &Range<usize>,
    segments: &'a [Segment<'a, T>; 1],
) -> Chunk<'a, T> {
    Chunk {
        segments,
        past: rows.start,
        blocks: &sequence.blocks,
        factors: sequence.factors,
        logits: sequence.logits_wanted(rows),
    }
}
