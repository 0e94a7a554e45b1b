//! Where rows go: first the journal, then the sidecar files, and at the end the tables.

use super::places::{self, Beside};
use crate::args::BatchArgs;
use crate::batch::BatchError;
use crate::batch::inputs::{Inputs, PictureItem};
use crate::batch::journal::{Done, DoneRows, Journal, Resumed, write_error};
use crate::batch::meter::Meter;
use crate::batch::questions::Question;
use crate::batch::row::Row;
use crate::batch::sidecar::{self, Form};
use crate::batch::table::{Columns, is_csv, is_parquet, parquet_writer, write_csv};
use crate::batch::worker::Sink;
use crate::bounded;
use crate::error::CliError;
use crate::paths::folder_of;
use crate::sources::as_url;
use crate::{note, tell};
use phi3v::error::count;
use phi3v::files::{Existing, NewFile, open_in_place};
use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The sidecar files of this run's part.
struct Sidecars {
    form: Form,
    /// The sidecar path of each row, by its `custom_id`.
    places: HashMap<String, PathBuf>,
    prompt: String,
    existing: Existing,
    /// Whether the job continues an earlier run; existing files may then be its own.
    resumed: bool,
    /// Rows whose files are written once the journal is synced to the disk.
    waiting: Vec<Row>,
    /// Existing files with other contents, and the first of them.
    kept: usize,
    first_kept: Option<PathBuf>,
    /// Files that could not be written, and the error of the first.
    refused: usize,
    first_refusal: Option<BatchError>,
    /// Whether the first error was reported.
    told: bool,
}

/// The planned outputs, checked to be writable.
pub(super) struct Checked<'a> {
    args: &'a BatchArgs,
    columns: Columns,
    sidecars: Option<Sidecars>,
    /// How to treat existing tables.
    csv: Existing,
    parquet: Existing,
}

/// The outputs being written.
pub(super) struct Outputs<'a> {
    checked: Checked<'a>,
    journal: Journal,
    done: DoneRows,
    /// Rows with an error about something that is no longer among the inputs.
    gone: usize,
    meter: Option<Meter>,
    /// Rows of this run, and rows of earlier runs.
    answered: usize,
    before: usize,
    /// Rows of this run with a warning.
    warned: usize,
}

impl<'a> Outputs<'a> {
    /// Refuses existing files that do not belong to this job, before anything is begun, downloaded or computed. `resumed` is
    /// the job so far.
    ///
    /// # Errors
    /// A table or sidecar file that exists and must be kept, results or a table that cannot be written, or two files with the
    /// same path.
    pub(super) fn check(
        args: &'a BatchArgs,
        found: &Inputs,
        questions: &[Question],
        resumed: Option<&Resumed>,
    ) -> Result<Checked<'a>, BatchError> {
        check_out(&args.out)?;
        let existing = if args.force { Existing::Replace } else { Existing::Keep };
        let beside = beside(args, found, questions);
        places::check(args, found, &beside)?;
        let table = |path: Option<&PathBuf>, is_table: fn(&Path) -> bool| {
            let Some(path) = path else { return Ok(existing) };
            let existing = places::existing_table(path, is_table, resumed.is_some(), args.force);
            // created and removed: a refusal now would also be one when everything is answered
            NewFile::create(path, existing).map_err(write_error)?;
            Ok(existing)
        };
        let (csv, parquet) = (table(args.csv.as_ref(), is_csv)?, table(args.parquet.as_ref(), is_parquet)?);
        let sidecars = Sidecars::of(args, questions, beside, existing, resumed.is_some());
        if let Some(sidecars) = &sidecars {
            sidecars.check()?;
        }
        Ok(Checked { args, columns: Columns::new(questions), sidecars, csv, parquet })
    }

    /// The existing rows.
    pub(super) fn done(&self) -> &DoneRows {
        &self.done
    }

    /// The number of rows of this run.
    pub(super) fn answered(&self) -> usize {
        self.answered
    }

    /// Shows progress on `meter` from now on.
    pub(super) fn measure(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// Writes the tables and prints a summary; `stopped` if inputs remain.
    ///
    /// # Errors
    /// A table cannot be written; [`CliError::Interrupted`] if the run was stopped; [`BatchError::SomeFailed`].
    pub(super) fn finish(mut self, stopped: bool) -> Result<(), CliError> {
        self.journal.sync()?;
        let Checked { args, columns, csv, parquet, .. } = &self.checked;
        if let Some(path) = &args.csv {
            write_csv(path, columns, &self.journal, &self.done, *csv)?;
        }
        if let Some(path) = &args.parquet {
            parquet_writer()?(path, columns, &self.journal, &self.done, *parquet)?;
        }
        if let Some(meter) = self.meter {
            meter.finish(self.before, stopped);
        }
        if self.warned > 1 {
            tell!("{} in all have a warning in their rows", count(self.warned, "answer"));
        }
        let failed = self.done.values().filter(|row| row.failed).count();
        let beside = self.checked.sidecars.and_then(Sidecars::finish);
        match (stopped, failed) {
            (true, _) => Err(CliError::Interrupted),
            (false, 0) => beside.map_or(Ok(()), |refused| Err(refused.into())),
            (false, failed) => {
                if let Some(refused) = beside {
                    tell!("{refused}");
                }
                let (first, first_hint) = first_failure(&self.journal, &self.done)?;
                let (gone, total) = (self.gone, self.done.len());
                let path = self.journal.path().display().to_string();
                Err(BatchError::SomeFailed { failed, gone, total, first, first_hint, path }.into())
            }
        }
    }

    /// Writes the sidecars of rows that an earlier run recorded but did not get to write.
    fn complete(&mut self) -> Result<(), BatchError> {
        let Some(sidecars) = &mut self.checked.sidecars else { return Ok(()) };
        for (id, row) in self.done.iter().filter(|(_, row)| !row.failed) {
            if sidecars.places.get(id).is_some_and(|path| !path.exists()) {
                sidecars.write(&self.journal.row_at(row.offset)?)?;
            }
        }
        self.tell_refusal();
        Ok(())
    }

    /// Counts a row that has a warning, and reports only the first: there may be many.
    fn warn(&mut self, row: &Row) {
        let Some(warning) = &row.warning else { return };
        self.warned += 1;
        if self.warned == 1 {
            self.above(|| tell!("{warning}"));
        }
    }

    /// Runs `tell` so that its lines appear above the bar, if there is one.
    fn above(&self, tell: impl FnOnce()) {
        match &self.meter {
            Some(meter) => meter.above(tell),
            None => tell(),
        }
    }

    /// Reports the first sidecar file that could not be written, as soon as there is one.
    fn tell_refusal(&mut self) {
        let Some(sidecars) = self.checked.sidecars.as_mut().filter(|sidecars| !sidecars.told) else { return };
        let Some(error) = &sidecars.first_refusal else { return };
        let tell = || note!("{error}; the batch goes on");
        match &self.meter {
            Some(meter) => meter.above(tell),
            None => tell(),
        }
        sidecars.told = true;
    }
}

/// The name and error of the first failed row, and what can be done about it, if known.
///
/// # Errors
/// The row cannot be read again.
fn first_failure(journal: &Journal, done: &DoneRows) -> Result<(String, Option<String>), BatchError> {
    let first = done.values().filter(|row| row.failed).map(|row| row.offset).min().unwrap_or(0);
    let row = journal.row_at(first)?;
    let hint = row.hint().map(str::to_owned);
    let Row { custom_id, error, .. } = row;
    let message = error.map(|error| error.message).unwrap_or_default();
    let told = if message.contains(&custom_id) { message } else { format!("{custom_id}: {message}") };
    Ok((told, hint))
}

impl<'a> Checked<'a> {
    /// Starts writing to `journal`, which contains the rows `done`. `gone` failed rows are about something that is no longer
    /// among the inputs.
    ///
    /// # Errors
    /// The disk is full while a missing sidecar file is written.
    pub(super) fn begin(
        self,
        journal: Journal,
        done: DoneRows,
        gone: usize,
    ) -> Result<Outputs<'a>, BatchError> {
        let before = done.len();
        let mut outputs =
            Outputs { checked: self, journal, done, gone, meter: None, answered: 0, before, warned: 0 };
        outputs.complete()?;
        Ok(outputs)
    }
}

impl Sink for Outputs<'_> {
    fn row(&mut self, row: Row) -> Result<(), BatchError> {
        let offset = self.journal.append(&row)?;
        self.done.insert(row.custom_id.clone(), Done { failed: row.is_failed(), offset });
        self.answered += 1;
        if let Some(meter) = &mut self.meter {
            meter.row(row.is_failed(), row.finish_reason() == Some("length"));
        }
        self.warn(&row);
        if let Some(sidecars) = self.checked.sidecars.as_mut().filter(|_| !row.is_failed()) {
            sidecars.waiting.push(row);
        }
        Ok(())
    }

    fn moment(&mut self) -> Result<(), BatchError> {
        if let Some(meter) = &mut self.meter {
            meter.moment();
        }
        let Some(sidecars) = self.checked.sidecars.as_mut().filter(|sidecars| !sidecars.waiting.is_empty())
        else {
            return self.journal.sync_in_time();
        };
        // if the row were lost in a power failure, its sidecar would look like a foreign file
        self.journal.sync()?;
        std::mem::take(&mut sidecars.waiting).iter().try_for_each(|row| sidecars.write(row))?;
        self.tell_refusal();
        Ok(())
    }
}

impl Sidecars {
    /// The sidecars of the inputs in this run's part, if sidecars are requested.
    fn of(
        args: &BatchArgs,
        questions: &[Question],
        beside: Vec<Beside>,
        existing: Existing,
        resumed: bool,
    ) -> Option<Self> {
        let (form, [question]) = (args.sidecar?.form(), questions) else { return None };
        let ours =
            beside.into_iter().filter(|beside| args.shard.is_none_or(|shard| shard.has(&beside.input_id)));
        let places = ours.map(|beside| (question.row_id(&beside.input_id), beside.path)).collect();
        let (prompt, waiting) = (question.prompt.clone(), Vec::new());
        let (kept, first_kept, refused, first_refusal, told) = (0, None, 0, None, false);
        Some(Self {
            form,
            places,
            prompt,
            existing,
            resumed,
            waiting,
            kept,
            first_kept,
            refused,
            first_refusal,
            told,
        })
    }

    /// Refuses to begin if a file exists that must be kept.
    fn check(&self) -> Result<(), BatchError> {
        if self.resumed || self.existing == Existing::Replace {
            return Ok(());
        }
        match self.places.values().find(|path| std::fs::symlink_metadata(path).is_ok()) {
            Some(path) => Err(BatchError::Exists { path: path.display().to_string() }),
            None => Ok(()),
        }
    }

    /// Writes the file of a row. An error for one file may not affect the next, so it is counted and reported.
    ///
    /// # Errors
    /// The disk is full.
    fn write(&mut self, row: &Row) -> Result<(), BatchError> {
        let Some(path) = self.places.get(&row.custom_id) else { return Ok(()) };
        let Some(contents) = self.form.contents(row, &self.prompt) else { return Ok(()) };
        match sidecar::write(path, &contents, self.existing) {
            Ok(()) => {}
            Err(error @ BatchError::DiskFull { .. }) => return Err(error),
            Err(BatchError::Exists { .. }) if self.resumed => {
                let same =
                    bounded::read(path, contents.len()).is_ok_and(|there| there == contents.as_bytes());
                if !same {
                    self.kept += 1;
                    self.first_kept.get_or_insert_with(|| path.clone());
                }
            }
            Err(error) => {
                self.refused += 1;
                self.first_refusal.get_or_insert(error);
            }
        }
        Ok(())
    }

    /// Reports the files that were kept, and returns the error for those that could not be written.
    fn finish(self) -> Option<BatchError> {
        if let Some(first) = &self.first_kept {
            let first = first.display();
            match self.kept {
                1 => note!(
                    "{first} was there before and is left as it is: to have the answer there, delete it and run the same command again"
                ),
                kept => note!(
                    "{first} and {} were there before and are left as they are: to have the answers there, delete them and run the same command again",
                    count(kept - 1, "other file")
                ),
            }
        }
        let first = Box::new(self.first_refusal?);
        Some(BatchError::Sidecars { failed: self.refused, first })
    }
}

/// Sidecar paths of all pictures, not only this shard's, so that every shard names them alike. Pictures fetched from
/// addresses have none.
fn beside(args: &BatchArgs, found: &Inputs, questions: &[Question]) -> Vec<Beside> {
    let (Some(form), Inputs::Pictures { items, .. }, [_]) = (args.sidecar, found, questions) else {
        return Vec::new();
    };
    let here = || items.iter().filter(|item| as_url(&item.source).is_none());
    let paths: Vec<PathBuf> = here().map(place_of).collect();
    let places = here().zip(sidecar::places(&paths, form.form()));
    places.map(|(item, path)| Beside { input_id: item.id.clone(), path }).collect()
}

/// Refuses a path where results cannot be written.
///
/// # Errors
/// The system's refusal.
fn check_out(out: &Path) -> Result<(), BatchError> {
    if out.exists() {
        return Ok(()); // it was opened for writing
    }
    let refused = |error| BatchError::written(out, error);
    match open_in_place(out, File::options().read(true)) {
        // a broken link
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    NewFile::check(out, Existing::Replace).map_err(write_error)?;
    tempfile::tempfile_in(folder_of(out)).map_err(refused)?;
    Ok(())
}

/// The path that a picture's sidecar name is derived from; each page of a document gets its own, such as `report.page3.pdf`.
fn place_of(item: &PictureItem) -> PathBuf {
    let path = PathBuf::from(&item.source);
    let Some(page) = item.page else { return path };
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".page{page}."));
    name.push(path.extension().unwrap_or_default());
    path.with_file_name(name)
}
