//! Calibration: a temperature for each question, so that choices called 90 % probable are right nine times out of ten.
//!
//! Each question has one number, fitted to labelled examples by maximum likelihood, as in "On Calibration of Modern Neural
//! Networks" (Guo, Pleiss, Sun & Weinberger 2017). It never changes which choice is the likeliest.

use super::softmax;
use serde::{Deserialize, Serialize};

/// Lowest temperature that is fitted: anything lower, from few examples, says only that all of them were right.
pub const TEMPERATURE_MIN: f64 = 0.05;
/// Highest temperature that is fitted: above it, choices are practically equal.
pub const TEMPERATURE_MAX: f64 = 20.0;

/// Number of bins of the calibration error, of equal width, as in Guo et al.
const BINS: usize = 15;

/// The scores of a question's choices, and the right choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Natural logarithms of the choices' probabilities.
    pub log_probs: Vec<f64>,
    /// Index of the right choice, less than the number of choices.
    pub right: usize,
}

/// How well probabilities match the right answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Mean negative log likelihood of the right choice, in nats: 0 is best.
    pub nll: f64,
    /// Expected calibration error, from 0 to 1: the distance between the likeliest choice's probability and how often it is
    /// right, averaged over 15 bins of equal width.
    pub ece: f64,
    /// How often the likeliest choice is right, from 0 to 1.
    pub accuracy: f64,
}

/// Returns how well the probabilities at `temperature`, which must be above 0, fit `examples`.
///
/// # Panics
/// If an example has no choice [`right`](Labelled::right).
#[must_use]
pub fn quality(examples: &[Labelled], temperature: f64) -> Quality {
    let (mut nll, mut right) = (0.0, 0.0);
    let mut bins = [Bin::default(); BINS];
    for example in examples {
        let probabilities = softmax(&example.log_probs, temperature);
        let best = (1..probabilities.len())
            .fold(0, |best, i| if example.log_probs[i] > example.log_probs[best] { i } else { best });
        let is_right = f64::from(u8::from(best == example.right));
        nll -= log_probability(example, temperature);
        right += is_right;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 15")]
        let bin = &mut bins[((probabilities[best] * BINS as f64) as usize).min(BINS - 1)];
        bin.right += is_right;
        bin.claimed += probabilities[best];
    }
    let count = examples.len().max(1) as f64;
    let off: f64 = bins.iter().map(|bin| (bin.right - bin.claimed).abs()).sum();
    Quality { nll: nll / count, ece: off / count, accuracy: right / count }
}

/// Examples whose likeliest choices have similar probabilities.
#[derive(Clone, Copy, Default)]
struct Bin {
    /// Number of right examples.
    right: f64,
    /// The sum of the probabilities.
    claimed: f64,
}

/// Returns the logarithm of the right choice's probability among the choices. It is exact even if the probability itself
/// underflows.
fn log_probability(Labelled { log_probs, right }: &Labelled, temperature: f64) -> f64 {
    let highest = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return -(log_probs.len() as f64).ln();
    }
    let sum: f64 = log_probs.iter().map(|log| ((log - highest) / temperature).exp()).sum();
    (log_probs[*right] - highest) / temperature - sum.ln()
}

/// Returns the temperature at which `examples` are likeliest, between [`TEMPERATURE_MIN`] and [`TEMPERATURE_MAX`]. Uses
/// golden-section search over the logarithm of the temperature, along which the likelihood has a single maximum.
///
/// ```
/// use phi3v::decide::{Labelled, fit};
///
/// // 98 % sure each time, but right three times out of four
/// let example = |right| Labelled { log_probs: vec![4.0, 0.0], right };
/// let temperature = fit(&[example(0), example(0), example(1), example(0)]);
/// let probability = 1.0 / (1.0 + (-4.0 / temperature).exp());
/// assert!((probability - 0.75).abs() < 1e-6);
/// ```
///
/// # Panics
/// If an example has no choice [`right`](Labelled::right).
#[must_use]
pub fn fit(examples: &[Labelled]) -> f64 {
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let nll = |log_temperature: f64| -> f64 {
        examples.iter().map(|example| -log_probability(example, log_temperature.exp())).sum()
    };
    let (mut low, mut high) = (TEMPERATURE_MIN.ln(), TEMPERATURE_MAX.ln());
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let (mut at_left, mut at_right) = (nll(left), nll(right));
    while high - low > 1e-9 {
        // of equal values, keep the side of 1: uninformative examples should change nothing
        if at_left < at_right || (at_left == at_right && left.abs() < right.abs()) {
            (high, right, at_right) = (right, left, at_left);
            left = high - golden * (high - low);
            at_left = nll(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + golden * (high - low);
            at_right = nll(right);
        }
    }
    ((low + high) / 2.0).exp()
}

/// The temperature fitted for one question, the number of examples, and the improvement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// The question, as it is asked.
    pub question: String,
    /// Its choices, in order.
    pub choices: Vec<String>,
    /// The temperature at which its choices are compared.
    pub temperature: f64,
    /// Number of examples it was fitted on.
    pub examples: usize,
    /// The quality at temperature 1 on the examples.
    pub before: Quality,
    /// The quality at the fitted temperature, on the same examples.
    pub after: Quality,
}

impl Fitted {
    /// Fits the temperature of a question with these `choices` to `examples`.
    ///
    /// # Panics
    /// If an example has no choice [`right`](Labelled::right).
    #[must_use]
    pub fn new(question: String, choices: Vec<String>, examples: &[Labelled]) -> Self {
        let temperature = fit(examples);
        let (before, after) = (quality(examples, 1.0), quality(examples, temperature));
        Self { question, choices, temperature, examples: examples.len(), before, after }
    }
}

/// The temperatures of some questions for one model, stored as a small JSON file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Version of the format, 1.
    pub phi3v_calibration: u32,
    /// The model, with its weight format, that gave the scores. The temperatures are meaningless for any other.
    pub model: String,
    /// The fitted temperature of each question.
    pub questions: Vec<Fitted>,
}

/// Why a calibration cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// The file is not a calibration.
    #[error("this is no calibration: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// The calibration was fitted to another model.
    #[error("the calibration is for {fitted}, and the model is {model}")]
    OtherModel {
        /// The model that it was fitted to.
        fitted: String,
        /// The model that answers.
        model: String,
    },
    /// The calibration does not have this question.
    #[error("the calibration has no question {question:?} with the choices {}", .choices.join(","))]
    UnknownQuestion {
        /// The question that was asked.
        question: String,
        /// The choices that it was asked with.
        choices: Vec<String>,
    },
}

impl CalibrationError {
    /// Returns what the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Malformed { .. } => "give the file that a calibration was written to".to_owned(),
            Self::OtherModel { .. } => {
                "calibrate this model in this format, or decide without a calibration".to_owned()
            }
            Self::UnknownQuestion { .. } => {
                "ask it as it was calibrated, word for word and with the same choices, or calibrate it too"
                    .to_owned()
            }
        })
    }
}

impl Calibration {
    /// The format version that is written and read.
    pub const VERSION: u32 = 1;
    /// Maximum size of the file, in bytes.
    pub const BYTES_MAX: usize = 16 << 20;

    /// Makes a calibration of questions for `model`.
    #[must_use]
    pub fn new(model: String, questions: Vec<Fitted>) -> Self {
        Self { phi3v_calibration: Self::VERSION, model, questions }
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`CalibrationError::Malformed`].
    pub fn from_json(json: &[u8]) -> Result<Self, CalibrationError> {
        let malformed = |reason| CalibrationError::Malformed { reason };
        if json.len() > Self::BYTES_MAX {
            return Err(malformed(format!("it has {} bytes, the limit is {}", json.len(), Self::BYTES_MAX)));
        }
        let read: Self = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        if read.phi3v_calibration != Self::VERSION {
            let found = read.phi3v_calibration;
            return Err(malformed(format!("its version is {found}, {} is known", Self::VERSION)));
        }
        let range = TEMPERATURE_MIN..=TEMPERATURE_MAX;
        let wrong = read.questions.iter().map(|fitted| fitted.temperature).find(|t| !range.contains(t));
        match wrong {
            Some(wrong) => Err(malformed(format!(
                "a temperature is {wrong:?}, it must be {TEMPERATURE_MIN} to {TEMPERATURE_MAX}"
            ))),
            None => Ok(read),
        }
    }

    /// Returns the calibration as the text of its file.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers are JSON") + "\n"
    }

    /// Checks that the calibration is for `model`.
    ///
    /// # Errors
    /// [`CalibrationError::OtherModel`].
    pub fn check_model(&self, model: &str) -> Result<(), CalibrationError> {
        if self.model == model {
            return Ok(());
        }
        Err(CalibrationError::OtherModel { fitted: self.model.clone(), model: model.to_owned() })
    }

    /// Returns the temperatures of several questions for `model`. Each question is a text with its choices in any order.
    ///
    /// # Errors
    /// [`CalibrationError::OtherModel`], or [`CalibrationError::UnknownQuestion`] for the first unknown question.
    pub fn temperatures<'a>(
        &self,
        model: &str,
        questions: impl IntoIterator<Item = (&'a str, &'a [String])>,
    ) -> Result<Vec<f64>, CalibrationError> {
        self.check_model(model)?;
        questions.into_iter().map(|(question, choices)| self.temperature(question, choices)).collect()
    }

    /// Returns the temperature of a question with these choices, in any order.
    ///
    /// # Errors
    /// [`CalibrationError::UnknownQuestion`].
    pub fn temperature(&self, question: &str, choices: &[String]) -> Result<f64, CalibrationError> {
        let same = |fitted: &&Fitted| {
            fitted.question == question
                && fitted.choices.len() == choices.len()
                && choices.iter().all(|choice| fitted.choices.contains(choice))
        };
        let fitted = self.questions.iter().find(same);
        fitted.map(|fitted| fitted.temperature).ok_or_else(|| CalibrationError::UnknownQuestion {
            question: question.to_owned(),
            choices: choices.to_vec(),
        })
    }
}
