//! `phi3v eval`: measures how far the forms of a model differ.

use crate::args::{EvalArgs, Kv, QuantChoice};
use crate::error::CliError;
use crate::hub::{self, HubOptions, ModelSource};
use crate::sources::{self, ImageOptions, NamedImage};
use crate::terminal::print;
use crate::{note, quantized, runtime};
use phi3v::chat_template::{Message, Part};
use phi3v::checkpoint::Checkpoint;
use phi3v::device::Device;
use phi3v::error::count;
use phi3v::eval::{Answer, Comparison, Sample, Subject};
use phi3v::image::ImageMode;
use phi3v::memory::MemoryRequest;
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::processor::chat_prompt;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[derive(Serialize)]
struct Outcome {
    quant: &'static str,
    kv: &'static str,
    positions: usize,
    kl_mean: f64,
    kl_max: f64,
    top1_agreement: f64,
    first_divergence: Option<usize>,
    perplexity: f64,
}

#[derive(Serialize)]
struct Report {
    model: String,
    reference: &'static str,
    reference_perplexity: Option<f64>,
    samples: usize,
    candidates: Vec<Outcome>,
}

/// The questions for all models of the run.
struct Questions {
    samples: Vec<Sample>,
    /// Tokens of the longest prompt.
    prompt_max: usize,
}

/// Runs the comparison and prints it.
///
/// # Errors
/// A picture or the model cannot be used, or a quantized form cannot be written.
pub(super) fn run(args: &EvalArgs) -> Result<(), CliError> {
    if args.prompt.iter().any(|prompt| prompt.trim().is_empty()) {
        return Err(CliError::EmptyPrompt);
    }
    sources::check_names(&args.images, &[])?;
    let source = hub::resolve(&args.model.name(), &HubOptions::from_env(), &mut *hub::for_stderr())?;
    let checkpoint = runtime::open_source(&source)?;
    if let Some(quant) = checkpoint.weights.quant() {
        // it would be compared with itself
        return Err(CliError::QuantizedReference { name: checkpoint.name, quant: quant.name() });
    }
    let questions = questions(args, &checkpoint)?;
    // a reference without room is not worth minutes of quantizing, and the candidates are made before its answers, which take long
    let device = plan(args, &checkpoint, args.reference.options(), &questions, questions.samples.len())?;
    let open = |quant: &QuantChoice| Candidate::open(&source, *quant);
    let candidates = args.quant.iter().map(open).collect::<Result<Vec<_>, CliError>>()?;
    let answers = answers(args, &checkpoint, device, &questions)?;
    let mut report = Report {
        model: checkpoint.name.clone(),
        reference: args.reference.name(),
        reference_perplexity: None,
        samples: questions.samples.len(),
        candidates: Vec::new(),
    };
    let compared = compare_all(args, &candidates, &questions, &answers, &mut report);
    // results obtained before one candidate failed took time, so they are printed
    if compared.is_ok() || !report.candidates.is_empty() {
        let text = if args.json { crate::report::json(&report) + "\n" } else { report.to_string() };
        print(text).map_err(CliError::Output)?;
    }
    compared
}

/// Compares each candidate with the reference's answers and adds it to the report, until one fails.
fn compare_all(
    args: &EvalArgs,
    candidates: &[Candidate],
    questions: &Questions,
    answers: &[Answer],
    report: &mut Report,
) -> Result<(), CliError> {
    for candidate in candidates {
        for kv in &args.kv {
            let comparison = compare(args, candidate, *kv, questions, answers)?;
            let [reference, perplexity] = comparison.perplexity();
            report.reference_perplexity = Some(reference);
            report.candidates.push(Outcome::new(candidate.quant, *kv, &comparison, perplexity));
        }
    }
    Ok(())
}

/// A form of the model, which is compared with the reference.
struct Candidate {
    quant: QuantChoice,
    checkpoint: Checkpoint,
}

impl Candidate {
    /// Opens the model at `source` in the form `quant`, which is made if needed.
    fn open(source: &ModelSource, quant: QuantChoice) -> Result<Self, CliError> {
        let checkpoint = runtime::open_source(source)?;
        let checkpoint = match quant.quant() {
            Some(quant) => quantized::open(source, checkpoint, quant, &AtomicBool::new(false))?,
            None => checkpoint,
        };
        Ok(Self { quant, checkpoint })
    }
}

/// Every prompt about every picture.
fn questions(args: &EvalArgs, checkpoint: &Checkpoint) -> Result<Questions, CliError> {
    let own = &checkpoint.preprocessor;
    let params = own.with_num_crops(args.num_crops.unwrap_or(own.num_crops));
    let options = ImageOptions::of_files(ImageMode::AsSeen, params, args.limits.limits());
    let pictures = sources::read_images(&args.images, &options)?;
    let mut samples = Vec::new();
    for prompt in &args.prompt {
        if pictures.is_empty() {
            samples.push(sample(prompt, None, checkpoint)?);
        }
        for picture in &pictures {
            samples.push(sample(prompt, Some(picture), checkpoint)?);
        }
    }
    let longest = samples.iter().map(|sample| sample.input_ids.len()).max().unwrap_or(0);
    Ok(Questions { samples, prompt_max: longest })
}

fn sample(prompt: &str, picture: Option<&NamedImage>, checkpoint: &Checkpoint) -> Result<Sample, CliError> {
    let text = Part::Text(prompt.to_owned());
    let message = Message::user(picture.map(|_| Part::Image(1)).into_iter().chain([text]));
    let images: Vec<_> = picture.iter().map(|picture| Arc::clone(&picture.inputs)).collect();
    let tokens: Vec<usize> = images.iter().map(|image| image.num_img_tokens()).collect();
    let input_ids = chat_prompt(&checkpoint.tokenizer, &[message], &tokens).map_err(phi3v::Error::from)?;
    Ok(Sample { input_ids, images })
}

/// Returns the device for a form of the model, if it fits with the longest question, its answer, and the logits of `answers` answers.
fn plan(
    args: &EvalArgs,
    checkpoint: &Checkpoint,
    options: ModelOptions,
    questions: &Questions,
    answers: usize,
) -> Result<Device, CliError> {
    let request = MemoryRequest {
        weights_bytes: checkpoint.weights.bytes_total(),
        kv_format: options.kv_format,
        num_crops: args.num_crops.unwrap_or(checkpoint.preprocessor.num_crops),
        prefill_chunk: None,
        // one picture at a time
        image_cache_bytes: f32_bytes([questions.prompt_max, checkpoint.config.hidden_size, 1]),
        kept_bytes: f32_bytes([answers, args.max_new_tokens, checkpoint.config.vocab_size]),
        context: None,
    };
    let device = runtime::device(&args.device)?;
    let (prompt, answer) = (questions.prompt_max, args.max_new_tokens);
    let (device, _) = runtime::plan_exactly(device, &args.device, checkpoint, request, prompt, answer)?;
    Ok(device)
}

/// Loads a form of the model to the device that [`plan`] returned for it.
fn load(checkpoint: &Checkpoint, device: Device, options: ModelOptions) -> Result<Phi3V<Device>, CliError> {
    Ok(Phi3V::load(device, &checkpoint.config, &checkpoint.weights, options, &mut |_| {})?)
}

/// Bytes of an `f32` array of the given shape.
fn f32_bytes(shape: [usize; 3]) -> u64 {
    shape.into_iter().fold(size_of::<f32>() as u64, |bytes, side| bytes.saturating_mul(side as u64))
}

/// The reference's answers.
fn answers(
    args: &EvalArgs,
    checkpoint: &Checkpoint,
    device: Device,
    questions: &Questions,
) -> Result<Vec<Answer>, CliError> {
    let model = load(checkpoint, device, args.reference.options())?;
    let mut subject = Subject::new(&model, questions.prompt_max + args.max_new_tokens)?;
    let stop_ids = checkpoint.stop_ids();
    let mut answers = Vec::new();
    for (index, sample) in questions.samples.iter().enumerate() {
        note!("reference: question {} of {}", index + 1, questions.samples.len());
        answers.push(subject.answer(sample, args.max_new_tokens, &stop_ids)?);
    }
    Ok(answers)
}

/// Compares a candidate with the reference's answers.
fn compare(
    args: &EvalArgs,
    candidate: &Candidate,
    kv: Kv,
    questions: &Questions,
    answers: &[Answer],
) -> Result<Comparison, CliError> {
    let options = ModelOptions { kv_format: kv.format(), ..ModelOptions::BF16 };
    // the memory for the reference's answers is already taken
    let device = plan(args, &candidate.checkpoint, options, questions, 1)?;
    let model = load(&candidate.checkpoint, device, options)?;
    // no overflow: the plan has compared the sum with the model's own limit
    let mut subject = Subject::new(&model, questions.prompt_max + args.max_new_tokens)?;
    let mut comparison = Comparison::default();
    for (index, (sample, answer)) in questions.samples.iter().zip(answers).enumerate() {
        note!("{}: question {} of {}", quant_name(candidate.quant), index + 1, answers.len());
        comparison.add(answer, &subject.follow(sample, &answer.tokens, answer.factors)?);
    }
    Ok(comparison)
}

fn quant_name(quant: QuantChoice) -> &'static str {
    quant.quant().map_or("bf16", |quant| quant.name())
}

impl Outcome {
    fn new(quant: QuantChoice, kv: Kv, comparison: &Comparison, perplexity: f64) -> Self {
        Self {
            quant: quant_name(quant),
            kv: kv.name(),
            positions: comparison.positions,
            kl_mean: comparison.kl_mean(),
            kl_max: comparison.kl_max,
            top1_agreement: comparison.top1_agreement(),
            first_divergence: comparison.first_divergence,
            perplexity,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { model, reference, reference_perplexity, samples, candidates } = self;
        writeln!(f, "{model}, {}; the reference is {reference}", count(*samples, "question"))?;
        if let Some(perplexity) = reference_perplexity {
            writeln!(f, "perplexity of its own answers: {perplexity:.4}\n")?;
        }
        writeln!(f, "weights  KV    tokens  KL mean   KL max    same top  differs at  perplexity")?;
        for Outcome { quant, kv, positions, kl_mean, kl_max, top1_agreement, first_divergence, perplexity } in
            candidates
        {
            let first = first_divergence.map_or_else(|| "-".to_owned(), |first| first.to_string());
            let top1 = 100.0 * top1_agreement;
            write!(f, "{quant:8} {kv:5} {positions:6}  {kl_mean:8.2e}  {kl_max:8.2e}  {top1:6.1} %")?;
            writeln!(f, "  {first:>10}  {perplexity:10.4}")?;
        }
        Ok(())
    }
}
