//! From logits to a token.
//!
//! The steps, in this order:
//!
//! 1. The distribution for logprobs is computed from the unchanged logits.
//! 2. Penalties change the logits of tokens already seen.
//! 3. At temperature 0 the highest logit wins. Otherwise one token is drawn from `softmax(logits / temperature)`
//!    restricted by top-k, then top-p, then min-p, in the order of transformers.
//!
//! Invariants:
//!
//! - Equal logits go to the lowest id.
//! - The same seed and logits give the same tokens on every machine and thread count (PCG 64, one number per drawn token,
//!   none for greedy ones).
//! - A step allocates only the requested list of alternatives and the growth of its buffers: at the first drawn token,
//!   and with penalties as more tokens are seen.
//! - NaN or plus infinity as a logit is an error and never gives a token.

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
    /// A parameter is out of its range.
    #[error("{name} is {value}, it must be {range}")]
    OutOfRange {
        /// Name of the parameter.
        name: &'static str,
        /// The value that was given.
        value: f64,
        /// The allowed values, in words.
        range: &'static str,
    },
    /// The model gave NaN or infinity.
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
        /// The number of logits.
        vocab_size: usize,
    },
    /// A stop string would stop everything, or there are more stop strings than can be matched.
    #[error("{what} is {value}, it must be {range}")]
    StopString {
        /// Which property is wrong.
        what: String,
        /// The value that was given.
        value: usize,
        /// The allowed values, in words.
        range: String,
    },
}

impl SamplerError {
    /// Returns what the user can do about the error.
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

/// The tokens of a sequence so far, for the penalties on repetition.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// Ids of the prompt; negative ones are image positions.
    pub prompt: &'a [i64],
    /// Ids of the answer so far.
    pub output: &'a [u32],
}

/// A token that was chosen from logits, with its logprobs if requested.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token's id in the vocabulary.
    pub token: u32,
    /// Natural logarithm of its probability before penalties, temperature and restrictions; `None` if logprobs were not
    /// requested.
    pub logprob: Option<f32>,
    /// The most probable tokens with their logprobs, highest first, as many as were requested.
    pub top: Vec<(u32, f32)>,
}

/// Chooses the tokens of one sequence by its parameters; holds the sequence's random number generator.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    random: Pcg64,
    penalties: Penalties,
    candidates: Candidates,
}

impl Sampler {
    /// Returns a sampler at the start of a sequence. Without a seed, the operating system's randomness is used.
    ///
    /// # Errors
    /// [`SamplerError::OutOfRange`] as from [`SamplingParams::validate`].
    pub fn new(params: SamplingParams) -> Result<Self, SamplerError> {
        params.validate()?;
        // The standard library seeds RandomState from the operating system: enough for an unseeded answer.
        let seed = params.seed.unwrap_or_else(|| RandomState::new().hash_one("phi3v sampler"));
        Ok(Self {
            random: Pcg64::seed_from_u64(seed),
            penalties: Penalties::new(&params),
            candidates: Candidates::default(),
            params,
        })
    }

    /// Chooses the next token from `logits` (`[vocab_size]`). A logit of minus infinity forbids its token. The penalties
    /// change the logits of seen tokens.
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
    /// [`SamplerError::BadLogit`] for NaN or plus infinity, [`SamplerError::NothingAllowed`] if every logit is minus infinity.
    pub fn sample(&mut self, logits: &mut [f32], history: History<'_>) -> Result<Sampled, SamplerError> {
        self.sample_with(logits, history, |_| Ok(()))
    }

    /// Like [`Sampler::sample`], with a restriction between the penalties and the choice: `restrict` sets the logits of
    /// forbidden tokens to minus infinity. Logprobs stay those of the unrestricted distribution.
    ///
    /// # Errors
    /// Those of [`Sampler::sample`] and of `restrict`.
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

    /// Consumes the random number that a forced token would have taken if drawn, so that later tokens are drawn the same way.
    pub fn skip(&mut self) {
        if self.params.temperature != 0.0 {
            uniform(&mut self.random);
        }
    }

    /// Returns a forced token, with its logprobs by the `logits` (`[vocab_size]`) at its position.
    ///
    /// # Errors
    /// [`SamplerError::BadLogit`] for NaN or plus infinity.
    pub fn forced(&self, token: u32, logits: &[f32]) -> Result<Sampled, SamplerError> {
        check_logits(logits)?;
        let logprobs = self.params.logprobs.map(|top| LogProbs::of(logits, top));
        let logprob = logprobs.as_ref().map(|logprobs| logprobs.of_logit(logits[token as usize]));
        Ok(Sampled { token, logprob, top: logprobs.map_or_else(Vec::new, |logprobs| logprobs.top) })
    }

    /// Returns whether logprobs are requested.
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

/// Returns a number in [0, 1) from the upper 53 bits, as many as an `f64` holds exactly.
fn uniform(random: &mut Pcg64) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Refuses logits for which no softmax is defined.
pub(crate) fn check_logits(logits: &[f32]) -> Result<(), SamplerError> {
    match logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        Some(token) => Err(SamplerError::BadLogit { token: token as u32, value: logits[token] }),
        None => Ok(()),
    }
}

/// Returns the highest logit and the lowest id that has it.
fn argmax(logits: &[f32]) -> Result<(u32, f32), SamplerError> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY {
        return Err(SamplerError::NothingAllowed { vocab_size: logits.len() });
    }
    let token = logits.iter().position(|&logit| logit == highest).expect("the maximum is one of the logits");
    Ok((token as u32, highest))
}
