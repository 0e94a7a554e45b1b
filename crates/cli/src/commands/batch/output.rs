//! Where rows go: the journal first, then what stands beside the pictures, and in the end the tables.

use super::places;
use crate::args::BatchArgs;
use crate::batch::BatchError;
use crate::batch::inputs::{Inputs, PictureItem};
use crate::batch::journal::{Done, DoneRows, Journal, Resumed};
use crate::batch::meter::Meter;
use crate::batch::questions::Question;
use crate::batch::row::Row;
use crate::batch::sidecar::{self, Form};
use crate::batch::table::{Columns, parquet_writer, write_csv};
use crate::batch::worker::Sink;
use crate::error::CliError;
use crate::sources::http_url;
use phi3v::files::{Existing, NewFile};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Files beside pictures.
struct Sidecars {
    form: Form,
    /// The file of each row, by its `custom_id`.
    places: HashMap<String, PathBuf>,
    prompt: String,
    existing: Existing,
}

/// What is to be written, all of which may be.
pub(super) struct Checked<'a> {
    args: &'a BatchArgs,
    columns: Columns,
    sidecars: Option<Sidecars>,
    /// What becomes of tables that are there.
    csv: Existing,
    parquet: Existing,
}

/// What is written to.
pub(super) struct Outputs<'a> {
    checked: Checked<'a>,
    journal: Journal,
    done: DoneRows,
    meter: Option<Meter>,
    /// Rows of this run, and those before it.
    answered: usize,
    before: usize,
}

impl<'a> Outputs<'a> {
    /// Refuses what is there already and is not this job's, before anything is begun. `resumed` is the job so far.
    ///
    /// # Errors
    /// A table or a file beside a picture that is to be kept, a table that cannot be written, or one place for two files.
    pub(super) fn check(
        args: &'a BatchArgs,
        found: &Inputs,
        questions: &[Question],
        resumed: Option<&Resumed>,
    ) -> Result<Checked<'a>, BatchError> {
        let existing = if args.force { Existing::Replace } else { Existing::Keep };
        let sidecars = sidecars(args, found, questions, existing);
        let beside = sidecars.iter().flat_map(|sidecars| sidecars.places.values());
        places::check(args, found, beside.map(PathBuf::as_path))?;
        let table = |path: Option<&PathBuf>| {
            let Some(path) = path else { return Ok(existing) };
            let existing = places::existing_table(path, resumed.is_some(), args.force);
            NewFile::check(path, existing).map_err(crate::batch::journal::write_error)?;
            Ok(existing)
        };
        let (csv, parquet) = (table(args.csv.as_ref())?, table(args.parquet.as_ref())?);
        let done = resumed.map(|resumed| &resumed.done);
        if let Some(Sidecars { places, existing: Existing::Keep, .. }) = &sidecars {
            let is_done = |id: &String| done.is_some_and(|done| done.get(id).is_some_and(|row| !row.failed));
            let mut others = places.iter().filter(|(id, path)| !is_done(id) && path.exists());
            if let Some((_, path)) = others.next() {
                return Err(BatchError::Exists { path: path.display().to_string() });
            }
        }
        Ok(Checked { args, columns: Columns::new(questions), sidecars, csv, parquet })
    }

    /// Rows that are there.
    pub(super) fn done(&self) -> &DoneRows {
        &self.done
    }

    /// Rows of this run.
    pub(super) fn answered(&self) -> usize {
        self.answered
    }

    /// From here on rows come.
    pub(super) fn measure(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// Writes the tables and says what was done; `stopped` before all was.
    ///
    /// # Errors
    /// A table cannot be written; [`CliError::Interrupted`] where it was stopped; [`BatchError::SomeFailed`].
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
        let failed = self.done.values().filter(|row| row.failed).count();
        match (stopped, failed) {
            (true, _) => Err(CliError::Interrupted),
            (false, 0) => Ok(()),
            (false, failed) => {
                let path = self.journal.path().display().to_string();
                Err(BatchError::SomeFailed { failed, total: self.done.len(), path }.into())
            }
        }
    }

    /// Writes the sidecars of rows that an earlier run has noted and had no time to write.
    fn complete(&self) -> Result<(), BatchError> {
        let Some(sidecars) = &self.checked.sidecars else { return Ok(()) };
        for (id, row) in self.done.iter().filter(|(_, row)| !row.failed) {
            let Some(path) = sidecars.places.get(id) else { continue };
            if sidecars.existing == Existing::Replace || !path.exists() {
                sidecars.write(path, &self.journal.row_at(row.offset)?)?;
            }
        }
        Ok(())
    }
}

impl<'a> Checked<'a> {
    /// Writes to `journal`, which has the rows `done`.
    ///
    /// # Errors
    /// A file beside a picture that is missing cannot be written.
    pub(super) fn begin(self, journal: Journal, done: DoneRows) -> Result<Outputs<'a>, BatchError> {
        let before = done.len();
        let outputs = Outputs { checked: self, journal, done, meter: None, answered: 0, before };
        outputs.complete()?;
        Ok(outputs)
    }
}

impl Sink for Outputs<'_> {
    fn row(&mut self, row: Row) -> Result<(), BatchError> {
        let offset = self.journal.append(&row)?;
        self.done.insert(row.custom_id.clone(), Done { failed: row.is_failed(), offset });
        self.answered += 1;
        if let Some(sidecars) = &self.checked.sidecars
            && let Some(path) = sidecars.places.get(&row.custom_id)
        {
            sidecars.write(path, &row)?;
        }
        if let Some(meter) = &mut self.meter {
            meter.row(row.is_failed(), row.finish_reason() == Some("length"));
        }
        Ok(())
    }

    fn moment(&mut self) -> Result<(), BatchError> {
        self.journal.sync_in_time()
    }
}

impl Sidecars {
    fn write(&self, path: &Path, row: &Row) -> Result<(), BatchError> {
        match self.form.contents(row, &self.prompt) {
            Some(contents) => sidecar::write(path, &contents, self.existing),
            None => Ok(()),
        }
    }
}

/// Where files beside the pictures go, if there are to be any. Pictures from addresses have none.
fn sidecars(
    args: &BatchArgs,
    found: &Inputs,
    questions: &[Question],
    existing: Existing,
) -> Option<Sidecars> {
    let (form, Inputs::Pictures { items, .. }, [question]) = (args.sidecar?.form(), found, questions) else {
        return None;
    };
    let here = || items.iter().filter(|item| http_url(&item.source).is_none());
    let paths: Vec<PathBuf> = here().map(place_of).collect();
    let places = here().map(|item| question.row_id(&item.id)).zip(sidecar::places(&paths, form)).collect();
    Some(Sidecars { form, places, prompt: question.prompt.clone(), existing })
}

/// Where a picture lies; the pages of a document lie side by side, as `report.page3.pdf`.
fn place_of(item: &PictureItem) -> PathBuf {
    let path = PathBuf::from(&item.source);
    let Some(page) = item.page else { return path };
    let part = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!("{}.page{page}.{}", part(path.file_stem()), part(path.extension())))
}
