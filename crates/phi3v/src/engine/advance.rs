//! How an answer advances: from logits to tokens that are reported, and to tokens that its form forces after them.
//!
//! **Jump-forward**: tokens that the form of an answer forces are appended as soon as they are known, without logits. The
//! next decode step computes them together with the token before them. The answer is the same as if each were chosen
//! singly, because there was no choice. Their random numbers are skipped. If log probabilities were asked for, they come
//! from the rows that the step computes, and only then are the tokens reported.

use super::request::{FinishReason, Token};
use super::sequence::Sequence;
use crate::Result;
use crate::sampler::{History, Sampled};
use crate::stop::StopOutput;

/// The outcome of a sequence's logits.
pub(super) struct Advance {
    /// Tokens to report, oldest first.
    pub(super) tokens: Vec<Token>,
    /// The end of the answer, or its failure.
    pub(super) end: Option<Result<FinishReason>>,
}

/// What determines an answer besides its sequence.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    /// Ids that end the answer.
    pub(super) stop_ids: &'a [u32],
    /// Whether a sequence of this many tokens keeps its rotary factors; tokens are not forced beyond that.
    pub(super) keeps_factors: &'a dyn Fn(usize) -> bool,
}

impl Sequence {
    /// Advances by `logits`, `[n, vocab_size]`, those of the last `n` computed tokens.
    pub(super) fn advance(&mut self, logits: &mut [f32], vocab_size: usize, bounds: Bounds<'_>) -> Advance {
        let mut tokens = Vec::new();
        let mut rows = logits.chunks_exact_mut(vocab_size);
        let end = loop {
            let Some(row) = rows.next() else { break None };
            let gone_on = match self.tokens.get(self.told) {
                _ if self.scoring.is_some() => self.go_on_scoring(row),
                Some(&forced) => self.tell_forced(forced, row, &mut tokens),
                None => self.choose(row, bounds, &mut tokens),
            };
            if let Some(end) = gone_on.transpose() {
                break Some(end);
            }
        };
        Advance { tokens, end }
    }

    /// Takes `logits`, `[vocab_size]`, of a sequence that scores.
    fn go_on_scoring(&mut self, logits: &[f32]) -> Result<Option<FinishReason>> {
        self.timings.first_token.get_or_insert_with(|| self.submitted.elapsed());
        Ok(self.score(logits)?.then_some(FinishReason::Stop))
    }

    fn tell_forced(
        &mut self,
        token: u32,
        logits: &[f32],
        told: &mut Vec<Token>,
    ) -> Result<Option<FinishReason>> {
        let sampled = self.sampler.forced(token, logits)?;
        self.tell(sampled, told)
    }

    /// Chooses the next token from `logits`, `[vocab_size]`, and appends the tokens forced after it.
    fn choose(
        &mut self,
        logits: &mut [f32],
        bounds: Bounds<'_>,
        told: &mut Vec<Token>,
    ) -> Result<Option<FinishReason>> {
        let history = History { prompt: &self.input_ids, output: &self.tokens[self.prompt_tokens..] };
        let sampled = self.sampler.sample_with(logits, history, |logits| match &mut self.constraint {
            Some(constraint) => constraint.allowed(logits),
            None => Ok(()),
        })?;
        self.timings.first_token.get_or_insert_with(|| self.submitted.elapsed());
        if bounds.stop_ids.contains(&sampled.token) {
            return Ok(Some(FinishReason::Stop));
        }
        self.take(sampled.token)?;
        // nothing is forced after a stop string
        if let Some(end) = self.tell(sampled, told)? {
            return Ok(Some(end));
        }
        self.force(bounds);
        while !self.sampler.tells_logprobs() && self.told < self.tokens.len() {
            let forced = Sampled { token: self.tokens[self.told], logprob: None, top: Vec::new() };
            if let Some(end) = self.tell(forced, told)? {
                return Ok(Some(end));
            }
        }
        self.known_end()
    }

    /// Appends the tokens that must come next.
    fn force(&mut self, bounds: Bounds<'_>) {
        while self.end.is_none() && (bounds.keeps_factors)(self.tokens.len() + 1) {
            let Some(constraint) = &mut self.constraint else { return };
            let taken = match constraint.forced() {
                Ok(Some(token)) => self.take(token),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) => self.sampler.skip(),
                Err(error) => self.end = Some(Err(error)),
            }
        }
    }

    /// Appends a token to the answer, and finds out whether it is the last.
    fn take(&mut self, token: u32) -> Result<()> {
        let complete = match &mut self.constraint {
            Some(constraint) => {
                constraint.accept(token)?;
                constraint.is_complete()
            }
            None => false,
        };
        self.tokens.push(token);
        if complete {
            self.end = Some(Ok(FinishReason::Stop));
        } else if self.tokens.len() - self.prompt_tokens >= self.max_new_tokens {
            self.end = Some(Ok(FinishReason::Length));
        }
        Ok(())
    }

    /// Reports the next token that is not reported yet, and returns the end if the answer ends with it.
    fn tell(&mut self, sampled: Sampled, told: &mut Vec<Token>) -> Result<Option<FinishReason>> {
        self.told += 1;
        self.usage.completion_tokens += 1;
        let text = self.stream.push(sampled.token);
        let StopOutput { text, stopped_by } = self.stop.push(&text);
        let Sampled { token: id, logprob, top } = sampled;
        told.push(Token { id, text, held: self.stop.held(), logprob, top });
        if stopped_by.is_some() { Ok(Some(FinishReason::Stop)) } else { self.known_end() }
    }

    /// The end of the answer, if everything before it has been reported.
    fn known_end(&mut self) -> Result<Option<FinishReason>> {
        if self.told < self.tokens.len() { Ok(None) } else { self.end.take().transpose() }
    }
}
