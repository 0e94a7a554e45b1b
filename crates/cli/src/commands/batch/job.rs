//! The definition of a job: its questions and the settings that determine its answers.

use crate::args::{BatchArgs, GenerationArgs};
use crate::batch::BatchError;
use crate::batch::inputs::Inputs;
use crate::batch::journal::Job;
use crate::batch::questions::{self, Question};
use crate::batch::table::parquet_writer;
use crate::bounded::{self, TEXT_BYTES_MAX};
use crate::error::CliError;
use phi3v::checkpoint::Checkpoint;
use phi3v::conversation::DEFAULT_MAX_NEW_TOKENS;
use phi3v::sampler::SamplingParams;
use serde_json::{Value, json};
use std::path::Path;

/// The questions about every picture; empty if JSON lines bring their own.
///
/// # Errors
/// No question, a file that cannot be read or used, or a question given with JSON lines.
pub(super) fn questions(args: &BatchArgs, found: &Inputs) -> Result<Vec<Question>, CliError> {
    if matches!(found, Inputs::Lines(_)) {
        return Ok(Vec::new());
    }
    let form = args.form.form()?;
    let own = form.as_ref().and_then(|form| form.question);
    let own = own.filter(|_| args.questions.is_none());
    let mut questions = match (args.prompt.as_deref().or(own), &args.questions) {
        (Some(prompt), _) if prompt.trim().is_empty() => return Err(CliError::EmptyPrompt),
        (Some(prompt), _) => vec![Question::alone(prompt)],
        (None, Some(path)) => {
            let refused = |reason| BatchError::Questions { path: path.display().to_string(), reason };
            questions::parse(&text(path)?).map_err(refused)?
        }
        (None, None) => {
            let (message, hint) =
                ("nothing is asked about the pictures", "add --prompt \"What is in this picture?\"");
            return Err(BatchError::Flags { message: message.to_owned(), hint }.into());
        }
    };
    if let Some(form) = &form {
        questions.iter_mut().for_each(|question| question.set_form(&form.grammar));
    }
    Ok(questions)
}

fn text(path: &Path) -> Result<String, CliError> {
    bounded::read_text(path, TEXT_BYTES_MAX).map_err(|error| CliError::unreadable(path, error))
}

/// Refuses flags that have no effect on these inputs.
///
/// # Errors
/// The first such flag.
pub(super) fn check_flags(
    args: &BatchArgs,
    found: &Inputs,
    questions: &[Question],
) -> Result<(), BatchError> {
    let refused = |message: &str, hint| Err(BatchError::Flags { message: message.to_owned(), hint });
    if matches!(found, Inputs::Lines(_)) {
        let own = [
            ("--prompt", args.prompt.is_some()),
            ("--questions", args.questions.is_some()),
            ("--schema", args.form.schema.is_some()),
            ("--regex", args.form.regex.is_some()),
            ("--choices", !args.form.choices.is_empty()),
            ("--sidecar", args.sidecar.is_some()),
            ("--reference", args.picture.reference),
            ("--pages", args.picture.pages.is_some()),
        ];
        let mut all = own.into_iter().chain(given(&args.generation));
        if let Some((flag, _)) = all.find(|(_, given)| *given) {
            let message = format!("{flag} says nothing about requests that come as JSON lines");
            return refused(&message, "leave it out: each request has its own messages and options");
        }
    } else if args.allow_image_dir.is_some() {
        return refused(
            "--allow-image-dir is for requests that come as JSON lines",
            "leave it out: pictures are read where you name them",
        );
    }
    if args.sidecar.is_some() && questions.len() > 1 {
        return refused("--sidecar takes one answer for each picture", "ask one question, or leave it out");
    }
    if args.parquet.is_some() {
        parquet_writer()?;
    }
    Ok(())
}

/// The flags that control how an answer is made, and whether each differs from its default.
fn given(flags: &GenerationArgs) -> [(&'static str, bool); 11] {
    let other = |value: f32, default: f32| (value - default).abs() > 0.0;
    let default = SamplingParams::default();
    [
        ("--system", flags.system.is_some()),
        ("--max-new-tokens", flags.max_new_tokens.is_some()),
        ("--stop", !flags.stop.is_empty()),
        ("--temperature", other(flags.temperature, default.temperature)),
        ("--top-k", flags.top_k != default.top_k),
        ("--top-p", other(flags.top_p, default.top_p)),
        ("--min-p", other(flags.min_p, default.min_p)),
        ("--repetition-penalty", other(flags.repetition_penalty, default.repetition_penalty)),
        ("--presence-penalty", other(flags.presence_penalty, default.presence_penalty)),
        ("--frequency-penalty", other(flags.frequency_penalty, default.frequency_penalty)),
        ("--seed", flags.seed.is_some()),
    ]
}

/// The settings that determine the answers. Others (threads, width, part, limit) may change from run to run.
pub(super) fn job(args: &BatchArgs, found: &Inputs, questions: &[Question], checkpoint: &Checkpoint) -> Job {
    let options = args.model.options(&checkpoint.weights);
    let own = &checkpoint.preprocessor;
    let mut job = json!({
        "model": checkpoint.name,
        "model_digest": checkpoint.digest(),
        "dtype": args.model.dtype.name(),
        "kv": format!("{:?}", options.kv_format).to_lowercase(),
        "num_crops": own.with_num_crops(args.picture.num_crops(own.num_crops)).num_crops,
    });
    let more = match found {
        Inputs::Lines(lines) => json!({"lines": lines.digest}),
        Inputs::Pictures { .. } => of_pictures(args, questions),
    };
    if let (Value::Object(job), Value::Object(more)) = (&mut job, more) {
        job.extend(more);
    }
    match job {
        Value::Object(job) => job,
        _ => Job::new(),
    }
}

/// A question with the form of its answers, as JSON.
fn question(Question { name, prompt, schema, regex, choices }: &Question) -> Value {
    let mut told = json!({"prompt": prompt, "schema": schema});
    let others = [("name", json!(name)), ("regex", json!(regex)), ("choices", json!(choices))];
    for (field, value) in others.into_iter().filter(|(_, value)| !value.is_null()) {
        told[field] = value;
    }
    told
}

/// The settings that JSON lines contain themselves.
fn of_pictures(args: &BatchArgs, questions: &[Question]) -> Value {
    let sampling = args.generation.sampling(None);
    let asked = match questions {
        [only] if only.name.is_none() => question(only),
        several => json!({"questions": several.iter().map(question).collect::<Vec<_>>()}),
    };
    let mut all = json!({
        "system": args.generation.system,
        "reference": args.picture.reference,
        "max_new_tokens": args.generation.max_new_tokens.unwrap_or(DEFAULT_MAX_NEW_TOKENS),
        "stop": args.generation.stop,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
    });
    if let (Value::Object(all), Value::Object(asked)) = (&mut all, asked) {
        all.extend(asked);
    }
    all
}
