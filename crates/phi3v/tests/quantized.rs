//! phi3v's own file: what is written opens again, means what the packed format says, and is refused when it is bent.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use common::tolerances;
use phi3v::checkpoint::{Checkpoint, CheckpointError};
use phi3v::device::Device;
use phi3v::engine::{Engine, EngineOptions, Event, Request};
use phi3v::files::{Existing, Files, WriteError, partial_path};
use phi3v::image::{ImageParams, RgbImage, process};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::sampler::SamplingParams;
use phi3v::weights::convert::{self, ConvertError, Progress, Target};
use phi3v::weights::quantized::Quant;
use phi3v::weights::table::{self, Role};
use phi3v::weights::{WeightsError, digest};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{Format, Precision};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn tiny() -> (Files, Checkpoint) {
    let files = Files::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny"));
    let checkpoint = Checkpoint::from_files(&files).unwrap();
    (files, checkpoint)
}

fn q8(out: &Path) -> Target<'_> {
    Target { quant: Quant::Q8, out, existing: Existing::Replace }
}

fn quantize(quant: Quant, out: &Path) -> Result<(), ConvertError> {
    let (files, checkpoint) = tiny();
    let target = Target { quant, out, existing: Existing::Replace };
    convert::quantize(&files, &checkpoint.weights, &checkpoint.config, target, &mut |_| {
        ControlFlow::Continue(())
    })
}

/// A folder with the tiny checkpoint quantized in it.
fn quantized(quant: Quant) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tiny.safetensors");
    quantize(quant, &out).unwrap();
    (folder, out)
}

/// A matrix as `[n, k]` values, decoded where it is packed.
fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let source = checkpoint.weights.linear(name.trim_end_matches(".weight"), Precision::F32).unwrap();
    let Some(shape) = PackedShape::new(source.format, source.n, source.k) else {
        return checkpoint.weights.vector(name).unwrap();
    };
    let mut out = vec![0.0; source.n * source.k];
    for (panel, bytes) in source.bytes.chunks_exact(shape.panel_bytes()).enumerate() {
        let rows = shape.panel_rows(panel);
        shape.decode_panel(panel, bytes, &mut out[rows.start * source.k..rows.end * source.k]);
    }
    out
}

#[test]
fn every_tensor_comes_back_in_the_format_of_its_role() {
    let (_, original) = tiny();
    for quant in [Quant::Q8, Quant::Q4] {
        let (_folder, path) = quantized(quant);
        let found = Checkpoint::open(&path).unwrap();
        assert_eq!(found.config, original.config);
        assert_eq!(found.tokenizer.vocab_size(), original.tokenizer.vocab_size());
        for spec in table::tensors(&original.config).into_iter().filter(|spec| spec.used) {
            let (before, after) =
                (original.weights.tensor(&spec.name).unwrap(), found.weights.tensor(&spec.name).unwrap());
            assert_eq!(after.format, quant.format(spec.role).unwrap_or(before.format), "{}", spec.name);
            assert_eq!(after.shape, before.shape, "{}", spec.name);
            let bound = match after.format {
                Format::Q8 => tolerances::Q8_WEIGHTS,
                Format::Q4 => tolerances::Q4_WEIGHTS,
                _ => {
                    assert_eq!(after.bytes[..], before.bytes[..], "{}", spec.name);
                    continue;
                }
            };
            assert_ne!(spec.role, Role::Dense);
            let (before, after) = (values(&original, &spec.name), values(&found, &spec.name));
            let error: f32 = before.iter().zip(&after).map(|(a, b)| (a - b) * (a - b)).sum();
            let size: f32 = before.iter().map(|a| a * a).sum();
            assert!(error.sqrt() <= bound * size.sqrt(), "{}: {}", spec.name, (error / size).sqrt());
        }
    }
}

/// A token's id, and the bits of its log probability.
type Scored = (u32, u32);

/// What is told of a request: its tokens, the likeliest at each place, and how many of its prompt's were known.
#[derive(Debug, Default, PartialEq)]
struct Told {
    tokens: Vec<Scored>,
    top: Vec<Vec<Scored>>,
    cached: usize,
}

/// The answers to requests that are all there at once.
fn answers(engine: &mut Engine<Device>, requests: Vec<Request>) -> Vec<Told> {
    let ids: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let mut told: Vec<Told> = ids.iter().map(|_| Told::default()).collect();
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            let told = &mut told[ids.iter().position(|id| *id == output.id).unwrap()];
            match output.event {
                Event::Token(token) => {
                    told.top.push(token.top.iter().map(|(id, log)| (*id, log.to_bits())).collect());
                    told.tokens.push((token.id, token.logprob.unwrap().to_bits()));
                }
                Event::Finished(finished) => told.cached = finished.usage.cached_tokens,
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }
    told
}

#[test]
fn answers_of_packed_weights_are_those_of_requests_that_run_alone_to_the_last_bit() {
    const REQUESTS: usize = 9;
    let picture = |seed: usize| {
        let (width, height) = (40 + seed, 64);
        let pixels = (0..width * height * 3).map(|i| (i * (seed + 3) % 251) as u8).collect();
        let params = ImageParams { num_crops: 1, ..ImageParams::default() };
        Arc::new(process(&RgbImage { width, height, pixels }, &params).unwrap())
    };
    let request = |input_ids, images| {
        let sampling = SamplingParams { logprobs: Some(3), ..SamplingParams::default() };
        Request { sampling, ..Request::greedy(input_ids, images, 150) }
    };
    let first = |seed: usize| {
        let images: Vec<_> = seed.is_multiple_of(4).then(|| picture(seed)).into_iter().collect();
        let rows = images.iter().flat_map(|image| vec![-1; image.num_img_tokens()]);
        let text = (0..20 + 37 * seed % 150).map(|i| 3 + ((i * i + 7 * i * seed + seed) % 250) as i64);
        request([1, 5].into_iter().chain(rows).chain(text).collect(), images)
    };
    // the same conversation goes on: what it begins with, the answer too, is in the cache
    let second = |seed: usize, said: &Told| {
        let Request { input_ids, images, .. } = first(seed);
        let said = said.tokens.iter().map(|token| i64::from(token.0));
        request(input_ids.into_iter().chain(said).chain((0..30).map(|i| 9 + i * i % 200)).collect(), images)
    };
    for quant in [Quant::Q8, Quant::Q4] {
        let (_folder, path) = quantized(quant);
        let Checkpoint { config, weights, tokenizer, .. } = &Checkpoint::open(&path).unwrap();
        let engine = |running_max, threads| {
            let device = common::device(None, Some(threads));
            let model = Phi3V::load(device, config, weights, ModelOptions::of(weights), &mut |_| ()).unwrap();
            let cache_tokens = 32_768;
            let options =
                EngineOptions { running_max: Some(running_max), cache_tokens, ..EngineOptions::default() };
            Engine::new(model, Arc::clone(tokenizer), Vec::new(), options).unwrap()
        };
        let (mut alone, mut together) = (engine(1, 1), engine(16, 2));
        let mut one_by_one = |requests: Vec<Request>| -> Vec<Told> {
            requests.into_iter().flat_map(|request| answers(&mut alone, vec![request])).collect()
        };
        let expected = one_by_one((0..REQUESTS).map(first).collect());
        let found = answers(&mut together, (0..REQUESTS).map(first).collect());
        assert_eq!(found, expected, "{quant:?}");
        let go_on = || expected.iter().enumerate().map(|(seed, said)| second(seed, said)).collect();
        let (expected_next, found_next) = (one_by_one(go_on()), answers(&mut together, go_on()));
        assert_eq!(found_next, expected_next, "{quant:?}, the second question");
        for (seed, told) in expected_next.iter().enumerate() {
            let prompt = first(seed).input_ids.len();
            assert!(told.cached > prompt, "{quant:?}: {} of {prompt} tokens and the answer", told.cached);
        }
    }
}

#[test]
fn packed_tensors_lie_on_cache_lines() {
    let (_folder, path) = quantized(Quant::Q4);
    let bytes = std::fs::read(&path).unwrap();
    let header_bytes = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    for (name, entry) in header.as_object().unwrap().iter().filter(|(_, entry)| entry["dtype"] == "U8") {
        let start = entry["data_offsets"][0].as_u64().unwrap() as usize;
        assert_eq!((8 + header_bytes + start) % 64, 0, "{name}");
    }
}

#[test]
fn progress_reaches_the_size_of_the_file() {
    let (files, checkpoint) = tiny();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let mut seen: Vec<Progress> = Vec::new();
    convert::quantize(&files, &checkpoint.weights, &checkpoint.config, q8(&out), &mut |p| {
        seen.push(p);
        ControlFlow::Continue(())
    })
    .unwrap();
    let bytes = out.metadata().unwrap().len();
    assert!(seen.is_sorted_by_key(|p| p.done));
    assert_eq!(*seen.last().unwrap(), Progress { done: bytes, total: bytes });
    let expected = convert::quantized_bytes(&checkpoint.weights, &checkpoint.config, Quant::Q8);
    assert!(expected < bytes && bytes < expected + (4 << 20), "{expected} and a header, {bytes}");
}

#[test]
fn an_interrupted_run_leaves_what_was_there() {
    let (files, checkpoint) = tiny();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    std::fs::write(&out, "before").unwrap();
    let mut stop =
        |p: Progress| if p.done > 20_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let error =
        convert::quantize(&files, &checkpoint.weights, &checkpoint.config, q8(&out), &mut stop).unwrap_err();
    assert!(matches!(error, ConvertError::Interrupted));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-written");
    // what a killed run leaves is overwritten
    std::fs::write(partial_path(&out), vec![7; 10_000_000]).unwrap();
    quantize(Quant::Q4, &out).unwrap();
    Checkpoint::open(&out).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_second_writer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let partial = std::fs::File::create(partial_path(&out)).unwrap();
    partial.try_lock().unwrap();
    assert!(matches!(quantize(Quant::Q8, &out), Err(ConvertError::File(WriteError::Busy { .. }))));
}

#[test]
fn what_exists_is_kept_unless_it_is_to_be_replaced() {
    let (files, checkpoint) = tiny();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    std::fs::write(&out, "before").unwrap();
    let target = Target { existing: Existing::Keep, ..q8(&out) };
    let error = convert::quantize(&files, &checkpoint.weights, &checkpoint.config, target, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap_err();
    assert!(matches!(error, ConvertError::File(WriteError::Exists { .. })), "{error}");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "before");
}

#[test]
fn damage_anywhere_is_told() {
    let (_folder, path) = quantized(Quant::Q8);
    let whole = std::fs::read(&path).unwrap();
    assert!(digest::is_undamaged(&path).unwrap());
    let header_bytes = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let key = whole.windows(8).position(|window| window == b"\"digest\"").unwrap();
    let places =
        [0, 9, key + 1, key + 12, header_bytes / 2, 8 + header_bytes, whole.len() / 2, whole.len() - 1];
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(!digest::is_undamaged(&path).unwrap(), "byte {place}");
    }
    for bytes in [&b""[..], &[255; 8], b"no model", &whole[..whole.len() - 1], &whole[..8 + header_bytes / 2]]
    {
        std::fs::write(&path, bytes).unwrap();
        assert!(!digest::is_undamaged(&path).unwrap());
    }
}

#[test]
fn what_is_quantized_is_not_quantized_again() {
    let (folder, path) = quantized(Quant::Q8);
    let found = Checkpoint::open(&path).unwrap();
    let (files, _) = tiny();
    let out = folder.path().join("again.safetensors");
    let error =
        convert::quantize(
            &files,
            &found.weights,
            &found.config,
            q8(&out),
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap_err();
    assert!(matches!(error, ConvertError::Quantized { .. }), "{error}");
    assert!(!out.exists());
}

/// The quantized tiny checkpoint with its header's text changed, the length kept right.
fn bent(change: impl Fn(String) -> String) -> CheckpointError {
    let (folder, path) = quantized(Quant::Q4);
    let bytes = std::fs::read(&path).unwrap();
    let header_bytes = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + header_bytes].to_vec()).unwrap();
    let changed = change(header.clone());
    assert_ne!(changed, header, "the change changes something");
    let mut out = (changed.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(changed.as_bytes());
    out.extend_from_slice(&bytes[8 + header_bytes..]);
    let bent = folder.path().join("bent.safetensors");
    std::fs::write(&bent, out).unwrap();
    Checkpoint::open(&bent).unwrap_err()
}

#[test]
fn bent_files_are_refused_by_name() {
    let version = bent(|h| h.replace(r#""version":"1""#, r#""version":"9""#));
    assert_eq!(
        version.to_string(),
        "bent.safetensors is in the format \"phi3v 9\", which this release does not know"
    );
    let dense = bent(|h| h.replace(r#""format":"phi3v""#, r#""format":"pt""#));
    assert!(matches!(dense, CheckpointError::Weights(WeightsError::NotWhole { .. })), "{dense}");
    // a block of q4 declared as if it were of another size: the number of bytes stays, the meaning would not
    let shape = bent(|h| h.replacen(",4352]", ",2176,2]", 1));
    assert!(matches!(shape, CheckpointError::Weights(WeightsError::Shape { .. })), "{shape}");
    let config = bent(|h| h.replacen(r#"\"hidden_size\": "#, r#"\"hidden_size\": 1"#, 1));
    assert!(matches!(config, CheckpointError::Config(_) | CheckpointError::Weights(_)), "{config}");
    let missing = bent(|h| h.replacen(r#""config.json""#, r#""confog.json""#, 1));
    assert!(missing.to_string().contains("config.json"), "{missing}");
}

#[test]
fn truncated_files_are_refused() {
    let (folder, path) = quantized(Quant::Q8);
    let bytes = std::fs::read(&path).unwrap();
    let cut = folder.path().join("cut.safetensors");
    for length in [0, 7, 8, 1000, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        let error = Checkpoint::open(&cut).unwrap_err();
        assert!(matches!(error, CheckpointError::Weights(_)), "{length}: {error}");
    }
}
