//! From logits to a token.
//!
//! In this order: the distribution for logprobs is taken from the logits as they came; penalties change the logits of
//! tokens already seen; then the highest logit wins (temperature 0) or one token is drawn from
//! `softmax(logits / temperature)` restricted by top-k, then top-p, then min-p, as transformers orders them.
//!
//! Invariants: equal logits go to the lowest id; a seed and the same logits give the same tokens on every machine and
//! thread count (PCG 64, one number per drawn token, none for greedy ones); a step allocates the list of alternatives that
//! was asked for, and else only what its buffers grow by: at the first drawn token, and with penalties as more tokens are
//! seen; logits that are no numbers are an error and never a token.

mod candidates;
mod logprobs;
mod params;
mod penalties;

pub use params::SamplingParams;

use std::hash::{BuildHasher, RandomState};

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

use candidates::Candidates;
pub(crate) use logprobs::LogProbs;
use penalties::Penalties;

/// Why no token was chosen, or why sampling parameters or stop strings are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// A parameter out of its range.
    #[error("{name} is {value}, it must be {range}")]
    OutOfRange {
        /// Name of the parameter.
        name: &'static str,
        /// The value that was given.
        value: f64,
        /// The values allowed, in words.
        range: &'static str,
    },
    /// The model gave something that is not a number.
    #[error("the model gave {value} as the logit of token {token}, logits must be numbers below infinity")]
    BadLogit {
        /// The first such token.
        token: u32,
        /// Its value: NaN or infinity.
        value: f32,
    },
    /// Every token is forbidden.
    #[error("no token of {vocab_size} is allowed here")]
    NothingAllowed {
        /// How many logits there were.
        vocab_size: usize,
    },
    /// A stop string that would stop everything, or more of them than can be watched for.
    #[error("{what} is {value}, it must be {range}")]
    StopString {
        /// Which property is wrong.
        what: String,
        /// The value that was given.
        value: usize,
        /// The values allowed, in words.
        range: String,
    },
}

impl SamplerError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::OutOfRange { name, .. } => format!("leave {name} out to use its default"),
            Self::BadLogit { .. } => {
                "check the checkpoint's files and the copies quantized from them, or compute in f32 if they are right".to_owned()
            }
            Self::NothingAllowed { .. } => "loosen the grammar or schema of the answer".to_owned(),
            Self::StopString { .. } => "give fewer or shorter stop strings, none of them empty".to_owned(),
        })
    }
}

/// What has been read and written so far in a sequence, for the penalties on repetition.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// Ids of the prompt; negative ones are image positions.
    pub prompt: &'a [i64],
    /// Ids of the answer so far.
    pub output: &'a [u32],
}

/// A token that was chosen from logits, with its logprobs where they were asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token's id in the vocabulary.
    pub token: u32,
    /// Natural logarithm of its probability before penalties, temperature and restrictions; `None` when logprobs were
    /// not asked for.
    pub logprob: Option<f32>,
    /// The most probable tokens with their logprobs, highest first, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Chooses the tokens of one sequence by its parameters; it holds the sequence's random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    random: Pcg64,
    penalties: Penalties,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler at the start of a sequence. Without a seed the operating system's randomness is used.
    ///
    /// # Errors
    /// [`SamplerError::OutOfRange`] as from [`SamplingParams::validate`].
    pub fn new(params: SamplingParams) -> Result<Self, SamplerError> {
        params.validate()?;
        // The standard library seeds every RandomState from the operating system: enough for an unseeded answer.
        let seed = params.seed.unwrap_or_else(|| RandomState::new().hash_one("phi3v sampler"));
        Ok(Self {
            random: Pcg64::seed_from_u64(seed),
            penalties: Penalties::new(&params),
            candidates: Candidates::default(),
            params,
        })
    }

    /// Chooses the next token from `logits` (`[vocab_size]`). A logit of minus infinity forbids its token. The logits
    /// of seen tokens are changed by the penalties.
    ///
    /// ```
    /// use phi3v::sampler::{History, Sampler, SamplingParams};
    ///
    /// let mut sampler = Sampler::new(SamplingParams { logprobs: Some(1), ..SamplingParams::default() })?;
    /// let sampled = sampler.sample(&mut [0.5, 2.0, -1.0], History { prompt: &[], output: &[] })?;
    /// assert_eq!((sampled.token, sampled.top[0].0), (1, 1));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SamplerError::BadLogit`] for NaN or plus infinity, [`SamplerError::NothingAllowed`] when every logit is
    /// minus infinity.
    pub fn sample(&mut self, logits: &mut [f32], history: History<'_>) -> Result<Sampled, SamplerError> {
        self.sample_with(logits, history, |_| Ok(()))
    }

    /// As [`Sampler::sample`], with a restriction between the penalties and the choice: `restrict` sets the logits of
    /// forbidden tokens to minus infinity. Logprobs stay those of the unrestricted distribution.
    ///
    /// # Errors
    /// As [`Sampler::sample`], and those of `restrict`.
    pub fn sample_with<E: From<SamplerError>>(
        &mut self,
        logits: &mut [f32],
        history: History<'_>,
        restrict: impl FnOnce(&mut [f32]) -> Result<(), E>,
    ) -> Result<Sampled, E> {
        check_logits(logits)?;
        let logprobs = self.params.logprobs.map(|top| LogProbs::of(logits, top));
        self.penalties.apply(logits, history);
        restrict(logits)?;
        let token = self.choose(logits)?;
        let original = self.penalties.original(token).unwrap_or(logits[token as usize]);
        Ok(match logprobs {
            Some(logprobs) => {
                Sampled { token, logprob: Some(logprobs.of_logit(original)), top: logprobs.top }
            }
            None => Sampled { token, logprob: None, top: Vec::new() },
        })
    }

    /// Takes the random number that a token of no choice would have taken, so that those after it are drawn alike.
    pub fn skip(&mut self) {
        if self.params.temperature != 0.0 {
            uniform(&mut self.random);
        }
    }

    /// A token of no choice, with its logprobs by the `logits` (`[vocab_size]`) of its place.
    ///
    /// # Errors
    /// [`SamplerError::BadLogit`] for NaN or plus infinity.
    pub fn forced(&self, token: u32, logits: &[f32]) -> Result<Sampled, SamplerError> {
        check_logits(logits)?;
        let logprobs = self.params.logprobs.map(|top| LogProbs::of(logits, top));
        let logprob = logprobs.as_ref().map(|logprobs| logprobs.of_logit(logits[token as usize]));
        Ok(Sampled { token, logprob, top: logprobs.map_or_else(Vec::new, |logprobs| logprobs.top) })
    }

    /// Whether logprobs are asked for.
    #[must_use]
    pub fn tells_logprobs(&self) -> bool {
        self.params.logprobs.is_some()
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, SamplerError> {
        let (token, highest) = argmax(logits)?;
        if self.params.temperature == 0.0 {
            return Ok(token);
        }
        Ok(self.candidates.draw(logits, highest, &self.params, uniform(&mut self.random)))
    }
}

/// A number in [0, 1): the upper 53 bits, as many as an `f64` holds exactly.
fn uniform(random: &mut Pcg64) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Refuses logits that no softmax is defined on.
pub(crate) fn check_logits(logits: &[f32]) -> Result<(), SamplerError> {
    match logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        Some(token) => Err(SamplerError::BadLogit { token: token as u32, value: logits[token] }),
        None => Ok(()),
    }
}

/// The highest logit and the lowest id that has it.
fn argmax(logits: &[f32]) -> Result<(u32, f32), SamplerError> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY {
        return Err(SamplerError::NothingAllowed { vocab_size: logits.len() });
    }
    let token = logits.iter().position(|&logit| logit == highest).expect("the maximum is one of the logits");
    Ok((token as u32, highest))
}
