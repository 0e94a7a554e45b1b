//! `phi3v ask`: one question, one answer.

use crate::answer;
use crate::args::AskArgs;
use crate::conversation::Conversation;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::report::{self, AskReport, Stats};
use crate::runtime::{self, Runtime};
use crate::sources::{self, NamedImage};
use crate::tell;
use crate::terminal::{TextSink, answer_output, print};
use phi3v::batch::Answer;
use phi3v::engine::{FinishReason, Timings};

/// Answers the question.
///
/// # Errors
/// [`CliError`], with [`CliError::Interrupted`] for an answer that Ctrl-C cut short.
pub(super) fn run(args: &AskArgs) -> Result<(), CliError> {
    let (images, question) = args.images_and_question()?;
    args.generation.check()?;
    sources::check_names(images, &args.picture.allow_url)?;
    let opened = runtime::open(&args.model, &args.context, |own| args.picture.num_crops(own))?;
    let options = args.picture.options(&opened.checkpoint.preprocessor).with_frames(args.frames.choice());
    opened.tell_demo();
    opened.tell_memory(args.report.verbose);
    // Pictures are prepared while the model loads, and while those before them are encoded.
    let coming = sources::read_ahead(args.grabbed(), images.to_vec(), options);
    let mut runtime = opened.load(&args.model)?;
    let interrupt = Interrupt::install();
    interrupt.begin_answer();
    let named = args.grabbed().len() + images.len();
    let (pictures, encoding) = answer::encode_pictures(&mut runtime.engine, named, &coming, &interrupt)?;
    for picture in pictures.iter().filter(|picture| picture.is_incomplete) {
        tell!("{}", picture.incomplete_notice());
    }
    if args.report.verbose {
        for (index, picture) in pictures.iter().enumerate() {
            tell!("image {}: {}", index + 1, picture.report());
        }
    }
    let mut conversation = Conversation::new(args.generation.system.as_deref());
    conversation.ask(&pictures, question);
    let mut answer = answer(args, &conversation, &mut runtime, &interrupt)?;
    let Timings { vision, first_token, .. } = &mut answer.finished.timings;
    *vision += encoding;
    *first_token = first_token.map(|time| time + encoding);
    finish(args, &pictures, &runtime, &answer)
}

fn answer(
    args: &AskArgs,
    conversation: &Conversation,
    runtime: &mut Runtime,
    interrupt: &Interrupt,
) -> Result<Answer, CliError> {
    let words = args.json || args.report.unsure;
    let logprobs = args.logprobs.map(usize::from).or(words.then_some(0));
    let request = conversation.request(runtime, &args.generation, logprobs)?;
    let mut out: Box<dyn TextSink> = if args.json { Box::new(()) } else { answer_output(args.report.unsure) };
    let answer = answer::generate(&mut runtime.engine, request, &mut *out, interrupt)?;
    if !answer.text.ends_with('\n') {
        out.piece("\n").map_err(CliError::Output)?;
    }
    Ok(answer)
}

fn finish(
    args: &AskArgs,
    pictures: &[NamedImage],
    runtime: &Runtime,
    answer: &Answer,
) -> Result<(), CliError> {
    if args.json {
        let report = AskReport::new(args, pictures, runtime, answer);
        print(report::json(&report) + "\n").map_err(CliError::Output)?;
    }
    if args.report.stats {
        tell!("{}", Stats(&answer.finished));
    }
    match answer.finished.reason {
        FinishReason::Cancelled => Err(CliError::Interrupted),
        FinishReason::Stop | FinishReason::Length => Ok(()),
    }
}
