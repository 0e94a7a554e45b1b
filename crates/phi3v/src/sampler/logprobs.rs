//! Logprobs of the model's own distribution.

/// Logarithm of the softmax of one row of logits, and its highest entries.
pub(crate) struct LogProbs {
    /// `ln sum exp(logit)` over the vocabulary.
    log_sum: f64,
    /// The most probable tokens with their logprobs, highest first, equal ones by id.
    pub(super) top: Vec<(u32, f32)>,
}

impl LogProbs {
    /// Computes the logprobs of logits (`[vocab_size]`), which must be neither NaN nor plus infinity.
    pub(crate) fn of(logits: &[f32], top: usize) -> Self {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from((logit - highest).exp())).sum();
        let log_sum = f64::from(highest) + sum.ln();
        let mut logprobs = Self { log_sum, top: highest_logits(logits, top) };
        for entry in &mut logprobs.top {
            entry.1 = (f64::from(entry.1) - log_sum) as f32;
        }
        logprobs
    }

    /// Returns the logprob of a token from its logit.
    pub(super) fn of_logit(&self, logit: f32) -> f32 {
        self.exact(logit) as f32
    }

    /// Like [`of_logit`](Self::of_logit), but not rounded, for sums of many.
    pub(crate) fn exact(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum
    }
}

/// Returns the `n` highest logits (`n` is at most 20, so insertion into a short sorted list beats any selection).
fn highest_logits(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(n + 1);
    for (token, &logit) in logits.iter().enumerate() {
        let full = top.len() == n;
        if logit == f32::NEG_INFINITY || (full && top.last().is_none_or(|&(_, lowest)| logit <= lowest)) {
            continue;
        }
        let place = top.partition_point(|&(_, higher)| higher >= logit);
        top.insert(place, (token as u32, logit));
        top.truncate(n);
    }
    top
}
