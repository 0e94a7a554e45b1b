//! `phi3v ask`: one question, one answer.

use crate::answer::{self, Cut, Until};
use crate::args::{AnswerForm, AskArgs, check_pictures};
use crate::conversation::Conversation;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::report::{self, AskReport, Stats};
use crate::runtime::{self, Runtime};
use crate::sources;
use crate::tables;
use crate::tell;
use crate::terminal::{TextSink, answer_output, print};
use phi3v::batch::Answer;
use phi3v::constraint::Constraint;
use phi3v::engine::{FinishReason, Request, Timings};
use serde_json::Value;

/// Answers the question.
///
/// # Errors
/// [`CliError`], with [`CliError::Interrupted`] for an answer that Ctrl-C cut short.
pub(super) fn run(args: &AskArgs) -> Result<(), CliError> {
    let form = args.form.form()?;
    let (images, question) = args.images_and_question(form.as_ref().and_then(|form| form.question))?;
    args.generation.check()?;
    check_pictures(images, Some(question), &args.picture.allow_url)?;
    let opened = runtime::open(&args.model, &args.context, |own| args.picture.num_crops(own))?;
    let options = args.picture.options(&opened.checkpoint.preprocessor).with_frames(args.frames.choice());
    let constraint = form.as_ref().map(|form| form.constraint(&opened.checkpoint.tokenizer)).transpose()?;
    opened.tell_demo();
    opened.tell_memory(args.report.verbose);
    // Pictures are prepared while the model loads, and while those before them are encoded.
    let coming = sources::read_ahead(args.grabbed(), images.to_vec(), options)?;
    let is_demo = opened.is_demo;
    let mut runtime = opened.load(&args.model)?;
    let interrupt = Interrupt::install();
    interrupt.begin_answer();
    let (pictures, encoding) =
        answer::encode_pictures(&mut runtime.engine, &coming, Until::Encoded, &interrupt)?;
    if args.report.verbose {
        for (index, picture) in pictures.iter().enumerate() {
            tell!("image {}: {}", index + 1, picture.report());
        }
    }
    let mut conversation = Conversation::new(args.generation.system.as_deref());
    conversation.ask(&pictures, question);
    let is_doubted = is_demo && form.is_none() && !args.json;
    let logprobs = logprobs(args).or(is_doubted.then_some(0));
    let mut request = conversation.request(&runtime, &args.generation, logprobs)?;
    request.constraint = constraint.map(|constraint| Box::new(constraint) as Box<dyn Constraint>);
    let mut answer = answer(args, request, &mut runtime, &interrupt)?;
    if is_doubted {
        answer::tell_doubt(&answer);
    }
    let cut = Cut::of(&answer, runtime.engine.context_tokens());
    // a partial sentence is wanted if its length was chosen; a partial form never is
    let is_wanted = args.generation.max_new_tokens.is_some() && form.is_none();
    if !(args.json || args.csv || is_wanted) {
        answer::tell_cut(&answer, cut, "--context gives more room");
    }
    // the user also waited for the work before the request
    let Timings { first_token, .. } = &mut answer.finished.timings;
    *first_token = first_token.map(|time| time + encoding);
    let report = args.json.then(|| AskReport::new(args, &pictures, &runtime, &answer, form.as_ref()));
    finish(args, form.as_ref(), report.as_ref(), &answer, cut)
}

/// How many log probabilities the answer needs: words and fields are shown with their probabilities.
fn logprobs(args: &AskArgs) -> Option<usize> {
    let words = args.json || args.report.unsure;
    args.logprobs.map(usize::from).or(words.then_some(0))
}

fn answer(
    args: &AskArgs,
    request: Request,
    runtime: &mut Runtime,
    interrupt: &Interrupt,
) -> Result<Answer, CliError> {
    let mut out: Box<dyn TextSink> =
        if args.json || args.csv { Box::new(()) } else { answer_output(args.report.unsure) };
    let answer = answer::generate(&mut runtime.engine, request, &mut *out, interrupt)?;
    if !answer.text.ends_with('\n') {
        out.piece("\n").map_err(CliError::Output)?;
    }
    Ok(answer)
}

fn finish(
    args: &AskArgs,
    form: Option<&AnswerForm>,
    report: Option<&AskReport>,
    answer: &Answer,
    cut: Option<Cut>,
) -> Result<(), CliError> {
    if let Some(report) = report {
        print(report::json(report) + "\n").map_err(CliError::Output)?;
    }
    let is_whole = answer.finished.reason == FinishReason::Stop;
    if let Some(schema) = form.and_then(AnswerForm::schema).filter(|_| args.csv && is_whole) {
        print(table(&answer.text, schema)?).map_err(CliError::Output)?;
    }
    if args.report.stats {
        tell!("{}", Stats(&answer.finished));
    }
    match (answer.finished.reason, cut) {
        (FinishReason::Cancelled, _) => Err(CliError::Interrupted),
        (_, Some(cut)) if args.csv => Err(no_table(cut)),
        _ => Ok(()),
    }
}

/// Why a cut answer is not a table.
fn no_table(cut: Cut) -> CliError {
    let (reason, hint) = match cut {
        Cut::Limit => ("it was cut at its limit of tokens", "allow more with --max-new-tokens"),
        Cut::Context => {
            ("it was cut where the context is full", "raise --context, or use --detail low or fewer pictures")
        }
    };
    CliError::NoTable { reason, hint }
}

/// The answer as CSV.
fn table(answer: &str, schema: &Value) -> Result<String, CliError> {
    let refused = |reason, hint| CliError::NoTable { reason, hint };
    let answer = serde_json::from_str(answer)
        .map_err(|_| refused("it is not whole", "leave --stop out, which has cut it"))?;
    let table = tables::csv_of(&answer, schema);
    table.ok_or_else(|| refused("it is one value", "ask for an object, or an array of them"))
}
