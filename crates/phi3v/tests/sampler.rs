//! Choosing tokens: ties, seeds, penalties, logprobs, and what is refused.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

use phi3v::sampler::{History, Sampled, Sampler, SamplerError, SamplingParams};

const NOTHING: History<'static> = History { prompt: &[], output: &[] };

fn sample(params: SamplingParams, logits: &[f32], history: History<'_>) -> Result<Sampled, SamplerError> {
    Sampler::new(params).unwrap().sample(&mut logits.to_vec(), history)
}

fn greedy(logits: &[f32]) -> Result<u32, SamplerError> {
    sample(SamplingParams::default(), logits, NOTHING).map(|sampled| sampled.token)
}

#[test]
fn greedy_takes_the_highest_and_of_equals_the_lowest_id() {
    assert_eq!(greedy(&[0.5, 2.0, -1.0, 2.0]), Ok(1));
    assert_eq!(greedy(&[-7.0]), Ok(0));
    assert_eq!(greedy(&[f32::NEG_INFINITY, -1e30]), Ok(1));
    assert_eq!(greedy(&[-0.0, 0.0]), Ok(0));
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    for temperature in [0.0, 1.0] {
        let params = || SamplingParams { temperature, ..SamplingParams::default() };
        let error = sample(params(), &[0.0, f32::NAN], NOTHING).unwrap_err();
        assert!(matches!(error, SamplerError::BadLogit { token: 1, .. }));
        assert!(error.to_string().starts_with("the model gave NaN as the logit of token 1"));
        let error = sample(params(), &[f32::INFINITY, 0.0], NOTHING).unwrap_err();
        assert!(matches!(error, SamplerError::BadLogit { token: 0, .. }));
        let forbidden = [f32::NEG_INFINITY; 3];
        let error = sample(params(), &forbidden, NOTHING).unwrap_err();
        assert_eq!(error, SamplerError::NothingAllowed { vocab_size: 3 });
        assert_eq!(sample(params(), &[], NOTHING), Err(SamplerError::NothingAllowed { vocab_size: 0 }));
    }
}

#[test]
fn a_seed_gives_the_same_tokens_everywhere() {
    let draw = |seed| {
        let params = SamplingParams { temperature: 1.0, seed, ..SamplingParams::default() };
        let mut sampler = Sampler::new(params).unwrap();
        // Weights 1 to 8 to within rounding; the drawn numbers are far from the borders between them.
        let mut logits: Vec<f32> = (1..=8).map(|i| (i as f32).ln()).collect();
        (0..16).map(|_| sampler.sample(&mut logits, NOTHING).unwrap().token).collect::<Vec<u32>>()
    };
    assert_eq!(draw(Some(42)), PINNED);
    assert_eq!(draw(Some(42)), draw(Some(42)));
    assert_ne!(draw(Some(42)), draw(Some(43)));
    assert_ne!(draw(None), draw(None), "8^16 answers: two equal ones mean that no randomness was used");
}

/// The tokens of seed 42, written down so that an update of a dependency cannot change them unseen.
const PINNED: [u32; 16] = [3, 3, 6, 5, 7, 4, 3, 5, 7, 4, 3, 7, 5, 5, 4, 2];

#[test]
fn frequencies_follow_the_softmax() {
    let params = SamplingParams { temperature: 0.5, seed: Some(1), ..SamplingParams::default() };
    let mut sampler = Sampler::new(params).unwrap();
    let mut logits = [0.0, 0.5 * 2f32.ln(), 0.5 * 5f32.ln(), f32::NEG_INFINITY];
    let mut counts = [0u32; 4];
    for _ in 0..8000 {
        counts[sampler.sample(&mut logits, NOTHING).unwrap().token as usize] += 1;
    }
    // Shares 1/8, 2/8, 5/8; the standard deviation of a count is at most 44, five of them are allowed.
    for (count, expected) in counts.into_iter().zip([1000, 2000, 5000, 0]) {
        assert!(count.abs_diff(expected) < 220, "{counts:?}");
    }
}

#[test]
fn repetition_penalty_counts_prompt_and_answer_once() {
    let params = || SamplingParams { repetition_penalty: 2.0, ..SamplingParams::default() };
    let history = History { prompt: &[0, -1, -1, 0, 9_999_999], output: &[2, 2] };
    let mut logits = [4.0, 3.0, -1.0, -2.0];
    let mut sampler = Sampler::new(params()).unwrap();
    assert_eq!(sampler.sample(&mut logits, history).unwrap().token, 1);
    assert_eq!(logits, [2.0, 3.0, -2.0, -2.0]);
    // A longer answer adds to what was counted; a shorter one (the sequence was started again) is counted anew.
    let mut logits = [4.0, 3.0, -1.0, -2.0];
    sampler.sample(&mut logits, History { output: &[2, 2, 3], ..history }).unwrap();
    assert_eq!(logits, [2.0, 3.0, -2.0, -4.0]);
    let mut logits = [4.0, 3.0, -1.0, -2.0];
    sampler.sample(&mut logits, History { output: &[], ..history }).unwrap();
    assert_eq!(logits, [2.0, 3.0, -1.0, -2.0]);
}

#[test]
fn presence_and_frequency_count_the_answer_only() {
    let params = SamplingParams {
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logprobs: Some(0),
        ..SamplingParams::default()
    };
    let history = History { prompt: &[0, 0], output: &[1, 1, 2] };
    let mut logits = [0.0, 1.0, 1.0];
    let sampled = Sampler::new(params).unwrap().sample(&mut logits, history).unwrap();
    assert_eq!(logits, [0.0, 0.0, 0.25]);
    assert_eq!(sampled.token, 2);
    // Logprobs are those of the model, before the penalties.
    let expected = 1.0 - (1.0 + 2.0 * 1f32.exp()).ln();
    assert!((sampled.logprob.unwrap() - expected).abs() < 1e-6);
}

#[test]
fn penalties_at_the_end_of_the_range_stay_numbers() {
    let params = SamplingParams {
        temperature: 1.0,
        repetition_penalty: 0.1,
        frequency_penalty: -2.0,
        seed: Some(1),
        ..SamplingParams::default()
    };
    let history = History { prompt: &[0], output: &[0, 1] };
    let token = sample(params, &[f32::MAX, f32::MIN, f32::NEG_INFINITY], history).unwrap().token;
    assert_eq!(token, 0);
}

#[test]
fn logprobs_are_sorted_and_sum_to_one() {
    let params = |top| SamplingParams { logprobs: Some(top), ..SamplingParams::default() };
    let logits = [1.0, 3.0, -2.0, 3.0, 0.5];
    let sampled = sample(params(20), &logits, NOTHING).unwrap();
    assert_eq!(sampled.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 3, 0, 4, 2]);
    let sum: f64 = sampled.top.iter().map(|top| f64::from(top.1).exp()).sum();
    assert!((sum - 1.0).abs() < 1e-6);
    assert_eq!(sampled.logprob, Some(sampled.top[0].1));
    assert_eq!(sample(params(2), &logits, NOTHING).unwrap().top, sampled.top[..2]);
    assert_eq!(sample(params(0), &logits, NOTHING).unwrap().top, []);
    assert_eq!(sample(SamplingParams::default(), &logits, NOTHING).unwrap().logprob, None);
}

#[test]
fn parameters_out_of_range_are_named() {
    let base = SamplingParams::default;
    let cases = [
        (SamplingParams { temperature: 2.1, ..base() }, "temperature is 2.1, it must be from 0 to 2"),
        (SamplingParams { temperature: f32::NAN, ..base() }, "temperature is NaN, it must be from 0 to 2"),
        (SamplingParams { top_p: 0.0, ..base() }, "top_p is 0, it must be above 0 and at most 1"),
        (SamplingParams { min_p: -0.1, ..base() }, "min_p is -0.1, it must be from 0 to 1"),
        (
            SamplingParams { repetition_penalty: 0.0, ..base() },
            "repetition_penalty is 0, it must be from 0.1 to 10",
        ),
        (
            SamplingParams { presence_penalty: 3.0, ..base() },
            "presence_penalty is 3, it must be from -2 to 2",
        ),
        (
            SamplingParams { frequency_penalty: f32::NEG_INFINITY, ..base() },
            "frequency_penalty is -inf, it must be from -2 to 2",
        ),
        (SamplingParams { logprobs: Some(21), ..base() }, "logprobs is 21, it must be from 0 to 20"),
    ];
    for (params, message) in cases {
        let error = Sampler::new(params).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some());
    }
    assert_eq!(base().validate(), Ok(()));
}
