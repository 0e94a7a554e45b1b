//! The model, stage by stage, on the tiny random checkpoint against what torch makes of it (`testdata/stages.*`, by
//! `scripts/reference/stages.py`), on every CPU level of this machine. Needs nothing outside the repository.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{relative_error, repository, safetensors_f32, tolerances};
use phi3v::checkpoint::Checkpoint;
use phi3v::device::Device;
use phi3v::image::{
    ImageInputs, ImageLimits, ImageMode, ImageParams, RgbImage, TILE_VALUES, decode, process,
};
use phi3v::model::{Chunk, ModelOptions, Phi3V, Progress, Segment};
use phi3v::trace::{Entry, Trace, TraceOptions, Values, trace};
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v_kernels::cpu::CpuLevel;
use phi3v_kernels::testing::Deferred;
use phi3v_kernels::{Backend, KV_BLOCK_TOKENS, KvFormat, Precision};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

type Goldens = BTreeMap<String, Vec<f32>>;

fn images(case: &serde_json::Value, checkpoint: &Checkpoint) -> Vec<Arc<ImageInputs>> {
    let load = |name: &serde_json::Value| {
        let path = repository().join("testdata/images").join(name.as_str().unwrap());
        let image =
            decode(&std::fs::read(path).unwrap(), ImageMode::Reference, &ImageLimits::default()).unwrap();
        Arc::new(process(&image, &checkpoint.preprocessor).unwrap())
    };
    case["images"].as_array().unwrap().iter().map(load).collect()
}

fn device(level: CpuLevel) -> Device {
    common::device(Some(level), None)
}

fn run<B: Backend>(case: &serde_json::Value, backend: B) -> Trace {
    let checkpoint = Checkpoint::open(&repository().join("testdata/tiny")).unwrap();
    let images = images(case, &checkpoint);
    let model = Phi3V::load(backend, &checkpoint.config, &checkpoint.weights, ModelOptions::F32, &mut |_| {})
        .unwrap();
    let options = TraceOptions {
        prompt: case["prompt"].as_str().unwrap().to_owned(),
        max_new_tokens: case["max_new_tokens"].as_u64().unwrap() as usize,
        hidden_states: true,
    };
    // no stop ids: the continuation goes on past the end of an answer, as the golden does
    trace(model, &checkpoint.tokenizer, &images, &options, Vec::new()).unwrap()
}

/// `rows` of every `[rows, width]` array of an entry `[.., rows, width]`.
fn pick(entry: &Entry, values: &[f32], rows: &[f32]) -> Vec<f32> {
    let [.., height, width] = entry.shape[..] else { panic!("{} has no rows", entry.name) };
    let row = |array: usize, row: usize| &values[(array * height + row) * width..][..width];
    (0..values.len() / (height * width))
        .flat_map(|array| rows.iter().flat_map(move |&index| row(array, index as usize)))
        .copied()
        .collect()
}

/// Compares a trace with all that is recorded of its prompt.
fn check(prompt: &str, level: &dyn Display, trace: &Trace, goldens: &Goldens) {
    let mut compared = 0;
    for entry in trace {
        let stage = format!("{prompt}.{}", entry.name);
        let Some(golden) = goldens.get(&stage) else { continue };
        compared += 1;
        match &entry.values {
            Values::I64(found) => {
                let found: Vec<f32> = found.iter().map(|&id| id as f32).collect();
                assert!(found == *golden, "{level}: {stage} is {found:?} instead of {golden:?}");
            }
            Values::F32(found) => {
                let rows = match entry.name.split('.').next() {
                    Some("vision_features") => Some(&goldens["patches"]),
                    Some("hidden_states" | "final_norm") => Some(&goldens[&format!("{prompt}.rows")]),
                    _ => None,
                };
                let found = rows.map_or_else(|| found.clone(), |rows| pick(entry, found, rows));
                let error = relative_error(&found, golden);
                eprintln!("{level}: {stage} is off by {error:.1e} of its largest value");
                assert!(error <= tolerances::OWN_STAGE_F32, "{level}: {stage} is off by {error:e}");
            }
        }
    }
    let recorded = goldens.keys().filter(|name| name.starts_with(&format!("{prompt}."))).count();
    assert_eq!(compared, recorded - 1, "{prompt}: all but the list of rows must be compared");
}

fn cases() -> Vec<serde_json::Value> {
    let cases = std::fs::read(repository().join("testdata/stages.json")).unwrap();
    serde_json::from_slice(&cases).unwrap()
}

/// What the best level of this machine makes of each case, for the tests that need it.
static BEST: LazyLock<Vec<Trace>> = LazyLock::new(|| {
    let level = CpuLevel::detect();
    cases().iter().map(|case| run(case, device(level))).collect()
});

#[test]
fn every_stage_equals_the_reference_on_every_cpu_level() {
    let goldens = safetensors_f32(&repository().join("testdata/stages.safetensors"));
    let cases = cases();
    assert_eq!(cases.len(), 5);
    let best = CpuLevel::detect();
    for (case, trace) in cases.iter().zip(BEST.iter()) {
        let name = case["name"].as_str().unwrap();
        check(name, &best, trace, &goldens);
        // what prompts around 4,096 tokens change is the model's; as many keys are in the kernels' own tests of every level
        if goldens[&format!("{name}.input_ids")].len() < 4000 {
            for level in CpuLevel::ALL.into_iter().filter(|&level| level != best && best.includes(level)) {
                check(name, &level, &run(case, device(level)), &goldens);
            }
        }
    }
}

#[test]
fn every_stage_equals_the_reference_on_the_device_that_is_named() {
    let goldens = safetensors_f32(&repository().join("testdata/stages.safetensors"));
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        // those around 4,096 tokens take minutes on a card in software
        if goldens[&format!("{name}.input_ids")].len() < 4000 {
            let Some(device) = common::named_device() else { return };
            check(name, &"the device", &run(&case, device), &goldens);
        }
    }
}

/// Nothing in the model may read a result, or rely on one, before it downloads.
#[test]
fn a_device_that_runs_at_downloads_alone_gives_the_same_bits() {
    let level = CpuLevel::detect();
    for (case, direct) in cases().iter().zip(BEST.iter()) {
        let deferred = run(case, Deferred::new(device(level)));
        assert!(*direct == deferred, "{}", case["name"]);
    }
}

/// The rows of an image whose tiles go through the model `tiles_at_once` at a time.
fn embedding<B: Backend>(model: &Phi3V<B>, image: &ImageInputs, tiles_at_once: usize) -> Vec<f32> {
    let mut job = model.begin_image(image.distinct_tiles()).unwrap();
    for tiles in image.distinct.chunks(tiles_at_once * TILE_VALUES) {
        model.vision_tower(&mut job, tiles, &mut |_| ControlFlow::Continue(())).unwrap();
    }
    let rows = model.finish_image(job, &image.grid, &image.tile_of).unwrap();
    let (count, mut values) = (model.backend().shape(&rows).0, Vec::new());
    model.backend().download(&rows, 0..count, &mut values).unwrap();
    values
}

#[test]
fn the_rows_of_a_picture_do_not_depend_on_how_many_tiles_go_together() {
    let config = Checkpoint::open(&repository().join("testdata/tiny")).unwrap().config;
    let params = ImageParams { num_crops: 2, ..ImageParams::default() };
    let pixels = (0..80 * 40 * 3).map(|i| ((i * i + 7 * i) % 251) as u8).collect();
    let image = process(&RgbImage { width: 80, height: 40, pixels }, &params).unwrap();
    assert_eq!(image.distinct_tiles(), 3);
    let (f32, bf16) = (Precision::F32, Precision::Bf16);
    for (quant, precision) in [(None, f32), (None, bf16), (Some(Quant::Q8), bf16), (Some(Quant::Q4), bf16)] {
        let weights = Weights::random(&config, quant);
        let options = ModelOptions { precision, ..ModelOptions::F32 };
        let levels = CpuLevel::ALL.into_iter().filter(|&level| CpuLevel::detect().includes(level));
        for device in levels.map(device).chain(common::named_device()) {
            let model = Phi3V::load(device, &config, &weights, options, &mut |_| {}).unwrap();
            let [all, others @ ..] = [3, 1, 2].map(|at_once| embedding(&model, &image, at_once));
            assert!(
                others.iter().all(|rows| *rows == all),
                "{quant:?} {precision:?} on {:?}",
                model.backend()
            );
        }
    }
}

#[test]
fn loading_ends_where_nobody_wants_it_any_more() {
    let checkpoint = Checkpoint::open(&repository().join("testdata/tiny")).unwrap();
    let mut seen = Vec::new();
    let mut observe = |progress| {
        seen.push(progress);
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let (device, Checkpoint { config, weights, .. }) = (common::device(None, None), &checkpoint);
    let loaded = Phi3V::load_unless_stopped(device, config, weights, ModelOptions::F32, &mut observe);
    assert!(matches!(loaded.err(), Some(phi3v::Error::Stopped)));
    let layers = config.num_hidden_layers;
    assert_eq!(seen, [0, 1].map(|done| Progress::Load { done, layers }));
}

#[test]
fn a_filled_cache_is_one_to_decode_after() {
    let checkpoint = Checkpoint::open(&repository().join("testdata/tiny")).unwrap();
    for options in [ModelOptions::F32, ModelOptions { kv_format: KvFormat::Q8, ..ModelOptions::BF16 }] {
        let device = common::device(None, None);
        let model =
            Phi3V::load(device, &checkpoint.config, &checkpoint.weights, options, &mut |_| {}).unwrap();
        // a whole run of blocks, and some more
        let blocks: Vec<u32> = (0..11).collect();
        let mut cache = model.cache(blocks.len()).unwrap();
        model.fill_cache(&mut cache, blocks.len()).unwrap();
        let mut decode = |past: usize| {
            let factors = model.rope().factors_for(past + 1);
            let segments = [Segment::Tokens(&[5])];
            let batch = [Chunk { segments: &segments, past, blocks: &blocks, factors, logits: 1 }];
            let mut logits = Vec::new();
            model.forward(&batch, &mut cache, &mut logits, &mut |_| ControlFlow::Continue(())).unwrap();
            logits
        };
        let (near, far) = (decode(1), decode(11 * KV_BLOCK_TOKENS - 1));
        assert!(near.iter().chain(&far).all(|logit| logit.is_finite()));
        // what was filled in is seen
        assert!(near != far && far != decode(10 * KV_BLOCK_TOKENS - 1));
    }
}
