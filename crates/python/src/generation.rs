//! How an answer is made, by the names of the command line.

use phi3v::GenerationOptions;
use phi3v::constraint::{ConstraintError, Grammar};
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
    schema: Option<String>,
    /// The regular expression that the answer matches as a whole.
    #[pyo3(default)]
    regex: Option<String>,
    /// The texts of which the answer is one.
    #[pyo3(default)]
    choices: Option<Vec<String>>,
}

impl Generation {
    /// The form that the answer is held to, if it has one.
    ///
    /// # Errors
    /// The schema is no JSON, or more than one form is asked for.
    pub(crate) fn form(&self) -> Result<Option<Grammar>, ConstraintError> {
        let schema =
            self.schema.as_deref().map(serde_json::from_str).transpose().map_err(|error| {
                ConstraintError::Invalid { kind: "JSON schema", reason: error.to_string() }
            })?;
        let regex = self.regex.clone().map(Grammar::Regex);
        let choices = self.choices.clone().map(Grammar::Choices);
        let forms = [schema.map(Grammar::JsonSchema), regex, choices];
        let mut forms = forms.into_iter().flatten();
        let (form, other) = (forms.next(), forms.next());
        if other.is_some() {
            let reason = "only one of schema, regex and choices can be given".to_owned();
            return Err(ConstraintError::Invalid { kind: "form", reason });
        }
        Ok(form)
    }

    /// What tells its form from every other.
    pub(crate) fn form_text(&self) -> String {
        format!("{:?}", (&self.schema, &self.regex, &self.choices))
    }

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
