//! How far one variant of a model deviates from another: KL divergence, agreement, perplexity.
//!
//! The reference answers greedily. The candidate is then fed the same tokens, and its logits are recorded at every
//! position. So every position compares two distributions after the same words, and one early difference does not spoil
//! the rest. The measures are those of the literature on quantization (Dettmers & Zettlemoyer 2023):
//!
//! - the divergence `KL(reference || candidate)` in nats,
//! - how often the likeliest token is the same, and the first position where it is not, and
//! - the perplexity that each model assigns to the reference's answer.

use crate::Result;
use crate::image::ImageInputs;
use crate::model::{Cache, Chunk, Phi3V, RopeFactors, Segment};
use phi3v_kernels::{Backend, KV_BLOCK_TOKENS};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A prompt as ids, with its images.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Token ids, `-i` at the rows of image `i`, counted from 1.
    pub input_ids: Vec<i64>,
    /// The images, in the order of their numbers.
    pub images: Vec<Arc<ImageInputs>>,
}

/// An answer and the logits from which it was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The answer's tokens, including the one that ended it.
    pub tokens: Vec<u32>,
    /// Logits, `[vocab_size]`, from which each token was chosen.
    pub logits: Vec<Vec<f32>>,
    /// The factors that rotated the prompt and the answer.
    pub factors: RopeFactors,
}

/// How far a candidate deviates from the reference over one or more answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Number of compared positions.
    pub positions: usize,
    /// Sum of the divergences, in nats.
    kl_sum: f64,
    /// Largest divergence at a position, in nats.
    pub kl_max: f64,
    /// Number of positions with the same likeliest token.
    pub agreed: usize,
    /// First differing position of the first answer that differs, counted within its answer.
    pub first_divergence: Option<usize>,
    surprise: [f64; 2],
}

impl Comparison {
    /// Returns the mean divergence `KL(reference || candidate)`, in nats.
    #[must_use]
    pub fn kl_mean(&self) -> f64 {
        self.kl_sum / self.positions.max(1) as f64
    }

    /// Returns the fraction of positions with the same likeliest token.
    #[must_use]
    pub fn top1_agreement(&self) -> f64 {
        self.agreed as f64 / self.positions.max(1) as f64
    }

    /// Returns the perplexity of the reference's answers under the reference and under the candidate.
    #[must_use]
    pub fn perplexity(&self) -> [f64; 2] {
        self.surprise.map(|sum| (sum / self.positions.max(1) as f64).exp())
    }

    /// Adds an answer of the reference and the logits that the candidate gave for the same tokens.
    ///
    /// # Panics
    /// If the number of sets of logits is not the number of tokens.
    pub fn add(&mut self, reference: &Answer, candidate: &[Vec<f32>]) {
        assert_eq!(reference.logits.len(), candidate.len(), "logits for each token");
        for (i, (p, q)) in reference.logits.iter().zip(candidate).enumerate() {
            let kl = divergence(p, q);
            self.kl_sum += kl;
            if kl.is_nan() || kl > self.kl_max {
                self.kl_max = kl;
            }
            if argmax(p) == argmax(q) {
                self.agreed += 1;
            } else {
                self.first_divergence.get_or_insert(i);
            }
            let token = reference.tokens[i] as usize;
            for (surprise, logits) in self.surprise.iter_mut().zip([p, q]) {
                *surprise += log_sum_exp(logits) - f64::from(logits[token]);
            }
            self.positions += 1;
        }
    }
}

fn argmax(logits: &[f32]) -> usize {
    // the first of equals, as in greedy sampling
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    let sum: f64 = logits.iter().map(|&v| f64::from(v - largest).exp()).sum();
    f64::from(largest) + sum.ln()
}

/// `Σ p ln(p / q)`
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_sum, q_sum) = (log_sum_exp(p), log_sum_exp(q));
    let terms = p.iter().zip(q).map(|(&p, &q)| {
        let (p, q) = (f64::from(p) - p_sum, f64::from(q) - q_sum);
        p.exp() * (p - q)
    });
    // rounding may take the sum for two equal distributions below zero; `max` would also turn NaN into 0
    let sum: f64 = terms.sum();
    if sum < 0.0 { 0.0 } else { sum }
}

/// A model that computes logits, one sample at a time.
pub struct Subject<'a, B: Backend> {
    model: &'a Phi3V<B>,
    cache: Cache<B>,
    blocks: Vec<u32>,
}

impl<B: Backend> fmt::Debug for Subject<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("model", self.model).finish_non_exhaustive()
    }
}

impl<'a, B: Backend> Subject<'a, B> {
    /// Returns a subject for samples and answers with at most `tokens` tokens together.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn new(model: &'a Phi3V<B>, tokens: usize) -> Result<Self> {
        let blocks = tokens.div_ceil(KV_BLOCK_TOKENS);
        let mut cache = model.cache(blocks)?;
        model.grow_cache(&mut cache, blocks)?;
        Ok(Self { model, cache, blocks: (0..blocks as u32).collect() })
    }

    /// Returns the greedy answer, of at most `tokens_max` tokens; it ends after any of `stop_ids`. The factors are those of the
    /// longest possible answer.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn answer(&mut self, sample: &Sample, tokens_max: usize, stop_ids: &[u32]) -> Result<Answer> {
        let factors = self.model.rope().factors_for(sample.input_ids.len() + tokens_max);
        let mut answer = Answer { tokens: Vec::new(), logits: Vec::new(), factors };
        let mut logits = self.prompt(sample, factors)?;
        while answer.tokens.len() < tokens_max {
            let token = argmax(&logits) as u32;
            answer.tokens.push(token);
            answer.logits.push(logits);
            if stop_ids.contains(&token) || answer.tokens.len() == tokens_max {
                break;
            }
            logits = self.next(sample, &answer.tokens, factors)?;
        }
        Ok(answer)
    }

    /// Returns the logits from which each of `tokens`, an answer to `sample`, would have been chosen, if `factors` rotate both.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn follow(&mut self, sample: &Sample, tokens: &[u32], factors: RopeFactors) -> Result<Vec<Vec<f32>>> {
        let mut logits = vec![self.prompt(sample, factors)?];
        for said in 1..tokens.len() {
            logits.push(self.next(sample, &tokens[..said], factors)?);
        }
        Ok(logits)
    }

    /// Runs the prompt.
    fn prompt(&mut self, sample: &Sample, factors: RopeFactors) -> Result<Vec<f32>> {
        let embeddings =
            sample.images.iter().map(|image| self.model.embed_image(image)).collect::<Result<Vec<_>>>()?;
        let ids: Vec<u32> = sample.input_ids.iter().map(|&id| u32::try_from(id).unwrap_or(0)).collect();
        let segments = Segment::of_prompt(&sample.input_ids, &ids, &embeddings);
        self.forward(&segments, 0, factors)
    }

    /// Runs the last of the tokens so far.
    fn next(&mut self, sample: &Sample, said: &[u32], factors: RopeFactors) -> Result<Vec<f32>> {
        let past = sample.input_ids.len() + said.len() - 1;
        let last = &said[said.len() - 1..];
        self.forward(&[Segment::Tokens(last)], past, factors)
    }

    fn forward(
        &mut self,
        segments: &[Segment<'_, B::Tensor>],
        past: usize,
        factors: RopeFactors,
    ) -> Result<Vec<f32>> {
        let batch = [Chunk { segments, past, blocks: &self.blocks, factors, logits: 1 }];
        let mut logits = Vec::new();
        self.model.forward(&batch, &mut self.cache, &mut logits, &mut |_| ControlFlow::Continue(()))?;
        Ok(logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tokens: &[u32], logits: &[&[f32]]) -> Answer {
        let logits = logits.iter().map(|logits| logits.to_vec()).collect();
        Answer { tokens: tokens.to_vec(), logits, factors: RopeFactors::Short }
    }

    #[test]
    fn a_model_is_no_distance_from_itself() {
        let reference = answer(&[1, 0], &[&[0.0, 3.0, 1.0], &[2.0, 1.0, -5.0]]);
        let mut comparison = Comparison::default();
        comparison.add(&reference, &reference.logits);
        assert_eq!((comparison.kl_mean(), comparison.kl_max), (0.0, 0.0));
        assert_eq!((comparison.top1_agreement(), comparison.first_divergence), (1.0, None));
        let [a, b] = comparison.perplexity();
        assert_eq!(a, b);
    }

    #[test]
    fn a_model_that_gives_no_numbers_is_not_near() {
        let reference = answer(&[1], &[&[0.0, 3.0]]);
        let mut comparison = Comparison::default();
        comparison.add(&reference, &[vec![0.0, f32::NAN]]);
        assert!(comparison.kl_mean().is_nan() && comparison.kl_max.is_nan());
    }

    #[test]
    fn measures_are_those_of_the_textbook() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 - ln(3)/2
        let reference = answer(&[0], &[&[0.0, 0.0]]);
        let mut comparison = Comparison::default();
        comparison.add(&reference, &[vec![0.0, 3f32.ln()]]);
        assert!((comparison.kl_mean() - (2f64.ln() - 3f64.ln() / 2.0)).abs() < 1e-6);
        assert_eq!((comparison.agreed, comparison.first_divergence), (0, Some(0)));
        let [of_reference, of_candidate] = comparison.perplexity();
        assert!((of_reference - 2.0).abs() < 1e-6 && (of_candidate - 4.0).abs() < 1e-6);
    }
}
