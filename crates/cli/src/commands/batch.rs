//! `phi3v batch`: one command for many pictures.

mod job;
mod output;
mod places;
mod work;

use crate::args::{BatchArgs, ContextArgs};
use crate::batch::inputs::{self, Inputs};
use crate::batch::journal::{DoneRows, Header, Journal, Resumed, check_job};
use crate::batch::meter::Meter;
use crate::batch::prepare::Group;
use crate::batch::row::RowMaker;
use crate::batch::{BatchError, worker};
use crate::documents::OpenFiles;
use crate::error::CliError;
use crate::interrupt::Stop;
use crate::note;
use crate::progress::Progress;
use crate::runtime::{self, Runtime};
use crate::server::state::unix_seconds;
use output::Outputs;
use phi3v::batch::Coming;
use phi3v::constraint::{ConstraintFactory, GrammarLimits};
use phi3v::device::Device;
use phi3v::engine::Engine;
use phi3v::error::count;
use phi3v::image::ImageParams;
use std::sync::Arc;
use work::{Asking, Work};

/// From this number of documents on, opening takes so long that the user wants to know the reason.
const MANY_DOCUMENTS: usize = 50;

/// Answers all inputs that have no row yet.
///
/// # Errors
/// [`CliError`]; [`BatchError::SomeFailed`] if the job is done and some rows have an error.
pub(super) fn run(args: &BatchArgs) -> Result<(), CliError> {
    args.generation.check()?;
    let documents = OpenFiles::default();
    let found = found(args, &documents)?;
    let questions = job::questions(args, &found)?;
    job::check_flags(args, &found, &questions)?;
    let resumed = Journal::resume(&args.out)?;
    let outputs = Outputs::check(args, &found, &questions, resumed.as_ref())?;
    // the context of the first run, so that no answer is cut elsewhere for lack of memory
    let before = resumed.as_ref().map(|resumed| resumed.header.context_tokens);
    let context = ContextArgs { context: args.context.context.or(before) };
    let opened = runtime::open(&args.model, &context, |own| args.picture.num_crops(own))?.fitting()?;
    opened.tell_demo();
    opened.tell_memory(false);
    let checkpoint = &opened.checkpoint;
    let forms = ConstraintFactory::new(&checkpoint.tokenizer, GrammarLimits::default());
    let forms = Arc::new(forms.map_err(phi3v::Error::from)?);
    let prepared = work::prepared(args, &questions, &forms)?;
    let job = job::job(args, &found, &questions, checkpoint);
    let context_tokens = opened.plan.as_ref().map_or(0, |plan| plan.context_tokens);
    let (journal, header, mut done) = begin(args, resumed, Header::new(job, unix_seconds(), context_tokens))?;
    let mut asked = work::replaced_ids(&found, &questions);
    let gone = work::gone(&found, &questions, &done, &asked);
    let limit = if matches!(found, Inputs::Lines(_)) { "max_tokens" } else { "--max-new-tokens" };
    let work = Work::of(args, found, &questions, &done);
    asked.extend(work.row_ids(&questions));
    let journal = journal.without_failed(&mut done, &asked)?;
    let outputs = outputs.begin(journal, done, gone)?;
    if work.rows() == 0 {
        note!("nothing is left to do: {} there already", count(outputs.done().len(), "answer"));
        return outputs.finish(false);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    let runtime = runtime.map_err(phi3v::Error::Threads)?;
    let maker = RowMaker {
        job: header.digest(),
        created: header.created,
        model: checkpoint.name.clone(),
        tokenizer: Arc::clone(&checkpoint.tokenizer),
        limit,
    };
    let (job, runtime_handle) = (maker.job.clone(), runtime.handle());
    let asking = Asking { args, opened: &opened, documents, forms, job, runtime: runtime_handle };
    let stop = Stop::on_signals(runtime.handle());
    let total = work.rows();
    let coming = asking.begin(work, prepared)?;
    let Runtime { engine, .. } = opened.load_for_batch(&args.model, args.width)?;
    let answered = answer(engine, coming, &maker, &stop, outputs, total);
    // a thread may hang on the network
    runtime.shutdown_background();
    answered
}

/// Finds the inputs, with the pages of documents, and reports what was passed over.
fn found(args: &BatchArgs, documents: &OpenFiles) -> Result<Inputs, CliError> {
    let is_asked = args.prompt.is_some() || args.questions.is_some();
    let found = inputs::find(&args.inputs, &mut std::io::stdin().lock());
    let found = found.map_err(|error| match is_asked {
        true => error,
        false => inputs::unless_a_question(&args.inputs, error),
    })?;
    if let Inputs::Pictures { passed_over, .. } = &found {
        passed_over.tell();
    }
    let mut progress = Progress::new();
    let mut tell = |done, documents| {
        if done == 0 && documents >= MANY_DOCUMENTS {
            note!("counting the pages of {}", count(documents, "document"));
        }
        progress.documents(done, documents);
    };
    let found = found.with_pages(&args.picture.options(&ImageParams::default()), documents, &mut tell);
    progress.clear();
    found.check_ids()?;
    if let (Inputs::Pictures { items, .. }, Some(choice)) = (&found, &args.picture.pages)
        && choice.of_document(1, 1).is_err()
        && items.iter().all(|item| item.page.is_none())
    {
        note!("no input has pages, so that --pages chooses nothing");
    }
    Ok(found)
}

/// Answers the remaining `total` rows and writes the final files.
fn answer(
    mut engine: Engine<Device>,
    coming: Coming<Group>,
    maker: &RowMaker,
    stop: &Stop,
    mut outputs: Outputs<'_>,
    total: usize,
) -> Result<(), CliError> {
    outputs.measure(Meter::new(total, maker.limit));
    worker::run(&mut engine, coming, maker, &|| stop.requested(), &mut outputs)?;
    let missing = total - outputs.answered();
    if missing > 0 && !stop.requested() {
        return Err(BatchError::Unprepared { missing }.into());
    }
    outputs.finish(missing > 0)
}

/// The journal to continue, or a new one.
fn begin(
    args: &BatchArgs,
    resumed: Option<Resumed>,
    header: Header,
) -> Result<(Journal, Header, DoneRows), CliError> {
    let Some(Resumed { journal, header: then, done }) = resumed else {
        return Ok((Journal::begin(&args.out, &header)?, header, DoneRows::new()));
    };
    check_job(&args.out, &then.job, &header.job)?;
    Ok((journal, then, done))
}
