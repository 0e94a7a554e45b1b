//! How an answer is made, by the names of the command line.

use phi3v::GenerationOptions;
use phi3v::sampler::SamplingParams;
use pyo3::prelude::*;

/// The options of an answer; what is not given is the command line's default.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Generation {
    #[pyo3(default)]
    max_new_tokens: Option<usize>,
    stop: Vec<String>,
    #[pyo3(default)]
    temperature: Option<f32>,
    #[pyo3(default)]
    top_k: Option<usize>,
    #[pyo3(default)]
    top_p: Option<f32>,
    #[pyo3(default)]
    min_p: Option<f32>,
    #[pyo3(default)]
    repetition_penalty: Option<f32>,
    #[pyo3(default)]
    presence_penalty: Option<f32>,
    #[pyo3(default)]
    frequency_penalty: Option<f32>,
    #[pyo3(default)]
    seed: Option<u64>,
    #[pyo3(default)]
    logprobs: Option<usize>,
    /// The JSON schema that the answer is held to, as JSON.
    #[pyo3(default)]
    pub(crate) schema: Option<String>,
}

impl Generation {
    /// The library's words for it. Each token's own logarithm is always wanted: words are told with their probability.
    pub(crate) fn options(&self) -> GenerationOptions {
        let default = SamplingParams::default();
        let sampling = SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            seed: self.seed,
            logprobs: Some(self.logprobs.unwrap_or(0)),
        };
        GenerationOptions { sampling, max_new_tokens: self.max_new_tokens, stop: self.stop.clone() }
    }
}
