//! `phi3v decide`: computes how probable each of several choices is.

use crate::answer::{self, Until};
use crate::args::{DecideArgs, check_pictures};
use crate::bounded::{self, TEXT_BYTES_MAX};
use crate::decide::{Asked, InputError, questions};
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::report::{self, DecideReport, decision_table};
use crate::runtime::{self, Opened, Runtime};
use crate::sources::{self, NamedImage};
use crate::terminal::print;
use crate::{note, tell};
use phi3v::Conversation;
use phi3v::batch::Answer;
use phi3v::decide::{Calibration, Decision, Question};
use phi3v::engine::FinishReason;
use phi3v::error::count;
use std::path::Path;
use std::sync::Arc;

/// Least share of the model's probability on the choices; below it, the user is told that the model would answer otherwise.
const COVERED_MIN: f64 = 0.01;

/// Decides and prints.
///
/// # Errors
/// [`CliError`]: questions, pictures or the calibration cannot be used, or Ctrl-C was pressed.
pub(super) fn run(args: &DecideArgs) -> Result<(), CliError> {
    let (images, question) = args.images_and_question()?;
    let asked = asked(args, question)?;
    let calibration = args.calibration.as_deref().map(read_calibration).transpose()?;
    check_pictures(images, question, &args.picture.allow_url)?;
    let opened = runtime::open(&args.model, &args.context, |own| args.picture.num_crops(own))?;
    let temperatures = temperatures(args, &asked, calibration.as_ref(), &opened)?;
    let options = args.picture.options(&opened.checkpoint.preprocessor);
    opened.tell_demo();
    opened.tell_memory(args.verbose);
    // Pictures are prepared while the model loads, and while those before them are encoded.
    let coming = sources::read_ahead(Vec::new(), images.to_vec(), options)?;
    let mut runtime = opened.load(&args.model)?;
    let interrupt = Interrupt::install();
    interrupt.begin_answer();
    let (pictures, _) = answer::encode_pictures(&mut runtime.engine, &coming, Until::Encoded, &interrupt)?;
    if args.verbose {
        for (index, picture) in pictures.iter().enumerate() {
            tell!("image {}: {}", index + 1, picture.report());
        }
    }
    let all: Vec<&Asked> = asked.iter().collect();
    let mut answer = scores(&mut runtime, &pictures, &all, &interrupt)?;
    let scores = std::mem::take(&mut answer.finished.scores);
    let decisions: Vec<Decision> = scores
        .into_iter()
        .zip(&temperatures)
        .map(|(scores, &temperature)| Decision::new(scores, temperature))
        .collect();
    if args.json {
        let decided = report::decisions(&asked, &decisions, &temperatures);
        let report = DecideReport::new(&args.model, decided, &pictures, &runtime, &answer.finished);
        return print(report::json(&report) + "\n").map_err(CliError::Output);
    }
    print(decision_table(&asked, &decisions)).map_err(CliError::Output)?;
    tell_covered(&decisions);
    Ok(())
}

/// Scores the choices of questions about the same pictures; the returned answer carries the scores at its end.
///
/// # Errors
/// Choices that are indistinguishable, the engine's refusal or failure, or Ctrl-C.
pub(super) fn scores(
    runtime: &mut Runtime,
    pictures: &[NamedImage],
    asked: &[&Asked],
    interrupt: &Interrupt,
) -> Result<Answer, CliError> {
    let mut conversation = Conversation::new(None);
    conversation.ask(pictures.iter().map(|picture| Arc::clone(&picture.inputs)), "");
    let question = |asked: &&Asked| Question::new(&asked.prompt, asked.choices.iter().cloned());
    let questions: Vec<Question> = asked.iter().map(question).collect();
    let request = conversation.decide(&runtime.tokenizer, runtime.engine.context_tokens(), &questions)?;
    let answer = answer::generate(&mut runtime.engine, request, &mut (), interrupt)?;
    match answer.finished.reason {
        FinishReason::Cancelled => Err(CliError::Interrupted),
        FinishReason::Stop | FinishReason::Length => Ok(answer),
    }
}

/// The questions, each with its choices.
fn asked(args: &DecideArgs, question: Option<&str>) -> Result<Vec<Asked>, CliError> {
    let asked = match (&args.questions, question) {
        (Some(path), _) => {
            let told = || path.display().to_string();
            let text = bounded::read_text(path, TEXT_BYTES_MAX);
            let text = text.map_err(|error| CliError::unreadable(path, error))?;
            let refused = |reason| InputError::Questions { path: told(), reason };
            questions::parse(&text, &args.choices).map_err(refused)?
        }
        (None, Some(question)) => vec![Asked::new(question, &args.choices)],
        (None, None) => Vec::new(),
    };
    match asked.iter().find(|asked| asked.choices.is_empty()) {
        Some(without) => Err(InputError::NoChoices { question: without.prompt.clone() }.into()),
        None => Ok(asked),
    }
}

fn read_calibration(path: &Path) -> Result<Calibration, CliError> {
    let json = bounded::read(path, Calibration::BYTES_MAX);
    let json = json.map_err(|error| CliError::unreadable(path, error))?;
    Ok(Calibration::from_json(&json).map_err(phi3v::Error::from)?)
}

/// The temperature of each question.
fn temperatures(
    args: &DecideArgs,
    asked: &[Asked],
    calibration: Option<&Calibration>,
    opened: &Opened,
) -> Result<Vec<f64>, CliError> {
    let Some(calibration) = calibration else { return Ok(vec![1.0; asked.len()]) };
    let model = opened.scoring(&args.model).words(|own| args.picture.num_crops(own));
    let questions = asked.iter().map(|Asked { prompt, choices, .. }| (prompt.as_str(), choices.as_slice()));
    Ok(calibration.temperatures(&model, questions).map_err(phi3v::Error::from)?)
}

/// Reports for how many questions the model would rather have answered something else.
fn tell_covered(decisions: &[Decision]) {
    let elsewhere = decisions.iter().filter(|decision| decision.covered() < COVERED_MIN).count();
    if elsewhere == 0 {
        return;
    }
    let which = match decisions.len() {
        1 => String::new(),
        all => format!("for {elsewhere} of {} ", count(all, "question")),
    };
    note!(
        "note: {which}the choices have less than {} % of the model's probability, it would say something else; tell it in the question how to answer",
        100.0 * COVERED_MIN
    );
}
