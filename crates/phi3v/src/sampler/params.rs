//! The sampling parameters of an answer and their ranges.

use super::SamplerError;

/// How tokens are chosen. The default is greedy: the highest logit, no penalties.
///
/// ```
/// use phi3v::sampler::SamplingParams;
///
/// let params = SamplingParams { temperature: 0.7, top_p: 0.9, seed: Some(1), ..SamplingParams::default() };
/// assert!(params.validate().is_ok());
/// assert!(SamplingParams { temperature: 3.0, ..params }.validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits before the softmax; 0 chooses the highest logit. 0 to 2.
    pub temperature: f32,
    /// Draw only from the k highest logits; 0 is off.
    pub top_k: usize,
    /// Draw only from the fewest tokens whose probabilities reach this sum. Above 0, at most 1 (off).
    pub top_p: f32,
    /// Draw only from tokens at least this fraction as probable as the most probable one. 0 (off) to 1.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer (Keskar et al. 2019, CTRL,
    /// section 4.1, with the sign rule of transformers). 0.1 to 10; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of every token that is in the answer (OpenAI's API). -2 to 2, 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token once for each time it is in the answer (OpenAI's API). -2 to 2, 0 is off.
    pub frequency_penalty: f32,
    /// The same seed gives the same answer; without a seed, answers differ from run to run.
    pub seed: Option<u64>,
    /// Return logprobs, and those of this many most probable tokens at each position. 0 to 20.
    pub logprobs: Option<usize>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logprobs: None,
        }
    }
}

impl SamplingParams {
    /// The maximum number of alternatives with logprobs, as in OpenAI's API.
    pub const LOGPROBS_MAX: usize = 20;

    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`SamplerError::OutOfRange`] names the first value that is not within its range; NaN never is.
    pub fn validate(&self) -> Result<(), SamplerError> {
        let above_0 = f32::MIN_POSITIVE;
        let checks = [
            ("temperature", self.temperature, 0.0..=2.0, "from 0 to 2"),
            ("top_p", self.top_p, above_0..=1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, 0.0..=1.0, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty, 0.1..=10.0, "from 0.1 to 10"),
            ("presence_penalty", self.presence_penalty, -2.0..=2.0, "from -2 to 2"),
            ("frequency_penalty", self.frequency_penalty, -2.0..=2.0, "from -2 to 2"),
        ];
        for (name, value, allowed, range) in checks {
            if !allowed.contains(&value) {
                // Through the shortest decimal form, so that 2.1f32 reads 2.1 and not 2.0999999046325684.
                let value = value.to_string().parse().unwrap_or(f64::from(value));
                return Err(SamplerError::OutOfRange { name, value, range });
            }
        }
        match self.logprobs {
            Some(top) if top > Self::LOGPROBS_MAX => {
                Err(SamplerError::OutOfRange { name: "logprobs", value: top as f64, range: "from 0 to 20" })
            }
            _ => Ok(()),
        }
    }
}
