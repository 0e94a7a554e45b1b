//! Decisions on the tiny random checkpoint of `testdata/`: scores are what the model says when it is led through each answer,
//! whatever else is asked together with it, and what questions have in common is computed once.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{repository, tolerances};
use phi3v::chat_template::{Message, Part, Role};
use phi3v::checkpoint::Checkpoint;
use phi3v::decide::{
    Calibration, CalibrationError, Decision, Fitted, Labelled, Question, Questions, TEMPERATURE_MAX,
    TEMPERATURE_MIN, fit, quality,
};
use phi3v::device::Device;
use phi3v::engine::{
    Engine, EngineError, EngineOptions, Event, FinishReason, Observer, Phase, Request, ScoredPrompt,
    StepProgress,
};
use phi3v::eval::{Sample, Subject};
use phi3v::image::{ImageInputs, ImageParams, RgbImage, process};
use phi3v::model::{ModelOptions, Phi3V, RopeFactors};
use phi3v::processor::{answer_ids, chat_prompt};
use phi3v::sampler::SamplingParams;
use phi3v::tokenizer::Tokenizer;
use phi3v_kernels::KvFormat;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::ops::ControlFlow;
use std::sync::Arc;

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&repository().join("testdata/tiny")).unwrap()
}

fn model(checkpoint: &Checkpoint) -> Phi3V<Device> {
    let Checkpoint { config, weights, .. } = checkpoint;
    Phi3V::load(common::device(None, Some(2)), config, weights, ModelOptions::F32, &mut |_| ()).unwrap()
}

fn engine_with(checkpoint: &Checkpoint, options: EngineOptions) -> Engine<Device> {
    Engine::new(model(checkpoint), Arc::clone(&checkpoint.tokenizer), Vec::new(), options).unwrap()
}

fn engine() -> Engine<Device> {
    engine_with(&checkpoint(), EngineOptions::default())
}

/// 313 rows of an image of one tile and its global view.
fn image(seed: usize) -> Arc<ImageInputs> {
    let (width, height) = (40 + seed, 64);
    let pixels = (0..width * height * 3).map(|i| (i * (seed + 3) % 251) as u8).collect();
    let params = ImageParams { num_crops: 1, ..ImageParams::default() };
    Arc::new(process(&RgbImage { width, height, pixels }, &params).unwrap())
}

/// `length` made-up ids.
fn text(seed: usize, length: usize) -> Vec<i64> {
    (0..length).map(|i| 3 + ((i * i + 7 * i * seed + seed) % 250) as i64).collect()
}

/// What all prompts about an image begin with.
fn shared(image: &ImageInputs) -> Vec<i64> {
    [1, 5].into_iter().chain(vec![-1; image.num_img_tokens()]).chain([1, 9]).collect()
}

/// Answers with beginnings in common, and one that another begins with.
fn answers() -> Vec<Vec<u32>> {
    [&[7, 8, 2][..], &[7, 2], &[9, 2], &[7, 8, 11, 12, 2], &[40, 41, 42, 2], &[9]]
        .map(<[u32]>::to_vec)
        .to_vec()
}

/// Questions of many lengths, shorter and longer than what prompts are run in at least.
fn prompts(count: usize) -> Vec<ScoredPrompt> {
    let prompt = |seed| ScoredPrompt { input_ids: text(seed, 3 + seed * 5 % 41), answers: answers() };
    (0..count).map(prompt).collect()
}

fn bits(scores: &[Vec<f64>]) -> Vec<Vec<u64>> {
    scores.iter().map(|scores| scores.iter().map(|score| score.to_bits()).collect()).collect()
}

/// Logarithm of the probability of `id`.
fn log_prob(logits: &[f32], id: u32) -> f64 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - highest).exp())).sum();
    f64::from(logits[id as usize]) - (f64::from(highest) + sum.ln())
}

#[test]
fn scores_are_those_of_being_led_through_each_answer() {
    let checkpoint = checkpoint();
    let (image, model) = (image(0), model(&checkpoint));
    let mut subject = Subject::new(&model, 512).unwrap();
    let prompts = prompts(6);
    let request = Request::scoring(shared(&image), vec![Arc::clone(&image)], prompts.clone());
    let finished = engine().run(request, &mut ()).unwrap();
    for (prompt, scores) in prompts.iter().zip(&finished.scores) {
        let input_ids = [shared(&image), prompt.input_ids.clone()].concat();
        for (answer, &score) in prompt.answers.iter().zip(scores) {
            let sample = Sample { input_ids: input_ids.clone(), images: vec![Arc::clone(&image)] };
            let logits = subject.follow(&sample, answer, RopeFactors::Short).unwrap();
            let led = logits.iter().zip(answer).fold(0.0, |sum, (logits, &id)| sum + log_prob(logits, id));
            assert_eq!(score.to_bits(), led.to_bits(), "{answer:?} token by token");
            // and where each token is asked for behind a prompt that holds all before it
            let mut prefilled = 0.0;
            for (said, &id) in answer.iter().enumerate() {
                let before = answer[..said].iter().map(|&id| i64::from(id));
                let input_ids = input_ids.iter().copied().chain(before).collect();
                let sample = Sample { input_ids, images: vec![Arc::clone(&image)] };
                prefilled += log_prob(&subject.follow(&sample, &[id], RopeFactors::Short).unwrap()[0], id);
            }
            let off = (score - prefilled).abs() / answer.len() as f64;
            assert!(off < tolerances::SCORE_F32, "{answer:?}: {off}");
        }
    }
}

#[test]
fn scores_do_not_depend_on_what_else_is_asked() {
    let image = image(1);
    let request = |prompts| Request::scoring(shared(&image), vec![Arc::clone(&image)], prompts);
    let all = engine().run(request(prompts(20)), &mut ()).unwrap().scores;
    let alone = |prompt: &ScoredPrompt| {
        engine().run(request(vec![prompt.clone()]), &mut ()).unwrap().scores.remove(0)
    };
    let singles: Vec<Vec<f64>> = prompts(20).iter().map(alone).collect();
    assert_eq!(bits(&all), bits(&singles));

    // many at a time, beside answers that are generated, with blocks that several of them know
    let options =
        EngineOptions { cache_tokens: 32_768, prefill_chunk_shared: 32, ..EngineOptions::default() };
    let mut engine = engine_with(&checkpoint(), options);
    let mut expected = std::collections::HashMap::new();
    for (index, prompts) in prompts(20).chunks(3).enumerate() {
        let ids = [shared(&image), text(index, 60)].concat();
        engine.submit(Request::greedy(ids, vec![Arc::clone(&image)], 30)).unwrap();
        expected.insert(
            engine.submit(request(prompts.to_vec())).unwrap(),
            singles[index * 3..][..prompts.len()].to_vec(),
        );
        engine.step(&mut ());
    }
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            match (output.event, expected.remove(&output.id)) {
                (Event::Finished(finished), Some(expected)) => {
                    assert_eq!(bits(&finished.scores), bits(&expected))
                }
                (Event::Failed(error), _) => panic!("{error}"),
                (_, None) => {}
                (event, Some(_)) => panic!("{event:?}"),
            }
        }
    }
    assert!(expected.is_empty());
}

#[test]
fn nor_do_they_in_the_arithmetic_that_people_use() {
    let (checkpoint, image) = (checkpoint(), image(1));
    for kv_format in [KvFormat::Bf16, KvFormat::Q8] {
        let Checkpoint { config, weights, tokenizer, .. } = &checkpoint;
        let options = ModelOptions { kv_format, ..ModelOptions::BF16 };
        let device = common::device(None, Some(2));
        let model = Phi3V::load(device, config, weights, options, &mut |_| ()).unwrap();
        let mut engine =
            Engine::new(model, Arc::clone(tokenizer), Vec::new(), EngineOptions::default()).unwrap();
        let mut scores = |prompts| {
            let request = Request::scoring(shared(&image), vec![Arc::clone(&image)], prompts);
            engine.run(request, &mut ()).unwrap().scores
        };
        let all = scores(prompts(7));
        let singles: Vec<Vec<f64>> =
            prompts(7).into_iter().map(|prompt| scores(vec![prompt]).remove(0)).collect();
        assert_eq!(bits(&all), bits(&singles), "{kv_format:?}");
    }
}

#[derive(Default)]
struct Count {
    tiles: f64,
}

impl Observer for Count {
    fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
        if progress.phase == Phase::Vision {
            self.tiles = self.tiles.max(progress.done);
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn twenty_questions_cost_one_prompt_and_their_own_tokens() {
    let (image, mut engine, prompts) = (image(2), engine(), prompts(20));
    let shared = shared(&image);
    let request = Request::scoring(shared.clone(), vec![Arc::clone(&image)], prompts.clone());
    let mut count = Count::default();
    let usage = engine.run(request, &mut count).unwrap().usage;
    // fewer than 17 tokens are not run together, since the kernels of decoding would take them
    let own = |prompt: &ScoredPrompt| prompt.input_ids.len().max(17);
    let computed = shared.len() + prompts[0].input_ids.len() + prompts[1..].iter().map(own).sum::<usize>();
    // three sequences help, and each computes again what of the shared tokens fills no block
    let again = usage.prompt_tokens - usage.cached_tokens - computed;
    assert!((1..=3 * 64).contains(&again), "{again}");
    let prompt_tokens: usize = prompts.iter().map(|prompt| shared.len() + prompt.input_ids.len()).sum();
    assert_eq!((usage.prompt_tokens, usage.image_tokens), (prompt_tokens, 20 * image.num_img_tokens()));
    // of the answers: 7, 7 8, 7 8 11, 7 8 11 12, 9, 40, 40 41, 40 41 42
    assert_eq!(usage.completion_tokens, 20 * 8);
    assert!(count.tiles > 0.0);

    // the next request about the image finds it; it leaves the blocks of others as they were
    let mut count = Count::default();
    let request = Request::scoring(shared.clone(), vec![Arc::clone(&image)], prompts.clone());
    let again = engine.run(request, &mut count).unwrap();
    assert_eq!(again.usage.cached_tokens - usage.cached_tokens, 256);
    assert_eq!(count.tiles, 0.0);
    let ids = [shared, text(3, 50)].concat();
    let ask = || Request::greedy(ids.clone(), vec![Arc::clone(&image)], 20);
    let answer = |engine: &mut Engine<Device>| {
        let mut tokens = Vec::new();
        engine.run(ask(), &mut Tokens(&mut tokens)).unwrap();
        tokens
    };
    assert_eq!(answer(&mut engine), answer(&mut self::engine()));
}

/// Runs a request to its end: its scores, and the steps that it took.
fn counted(engine: &mut Engine<Device>, request: Request) -> (Vec<Vec<f64>>, usize) {
    let id = engine.submit(request).unwrap();
    let (mut scores, mut steps) = (Vec::new(), 0);
    while !engine.is_idle() {
        steps += 1;
        for output in engine.step(&mut ()) {
            let Event::Finished(finished) = output.event else { panic!("{:?}", output.event) };
            assert!(output.id == id && scores.is_empty(), "a request ends once");
            scores = finished.scores;
        }
    }
    assert_eq!(engine.load().blocks_in_use, 0);
    (scores, steps)
}

#[test]
fn many_questions_are_scored_together_and_as_each_alone() {
    let (image, own) = (image(1), image(2));
    let mut prompts = prompts(70);
    // pictures of their own in the middle of them
    for prompt in &mut prompts[30..40] {
        prompt.input_ids.extend(vec![-2; own.num_img_tokens()]);
        prompt.input_ids.extend([4, 5]);
    }
    let request = |prompts: &[ScoredPrompt]| {
        let images = [&image, &own].map(Arc::clone);
        let used = if prompts.iter().any(|prompt| prompt.input_ids.contains(&-2)) { 2 } else { 1 };
        Request::scoring(shared(&image), images[..used].to_vec(), prompts.to_vec())
    };
    let (together, steps) = counted(&mut engine(), request(&prompts));
    let mut one = engine();
    let mut singly = 0;
    for (prompt, scores) in prompts.iter().zip(&together) {
        let (alone, steps) = counted(&mut one, request(std::slice::from_ref(prompt)));
        assert_eq!(bits(&alone), bits(std::slice::from_ref(scores)));
        singly += steps;
    }
    assert!(steps * 4 < singly, "{steps} steps, and {singly} singly");

    // where blocks suffice for one or two of the sequences at a time, and where nothing is kept
    let narrow = EngineOptions { context_tokens: 1024, ..EngineOptions::default() };
    let forgetful = EngineOptions { prefix_cache: false, ..EngineOptions::default() };
    for options in [narrow, forgetful] {
        let mut engine = engine_with(&checkpoint(), options);
        let (scores, _) = counted(&mut engine, request(&prompts));
        assert_eq!(bits(&scores), bits(&together));
    }
}

#[test]
fn a_request_that_many_sequences_score_ends_once() {
    let image = image(0);
    let request = || Request::scoring(shared(&image), vec![Arc::clone(&image)], prompts(64));
    let mut engine = engine();
    let generated = || Request::greedy(shared(&image), vec![Arc::clone(&image)], 200);
    let beside = engine.submit(generated()).unwrap();
    let id = engine.submit(request()).unwrap();
    while engine.load().running < 10 {
        engine.step(&mut ());
    }
    // who comes later is let in at once
    let later = engine.submit(generated()).unwrap();
    engine.step(&mut ());
    assert_eq!(engine.load().waiting, 0);
    engine.cancel(id);
    let mut ended = Vec::new();
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            match output.event {
                Event::Finished(finished) => ended.push((output.id, finished.reason)),
                Event::Failed(error) => panic!("{error}"),
                Event::Token(_) => {}
            }
        }
    }
    let length = FinishReason::Length;
    assert_eq!(ended, [(id, FinishReason::Cancelled), (beside, length), (later, length)]);
    assert_eq!(engine.load().blocks_in_use, 0);

    // stopped by its observer, in the middle of a prompt that only some of them compute
    struct StopLater(usize);
    impl Observer for StopLater {
        fn progress(&mut self, _: StepProgress) -> ControlFlow<()> {
            self.0 += 1;
            if self.0 > 100 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let stopped = engine.run(request(), &mut StopLater(0)).unwrap();
    assert_eq!(stopped.reason, FinishReason::Cancelled);
    assert!(engine.step(&mut ()).is_empty() && engine.is_idle());

    // and where the table of blocks is damaged
    let id = engine.submit(request()).unwrap();
    while engine.load().running < 10 {
        engine.step(&mut ());
    }
    engine.damage_blocks();
    let mut failed = 0;
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            assert!(output.id == id && matches!(output.event, Event::Failed(_)), "{:?}", output.event);
            failed += 1;
        }
    }
    assert_eq!((failed, engine.load().blocks_in_use), (1, 0));
}

struct Tokens<'a>(&'a mut Vec<u32>);

impl Observer for Tokens<'_> {
    fn token(&mut self, token: &phi3v::engine::Token) {
        self.0.push(token.id);
    }
}

#[test]
fn who_asks_beside_many_questions_is_answered_before_their_end() {
    // with answers of one token no sequence ever decodes, nor is one divided
    let (short, long) = (vec![vec![7], vec![9]], vec![vec![7, 3, 2], vec![7, 9, 2]]);
    for (answers, are_divided) in [(short, false), (long, true)] {
        let question = |seed| ScoredPrompt { input_ids: text(seed, 20), answers: answers.clone() };
        let mut engine = engine();
        let many = Request::scoring(text(1, 70), Vec::new(), (0..400).map(question).collect());
        let many = engine.submit(many).unwrap();
        (0..5).for_each(|_| assert!(engine.step(&mut ()).is_empty()));
        assert_eq!(engine.load().running > 1, are_divided);
        let later = engine.submit(Request::greedy(text(2, 900), Vec::new(), 4)).unwrap();
        let mut ended = Vec::new();
        while !engine.is_idle() {
            let outputs = engine.step(&mut ()).into_iter();
            ended.extend(outputs.filter(|o| matches!(o.event, Event::Finished(_))).map(|output| output.id));
        }
        assert_eq!(ended, [later, many]);
    }
}

#[test]
fn each_prompt_keeps_the_factors_for_its_length() {
    let mut checkpoint = checkpoint();
    checkpoint.config.original_max_position_embeddings = 60;
    let prompt = |length| ScoredPrompt { input_ids: text(length, length), answers: answers() };
    // 57 tokens with an answer of 5 are 61 rows, 50 are 54
    let prompts: Vec<ScoredPrompt> = [50, 56, 57, 80, 40].map(prompt).to_vec();
    let mut engine = engine_with(&checkpoint, EngineOptions::default());
    let together = engine.run(Request::scoring(Vec::new(), Vec::new(), prompts.clone()), &mut ()).unwrap();
    let model = model(&checkpoint);
    let mut subject = Subject::new(&model, 512).unwrap();
    for (prompt, scores) in prompts.iter().zip(&together.scores) {
        let alone = Request::scoring(Vec::new(), Vec::new(), vec![prompt.clone()]);
        assert_eq!(bits(&engine.run(alone, &mut ()).unwrap().scores), bits(std::slice::from_ref(scores)));
        let sample = Sample { input_ids: prompt.input_ids.clone(), images: Vec::new() };
        let (answer, score) = (&prompt.answers[3], scores[3]);
        let factors = model.rope().factors_for(prompt.input_ids.len() + answer.len() - 1);
        let logits = subject.follow(&sample, answer, factors).unwrap();
        let led = logits.iter().zip(answer).fold(0.0, |sum, (logits, &id)| sum + log_prob(logits, id));
        assert_eq!(score.to_bits(), led.to_bits(), "{} tokens", prompt.input_ids.len());
    }
}

#[test]
fn random_trees_of_answers_are_scored_as_each_answer_alone() {
    let mut random = Pcg64::seed_from_u64(5);
    let mut below = |n: u64| random.next_u64() % n;
    for round in 0..12 {
        let mut answers: Vec<Vec<u32>> = Vec::new();
        for _ in 0..2 + below(14) {
            let ids = (0..1 + below(6)).map(|_| 5 + below(3) as u32).collect();
            answers.push(ids);
        }
        let prompt = |answers| ScoredPrompt { input_ids: text(round, 20 + round), answers };
        let request = |answers| Request::scoring(vec![1], Vec::new(), vec![prompt(answers)]);
        let mut engine = engine();
        let together = engine.run(request(answers.clone()), &mut ()).unwrap().scores;
        let alone = |ids: &Vec<u32>| engine.run(request(vec![ids.clone()]), &mut ()).unwrap().scores[0][0];
        let alone: Vec<f64> = answers.iter().map(alone).collect();
        assert_eq!(bits(&together), bits(&[alone]), "{answers:?}");
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let image = image(0);
    let refused =
        |input_ids: Vec<i64>, images: Vec<Arc<ImageInputs>>, prompts: Vec<ScoredPrompt>| match engine()
            .submit(Request::scoring(input_ids, images, prompts))
        {
            Err(phi3v::Error::Engine(error)) => error,
            other => panic!("{other:?}"),
        };
    let prompt = |answers: &[&[u32]]| ScoredPrompt {
        input_ids: vec![3],
        answers: answers.iter().map(|ids| ids.to_vec()).collect(),
    };
    assert_eq!(refused(vec![1], Vec::new(), vec![prompt(&[])]), EngineError::NothingToScore);
    assert_eq!(refused(vec![1], Vec::new(), vec![prompt(&[&[4], &[]])]), EngineError::NothingToScore);
    let unknown = refused(vec![1], Vec::new(), vec![prompt(&[&[4], &[1 << 30]])]);
    assert!(matches!(unknown, EngineError::UnknownToken { id: 0x4000_0000, .. }));
    let images = vec![Arc::clone(&image)];
    assert_eq!(refused(vec![1], images, vec![prompt(&[&[4]])]), EngineError::UnusedImage { number: 1 });
    let empty = ScoredPrompt { input_ids: Vec::new(), answers: vec![vec![4]] };
    assert_eq!(refused(Vec::new(), Vec::new(), vec![prompt(&[&[4]]), empty]), EngineError::EmptyPrompt);
    let long = ScoredPrompt { input_ids: text(0, 8190), answers: vec![vec![4; 3], vec![4]] };
    let error = refused(vec![1], Vec::new(), vec![prompt(&[&[4]]), long]);
    assert_eq!(error, EngineError::ContextLength { prompt: 8191, answer: 3, context: 8192 });
    // what only generated answers have
    let scoring = || Request::scoring(vec![1], Vec::new(), vec![prompt(&[&[4], &[5]])]);
    let logprobs = SamplingParams { logprobs: Some(0), ..SamplingParams::default() };
    for (request, option) in [
        (Request { stop: vec!["x".to_owned()], ..scoring() }, "stop strings"),
        (Request { sampling: logprobs, ..scoring() }, "logprobs"),
    ] {
        match engine().submit(request) {
            Err(phi3v::Error::Engine(error)) => assert_eq!(error, EngineError::NothingToGenerate { option }),
            other => panic!("{other:?}"),
        }
    }
    assert!(engine().submit(scoring()).is_ok());
}

/// The fixture's tokenizer, and the hub's where it is there.
fn tokenizers() -> Vec<Arc<Tokenizer>> {
    let hub = common::shared("reference/golden/tiny/tokenizer.json");
    let hub = hub.map(|path| Arc::new(Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap()));
    [checkpoint().tokenizer].into_iter().chain(hub).collect()
}

#[test]
fn a_choice_is_what_the_conversation_goes_on_with() {
    for tokenizer in tokenizers() {
        let question = Message::text(Role::User, "Is it red?");
        let before = chat_prompt(&tokenizer, std::slice::from_ref(&question), &[]).unwrap();
        for choice in
            ["yes", "No.", "12.5 %", "a red\ncircle", "caf\u{e9} \u{1f600}", "<|end|>", "<s>", "x  y"]
        {
            let said = [question.clone(), Message::text(Role::Assistant, choice)];
            let whole = chat_prompt(&tokenizer, &said, &[]).unwrap();
            let answer: Vec<i64> = answer_ids(&tokenizer, choice).into_iter().map(i64::from).collect();
            assert_eq!(whole[..before.len()], before);
            assert_eq!(whole[before.len()..][..answer.len()], answer, "{choice:?}");
            assert!(whole.len() <= before.len() + answer.len() + 2, "{choice:?}: a line feed at most");
            assert_eq!(answer.last(), Some(&i64::from(tokenizer.stop_ids()[0])));
            let inner = &answer[..answer.len() - 1];
            assert!(!inner.iter().any(|id| tokenizer.stop_ids().map(i64::from).contains(id)), "{choice:?}");
        }
    }
}

#[test]
fn questions_share_all_that_they_begin_with_alike() {
    let (checkpoint, own) = (checkpoint(), image(3));
    let tokenizer = &checkpoint.tokenizer;
    let images = vec![image(0), image(1)];
    let messages = [Message::user([Part::Image(1), Part::Image(2), Part::Text("Two images.".to_owned())])];
    let questions = [
        Question::new(" Is one red?", ["yes", "no"]),
        Question {
            content: vec![Part::Image(3), Part::Text(" Is it like this?".to_owned())],
            images: vec![Arc::clone(&own)],
            choices: vec!["yes".to_owned(), "no".to_owned(), "yes and no".to_owned()],
        },
        Question::new(" Is one blue?", ["yes", "no"]),
        Question {
            content: vec![Part::Image(3), Part::Text(" Or like this?".to_owned())],
            images: vec![image(4)],
            choices: vec!["yes".to_owned(), "no".to_owned()],
        },
    ];
    let mut all = Questions::new(tokenizer, 4000, &messages, images.clone());
    questions.iter().for_each(|question| all.add(question).unwrap());
    let request = all.into_request();
    assert_eq!((request.images.len(), request.scored.len()), (4, 4));
    // the prompts are those of conversations that ask one question each
    let rows: Vec<usize> =
        [&images[0], &images[1], &own].iter().map(|image| image.num_img_tokens()).collect();
    let asked =
        [Message::user([Part::Image(1), Part::Image(2), Part::Text("Two images. Is one blue?".to_owned())])];
    let expected = chat_prompt(tokenizer, &asked, &rows[..2]).unwrap();
    assert_eq!([&request.input_ids[..], &request.scored[2].input_ids].concat(), expected);
    let numbers = |index: usize| {
        let prompt = [&request.input_ids[..], &request.scored[index].input_ids].concat();
        let mut numbers: Vec<i64> = prompt.into_iter().filter(|&id| id < 0).map(|id| -id).collect();
        numbers.dedup();
        numbers
    };
    assert_eq!([0, 1, 2, 3].map(numbers), [vec![1, 2], vec![1, 2, 3], vec![1, 2], vec![1, 2, 4]]);
    assert!(request.input_ids.len() > rows[0] + rows[1] + 4, "the text before the questions is shared too");

    let mut engine = engine();
    let together = engine.run(request, &mut ()).unwrap().scores;
    for (question, scores) in questions.iter().zip(&together) {
        let mut alone = Questions::new(tokenizer, 4000, &messages, images.clone());
        alone.add(question).unwrap();
        assert_eq!(
            bits(&engine.run(alone.into_request(), &mut ()).unwrap().scores),
            bits(std::slice::from_ref(scores))
        );
    }
}

#[test]
fn choices_that_cannot_be_told_apart_are_refused() {
    let checkpoint = checkpoint();
    let refused = |choices: Vec<String>| {
        let mut questions = Questions::new(&checkpoint.tokenizer, 100, &[], Vec::new());
        questions.add(&Question::new("Is it?", choices)).unwrap_err()
    };
    let told =
        |choices: &[&str]| refused(choices.iter().map(|&choice| choice.to_owned()).collect()).to_string();
    assert_eq!(told(&[]), "a question has 0 choices, it must have 2 to 255");
    assert_eq!(told(&["yes"]), "a question has 1 choice, it must have 2 to 255");
    let many = refused((0..256).map(|number| number.to_string()).collect());
    assert_eq!(many.to_string(), "a question has 256 choices, it must have 2 to 255");
    assert_eq!(told(&["yes", " "]), "choice 2 is empty");
    assert_eq!(told(&["yes", "no", "yes "]), "the choices \"yes\" and \"yes \" are the same answer");
    assert!(told(&["yes", &"no ".repeat(200)]).contains("exceed the context of 100 tokens"));
    assert!(many.hint().is_some());
}

#[test]
fn probabilities_are_a_softmax_of_the_scores() {
    let decision = Decision::new(vec![-3.0, -2.0, -2.0, f64::NEG_INFINITY], 1.0);
    assert_eq!(decision.best(), 1, "the first of equals");
    let e = 1f64.exp();
    for (found, expected) in decision.probabilities.iter().zip([1.0, e, e, 0.0]) {
        assert!((found - expected / (1.0 + 2.0 * e)).abs() < 1e-15);
    }
    assert!((decision.covered() - ((-3f64).exp() + 2.0 * (-2f64).exp())).abs() < 1e-15);
    let warm = Decision::new(vec![-3.0, -1.0], 2.0);
    assert!((warm.probabilities[1] - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-15);
    let far = Decision::new(vec![-2000.0, -2001.0], 1.0);
    assert!((far.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-15 && far.best() == 0);
    let none = Decision::new(vec![f64::NEG_INFINITY; 4], 1.0);
    assert_eq!(none.probabilities, [0.25; 4]);
}

/// Examples whose right choice is drawn from the softmax of what they have as scores, divided by `temperature`.
fn examples(count: usize, choices: usize, temperature: f64) -> Vec<Labelled> {
    let mut random = Pcg64::seed_from_u64(11);
    let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let example = |_| {
        let log_probs: Vec<f64> = (0..choices).map(|_| -8.0 * uniform()).collect();
        let probabilities = Decision::new(log_probs.clone(), temperature).probabilities;
        let mut left = uniform();
        let right = probabilities.iter().position(|probability| {
            left -= probability;
            left < 0.0
        });
        Labelled { log_probs, right: right.unwrap_or(choices - 1) }
    };
    (0..count).map(example).collect()
}

#[test]
fn a_known_temperature_is_found_again() {
    for (choices, temperature) in [(2, 0.5), (2, 1.0), (3, 1.7), (5, 3.0), (20, 6.0)] {
        let examples = examples(20_000, choices, temperature);
        let found = fit(&examples);
        assert!((found / temperature).ln().abs() < 0.05, "{found} for {temperature}");
        let (before, after) = (quality(&examples, 1.0), quality(&examples, found));
        assert!(after.nll <= before.nll && after.ece < 0.02, "{before:?} {after:?}");
        assert_eq!(before.accuracy, after.accuracy);
        if (temperature - 1.0).abs() > 0.3 {
            assert!(before.ece > 2.0 * after.ece, "{before:?} {after:?}");
        }
        // nothing near it is better
        for near in [found * 0.999, found * 1.001] {
            assert!(quality(&examples, near).nll >= after.nll);
        }
    }
}

#[test]
fn examples_that_say_little_leave_a_temperature_within_bounds() {
    let all_right = vec![Labelled { log_probs: vec![0.0, -2.0], right: 0 }; 9];
    let all_wrong = vec![Labelled { log_probs: vec![0.0, -2.0], right: 1 }; 9];
    let equal = vec![Labelled { log_probs: vec![-1.0, -1.0], right: 1 }; 9];
    let impossible = vec![Labelled { log_probs: vec![-1.0, f64::NEG_INFINITY], right: 1 }];
    for examples in [&all_right, &all_wrong, &equal, &impossible, &Vec::new()] {
        let found = fit(examples);
        assert!((TEMPERATURE_MIN..=TEMPERATURE_MAX).contains(&found), "{found}");
    }
    assert!(fit(&all_right) < 0.1 && fit(&all_wrong) > 10.0);
    assert!((fit(&equal) - 1.0).abs() < 1e-6, "they say nothing");
}

#[test]
fn measures_are_those_of_the_textbook() {
    let example = |sure: f64, right| Labelled { log_probs: vec![sure.ln(), (1.0 - sure).ln()], right };
    // twice 90 % sure and once right, twice 60 % sure and both right
    let examples = [example(0.9, 0), example(0.9, 1), example(0.6, 0), example(0.6, 0)];
    let found = quality(&examples, 1.0);
    let nll = -(0.9f64.ln() + 0.1f64.ln() + 2.0 * 0.6f64.ln()) / 4.0;
    assert!((found.nll - nll).abs() < 1e-12 && found.accuracy == 0.75);
    assert!((found.ece - (0.8 + 0.8) / 4.0).abs() < 1e-12, "{found:?}");
}

#[test]
fn a_calibration_is_read_as_it_was_written() {
    let choices = || vec!["yes".to_owned(), "no".to_owned()];
    let fitted = Fitted::new("Is it?".to_owned(), choices(), &examples(50, 2, 2.0));
    let written = Calibration::new("tiny f32".to_owned(), vec![fitted.clone()]);
    let read = Calibration::from_json(written.to_json().as_bytes()).unwrap();
    assert_eq!(read, written);
    assert_eq!(read.temperature("Is it?", &choices()).unwrap().to_bits(), fitted.temperature.to_bits());
    assert!(matches!(read.temperature("Is it", &choices()), Err(CalibrationError::UnknownQuestion { .. })));
    let others = ["yes".to_owned(), "maybe".to_owned()];
    assert!(matches!(read.temperature("Is it?", &others), Err(CalibrationError::UnknownQuestion { .. })));
    assert!(read.check_model("tiny f32").is_ok() && read.check_model("tiny bf16").is_err());
    let asked = choices();
    let questions = || [("Is it?", asked.as_slice()), ("Is it?", asked.as_slice())];
    assert_eq!(read.temperatures("tiny f32", questions()).unwrap(), [fitted.temperature; 2]);
    let other = read.temperatures("tiny bf16", questions()).unwrap_err();
    assert!(matches!(other, CalibrationError::OtherModel { .. }), "{other}");
    let unknown = read.temperatures("tiny f32", [("Is it", asked.as_slice())]).unwrap_err();
    assert!(matches!(unknown, CalibrationError::UnknownQuestion { .. }), "{unknown}");
    let mut tiny: serde_json::Value = serde_json::from_str(&written.to_json()).unwrap();
    tiny["questions"][0]["temperature"] = 1e-300.into();
    let refused = Calibration::from_json(tiny.to_string().as_bytes()).unwrap_err().to_string();
    assert_eq!(refused, "this is no calibration: a temperature is 1e-300, it must be 0.05 to 20");
    for (from, to) in [
        ("\"phi3v_calibration\": 1", "\"phi3v_calibration\": 2"),
        ("\"temperature\": ", "\"temperature\": -"),
        ("\"model\"", "\"modell\""),
        ("\"temperature\": ", "\"temperature\": 1e9, \"x\": "),
        ("{", ""),
    ] {
        let wrong = written.to_json().replacen(from, to, 1);
        assert!(
            matches!(Calibration::from_json(wrong.as_bytes()), Err(CalibrationError::Malformed { .. })),
            "{to}"
        );
    }
}
