//! Scoring requests whose prompts are shared by several sequences: collects the results of each sequence until all have
//! ended, and reports the request once.

use super::request::{FinishReason, Finished, RequestId};
use std::collections::HashMap;

/// The requests that have more than one sequence.
#[derive(Default)]
pub(super) struct Parts(HashMap<RequestId, Open>);

/// One such request.
struct Open {
    /// Sequences that have not ended.
    sequences: usize,
    /// Results of the sequences that have ended.
    found: Option<Finished>,
    /// Whether the request's end has been reported.
    told: bool,
}

impl Parts {
    /// Records that a sequence of the request was split in two.
    pub(super) fn split(&mut self, id: RequestId) {
        let open = || Open { sequences: 1, found: None, told: false };
        self.0.entry(id).or_insert_with(open).sequences += 1;
    }

    /// Whether some sequences of the request have yet to end.
    pub(super) fn are_open(&self, id: RequestId) -> bool {
        self.0.contains_key(&id)
    }

    /// Records that a sequence of the request has ended. Returns what to report if the request has ended too. If one of
    /// its sequences was cancelled, the request was.
    pub(super) fn finish(&mut self, id: RequestId, finished: Finished) -> Option<Finished> {
        let Some(open) = self.0.get_mut(&id) else { return Some(finished) };
        let all = match open.found.take() {
            Some(found) => together(found, finished),
            None => finished,
        };
        open.sequences -= 1;
        let ends = !open.told && (open.sequences == 0 || all.reason == FinishReason::Cancelled);
        open.told |= ends;
        let told = if ends {
            Some(all)
        } else {
            open.found = Some(all);
            None
        };
        self.forget_ended(id);
        told
    }

    /// Records that a sequence of the request, and thus the request, has failed. Returns whether to report the failure.
    pub(super) fn fail(&mut self, id: RequestId) -> bool {
        let Some(open) = self.0.get_mut(&id) else { return true };
        open.sequences -= 1;
        let first = !std::mem::replace(&mut open.told, true);
        self.forget_ended(id);
        first
    }

    fn forget_ended(&mut self, id: RequestId) {
        if self.0.get(&id).is_some_and(|open| open.sequences == 0) {
            self.0.remove(&id);
        }
    }
}

/// Combines the results of two sequences of a request. They ran at the same time, so the longer prefill and decode times
/// count, and the earlier admission and first token. Times in the vision tower add up.
fn together(found: Finished, other: Finished) -> Finished {
    let scores = found.scores.into_iter().zip(other.scores);
    let (mut usage, mut timings) = (found.usage, found.timings);
    usage.prompt_tokens += other.usage.prompt_tokens;
    usage.image_tokens += other.usage.image_tokens;
    usage.cached_tokens += other.usage.cached_tokens;
    usage.completion_tokens += other.usage.completion_tokens;
    timings.queued = timings.queued.min(other.timings.queued);
    timings.vision += other.timings.vision;
    timings.prefill = timings.prefill.max(other.timings.prefill);
    timings.decode = timings.decode.max(other.timings.decode);
    let first_tokens = timings.first_token.into_iter().chain(other.timings.first_token);
    timings.first_token = first_tokens.min();
    Finished {
        reason: other.reason,
        text: found.text,
        usage,
        timings,
        scores: scores.map(|(own, others)| if own.is_empty() { others } else { own }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Timings, Usage};
    use std::time::Duration;

    const ID: RequestId = RequestId(7);

    fn finished(reason: FinishReason, scores: &[&[f64]], seconds: u64) -> Finished {
        let usage = Usage { prompt_tokens: 10, image_tokens: 4, cached_tokens: 3, completion_tokens: 2 };
        let time = Duration::from_secs(seconds);
        let timings =
            Timings { queued: time, vision: time, prefill: time, decode: time, first_token: Some(time) };
        let scores = scores.iter().map(|scores| scores.to_vec()).collect();
        Finished { reason, text: String::new(), usage, timings, scores }
    }

    #[test]
    fn the_last_to_end_tells_what_all_have_found() {
        let mut parts = Parts::default();
        let alone = parts.finish(ID, finished(FinishReason::Stop, &[&[1.0]], 1));
        assert_eq!(alone.unwrap().scores, [[1.0]]);
        parts.split(ID);
        parts.split(ID);
        assert!(parts.finish(ID, finished(FinishReason::Stop, &[&[], &[2.0], &[]], 2)).is_none());
        assert!(parts.finish(ID, finished(FinishReason::Stop, &[&[1.0, 5.0], &[], &[]], 1)).is_none());
        assert!(parts.are_open(ID));
        let all = parts.finish(ID, finished(FinishReason::Stop, &[&[], &[], &[3.0]], 3)).unwrap();
        assert!(!parts.are_open(ID));
        assert_eq!(all.scores, [vec![1.0, 5.0], vec![2.0], vec![3.0]]);
        let usage = Usage { prompt_tokens: 30, image_tokens: 12, cached_tokens: 9, completion_tokens: 6 };
        assert_eq!(all.usage, usage);
        let Timings { queued, vision, prefill, first_token, .. } = all.timings;
        let seconds = [queued, vision, prefill, first_token.unwrap()].map(|time| time.as_secs());
        assert_eq!(seconds, [1, 6, 3, 1]);
    }

    #[test]
    fn an_end_before_the_end_is_told_once() {
        for fails in [true, false] {
            let mut parts = Parts::default();
            parts.split(ID);
            parts.split(ID);
            if fails {
                assert!(parts.fail(ID));
            } else {
                let told = parts.finish(ID, finished(FinishReason::Cancelled, &[&[]], 1)).unwrap();
                assert_eq!(told.reason, FinishReason::Cancelled);
            }
            assert!(!parts.fail(ID) && parts.are_open(ID));
            assert!(parts.finish(ID, finished(FinishReason::Cancelled, &[&[]], 1)).is_none());
            assert!(!parts.are_open(ID) && parts.fail(ID));
        }
    }
}
