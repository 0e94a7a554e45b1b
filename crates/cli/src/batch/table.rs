//! All rows as a table, ordered by name, page and question, as CSV or (if built in) Parquet.
//!
//! The columns are `custom_id`, `question` (if there are several), `answer`, `finish_reason`, `error`, and, if answers follow
//! a schema, one per property of its object. An answer that is an array of objects, or a table, has one row per element; only
//! the first has the answer itself. For tables read from pictures, the columns are those of all answers.

use super::error::BatchError;
use super::journal::{Done, DoneRows, Journal, write_error};
use super::questions::Question;
use super::row::Row;
use crate::sources::file_and_page;
use crate::tables::{self, Cell, CsvWriter, Names, Record};
use phi3v::files::{Existing, NewFile, WriteError};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;

/// The columns of a table.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Names and texts of the questions, if there are several.
    questions: Vec<(String, String)>,
    /// Properties of the schemas, in order.
    properties: Names,
    /// Whether answers add columns of their own.
    open: bool,
}

impl Columns {
    /// The columns for the questions; empty for JSON lines.
    #[must_use]
    pub fn new(questions: &[Question]) -> Self {
        let named = |question: &Question| Some((question.name.clone()?, question.prompt.clone()));
        let (mut properties, mut open) = (Names::default(), false);
        for schema in questions.iter().filter_map(|question| question.schema.as_ref()) {
            let own = tables::columns(schema);
            open |= own.open;
            properties.extend(own.names);
        }
        Self { questions: questions.iter().filter_map(named).collect(), properties, open }
    }

    /// The columns, with those that the answers add.
    fn complete(&self, journal: &Journal, done: &DoneRows) -> Result<Self, BatchError> {
        let mut whole = self.clone();
        if self.open {
            for row in self.rows(journal, done) {
                let found = records(&row?);
                found.iter().for_each(|record| whole.properties.extend(record.names()));
            }
        }
        Ok(whole)
    }

    /// The columns of every table, for one question or `several`.
    fn own_names(several: bool) -> &'static [&'static str] {
        if several {
            &["custom_id", "question", "answer", "finish_reason", "error"]
        } else {
            &["custom_id", "answer", "finish_reason", "error"]
        }
    }

    /// The columns' names, without duplicates. A property named like a column of every table gets a mark.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let own = Self::own_names(!self.questions.is_empty());
        let column = |property: &str| {
            let mut name = property.to_owned();
            let is_anothers = |name: &str| name != property && self.properties.index(name).is_some();
            while own.contains(&name.as_str()) || is_anothers(&name) {
                name.insert_str(0, "answer.");
            }
            name
        };
        own.iter().map(|&name| name.to_owned()).chain(self.properties.iter().map(column)).collect()
    }

    /// The lines of a result, at least one: for each, the non-empty cells with the indices of their columns.
    fn lines(&self, row: &Row) -> impl Iterator<Item = Vec<(usize, String)>> {
        let own = self.cells(row);
        let (width, answer) = (own.len(), 1 + usize::from(!self.questions.is_empty()));
        let mut records = records(row);
        if records.is_empty() {
            records.push(Record::default());
        }
        records.into_iter().enumerate().map(move |(number, record)| {
            let own = own.iter().enumerate().filter(|(index, _)| number == 0 || *index != answer);
            let own = own.filter_map(|(index, cell)| Some((index, cell.clone()?)));
            own.chain(record.cells(&self.properties).map(|(index, cell)| (width + index, cell))).collect()
        })
    }

    /// The rows of a journal ordered by name, page number, and the order of the questions.
    fn rows<'a, 'd>(
        &self,
        journal: &'a Journal,
        done: &'d DoneRows,
    ) -> impl Iterator<Item = Result<Row, BatchError>> + use<'a> {
        let questions: HashMap<&str, usize> =
            self.questions.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
        let place = |(id, row): (&'d String, &Done)| {
            let (picture, question) = match id.rsplit_once('#').filter(|_| !questions.is_empty()) {
                Some((picture, name)) => (picture, questions.get(name).copied()),
                None => (id.as_str(), None),
            };
            let (file, page) = file_and_page(picture);
            (file, page, question, id.as_str(), row.offset)
        };
        let mut places: Vec<_> = done.iter().map(place).collect();
        places.sort_unstable();
        let offsets: Vec<u64> = places.into_iter().map(|(.., offset)| offset).collect();
        offsets.into_iter().map(|offset| journal.row_at(offset))
    }

    /// The cells that a result's lines share.
    fn cells(&self, row: &Row) -> Vec<Cell> {
        let mut cells = vec![Some(row.custom_id.clone())];
        if !self.questions.is_empty() {
            let name = row.custom_id.rsplit_once('#').map(|(_, name)| name);
            let question = self.questions.iter().find(|(own, _)| Some(own.as_str()) == name);
            cells.push(question.map(|(_, prompt)| prompt.clone()));
        }
        let error = row.error.as_ref().map(|error| error.message.clone());
        let answer = row.answer();
        let reason = answer.and_then(|_| row.finish_reason());
        cells.extend([answer.map(str::to_owned), reason.map(str::to_owned), error]);
        cells
    }
}

/// The rows of a result's answer, if it is JSON that contains any.
fn records(row: &Row) -> Vec<Record> {
    let answer: Option<Value> = row.answer().and_then(|answer| serde_json::from_str(answer).ok());
    answer.as_ref().and_then(tables::records).unwrap_or_default()
}

/// Writes a CSV file in UTF-8 according to RFC 4180.
///
/// # Errors
/// The file cannot be written, or the journal cannot be read.
pub fn write_csv(
    path: &Path,
    columns: &Columns,
    journal: &Journal,
    done: &DoneRows,
    existing: Existing,
) -> Result<(), BatchError> {
    let file = NewFile::create(path, existing).map_err(write_error)?;
    let failed = |error| BatchError::written(path, error);
    let columns = columns.complete(journal, done)?;
    let mut table = CsvWriter::new(Unfinished(file));
    let names = columns.names();
    table.row(names.iter().map(|name| Some(name.as_str()))).map_err(failed)?;
    for row in columns.rows(journal, done) {
        for cells in columns.lines(&row?) {
            table.line(cells, names.len()).map_err(failed)?;
        }
    }
    let Unfinished(file) = table.finish().map_err(failed)?;
    file.finish().map_err(write_error)
}

/// Whether the file at `path` begins like one of [`write_csv`].
#[must_use]
pub fn is_csv(path: &Path) -> bool {
    let [one, several] = [false, true].map(|several| Columns::own_names(several).join(","));
    let mut begin = Vec::new();
    let longest = several.len() as u64 + 1;
    let read = phi3v::files::open_regular(path).and_then(|file| file.take(longest).read_to_end(&mut begin));
    // after the columns of every table come others, or the end of the line
    let is_head = |head: String| matches!(begin.strip_prefix(head.as_bytes()), Some([b',' | b'\r', ..]));
    read.is_ok() && [one, several].into_iter().any(is_head)
}

#[cfg(feature = "parquet")]
mod parquet_file;

/// Whether the file at `path` was written by [`parquet_writer`]; always false in a build without Parquet.
#[must_use]
pub fn is_parquet(path: &Path) -> bool {
    #[cfg(feature = "parquet")]
    return parquet_file::is_ours(path);
    #[cfg(not(feature = "parquet"))]
    {
        let _ = path;
        false
    }
}

/// A function that writes all rows of a journal to a file, as [`write_csv`] does.
pub type WriteTable = fn(&Path, &Columns, &Journal, &DoneRows, Existing) -> Result<(), BatchError>;

/// The function that writes Parquet files: every column is optional text, in row groups of 65,536.
///
/// # Errors
/// [`BatchError::NoParquet`] if the program was built without the feature `parquet`.
pub fn parquet_writer() -> Result<WriteTable, BatchError> {
    #[cfg(feature = "parquet")]
    return Ok(parquet_file::write_parquet);
    #[cfg(not(feature = "parquet"))]
    return Err(BatchError::NoParquet);
}

/// A file being written that does not have its final name yet.
struct Unfinished(NewFile);

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(of_the_system)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().map_err(of_the_system)
    }
}

fn of_the_system(error: WriteError) -> std::io::Error {
    match error {
        WriteError::Write { source, .. } => source,
        WriteError::DiskFull { .. } => std::io::ErrorKind::StorageFull.into(),
        other => std::io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Header, Job};
    use super::super::row::{RowError, RowResponse};
    use super::*;
    use serde_json::json;

    pub(super) fn row(custom_id: &str, answer: &str) -> Row {
        let body = json!({"choices": [{"message": {"content": answer}, "finish_reason": "stop"}]});
        let response = RowResponse { status_code: 200, request_id: "r".to_owned(), body };
        Row { id: "i".to_owned(), custom_id: custom_id.to_owned(), response, error: None, warning: None }
    }

    pub(super) fn failed(custom_id: &str) -> Row {
        let error = RowError { code: "image_invalid".to_owned(), message: "it is damaged".to_owned() };
        let response =
            RowResponse { status_code: 400, request_id: "r".to_owned(), body: json!({"error": {}}) };
        Row { response, error: Some(error), ..row(custom_id, "") }
    }

    /// A journal with rows in the order in which they were answered.
    pub(super) fn journal(path: &Path, rows: &[Row]) -> (Journal, DoneRows) {
        let mut journal = Journal::begin(path, &Header::new(Job::new(), 0, 1024)).unwrap();
        let mut done = DoneRows::new();
        for row in rows {
            let offset = journal.append(row).unwrap();
            done.insert(
                row.custom_id.clone(),
                super::super::journal::Done { failed: row.is_failed(), offset },
            );
        }
        (journal, done)
    }

    fn csv_of(columns: &Columns, rows: &[Row]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let (journal, done) = journal(&dir.path().join("out.jsonl"), rows);
        let path = dir.path().join("out.csv");
        write_csv(&path, columns, &journal, &done, Existing::Keep).unwrap();
        let again = write_csv(&path, columns, &journal, &done, Existing::Keep);
        assert!(matches!(again, Err(BatchError::Exists { .. })));
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn rows_stand_in_the_order_of_their_names() {
        let rows = [row("b.png", "A \"dog\",\nbig"), failed("c, d.png"), row("a.png", "A cat")];
        let expected = "custom_id,answer,finish_reason,error\r\na.png,A cat,stop,\r\n\
                        b.png,\"A \"\"dog\"\",\nbig\",stop,\r\n\"c, d.png\",,,it is damaged\r\n";
        assert_eq!(csv_of(&Columns::default(), &rows), expected);
    }

    #[test]
    fn pages_and_questions_stand_in_the_order_of_their_numbers() {
        let first = |columns: &Columns, ids: &[&str]| -> Vec<String> {
            let rows: Vec<Row> = ids.iter().map(|id| row(id, "x")).collect();
            let csv = csv_of(columns, &rows);
            csv.lines().skip(1).filter_map(|line| line.split(',').next()).map(str::to_owned).collect()
        };
        let pages = ["b.png", "a.pdf#page=10", "a.pdf#page=2", "a.pdf", "a.pdf#page=x", "B.png"];
        let expected = ["B.png", "a.pdf", "a.pdf#page=2", "a.pdf#page=10", "a.pdf#page=x", "b.png"];
        assert_eq!(first(&Columns::default(), &pages), expected);
        let text: String = (1..=10).map(|number| format!("Question {number}?\n")).collect();
        let columns = Columns::new(&super::super::questions::parse(&text).unwrap());
        let rows = ["b.png#1", "a.pdf#page=10#2", "a.pdf#page=2#10", "a.pdf#page=2#2", "a.pdf#page=10#1"];
        let expected = ["a.pdf#page=2#2", "a.pdf#page=2#10", "a.pdf#page=10#1", "a.pdf#page=10#2", "b.png#1"];
        assert_eq!(first(&columns, &rows), expected);
    }

    #[test]
    fn a_line_holds_the_cells_that_are_there_and_no_others() {
        let text = r#"[{"prompt": "p", "schema": {"items": {"properties": {"x": {}, "y": {}, "z": {}}}}}]"#;
        let mut columns = Columns::new(&super::super::questions::parse(text).unwrap());
        columns.questions.clear();
        let answer = r#"[{"z":1},{"x":null,"y":"b"}]"#;
        let row = row("a.png", answer);
        let lines: Vec<Vec<(usize, String)>> = columns.lines(&row).collect();
        let cell = |index, text: &str| (index, text.to_owned());
        let first = vec![cell(0, "a.png"), cell(1, answer), cell(2, "stop"), cell(6, "1")];
        assert_eq!(lines, [first, vec![cell(0, "a.png"), cell(2, "stop"), cell(5, "b")]]);
    }

    #[test]
    fn no_two_columns_have_one_name() {
        let text =
            r#"[{"prompt": "p", "schema": {"properties": {"answer": {}, "answer.answer": {}, "x": {}}}}]"#;
        let columns = Columns::new(&super::super::questions::parse(text).unwrap());
        let names = columns.names();
        assert_eq!(names[names.len() - 3..], ["answer.answer.answer", "answer.answer", "x"]);
    }

    #[test]
    fn answers_to_a_schema_have_a_column_for_each_property() {
        let text = r#"[{"name": "t", "prompt": "Total?", "schema": {"properties": {"total": {}, "answer": {}}}},
                       {"name": "w", "prompt": "Who?"}]"#;
        let columns = Columns::new(&super::super::questions::parse(text).unwrap());
        let rows = [row("a.png#t", r#"{"total": 3.50, "answer": ["x"]}"#), row("a.png#w", "Ann")];
        let expected = "custom_id,question,answer,finish_reason,error,total,answer.answer\r\n\
                        a.png#t,Total?,\"{\"\"total\"\": 3.50, \"\"answer\"\": [\"\"x\"\"]}\",stop,,3.5,\"[\"\"x\"\"]\"\r\n\
                        a.png#w,Who?,Ann,stop,,,\r\n";
        assert_eq!(csv_of(&columns, &rows), expected);
    }

    #[test]
    fn arrays_of_objects_and_tables_have_a_line_for_each_row() {
        let points =
            r#"[{"prompt": "p", "schema": {"type": "array", "items": {"properties": {"x": {}, "y": {}}}}}]"#;
        let mut columns = Columns::new(&super::super::questions::parse(points).unwrap());
        columns.questions.clear();
        let rows = [row("a.png", r#"[{"x":1,"y":"b"},{"x":2}]"#), row("b.png", "[]"), failed("c.png")];
        let expected = "custom_id,answer,finish_reason,error,x,y\r\n\
                        a.png,\"[{\"\"x\"\":1,\"\"y\"\":\"\"b\"\"},{\"\"x\"\":2}]\",stop,,1,b\r\n\
                        a.png,,stop,,2,\r\nb.png,[],stop,,,\r\nc.png,,,it is damaged,,\r\n";
        assert_eq!(csv_of(&columns, &rows), expected);
        let table = r#"[{"schema": "@table"}]"#;
        let mut columns = Columns::new(&super::super::questions::parse(table).unwrap());
        columns.questions.clear();
        let rows = [
            row("a.png", r#"{"columns":["day"],"rows":[["Mon"]]}"#),
            row("b.png", r#"{"columns":["sum","day"],"rows":[["1","Tue"],["2"]]}"#),
        ];
        let csv = csv_of(&columns, &rows);
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[0], "custom_id,answer,finish_reason,error,day,sum");
        assert!(lines[1].ends_with("stop,,Mon,") && lines[2].ends_with("stop,,Tue,1"), "{csv}");
        assert_eq!(lines[3], "b.png,,stop,,,2");
    }
}
