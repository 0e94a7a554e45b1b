//! One request in progress: its tokens, how many of them are computed, and the state that produces its answer. A sequence
//! holds no tensors; its images' embeddings are in [`Images`](super::pictures::Images).

use super::EngineError;
use super::block_manager::BlockHash;
use super::request::{CacheSalt, FinishReason, Finished, Request, RequestId, ScoredPrompt, Timings, Usage};
use super::scheduler::Turns;
use super::scoring::{Next, Scoring, Turn};
use crate::Result;
use crate::constraint::Constraint;
use crate::image::ImageInputs;
use crate::model::RopeFactors;
use crate::sampler::Sampler;
use crate::stop::{StopOutput, StopStrings};
use crate::tokenizer::{DecodeStream, Tokenizer};
use phi3v_kernels::KV_BLOCK_TOKENS;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The rows of one image within the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageRun {
    /// Positions in the sequence.
    pub(super) rows: Range<usize>,
    /// Index into the request's images.
    pub(super) image: usize,
}

/// An image of a request.
#[derive(Clone)]
pub(super) struct PromptImage {
    /// Hash of its pixel values, which identifies it.
    pub(super) hash: [u8; 32],
    /// Its tiles, until they have been through the vision tower.
    pub(super) inputs: Option<Arc<ImageInputs>>,
}

/// The state of a request, or of a part of one that scores.
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) turns: Turns,
    /// The prompt with `-i` at the rows of image `i`.
    pub(super) input_ids: Vec<i64>,
    /// Prompt and answer, with 0 at the rows of images.
    pub(super) tokens: Vec<u32>,
    pub(super) prompt_tokens: usize,
    pub(super) image_runs: Vec<ImageRun>,
    pub(super) images: Vec<PromptImage>,
    /// Leading tokens whose keys and values are in the cache.
    pub(super) computed: usize,
    pub(super) blocks: Vec<u32>,
    /// Leading blocks that are published, and the hash of the last of them; with none, the salt.
    pub(super) published: (usize, BlockHash),
    pub(super) cache_salt: CacheSalt,
    pub(super) factors: RopeFactors,
    pub(super) max_new_tokens: usize,
    pub(super) usage: Usage,
    pub(super) timings: Timings,
    pub(super) submitted: Instant,
    pub(super) cancelled: bool,
    /// Leading tokens that are computed in chunks: the prompt, or after a restart all tokens so far.
    pub(super) prefill_tokens: usize,
    /// Leading tokens that belong to the prompt or have been reported; those after them were forced and wait for their
    /// logprobs.
    pub(super) told: usize,
    /// How the answer ends after the tokens so far, if known.
    pub(super) end: Option<Result<FinishReason>>,
    pub(super) sampler: Sampler,
    pub(super) stream: DecodeStream,
    pub(super) stop: StopStrings,
    pub(super) constraint: Option<Box<dyn Constraint>>,
    /// What is scored, if nothing is generated.
    pub(super) scoring: Option<Scoring>,
    /// Whether this sequence was split off another of its request.
    pub(super) is_part: bool,
}

impl Sequence {
    /// # Errors
    /// Sampling parameters or stop strings out of range.
    pub(super) fn new(
        id: RequestId,
        request: Request,
        tokenizer: &Arc<Tokenizer>,
        factors: RopeFactors,
    ) -> Result<Self> {
        let (tokens, image_runs) = split_runs(&request.input_ids);
        let image_tokens = image_runs.iter().map(|run| run.rows.len()).sum();
        let image = |inputs: Arc<ImageInputs>| PromptImage { hash: inputs.hash, inputs: Some(inputs) };
        Ok(Self {
            id,
            turns: Turns::default(),
            prompt_tokens: tokens.len(),
            prefill_tokens: tokens.len(),
            told: tokens.len(),
            end: None,
            usage: Usage { prompt_tokens: tokens.len(), image_tokens, ..Usage::default() },
            tokens,
            image_runs,
            input_ids: request.input_ids,
            images: request.images.into_iter().map(image).collect(),
            computed: 0,
            blocks: Vec::new(),
            published: (0, request.cache_salt),
            cache_salt: request.cache_salt,
            factors,
            max_new_tokens: request.max_new_tokens,
            timings: Timings::default(),
            submitted: Instant::now(),
            cancelled: false,
            sampler: Sampler::new(request.sampling)?,
            stream: DecodeStream::new(Arc::clone(tokenizer)),
            stop: StopStrings::new(&request.stop)?,
            constraint: request.constraint,
            scoring: None,
            is_part: false,
        })
    }

    /// Makes the sequence score instead of generating, if `scoring` is given.
    pub(super) fn scoring(mut self, scoring: Option<Scoring>) -> Self {
        if scoring.is_some() {
            self.usage = Usage::default();
            self.scoring = scoring;
            self.begin_prompt();
        }
        self
    }

    /// Prompts that another sequence could score: those not begun, once their shared beginning is computed.
    pub(super) fn divisible(&self) -> usize {
        self.scoring.as_ref().filter(|_| self.decoding() && !self.cancelled).map_or(0, Scoring::divisible)
    }

    /// Creates a sequence for the last `prompts` of the prompts that this one has yet to begin.
    pub(super) fn split_off(&mut self, prompts: usize, tokenizer: &Arc<Tokenizer>) -> Option<Self> {
        let request = Request::greedy(Vec::new(), Vec::new(), self.max_new_tokens);
        let request = Request { cache_salt: self.cache_salt, ..request };
        let part = Self::new(self.id, request, tokenizer, self.factors).ok()?;
        let scoring = self.scoring.as_mut()?.split_off(prompts);
        let (images, submitted) = (self.images.clone(), self.submitted);
        Some(Self { images, submitted, is_part: true, ..part.scoring(Some(scoring)) })
    }

    /// Takes back prompts that were split off and have not begun.
    pub(super) fn rejoin(&mut self, part: Option<Scoring>) {
        if let (Some(scoring), Some(part)) = (&mut self.scoring, part) {
            scoring.rejoin(part);
        }
    }

    /// Prompts that a part has not begun, to be returned to the sequence that it was split off.
    pub(super) fn give_back(&mut self) -> Option<Scoring> {
        let scoring = if self.is_part { self.scoring.as_mut()? } else { return None };
        let unbegun = scoring.divisible();
        (unbegun > 0).then(|| scoring.split_off(unbegun))
    }

    /// Begins the turn of a prompt to score: its tokens, and how many of them are known from the previous prompt.
    fn begin_prompt(&mut self) {
        let Some(scoring) = &mut self.scoring else { return };
        let Turn { input_ids, factors, known } = scoring.begin(self.factors);
        (self.tokens, self.image_runs) = split_runs(&input_ids);
        self.prompt_tokens = self.tokens.len();
        (self.prefill_tokens, self.told) = (self.prompt_tokens, self.prompt_tokens);
        (self.computed, self.factors) = (known, factors);
        self.usage.prompt_tokens += self.prompt_tokens;
        self.usage.image_tokens += self.image_runs.iter().map(|run| run.rows.len()).sum::<usize>();
        self.usage.cached_tokens += self.computed;
    }

    /// Takes the logits after the newest token and moves on to what is scored next. Returns whether all is scored.
    ///
    /// # Errors
    /// Logits that are not finite.
    pub(super) fn score(&mut self, logits: &[f32]) -> Result<bool> {
        let Some(scoring) = &mut self.scoring else { return Ok(true) };
        match scoring.next(&self.tokens[self.prompt_tokens..], logits)? {
            Next::Nothing => return Ok(true),
            Next::Prompt => self.begin_prompt(),
            Next::Answer(path) => {
                self.tokens.truncate(self.prompt_tokens);
                self.tokens.extend(path);
                self.computed = self.tokens.len() - 1;
                self.usage.completion_tokens += 1;
            }
        }
        Ok(false)
    }

    /// Blocks for the prompt and the longest answer, whose last token never runs.
    pub(super) fn blocks_needed(&self) -> usize {
        let rows = match &self.scoring {
            Some(scoring) => scoring.rows_max(),
            None => (self.prompt_tokens + self.max_new_tokens).saturating_sub(1),
        };
        rows.max(1).div_ceil(KV_BLOCK_TOKENS)
    }

    /// Leading tokens whose keys and values stay the same while the sequence runs, and may be shared with others.
    pub(super) fn lasting_tokens(&self) -> usize {
        self.scoring.as_ref().map_or(usize::MAX, Scoring::lasting)
    }

    /// Leading blocks whose keys and values are all in the cache and stay the same.
    pub(super) fn full_blocks(&self) -> usize {
        self.computed.min(self.lasting_tokens()) / KV_BLOCK_TOKENS
    }

    /// Whether the sequence has to be recomputed with the factors that `factors_for` gives for its length. A scoring
    /// sequence keeps the factors that its prompt began with.
    pub(super) fn crosses(&self, factors_for: impl Fn(usize) -> RopeFactors) -> bool {
        self.scoring.is_none() && self.decoding() && factors_for(self.tokens.len()) != self.factors
    }

    /// Whether cached rows of the prompt may have to be recomputed: for further prompts to score, or with other factors
    /// once the answer approaches its longest.
    pub(super) fn may_begin_again(&self, factors_for: impl Fn(usize) -> RopeFactors) -> bool {
        self.scoring.is_some() || factors_for(self.prompt_tokens + self.max_new_tokens) != self.factors
    }

    /// Whether the whole prompt, or after a restart all tokens of that time, is in the cache.
    pub(super) fn decoding(&self) -> bool {
        self.computed >= self.prefill_tokens && self.computed < self.tokens.len()
    }

    /// The first image that is not encoded and has rows still to be computed.
    pub(super) fn image_needed(&self) -> Option<usize> {
        let missing =
            |run: &&ImageRun| run.rows.end > self.computed && self.images[run.image].inputs.is_some();
        self.image_runs.iter().find(missing).map(|run| run.image)
    }

    /// The key that the embedding of image `image`, from 0, is kept under.
    pub(super) fn image_key(&self, image: usize) -> [u8; 32] {
        image_key(&self.images[image].hash, &self.cache_salt)
    }

    /// Hash of the full block `index`. `previous` is the hash of the block before it, or the salt for the first block.
    pub(super) fn block_hash(&self, index: usize, previous: &BlockHash) -> BlockHash {
        let rows = index * KV_BLOCK_TOKENS..(index + 1) * KV_BLOCK_TOKENS;
        let mut hasher = blake3::Hasher::new();
        hasher.update(previous);
        hasher.update(&[u8::from(self.factors == RopeFactors::Long)]);
        for token in &self.tokens[rows.clone()] {
            hasher.update(&token.to_le_bytes());
        }
        for run in self.image_runs.iter().filter(|run| run.rows.start < rows.end && rows.start < run.rows.end)
        {
            // where in the block, and where in the image, the image's rows begin
            let start = run.rows.start.max(rows.start);
            hasher.update(&[1]);
            hasher.update(&((start - rows.start) as u64).to_le_bytes());
            hasher.update(&((start - run.rows.start) as u64).to_le_bytes());
            hasher.update(&self.images[run.image].hash);
        }
        *hasher.finalize().as_bytes()
    }

    /// Hash of the full block `index`, which is not published yet.
    pub(super) fn hash_of(&self, index: usize) -> BlockHash {
        let (published, hash) = self.published;
        (published..=index).fold(hash, |previous, index| self.block_hash(index, &previous))
    }

    /// Whether the block `index` is yet to be published, once the prompt is computed.
    pub(super) fn will_publish(&self, index: usize) -> bool {
        let lasting = self.prefill_tokens.min(self.lasting_tokens()) / KV_BLOCK_TOKENS;
        !self.decoding() && (self.published.0..lasting).contains(&index)
    }

    /// Whether the sequence has computed anything that it has not published, or decodes.
    pub(super) fn has_begun(&self) -> bool {
        self.decoding() || self.computed > self.published.0 * KV_BLOCK_TOKENS
    }

    /// Takes over the next `blocks` blocks from others, before the sequence begins; `hash` is that of the last.
    pub(super) fn take_over(&mut self, blocks: usize, hash: BlockHash) {
        self.published = (self.published.0 + blocks, hash);
        self.computed = self.published.0 * KV_BLOCK_TOKENS;
        // after a restart, the first time has been counted
        if self.tokens.len() == self.prompt_tokens {
            self.usage.cached_tokens += blocks * KV_BLOCK_TOKENS;
        }
    }

    /// Tokens of the prompt, or after a restart of all so far, that are not in the cache.
    pub(super) fn left_to_compute(&self) -> Range<usize> {
        self.computed..self.tokens.len()
    }

    /// Tokens that the next decode step computes, at most `rows_max`. If the answer's end is known, its last token never
    /// runs.
    pub(super) fn next_rows(&self, rows_max: usize) -> Range<usize> {
        let end = self.tokens.len() - usize::from(self.end.is_some());
        self.computed..end.min(self.computed + rows_max)
    }

    /// How many of `rows`, counted from the last, need logits: the last if the next token is chosen after it, or all if
    /// logprobs were asked for, since forced tokens are reported with theirs.
    pub(super) fn logits_wanted(&self, rows: &Range<usize>) -> usize {
        let chooses = rows.end == self.tokens.len();
        if self.sampler.tells_logprobs() { rows.len() } else { usize::from(chooses) }
    }

    /// Records how long the sequence waited. If it waits again after a restart, the first time counts.
    pub(super) fn end_wait(&mut self) {
        if self.tokens.len() == self.prompt_tokens {
            self.timings.queued = self.submitted.elapsed();
        }
    }

    /// Ends the answer and returns the text that was held back.
    pub(super) fn finish(&mut self, reason: FinishReason) -> Finished {
        let rest = self.stream.finish();
        let StopOutput { mut text, stopped_by } = self.stop.push(&rest);
        text.push_str(&self.stop.finish());
        let reason = if stopped_by.is_some() { FinishReason::Stop } else { reason };
        let scores = self.scoring.take().map(Scoring::into_scores).unwrap_or_default();
        Finished { reason, text, usage: self.usage, timings: self.timings, scores }
    }
}

/// The key of an image's embedding, for requests with one salt.
pub(super) fn image_key(hash: &[u8; 32], cache_salt: &CacheSalt) -> [u8; 32] {
    *blake3::keyed_hash(cache_salt, hash).as_bytes()
}

/// Splits ids with image rows (`-i`, runs of one number) into tokens and runs.
fn split_runs(input_ids: &[i64]) -> (Vec<u32>, Vec<ImageRun>) {
    let mut runs: Vec<ImageRun> = Vec::new();
    for (position, &id) in input_ids.iter().enumerate().filter(|(_, id)| **id < 0) {
        let image = !id as usize; // -id - 1, which could overflow
        match runs.last_mut() {
            Some(run) if run.image == image && run.rows.end == position => run.rows.end += 1,
            _ => runs.push(ImageRun { rows: position..position + 1, image }),
        }
    }
    (input_ids.iter().map(|&id| u32::try_from(id).unwrap_or(0)).collect(), runs)
}

/// Checks a request's ids against its images and the vocabulary.
///
/// # Errors
/// The ids do not match the images' sizes or exceed the vocabulary, an image is unused, the prompt is empty, or a prompt
/// to score lacks answers.
pub(super) fn check_ids(request: &Request, vocab_size: usize) -> Result<(), EngineError> {
    let mut used = vec![false; request.images.len()];
    if request.scored.is_empty() {
        check_prompt(&request.input_ids, &request.images, vocab_size, &mut used)?;
    }
    for ScoredPrompt { input_ids, answers } in &request.scored {
        let input_ids = [&request.input_ids[..], input_ids].concat();
        check_prompt(&input_ids, &request.images, vocab_size, &mut used)?;
        if answers.is_empty() || answers.iter().any(Vec::is_empty) {
            return Err(EngineError::NothingToScore);
        }
        if let Some(&id) = answers.iter().flatten().find(|&&id| id as usize >= vocab_size) {
            return Err(EngineError::UnknownToken { id: id.into(), vocab_size });
        }
    }
    match used.iter().position(|used| !used) {
        Some(index) => Err(EngineError::UnusedImage { number: index + 1 }),
        None => Ok(()),
    }
}

/// Checks the ids of one prompt, and marks in `used` the images that it contains.
fn check_prompt(
    input_ids: &[i64],
    images: &[Arc<ImageInputs>],
    vocab_size: usize,
    used: &mut [bool],
) -> Result<(), EngineError> {
    if input_ids.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    if let Some(&id) = input_ids.iter().find(|&&id| id >= vocab_size as i64) {
        return Err(EngineError::UnknownToken { id, vocab_size });
    }
    let (_, runs) = split_runs(input_ids);
    let mut seen = vec![false; images.len()];
    for run in &runs {
        let (number, rows) = (run.image + 1, run.rows.len());
        let Some(image) = images.get(run.image) else {
            return Err(EngineError::UnknownImage { number, images: images.len() });
        };
        let expected = image.num_img_tokens();
        if rows != expected || std::mem::replace(&mut seen[run.image], true) {
            return Err(EngineError::ImageRows { number, rows, expected });
        }
    }
    used.iter_mut().zip(seen).for_each(|(used, seen)| *used |= seen);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_split_by_number_and_by_gaps() {
        let (tokens, runs) = split_runs(&[1, -1, -1, -2, 7, -3]);
        assert_eq!(tokens, [1, 0, 0, 0, 7, 0]);
        let run = |rows, image| ImageRun { rows, image };
        assert_eq!(runs, [run(1..3, 0), run(3..4, 1), run(5..6, 2)]);
    }
}
