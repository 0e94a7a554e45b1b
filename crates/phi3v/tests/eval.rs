//! How far the formats are from f32 on the tiny checkpoint, and that the engine's rules hold for all of them.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use common::{device, repository, tolerances};
use phi3v::checkpoint::Checkpoint;
use phi3v::device::Device;
use phi3v::eval::{Comparison, Sample, Subject};
use phi3v::files::{Existing, Files};
use phi3v::image::{ImageParams, RgbImage, process};
use phi3v::model::{ModelOptions, Phi3V, RopeFactors};
use phi3v::weights::convert::{self, Target};
use phi3v::weights::quantized::Quant;
use phi3v_kernels::{CpuLevel, KvFormat};
use std::ops::ControlFlow;
use std::sync::Arc;

const ANSWER: usize = 12;

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&repository().join("testdata/tiny")).unwrap()
}

fn quantized(quant: Quant) -> (tempfile::TempDir, Checkpoint) {
    let (files, checkpoint) = (Files::Folder(repository().join("testdata/tiny")), checkpoint());
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tiny.safetensors");
    let target = Target { quant, out: &out, existing: Existing::Replace };
    convert::quantize(&files, &checkpoint.weights, &checkpoint.config, target, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    (folder, Checkpoint::open(&out).unwrap())
}

fn model(checkpoint: &Checkpoint, options: ModelOptions, device: Device) -> Phi3V<Device> {
    Phi3V::load(device, &checkpoint.config, &checkpoint.weights, options, &mut |_| {}).unwrap()
}

/// Prompts of made-up ids, every second one with a picture of 2 x 1 tiles.
fn samples() -> Vec<Sample> {
    let params = ImageParams { num_crops: 2, ..ImageParams::default() };
    let pixels = (0..64 * 40 * 3).map(|i| ((i * 7) % 251) as u8).collect();
    let image = Arc::new(process(&RgbImage { width: 64, height: 40, pixels }, &params).unwrap());
    (0..4)
        .map(|seed: i64| {
            let images = if seed % 2 == 0 { vec![Arc::clone(&image)] } else { Vec::new() };
            let rows = images.iter().map(|image| image.num_img_tokens()).sum();
            let text = (0..40 + 30 * seed).map(|i| 3 + (i * i + 7 * i * seed + seed) % 250);
            Sample { input_ids: [1].into_iter().chain(vec![-1; rows]).chain(text).collect(), images }
        })
        .collect()
}

fn compare(reference: &Phi3V<Device>, candidate: &Phi3V<Device>) -> Comparison {
    let (mut reference, mut candidate) =
        (Subject::new(reference, 1024).unwrap(), Subject::new(candidate, 1024).unwrap());
    let mut comparison = Comparison::default();
    for sample in samples() {
        let answer = reference.answer(&sample, ANSWER, &[]).unwrap();
        let logits = candidate.follow(&sample, &answer.tokens, answer.factors).unwrap();
        comparison.add(&answer, &logits);
    }
    comparison
}

#[test]
fn following_an_answer_gives_the_logits_it_came_from() {
    let checkpoint = checkpoint();
    let model = model(&checkpoint, ModelOptions::F32, device(None, None));
    let comparison = compare(&model, &model);
    assert_eq!((comparison.kl_max, comparison.agreed), (0.0, comparison.positions));
    assert_eq!(comparison.positions, 4 * ANSWER);
}

#[test]
fn an_answer_that_ends_early_is_followed_with_its_own_factors() {
    let mut checkpoint = checkpoint();
    let sample = Sample { input_ids: (3..43).collect(), images: Vec::new() };
    // the longest answer outgrows the short factors, those of a token or two do not
    checkpoint.config.original_max_position_embeddings = sample.input_ids.len() + 4;
    let model = model(&checkpoint, ModelOptions::F32, device(None, None));
    let [mut reference, mut candidate] = [(); 2].map(|()| Subject::new(&model, 1024).unwrap());
    let whole = reference.answer(&sample, ANSWER, &[]).unwrap();
    let answer = reference.answer(&sample, ANSWER, &whole.tokens[1..2]).unwrap();
    assert!(answer.tokens.len() <= 2 && answer.factors == RopeFactors::Long);
    assert_eq!(answer.tokens, whole.tokens[..answer.tokens.len()], "the token that ends it is the last");
    assert!(candidate.follow(&sample, &answer.tokens, answer.factors).unwrap() == answer.logits);
}

#[test]
fn every_format_is_as_near_to_f32_as_stated() {
    let original = checkpoint();
    let reference = model(&original, ModelOptions::F32, device(None, None));
    let (_q8_folder, q8) = quantized(Quant::Q8);
    let (_q4_folder, q4) = quantized(Quant::Q4);
    let kv = |kv_format| ModelOptions { kv_format, ..ModelOptions::F32 };
    for (name, checkpoint, options, bound) in [
        ("bf16", &original, ModelOptions::BF16, tolerances::KL_BF16),
        ("f32, KV q8", &original, kv(KvFormat::Q8), tolerances::KL_KV_Q8),
        ("q8, KV f32", &q8, kv(KvFormat::F32), tolerances::KL_Q8),
        ("q8, KV q8", &q8, kv(KvFormat::Q8), tolerances::KL_Q8),
        ("q4, KV q8", &q4, kv(KvFormat::Q8), tolerances::KL_Q4),
    ] {
        let comparison = compare(&reference, &model(checkpoint, options, device(None, None)));
        let (kl, top1) = (comparison.kl_mean(), comparison.top1_agreement());
        eprintln!("{name}: KL {kl:.2e} (largest {:.2e}), top-1 {top1:.3}", comparison.kl_max);
        assert!(kl <= bound, "{name}: KL {kl}");
    }
}

#[test]
fn threads_give_the_same_bits_with_quantized_weights() {
    for quant in [Quant::Q8, Quant::Q4] {
        let (_folder, checkpoint) = quantized(quant);
        let options = ModelOptions { kv_format: KvFormat::Q8, ..ModelOptions::BF16 };
        for level in CpuLevel::ALL.into_iter().skip(1).filter(|&l| CpuLevel::detect().includes(l)) {
            let answers = [1, 3].map(|threads| {
                let model = model(&checkpoint, options, device(Some(level), Some(threads)));
                let mut subject = Subject::new(&model, 1024).unwrap();
                samples().iter().map(|s| subject.answer(s, ANSWER, &[]).unwrap()).collect::<Vec<_>>()
            });
            assert!(answers[0] == answers[1], "{quant:?} {level:?}");
        }
    }
}
