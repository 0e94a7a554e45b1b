//! The results file, which is the only state of a batch: a header line that identifies the job, and a row per answered input.
//!
//! A row is appended in one write and synced to the disk within seconds. A killed program or a power failure leaves at most
//! one torn last line. The next start truncates it and asks about its input again. A row that the disk has no room for is
//! removed.

use super::error::BatchError;
use super::row::Row;
use crate::sys::REPLACES_OPEN_FILES;
use phi3v::files::{Existing, LockedFile, NewFile, check_regular, sync_data};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest time before a row is synced to the disk.
const SYNC_PERIOD: Duration = Duration::from_secs(2);
/// Version of the header.
const VERSION: u32 = 1;
/// Most characters of a value in a message.
const SHOWN_MAX: usize = 80;

/// The settings that must match for a job to continue, by the names of their flags.
pub type Job = Map<String, Value>;

/// The first line of a journal, which identifies the job of its rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the journal's format.
    pub phi3v_batch: u32,
    /// When the job was first started, in seconds since 1970.
    pub created: u64,
    /// Limit of tokens for a prompt and its answer, as set at the job's first start.
    pub context_tokens: usize,
    /// The settings that determine the answers, by the names of their flags.
    pub job: Job,
}

/// The part of the header that all versions share.
#[derive(Deserialize)]
struct Version {
    phi3v_batch: u32,
}

impl Header {
    /// The header of a new job.
    #[must_use]
    pub fn new(job: Job, created: u64, context_tokens: usize) -> Self {
        Self { phi3v_batch: VERSION, created, context_tokens, job }
    }

    /// A digest that identifies the job.
    #[must_use]
    pub fn digest(&self) -> String {
        blake3::hash(Value::Object(self.job.clone()).to_string().as_bytes()).to_hex().to_string()
    }
}

/// An input that already has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Whether the row has an error.
    pub failed: bool,
    /// Byte offset of the row.
    pub offset: u64,
}

/// Rows by their `custom_id`.
pub type DoneRows = HashMap<String, Done>;

/// A journal locked for writing by this process.
#[derive(Debug)]
pub struct Journal {
    file: LockedFile,
    path: PathBuf,
    /// Total bytes of the complete lines.
    length: u64,
    synced: Instant,
    dirty: bool,
}

/// A journal of an earlier run.
#[derive(Debug)]
pub struct Resumed {
    /// The journal, positioned after its last complete line.
    pub journal: Journal,
    /// The header written by the job's first run.
    pub header: Header,
    /// The existing rows, by `custom_id`.
    pub done: DoneRows,
}

/// The beginning of a row: enough to recognize a row and its `custom_id`.
#[derive(Deserialize)]
struct RowHead {
    custom_id: String,
    error: Option<serde::de::IgnoredAny>,
}

impl Journal {
    /// Continues the journal at `path`. `None` if there is no file, or one without a complete header, which an interrupted
    /// start leaves behind.
    ///
    /// # Errors
    /// The file is not a journal, is damaged, is in use by another process, or cannot be read or written.
    pub fn resume(path: &Path) -> Result<Option<Resumed>, BatchError> {
        if !path.exists() {
            return Ok(None);
        }
        let file = open_locked(path, false)?;
        let read = |error| BatchError::read(path, error);
        let total = file.metadata().map_err(read)?.len();
        // checked before a line is read: a foreign file may be a single line of any length
        if !begins_as_a_header(&file) {
            return Err(not_ours(path));
        }
        let mut lines = Lines { reader: BufReader::new(&*file), number: 0, end: 0 };
        let Some(first) = lines.next().map_err(read)? else { return Ok(None) };
        let Version { phi3v_batch } = serde_json::from_slice(&first).map_err(|_| not_ours(path))?;
        if phi3v_batch != VERSION {
            let path = path.display().to_string();
            return Err(BatchError::OtherVersion { path, found: phi3v_batch, expected: VERSION });
        }
        let header: Header = serde_json::from_slice(&first).map_err(|_| not_ours(path))?;
        let mut done = DoneRows::new();
        // a line that is not a row is damage, unless it is the last
        let mut broken = None;
        let mut length = lines.end;
        while let Some(line) = lines.next().map_err(read)? {
            if let Some(line) = broken {
                return Err(BatchError::Damaged { path: path.display().to_string(), line });
            }
            match serde_json::from_slice::<RowHead>(&line) {
                Ok(RowHead { custom_id, error }) => {
                    done.insert(custom_id, Done { failed: error.is_some(), offset: length });
                    length = lines.end;
                }
                Err(_) => broken = Some(lines.number),
            }
        }
        drop(lines);
        let write = |error| BatchError::written(path, error);
        if length < total {
            file.set_len(length).map_err(write)?;
        }
        let journal = Self { file, path: path.to_owned(), length, synced: Instant::now(), dirty: true };
        Ok(Some(Resumed { journal, header, done }))
    }

    /// Begins a journal at `path` if there is none, or one without a header.
    ///
    /// # Errors
    /// The file cannot be written, or another process writes to it.
    pub fn begin(path: &Path, header: &Header) -> Result<Self, BatchError> {
        let file = open_locked(path, true)?;
        let write = |error| BatchError::written(path, error);
        if !begins_as_a_header(&file) || has_a_line(&file) {
            return Err(not_ours(path)); // another process has just written it
        }
        file.set_len(0).map_err(write)?;
        let mut journal =
            Self { file, path: path.to_owned(), length: 0, synced: Instant::now(), dirty: false };
        journal.line(header)?;
        journal.sync()?;
        Ok(journal)
    }

    /// Removes failed rows that are `asked` again, or whose files are now asked about page by page. The file is rewritten
    /// without them and replaced atomically.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn without_failed(
        mut self,
        done: &mut DoneRows,
        asked: &HashSet<String>,
    ) -> Result<Self, BatchError> {
        if !done.iter().any(|(id, row)| row.failed && asked.contains(id)) {
            return Ok(self);
        }
        let path = self.path.clone();
        let read = |error| BatchError::read(&path, error);
        let written = |error: phi3v::files::WriteError| write_error(error);
        // a link stays a link
        let place = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let mut new = NewFile::create(&place, Existing::Replace).map_err(written)?;
        self.file.rewind().map_err(read)?;
        let mut lines = Lines { reader: BufReader::new((&*self.file).take(self.length)), number: 0, end: 0 };
        let mut kept = DoneRows::new();
        let mut length = 0;
        while let Some(line) = lines.next().map_err(read)? {
            let row = serde_json::from_slice::<RowHead>(&line).ok();
            if let Some(RowHead { custom_id, error }) = row {
                let failed = error.is_some();
                if failed && asked.contains(&custom_id) {
                    continue;
                }
                kept.insert(custom_id, Done { failed, offset: length });
            }
            new.write(&line).map_err(written)?;
            length += line.len() as u64;
        }
        drop(lines);
        // keeps the lock until the new file is in place, except on systems that cannot replace an open file
        let held = REPLACES_OPEN_FILES.then_some(self.file);
        new.finish().map_err(written)?;
        *done = kept;
        let file = open_locked(&path, false)?;
        drop(held);
        Ok(Self { file, path, length, synced: Instant::now(), dirty: true })
    }

    /// Appends a row and returns its offset.
    ///
    /// # Errors
    /// The row cannot be written; a partly written row is removed.
    pub fn append(&mut self, row: &Row) -> Result<u64, BatchError> {
        let offset = self.length;
        self.line(row)?;
        self.sync_in_time()?;
        Ok(offset)
    }

    /// Syncs the file if the last sync was too long ago; to be called regularly.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync_in_time(&mut self) -> Result<(), BatchError> {
        if self.synced.elapsed() < SYNC_PERIOD { Ok(()) } else { self.sync() }
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&mut self) -> Result<(), BatchError> {
        if self.dirty {
            sync_data(&self.file).map_err(|error| BatchError::written(&self.path, error))?;
        }
        (self.synced, self.dirty) = (Instant::now(), false);
        Ok(())
    }

    /// Reads the row at `offset`.
    ///
    /// # Errors
    /// The row cannot be read, or there is none at `offset`.
    pub fn row_at(&self, offset: u64) -> Result<Row, BatchError> {
        let read = |error| BatchError::read(&self.path, error);
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(offset)).map_err(read)?;
        let mut line = Vec::new();
        BufReader::new(file).read_until(b'\n', &mut line).map_err(read)?;
        serde_json::from_slice(&line).map_err(|error| read(error.into()))
    }

    /// The path of the journal.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), BatchError> {
        let mut line =
            serde_json::to_vec(value).map_err(|error| BatchError::written(&self.path, error.into()))?;
        line.push(b'\n');
        self.dirty = true;
        // rows may have been read since the last write
        let end = self.file.seek(SeekFrom::Start(self.length));
        match end.and_then(|_| self.file.write_all(&line)) {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // if this fails, the next start truncates the partial line
                let _ = self.file.set_len(self.length);
                let _ = sync_data(&self.file);
                Err(BatchError::written(&self.path, error))
            }
        }
    }
}

/// The settings that are digests, each with what has happened if it differs.
const DIGESTS: [(&str, &str); 2] = [
    ("lines", "the requests have changed"),
    ("model_digest", "the files of the model, or --quant, have changed"),
];

/// Refuses to continue another job.
///
/// # Errors
/// [`BatchError::OtherJob`] or [`BatchError::OtherContent`], naming the first difference.
pub fn check_job(path: &Path, then: &Job, now: &Job) -> Result<(), BatchError> {
    let names = then.keys().chain(now.keys().filter(|name| !then.contains_key(*name)));
    for name in names {
        let (before, after) = (then.get(name), now.get(name));
        if before.unwrap_or(&Value::Null) != after.unwrap_or(&Value::Null) {
            if let Some(&(_, what)) = DIGESTS.iter().find(|(digest, _)| digest == name) {
                return Err(BatchError::OtherContent { path: path.display().to_string(), what });
            }
            return Err(BatchError::OtherJob {
                path: path.display().to_string(),
                field: name.replace('_', " "),
                then: shown(before),
                now: shown(after),
            });
        }
    }
    Ok(())
}

/// Formats a value for a message.
fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return "not set".to_owned(),
        Some(value) => value.to_string(),
    };
    if text.chars().count() <= SHOWN_MAX {
        return text;
    }
    text.chars().take(SHOWN_MAX).chain("...".chars()).collect()
}

/// Opens the file for reading and writing, locked for this process.
fn open_locked(path: &Path, create: bool) -> Result<LockedFile, BatchError> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(create);
    // by the name that was given: what Windows calls a device has another when it is looked up
    match check_regular(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(BatchError::written(path, error)),
        _ => {}
    }
    // what a link leads to is what the user means
    let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let file = LockedFile::open(&place, options).map_err(|error| BatchError::written(path, error))?;
    file.ok_or_else(|| BatchError::Busy { path: path.display().to_string() })
}

/// Whether a file begins as a header does, or holds less than that. It is then at its beginning again.
fn begins_as_a_header(mut file: &File) -> bool {
    let mark = b"{\"phi3v_batch\":";
    let mut head = Vec::new();
    let read = file.rewind().and_then(|()| file.take(mark.len() as u64).read_to_end(&mut head));
    read.and_then(|_| file.rewind()).is_ok() && mark.starts_with(&head)
}

/// Whether there is a whole line in a file.
fn has_a_line(mut file: &File) -> bool {
    file.rewind().is_ok() && BufReader::new(file).bytes().any(|byte| matches!(byte, Ok(b'\n')))
}

fn not_ours(path: &Path) -> BatchError {
    BatchError::NotAJournal { path: path.display().to_string() }
}

/// The library's error of a new file in this module's words.
pub fn write_error(error: phi3v::files::WriteError) -> BatchError {
    use phi3v::files::WriteError;
    match error {
        WriteError::Busy { path } => BatchError::Busy { path: path.display().to_string() },
        WriteError::Exists { path } => BatchError::Exists { path: path.display().to_string() },
        WriteError::DiskFull { path } => BatchError::written(&path, ErrorKind::StorageFull.into()),
        WriteError::Write { path, source } => BatchError::written(&path, source),
        other => BatchError::Write { path: String::new(), error: std::io::Error::other(other) },
    }
}

/// Whole lines, each with its end.
struct Lines<R> {
    reader: R,
    /// Of the last line, from 1.
    number: usize,
    /// Where the last line ends, in bytes.
    end: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        self.number += 1;
        self.end += line.len() as u64;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{RowError, RowResponse};
    use super::*;
    use serde_json::json;

    fn job(prompt: &str) -> Job {
        let Value::Object(job) = json!({"model": "m", "prompt": prompt}) else { unreachable!() };
        job
    }

    fn header() -> Header {
        Header::new(job("What?"), 7, 1024)
    }

    fn row(custom_id: &str, failed: bool) -> Row {
        let response = RowResponse { status_code: 200, request_id: "r".to_owned(), body: json!({"n": 1}) };
        let error = failed.then(|| RowError { code: "c".to_owned(), message: "m".to_owned() });
        Row { id: "i".to_owned(), custom_id: custom_id.to_owned(), response, error, warning: None }
    }

    fn ids(done: &DoneRows) -> Vec<(&str, bool)> {
        let mut ids: Vec<_> = done.iter().map(|(id, done)| (id.as_str(), done.failed)).collect();
        ids.sort_unstable();
        ids
    }

    /// A journal with three rows, the second with an error.
    fn journal(path: &Path) -> Vec<u8> {
        let mut journal = Journal::begin(path, &header()).unwrap();
        for (id, failed) in [("a", false), ("b", true), ("c", false)] {
            journal.append(&row(id, failed)).unwrap();
        }
        drop(journal);
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_journal_that_is_cut_anywhere_goes_on_after_its_last_whole_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let whole = journal(&path);
        let ends: Vec<usize> =
            whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let lines = ends.iter().filter(|end| **end <= cut).count();
            let Some(Resumed { mut journal, header: found, done }) = Journal::resume(&path).unwrap() else {
                assert_eq!(lines, 0, "{cut}");
                drop(Journal::begin(&path, &header()).unwrap());
                assert_eq!(std::fs::read(&path).unwrap(), whole[..ends[0]], "{cut}");
                continue;
            };
            assert_eq!(found, header());
            assert_eq!(done.len(), lines - 1, "{cut}");
            journal.append(&row("d", false)).unwrap();
            drop(journal);
            let told = std::fs::read(&path).unwrap();
            assert_eq!(told[..ends[lines - 1]], whole[..ends[lines - 1]], "{cut}");
            let last: Row = serde_json::from_slice(&told[ends[lines - 1]..]).unwrap();
            assert_eq!(last, row("d", false));
        }
    }

    #[test]
    fn a_last_line_that_power_has_damaged_is_dropped_and_one_in_the_middle_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let whole = journal(&path);
        std::fs::write(&path, [&whole[..], &[0; 90], b"\n"].concat()).unwrap();
        assert_eq!(Journal::resume(&path).unwrap().unwrap().done.len(), 3);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let text = String::from_utf8(whole).unwrap();
        std::fs::write(&path, text.replacen("\"custom_id\":\"b\"", "\"custom_id\":", 1)).unwrap();
        assert!(matches!(Journal::resume(&path), Err(BatchError::Damaged { line: 3, .. })));
    }

    #[test]
    fn files_of_others_are_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        for text in [
            "notes\n",
            "notes",
            "{}\n",
            "{\"custom_id\":\"a\"}\n",
            "{\"phi3v_batch\":1}\n",
            "{\"phi3v_batch\":x\n",
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Journal::resume(&path), Err(BatchError::NotAJournal { .. })), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(Journal::begin(dir.path(), &header()).is_err());
        #[cfg(unix)]
        {
            let refused = Journal::begin(Path::new("/dev/null"), &header()).unwrap_err();
            assert!(refused.to_string().contains("it is a device and not a file"), "{refused}");
        }
    }

    #[test]
    fn a_journal_of_another_version_is_refused_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let whole = String::from_utf8(journal(&path)).unwrap();
        // whatever else has changed in its header
        for text in [whole.replacen(":1,", ":2,", 1), "{\"phi3v_batch\":2}\n".to_owned()] {
            std::fs::write(&path, &text).unwrap();
            let refused = Journal::resume(&path).unwrap_err().to_string();
            let expected = "out.jsonl holds results of form 2, and this phi3v goes on with form 1";
            assert!(refused.ends_with(expected), "{refused}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn two_processes_do_not_write_to_one_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let first = Journal::begin(&path, &header()).unwrap();
        assert!(matches!(Journal::resume(&path), Err(BatchError::Busy { .. })));
        assert!(matches!(Journal::begin(&path, &header()), Err(BatchError::Busy { .. })));
        drop(first);
        assert!(Journal::resume(&path).unwrap().is_some());
    }

    #[test]
    fn rows_can_be_read_while_others_are_appended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let whole = journal(&path);
        let mut journal = Journal::begin(&dir.path().join("again.jsonl"), &header()).unwrap();
        let mut first = None;
        for (id, failed) in [("a", false), ("b", true), ("c", false)] {
            let offset = journal.append(&row(id, failed)).unwrap();
            assert_eq!(journal.row_at(offset).unwrap(), row(id, failed));
            assert_eq!(journal.row_at(*first.get_or_insert(offset)).unwrap(), row("a", false));
        }
        drop(journal);
        assert_eq!(std::fs::read(dir.path().join("again.jsonl")).unwrap(), whole);
    }

    #[test]
    fn failed_rows_are_taken_out_and_the_others_stay_to_the_letter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let whole = String::from_utf8(journal(&path)).unwrap();
        let Resumed { journal, mut done, .. } = Journal::resume(&path).unwrap().unwrap();
        assert_eq!(ids(&done), [("a", false), ("b", true), ("c", false)]);
        let asked = |id: &str| HashSet::from([id.to_owned()]);
        let journal = journal.without_failed(&mut done, &asked("c")).unwrap();
        assert_eq!(ids(&done), [("a", false), ("b", true), ("c", false)], "nobody asks about it again");
        let mut journal = journal.without_failed(&mut done, &asked("b")).unwrap();
        assert_eq!(ids(&done), [("a", false), ("c", false)]);
        assert_eq!(journal.row_at(done["c"].offset).unwrap(), row("c", false));
        journal.append(&row("b", false)).unwrap();
        let kept: Vec<&str> =
            whole.lines().enumerate().filter(|(n, _)| *n != 2).map(|(_, line)| line).collect();
        let told = std::fs::read_to_string(&path).unwrap();
        assert_eq!(told.lines().take(3).collect::<Vec<_>>(), kept);
        assert_eq!(told.lines().count(), 4);
    }

    #[test]
    fn another_job_is_told_by_what_differs_first() {
        let path = Path::new("out.jsonl");
        check_job(path, &job("What?"), &job("What?")).unwrap();
        let refused = check_job(path, &job("What?"), &job(&"Who? ".repeat(40))).unwrap_err().to_string();
        let begin =
            "out.jsonl holds the results of another job: its prompt is \"What?\", and now it is \"Who? Who?";
        assert!(refused.starts_with(begin) && refused.ends_with("..."), "{refused}");
        let more = job("What?").into_iter().chain([("seed".to_owned(), json!(7))]).collect();
        let refused = check_job(path, &more, &job("What?")).unwrap_err().to_string();
        assert!(refused.ends_with("its seed is 7, and now it is not set"), "{refused}");
        let same = job("What?").into_iter().chain([("seed".to_owned(), Value::Null)]).collect();
        check_job(path, &same, &job("What?")).unwrap();
    }
}
