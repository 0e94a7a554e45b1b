//! Scoring instead of generating: the probability of each of several given answers to each of several prompts.
//!
//! Prompts with a common beginning take turns in the blocks of one sequence. After the shared beginning, each prompt
//! overwrites the keys and values of the previous one. Answers do the same. Their prefixes run in the order of a walk
//! through the tree that they form, each over the branch just left, so that a common prefix runs once. Causal attention
//! never looks past its own row, so nothing of an earlier turn is visible.
//!
//! If the device has room, further sequences take over prompts whose turn has not come ([`Scoring::split_off`]). They
//! find the common beginning in the prefix cache and run together with the first sequence. A row's results do not depend
//! on the rows computed with it, so neither do the scores.

use super::request::{Request, ScoredPrompt};
use crate::Result;
use crate::model::RopeFactors;
use crate::sampler::LogProbs;
use phi3v_kernels::KV_BLOCK_TOKENS;

/// The answers that a sequence scores, and its progress.
pub(super) struct Scoring {
    /// Ids that all prompts begin with.
    shared: Vec<i64>,
    prompts: Vec<Prompt>,
    /// Index of the prompt whose turn it is.
    current: usize,
    /// What is left of the walk through its answers; the next place is last.
    walk: Vec<Place>,
    /// Leading tokens whose keys and values stay the same through all turns.
    lasting: usize,
    /// Fewest tokens of a prompt that run together; fewer would take the kernels of decoding.
    rows_min: usize,
    /// Partial sums of the answers' log probabilities, for each of the request's prompts; empty for a prompt whose turn
    /// was not here.
    scores: Vec<Vec<f64>>,
}

struct Prompt {
    /// Its index among the request's prompts.
    index: usize,
    scored: ScoredPrompt,
    /// The factors for the prompt with its longest answer: one set for all its answers, so that they can be compared.
    factors: RopeFactors,
}

/// A prompt whose turn begins.
pub(super) struct Turn {
    /// Its ids, image rows included.
    pub(super) input_ids: Vec<i64>,
    /// The factors for the prompt and its answers.
    pub(super) factors: RopeFactors,
    /// Leading tokens whose keys and values are in the cache from the previous prompt.
    pub(super) known: usize,
}

/// What runs next.
pub(super) enum Next<'a> {
    /// These tokens after the prompt; all but the last are in the cache.
    Answer(&'a [u32]),
    /// Another prompt, whose turn is to begin.
    Prompt,
    /// Nothing: all answers to all prompts are scored.
    Nothing,
}

/// A prefix of an answer, after which the model predicts the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    answer: usize,
    depth: usize,
}

impl Scoring {
    /// Takes the scoring part of a checked request; `None` if the request does not score. As for other requests, prompts
    /// run at least `rows_min` tokens at a time.
    pub(super) fn of(
        request: &mut Request,
        factors_for: impl Fn(usize) -> RopeFactors,
        rows_min: usize,
    ) -> Option<Self> {
        if request.scored.is_empty() {
            return None;
        }
        let shared = std::mem::take(&mut request.input_ids);
        let scored = std::mem::take(&mut request.scored);
        let length = |prompt: &ScoredPrompt| shared.len() + prompt.input_ids.len();
        let shortest = scored.iter().map(length).min().unwrap_or(0);
        let scores = vec![Vec::new(); scored.len()];
        let prompt = |(index, scored): (usize, ScoredPrompt)| {
            let factors = factors_for(length(&scored) + longest_answer(&scored) - 1);
            Prompt { index, scored, factors }
        };
        let prompts: Vec<Prompt> = scored.into_iter().enumerate().map(prompt).collect();
        let alike = prompts.iter().all(|prompt| prompt.factors == prompts[0].factors);
        let reach = if prompts.len() == 1 { shortest } else { shared.len() };
        let lasting = if alike { reach.min(shortest.saturating_sub(rows_min)) } else { 0 };
        Some(Self { shared, prompts, current: 0, walk: Vec::new(), lasting, rows_min, scores })
    }

    pub(super) fn lasting(&self) -> usize {
        self.lasting
    }

    /// Rows of the cache that the longest prompt with its longest answer takes. An answer's last token never runs.
    pub(super) fn rows_max(&self) -> usize {
        let rows = |prompt: &Prompt| {
            self.shared.len() + prompt.scored.input_ids.len() + longest_answer(&prompt.scored) - 1
        };
        self.prompts.iter().map(rows).max().unwrap_or(0)
    }

    /// The scores of the answers to each of the request's prompts; empty for those that another sequence was given.
    pub(super) fn into_scores(self) -> Vec<Vec<f64>> {
        self.scores
    }

    /// Prompts that another sequence can take over: those whose turn has not come. 0 if that sequence would have to
    /// recompute more than about a block of the shared beginning.
    pub(super) fn divisible(&self) -> usize {
        let known = self.lasting / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
        if self.shared.len().saturating_sub(known) > KV_BLOCK_TOKENS + self.rows_min {
            return 0;
        }
        self.prompts.len().saturating_sub(self.current + 1)
    }

    /// Hands over the last `prompts` of the prompts whose turn has not come.
    pub(super) fn split_off(&mut self, prompts: usize) -> Self {
        let first = self.prompts.len() - prompts.min(self.divisible());
        Self {
            shared: self.shared.clone(),
            prompts: self.prompts.split_off(first),
            current: 0,
            walk: Vec::new(),
            scores: vec![Vec::new(); self.scores.len()],
            ..*self
        }
    }

    /// Takes back prompts that were split off and have not begun.
    pub(super) fn rejoin(&mut self, part: Self) {
        self.prompts.extend(part.prompts);
    }

    /// The path to a place: the answer's tokens before it.
    fn path(&self, place: Place) -> &[u32] {
        &self.prompts[self.current].scored.answers[place.answer][..place.depth]
    }

    /// Adds the log probabilities of the tokens that follow `path` in the answers to the current prompt.
    ///
    /// # Errors
    /// Logits that are not finite.
    fn add(&mut self, path: &[u32], logits: &[f32]) -> Result<()> {
        crate::sampler::check_logits(logits)?;
        let distribution = LogProbs::of(logits, 0);
        let Prompt { index, scored, .. } = &self.prompts[self.current];
        for (score, answer) in self.scores[*index].iter_mut().zip(&scored.answers) {
            if let Some([next, ..]) = answer.strip_prefix(path) {
                *score += distribution.exact(logits[*next as usize]);
            }
        }
        Ok(())
    }

    /// Begins the turn of the next prompt; the previous one ran with the factors `before`.
    pub(super) fn begin(&mut self, before: RopeFactors) -> Turn {
        let Prompt { index, scored, factors } = &self.prompts[self.current];
        self.scores[*index] = vec![0.0; scored.answers.len()];
        let input_ids = [&self.shared[..], &scored.input_ids].concat();
        let known = if self.current == 0 || before != *factors {
            0
        } else {
            self.shared.len().min(input_ids.len().saturating_sub(self.rows_min))
        };
        self.walk = walk(&scored.answers);
        Turn { input_ids, factors: *factors, known }
    }

    /// Takes the logits after `path`, the answer tokens that ran last, and returns what runs next.
    ///
    /// # Errors
    /// Logits that are not finite.
    pub(super) fn next(&mut self, path: &[u32], logits: &[f32]) -> Result<Next<'_>> {
        self.add(path, logits)?;
        if let Some(place) = self.walk.pop() {
            return Ok(Next::Answer(self.path(place)));
        }
        self.current += 1;
        Ok(if self.current < self.prompts.len() { Next::Prompt } else { Next::Nothing })
    }
}

fn longest_answer(prompt: &ScoredPrompt) -> usize {
    prompt.answers.iter().map(Vec::len).max().unwrap_or(0)
}

/// The proper, non-empty prefixes of all answers, each once; the first to run is last. When a prefix runs, the newest row
/// at each smaller depth is its own.
fn walk(answers: &[Vec<u32>]) -> Vec<Place> {
    let mut order: Vec<usize> = (0..answers.len()).collect();
    order.sort_by(|&a, &b| answers[a].cmp(&answers[b]));
    let mut places = Vec::new();
    let mut last: &[u32] = &[];
    for answer in order {
        let ids = &answers[answer];
        let common = ids.iter().zip(last).take_while(|(a, b)| a == b).count();
        // prefixes of the last answer, up to its own last token, have their places already
        let first = (common + 1).min(last.len()).max(1);
        places.extend((first..ids.len()).map(|depth| Place { answer, depth }));
        last = ids;
    }
    places.reverse();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The prefixes in the order in which they run.
    fn paths(answers: &[&[u32]]) -> Vec<Vec<u32>> {
        let answers: Vec<Vec<u32>> = answers.iter().map(|ids| ids.to_vec()).collect();
        walk(&answers).iter().rev().map(|place| answers[place.answer][..place.depth].to_vec()).collect()
    }

    #[test]
    fn every_prefix_is_run_once_behind_its_own_beginning() {
        let none: [Vec<u32>; 0] = [];
        assert_eq!(paths(&[&[1], &[2]]), none, "the prompt's own logits say it all");
        assert_eq!(paths(&[&[7, 9], &[3, 9]]), [[3], [7]]);
        let nested = paths(&[&[5, 6, 9], &[5, 9], &[5, 6, 7, 9], &[4, 9], &[5]]);
        assert_eq!(nested, [vec![4], vec![5], vec![5, 6], vec![5, 6, 7]]);
        assert_eq!(paths(&[&[1, 2], &[1, 2]]), [[1]], "equal answers are no trouble");
        // a prefix that was left is not needed again
        let answers: [&[u32]; 5] = [&[1, 2, 9], &[1, 3, 2, 9], &[2, 1, 9], &[1, 3, 4, 9], &[1, 2, 3, 9]];
        let run = paths(&answers);
        for (index, path) in run.iter().enumerate() {
            let written = |depth: usize| run[..index].iter().rfind(|earlier| earlier.len() == depth);
            for depth in 1..path.len() {
                assert_eq!(written(depth).map(Vec::as_slice), Some(&path[..depth]), "{path:?}");
            }
        }
        let wanted: std::collections::BTreeSet<&[u32]> =
            answers.iter().flat_map(|ids| (1..ids.len()).map(|depth| &ids[..depth])).collect();
        assert_eq!(run.len(), wanted.len());
        assert!(run.iter().all(|path| wanted.contains(&path[..])));
    }
}
