//! The remaining work, and the threads that prepare it.

use crate::args::BatchArgs;
use crate::batch::BatchError;
use crate::batch::inputs::{Inputs, PictureItem};
use crate::batch::journal::DoneRows;
use crate::batch::lines::Lines;
use crate::batch::prepare::{Group, LineAsker, PictureAsker, PictureWork, Prepared};
use crate::batch::questions::Question;
use crate::documents::OpenFiles;
use crate::error::CliError;
use crate::runtime::Opened;
use crate::server::limits::Limits;
use crate::server::openai::offline::Offline;
use crate::server::state::ServedModel;
use crate::sources::{Fetcher, Sources};
use phi3v::batch::{Coming, read_ahead};
use phi3v::constraint::ConstraintFactory;
use phi3v::fields::FieldReader;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;

/// Most threads that prepare inputs; more would only take cores from the engine.
const READERS_MAX: usize = 4;

/// The questions, with their forms compiled.
///
/// # Errors
/// A form that cannot be enforced, with its question if there are several.
pub(super) fn prepared(
    args: &BatchArgs,
    questions: &[Question],
    forms: &ConstraintFactory,
) -> Result<Vec<Prepared>, CliError> {
    let prepare = |question: &Question| {
        let form = question.form();
        let constraint = form.as_ref().map(|form| forms.constraint(form)).transpose();
        let constraint = constraint.map_err(|error| match (&args.questions, &question.name) {
            (Some(path), Some(name)) => {
                let reason = format!("question {name}: {error}");
                CliError::from(BatchError::Questions { path: path.display().to_string(), reason })
            }
            _ => phi3v::Error::from(error).into(),
        })?;
        let fields = form.as_ref().map(FieldReader::of);
        Ok(Prepared { question: question.clone(), constraint: constraint.map(Mutex::new), fields })
    };
    questions.iter().map(prepare).collect()
}

/// The names of rows for whole files whose pages are now asked about one by one: such rows exist if a document could not be
/// opened before.
pub(super) fn replaced_ids(found: &Inputs, questions: &[Question]) -> HashSet<String> {
    let Inputs::Pictures { items, .. } = found else { return HashSet::new() };
    let files = items.iter().filter_map(PictureItem::file_id);
    files.flat_map(|file| questions.iter().map(|question| question.row_id(file))).collect()
}

/// The number of failed rows about something that is no longer among the inputs and is not `replaced`: nothing retries them.
pub(super) fn gone(
    found: &Inputs,
    questions: &[Question],
    done: &DoneRows,
    replaced: &HashSet<String>,
) -> usize {
    // the requests are part of the job's identity
    let Inputs::Pictures { items, .. } = found else { return 0 };
    let failed = done.iter().filter(|(_, row)| row.failed).map(|(id, _)| id.as_str());
    let mut left: HashSet<&str> = failed.filter(|id| !replaced.contains(*id)).collect();
    if left.is_empty() {
        return 0; // avoids making the rows' names
    }
    for (item, question) in items.iter().flat_map(|item| questions.iter().map(move |q| (item, q))) {
        left.remove(question.row_id(&item.id).as_str());
    }
    left.len()
}

/// The inputs that have no row yet.
pub(super) enum Work {
    Pictures(Vec<PictureWork>),
    Lines { lines: Lines, left: Vec<(usize, String)> },
}

impl Work {
    /// The inputs in this run's part that are not `done`, or must be retried.
    pub(super) fn of(args: &BatchArgs, found: Inputs, questions: &[Question], done: &DoneRows) -> Self {
        let limit = args.limit.unwrap_or(usize::MAX);
        let is_ours = |id: &str| args.shard.is_none_or(|shard| shard.has(id));
        let is_left = |id: &str| done.get(id).is_none_or(|row| row.failed && args.retry_errors);
        match found {
            Inputs::Pictures { items, .. } => {
                let work = items.into_iter().filter(|item| is_ours(&item.id)).map(|item| {
                    let is_left = |&number: &usize| is_left(&questions[number].row_id(&item.id));
                    let questions = (0..questions.len()).filter(is_left).collect();
                    PictureWork { item, questions }
                });
                Self::Pictures(work.filter(|work| !work.questions.is_empty()).take(limit).collect())
            }
            Inputs::Lines(lines) => {
                let left = lines.ids().enumerate().filter(|(_, id)| is_ours(id) && is_left(id));
                let left = left.take(limit).map(|(index, id)| (index, id.to_owned())).collect();
                Self::Lines { lines, left }
            }
        }
    }

    /// The names of the rows that the work will produce.
    pub(super) fn row_ids(&self, questions: &[Question]) -> HashSet<String> {
        match self {
            Self::Pictures(work) => {
                let of_picture = |work: &PictureWork| {
                    let ids = work.questions.iter().map(|&number| questions[number].row_id(&work.item.id));
                    ids.collect::<Vec<_>>()
                };
                work.iter().flat_map(of_picture).collect()
            }
            Self::Lines { left, .. } => left.iter().map(|(_, id)| id.clone()).collect(),
        }
    }

    /// The number of rows that the work will produce.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Pictures(work) => work.iter().map(|work| work.questions.len()).sum(),
            Self::Lines { left, .. } => left.len(),
        }
    }
}

/// What is needed to make requests.
pub(super) struct Asking<'a> {
    pub(super) args: &'a BatchArgs,
    pub(super) opened: &'a Opened,
    /// Documents that are already open.
    pub(super) documents: OpenFiles,
    pub(super) forms: Arc<ConstraintFactory>,
    /// Digest that identifies the job.
    pub(super) job: String,
    pub(super) runtime: &'a Handle,
}

impl Asking<'_> {
    /// Starts preparing requests on separate threads.
    ///
    /// # Errors
    /// The folder of pictures cannot be opened, or the system cannot start a thread.
    pub(super) fn begin(self, work: Work, questions: Vec<Prepared>) -> Result<Coming<Group>, CliError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX);
        match work {
            Work::Pictures(work) => {
                let asker = self.picture_asker(questions);
                Ok(read_ahead(work, threads, move |work| asker.prepare(&work))?)
            }
            Work::Lines { lines, left } => {
                let asker = LineAsker { lines, job: self.job.clone(), offline: self.offline()? };
                Ok(read_ahead(left, threads, move |(index, id)| asker.prepare(index, &id))?)
            }
        }
    }

    fn picture_asker(self, questions: Vec<Prepared>) -> PictureAsker {
        let (generation, checkpoint) = (&self.args.generation, &self.opened.checkpoint);
        let context_tokens = self.context_tokens();
        PictureAsker {
            options: self.args.picture.options(&checkpoint.preprocessor),
            open: self.documents,
            tokenizer: Arc::clone(&checkpoint.tokenizer),
            context_tokens,
            system: generation.system.clone(),
            generation: generation.options(None),
            questions,
            job: self.job,
        }
    }

    fn offline(self) -> Result<Offline, CliError> {
        let (args, checkpoint) = (self.args, &self.opened.checkpoint);
        let mut sources = Sources::data_urls_only();
        if !args.picture.allow_url.is_empty() {
            sources = sources.with_remote(Fetcher::new(args.picture.allow_url.clone()));
        }
        if let Some(dir) = &args.allow_image_dir {
            sources = sources.with_folder(dir).map_err(|error| CliError::unreadable(dir, error))?;
        }
        let own = &checkpoint.preprocessor;
        let model = ServedModel {
            name: checkpoint.name.clone(),
            description: None,
            tokenizer: Arc::clone(&checkpoint.tokenizer),
            constraints: Arc::clone(&self.forms),
            image_params: own.with_num_crops(args.picture.num_crops(own.num_crops)),
            context_tokens: self.context_tokens(),
        };
        let image = args.picture.limits.limits();
        let limits = Limits { image, remote_bytes_max: image.bytes_max, ..Limits::default() };
        Ok(Offline::new(model, sources, limits, self.runtime.clone()))
    }

    fn context_tokens(&self) -> usize {
        let plan = self.opened.plan.as_ref();
        plan.map_or(0, |plan| plan.context_tokens).min(self.opened.checkpoint.config.context_max())
    }
}
