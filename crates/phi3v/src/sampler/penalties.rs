//! Penalties on tokens that already occur in the prompt or the answer.

use std::collections::HashMap;

use super::{History, SamplingParams};

/// The tokens seen so far and their penalties. Tokens are counted as the history grows, so a step costs one visit per
/// distinct token and not one per position.
#[derive(Debug, Clone)]
pub(super) struct Penalties {
    repetition: f32,
    presence: f32,
    frequency: f32,
    /// Token to its number of occurrences in the answer; tokens that occur only in the prompt have 0.
    seen: HashMap<u32, u32>,
    prompt_len: usize,
    output_len: usize,
    /// The original values of the logits that the last step changed.
    changed: Vec<(u32, f32)>,
}

impl Penalties {
    pub(super) fn new(params: &SamplingParams) -> Self {
        Self {
            repetition: params.repetition_penalty,
            presence: params.presence_penalty,
            frequency: params.frequency_penalty,
            seen: HashMap::new(),
            prompt_len: 0,
            output_len: 0,
            changed: Vec::new(),
        }
    }

    /// Changes the logits (`[vocab_size]`) of seen tokens: first repetition, then presence and frequency.
    pub(super) fn apply(&mut self, logits: &mut [f32], history: History<'_>) {
        if self.repetition == 1.0 && self.presence == 0.0 && self.frequency == 0.0 {
            return;
        }
        self.count(history);
        self.changed.clear();
        for (&token, &times) in &self.seen {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            self.changed.push((token, *logit));
            let repeated = if *logit < 0.0 { *logit * self.repetition } else { *logit / self.repetition };
            // A logit near the end of f32's range must not become infinite: no softmax is defined then.
            *logit = repeated.min(f32::MAX);
            if times > 0 {
                *logit -= self.presence + self.frequency * times as f32;
            }
        }
    }

    /// Returns the logit of a token before the last [`Penalties::apply`] changed it.
    pub(super) fn original(&self, token: u32) -> Option<f32> {
        self.changed.iter().find(|&&(changed, _)| changed == token).map(|&(_, logit)| logit)
    }

    fn count(&mut self, history: History<'_>) {
        let grown = history.prompt.len() == self.prompt_len && history.output.len() >= self.output_len;
        if !grown {
            self.seen.clear();
            self.output_len = 0;
            self.prompt_len = history.prompt.len();
            self.seen.extend(history.prompt.iter().filter_map(|&id| Some((u32::try_from(id).ok()?, 0))));
        }
        for &token in &history.output[self.output_len..] {
            *self.seen.entry(token).or_insert(0) += 1;
        }
        self.output_len = history.output.len();
    }
}
