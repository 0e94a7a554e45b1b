//! Drawing one token from a restricted softmax, without sorting the vocabulary.

use std::cmp::Ordering;

use super::SamplingParams;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    /// `(logit - highest) / temperature`, so the best has 0.
    scaled: f32,
    /// `exp(scaled)`, equal on every system: the probability up to a common factor. Computed after top-k has been applied.
    weight: f32,
}

impl Candidate {
    /// Orders by score, highest first, and equal scores by id.
    fn best_first(a: &Self, b: &Self) -> Ordering {
        b.scaled.total_cmp(&a.scaled).then(a.token.cmp(&b.token))
    }
}

/// The buffer of candidates, kept between steps.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidates {
    candidates: Vec<Candidate>,
}

impl Candidates {
    /// Draws a token by `uniform` from [0, 1). `highest` is the highest of `logits` (`[vocab_size]`) and finite.
    pub(super) fn draw(
        &mut self,
        logits: &[f32],
        highest: f32,
        params: &SamplingParams,
        uniform: f64,
    ) -> u32 {
        self.fill(logits, highest, params.temperature);
        if params.top_k > 0 {
            self.keep_top_k(params.top_k);
        }
        for candidate in &mut self.candidates {
            candidate.weight = libm::expf(candidate.scaled);
        }
        if params.top_p < 1.0 {
            self.keep_top_p(params.top_p);
        }
        if params.min_p > 0.0 {
            self.candidates.retain(|candidate| candidate.weight >= params.min_p);
        }
        self.pick(uniform)
    }

    fn fill(&mut self, logits: &[f32], highest: f32, temperature: f32) {
        self.candidates.clear();
        let allowed = logits.iter().enumerate().filter(|&(_, &logit)| logit > f32::NEG_INFINITY);
        self.candidates.extend(allowed.map(|(token, &logit)| {
            let scaled = (logit - highest) / temperature;
            Candidate { token: token as u32, scaled, weight: 0.0 }
        }));
    }

    /// Keeps the `k` best, in order.
    fn keep_top_k(&mut self, k: usize) {
        if k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, Candidate::best_first);
            self.candidates.truncate(k);
        }
        self.candidates.sort_unstable_by(Candidate::best_first);
    }

    /// Keeps the best candidates, in order, up to the first whose cumulative weight reaches `top_p` of the total. Grows a
    /// sorted front instead of sorting everything: a confident model needs only the first few of 32,064.
    fn keep_top_p(&mut self, top_p: f32) {
        let target = f64::from(top_p) * total(&self.candidates);
        let len = self.candidates.len();
        let (mut sorted, mut front, mut reached) = (0, FRONT.min(len), 0.0);
        while sorted < len {
            let rest = &mut self.candidates[sorted..];
            if front < len {
                rest.select_nth_unstable_by(front - sorted - 1, Candidate::best_first);
            }
            rest[..front - sorted].sort_unstable_by(Candidate::best_first);
            for (i, candidate) in self.candidates[sorted..front].iter().enumerate() {
                reached += f64::from(candidate.weight);
                if reached >= target {
                    self.candidates.truncate(sorted + i + 1);
                    return;
                }
            }
            sorted = front;
            front = (front * FRONT_GROWTH).min(len);
        }
    }

    /// Returns the candidate whose share of the weight contains `uniform`.
    fn pick(&self, uniform: f64) -> u32 {
        let target = uniform * total(&self.candidates);
        let mut reached = 0.0;
        let mut last = None;
        for candidate in self.candidates.iter().filter(|candidate| candidate.weight > 0.0) {
            reached += f64::from(candidate.weight);
            last = Some(candidate.token);
            if reached > target {
                break;
            }
        }
        last.expect("the highest logit always stays and has weight 1")
    }
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

/// Number of candidates sorted at first for top-p, and its growth: 64, 256, 1024, 4096, 16384 and then all of 32,064.
const FRONT: usize = 64;
const FRONT_GROWTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    /// The definition: sort everything, cut, draw.
    fn by_definition(logits: &[f32], params: &SamplingParams, uniform: f64) -> u32 {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weigh = |(token, &logit): (usize, &f32)| {
            let scaled = (logit - highest) / params.temperature;
            Candidate { token: token as u32, scaled, weight: libm::expf(scaled) }
        };
        let mut all: Vec<Candidate> = logits.iter().enumerate().map(weigh).collect();
        if params.top_k > 0 || params.top_p < 1.0 {
            all.sort_by(Candidate::best_first);
        }
        if params.top_k > 0 {
            all.truncate(params.top_k);
        }
        if params.top_p < 1.0 {
            let target = f64::from(params.top_p) * total(&all);
            let mut reached = 0.0;
            let enough = all.iter().position(|candidate| {
                reached += f64::from(candidate.weight);
                reached >= target
            });
            all.truncate(enough.map_or(all.len(), |i| i + 1));
        }
        all.retain(|candidate| candidate.weight > 0.0 && candidate.weight >= params.min_p);
        let target = uniform * total(&all);
        let mut reached = 0.0;
        let drawn = all.iter().find(|candidate| {
            reached += f64::from(candidate.weight);
            reached > target
        });
        drawn.unwrap_or(&all[all.len() - 1]).token
    }

    #[test]
    fn drawing_is_by_definition() {
        let mut random = Pcg64::seed_from_u64(1);
        let mut candidates = Candidates::default();
        for case in 0..400 {
            let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let vocab_size = [1, 2, 7, 64, 65, 600, 5000][case % 7];
            // Flat and peaked rows, with ties (whole numbers) and forbidden tokens.
            let spread = [0.1, 3.0, 30.0][case % 3];
            let logits: Vec<f32> = (0..vocab_size)
                .map(|i| match (case % 4, i % 5) {
                    (1, _) => (uniform() * spread).round() as f32,
                    (2, 1) => f32::NEG_INFINITY,
                    _ => (uniform() * spread) as f32,
                })
                .collect();
            let params = SamplingParams {
                temperature: [0.05, 0.7, 1.0, 2.0][(case / 2) % 4],
                top_k: [0, 0, 1, 5, 64, 10_000][(case / 3) % 6],
                top_p: [1.0, 0.999, 0.9, 0.3, 1e-6][(case / 5) % 5],
                min_p: [0.0, 0.0, 0.05, 0.9, 1.0][(case / 7) % 5],
                ..SamplingParams::default()
            };
            let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for uniform in [0.0, uniform(), uniform(), uniform(), 1.0 - f64::EPSILON] {
                assert_eq!(
                    candidates.draw(&logits, highest, &params, uniform),
                    by_definition(&logits, &params, uniform),
                    "case {case}: {params:?}"
                );
            }
        }
    }
}
