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
    /// Does one piece of every kind of work there is, and reports what came of it. What fails is one request, reported
    /// as [`Event::Failed`] beside what others have got.
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

    /// The step itself, and what came of it.
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

    /// Ends what was cancelled, and gives back its memory.
    pub(super) fn end_cancelled(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        for sequence in self.scheduler.take_cancelled() {
            self.finish(sequence, FinishReason::Cancelled, &mut outputs);
        }
        self.settle(&mut (), &mut outputs);
        outputs
    }

    /// Gives back the blocks of sequences that have ended; reports what had to be mended for it.
    fn settle(&mut self, observer: &mut dyn Observer, outputs: &mut Vec<Output>) {
        let Some(Repair { found, failed }) = self.scheduler.settle() else { return };
        observer.damage(&found);
        for id in failed {
            self.report_failure(id, EngineError::DamagedCache.into(), outputs);
        }
    }

    /// Lets waiting sequences in, in order. One whose memory the device refuses fails, and nobody else: its blocks are there for
    /// the next. What is left is for parts of requests that score.
    fn admit(&mut self, observer: &mut dyn Observer, outputs: &mut Vec<Output>) {
        while let Some(Admission { index, blocks }) = self.scheduler.admit() {
            if let Err(error) = self.model.grow_cache(&mut self.cache, blocks) {
                self.fail(index, error, outputs);
                // the next would have others, for which there is no memory either
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

    /// Sends tiles of a sequence that lacks an image, of the client whose turn it is, through the vision tower, or of an image
    /// whose request is still to come: fewer while others are decoding.
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
            // of each that is begun all rows are held
            Ok(false) => self.scheduler.comes_first(index, Work::Image),
            Ok(true) => self.scheduler.had_turn(index, Work::Image),
            Err(error) => self.fail(index, error, outputs),
        }
    }

    /// Sends tiles of an image whose request is still to come through the vision tower. What fails here is left to the
    /// request.
    fn run_ahead(&mut self, tiles_max: usize, observer: &mut dyn Observer) {
        let id = RequestId(self.next_id);
        let result = self.images.encode_ahead(&self.model, tiles_max, &mut tiles_told(observer, id));
        match result {
            Err(error) if !matches!(error.root(), Error::Stopped) => observer.ahead_failed(&error),
            _ => {}
        }
    }

    /// Runs a chunk of a prompt whose images are encoded, of the client whose turn it is, and short prompts beside it.
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

    /// Lets go of the images of a sequence whose prompt is computed, unless it may have to be computed again.
    fn let_images_go(&mut self, index: usize) {
        let rope = self.model.rope();
        let sequence = &mut self.scheduler.running_mut()[index];
        if !sequence.may_begin_again(|tokens| rope.factors_for(tokens)) {
            sequence.images.iter_mut().for_each(|image| image.inputs = None);
            self.images.forget(sequence.id);
        }
    }

    /// Runs chunks of prompts, and notes which of them their observer has stopped; where it has stopped all, the pass ends.
    /// Tells how long it took.
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

    /// One token for every sequence that is decoding, and what is forced behind it. Those that are more than one pass takes
    /// have another.
    fn run_decode(&mut self, outputs: &mut Vec<Output>) {
        let rope = self.model.rope();
        let chunks = self.scheduler.decoding(|tokens| rope.factors_for(tokens));
        // from the last to the first, since those that end are removed
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

    /// Goes on with a sequence by its `rows` of the logits, and tells what came of it.
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

    /// Reports the end of an answer whose sequence the scheduler has given up; of a request with several, when all have ended.
    fn finish(&mut self, mut sequence: Sequence, reason: FinishReason, outputs: &mut Vec<Output>) {
        let id = sequence.id;
        let finished = self.parts.finish(id, sequence.finish(reason));
        if reason == FinishReason::Cancelled {
            self.scheduler.cancel(id);
        }
        self.forget_images(id);
        outputs.extend(finished.map(|finished| Output { id, event: Event::Finished(finished) }));
    }

    /// Ends a request by its error; one that its observer stopped was cancelled.
    fn fail(&mut self, index: usize, error: Error, outputs: &mut Vec<Output>) {
        let sequence = self.scheduler.end(index);
        if matches!(error.root(), Error::Stopped) {
            return self.finish(sequence, FinishReason::Cancelled, outputs);
        }
        self.report_failure(sequence.id, error, outputs);
    }

    /// Ends the requests of the sequences at `indices`, which are in order, by the error of a pass that they shared.
    fn fail_each(
        &mut self,
        indices: impl DoubleEndedIterator<Item = usize> + ExactSizeIterator,
        error: Error,
        outputs: &mut Vec<Output>,
    ) {
        let errors = error.for_each(indices.len());
        indices.rev().zip(errors).for_each(|(index, error)| self.fail(index, error, outputs));
    }

    /// Tells of the failure of a request, one of whose sequences has been given up, and gives up the others.
    fn report_failure(&mut self, id: RequestId, error: Error, outputs: &mut Vec<Output>) {
        self.scheduler.cancel(id);
        if self.parts.fail(id) {
            outputs.push(Output { id, event: Event::Failed(error) });
        }
        self.forget_images(id);
    }

    /// Lets go of the images of a request all of whose sequences have ended.
    fn forget_images(&mut self, id: RequestId) {
        if !self.parts.are_open(id) {
            self.images.forget(id);
        }
    }
}

/// Tells `observer` of the tiles of a request's image that are done, and of all there are.
fn tiles_told(observer: &mut dyn Observer, id: RequestId) -> impl FnMut(f64, usize) -> ControlFlow<()> {
    move |done, total| observer.progress(StepProgress { id, phase: Phase::Vision, done, total })
}

/// Tokens of an answer, never rows of an image.
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
