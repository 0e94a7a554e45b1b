//! Converts JSON answers to rows of a table, and tables to CSV.
//!
//! Rows are the objects of an array, alone or as the only member of an object; the rows of a table read from a picture
//! (`{"columns": [...], "rows": [[...]]}`, as in the preset `@table`); or else the answer's single object.

use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

/// A cell; `None` if it is empty.
pub type Cell = Option<String>;

/// A row of a table: cells by column name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(Vec<(String, Cell)>);

impl Record {
    /// The names of the row's columns, in order.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The non-empty cells, each with the index of its column in `names`, which must contain all of them.
    pub fn cells(self, names: &Names) -> impl Iterator<Item = (usize, String)> {
        self.0.into_iter().filter_map(|(name, cell)| Some((names.index(&name)?, cell?)))
    }

    fn of(members: &Map<String, Value>) -> Self {
        Self(members.iter().map(|(name, value)| (name.clone(), cell(value))).collect())
    }
}

/// The columns of the answers to a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The columns that the schema names.
    pub names: Vec<String>,
    /// Whether answers may add columns of their own.
    pub open: bool,
}

/// The columns of answers to `schema`, as far as the schema determines them.
#[must_use]
pub fn columns(schema: &Value) -> Named {
    let properties = |schema: &Value| schema.get("properties").and_then(Value::as_object).cloned();
    let items = |schema: &Value| properties(schema.get("items")?);
    let keys = |members: Map<String, Value>| members.keys().cloned().collect();
    if let Some(members) = items(schema) {
        return Named { names: keys(members), open: false };
    }
    let Some(members) = properties(schema) else { return Named::default() };
    if members.len() == 2 && members.contains_key("columns") && members.contains_key("rows") {
        return Named { names: Vec::new(), open: true };
    }
    let only = members.values().next().filter(|_| members.len() == 1).and_then(items);
    Named { names: keys(only.unwrap_or(members)), open: false }
}

/// The rows of an answer; an array without objects and a single value have none.
#[must_use]
pub fn records(answer: &Value) -> Option<Vec<Record>> {
    named_records(answer).map(|(_, records)| records)
}

/// The rows of an answer, and the names of columns that exist even without rows.
fn named_records(answer: &Value) -> Option<(Vec<String>, Vec<Record>)> {
    let unnamed = |records| (Vec::new(), records);
    match answer {
        Value::Array(items) => objects(items).map(unnamed),
        Value::Object(members) => Some(read_table(members).unwrap_or_else(|| {
            let found = only_array(members).and_then(objects);
            unnamed(found.unwrap_or_else(|| vec![Record::of(members)]))
        })),
        _ => None,
    }
}

fn objects(items: &[Value]) -> Option<Vec<Record>> {
    items.iter().map(|item| item.as_object().map(Record::of)).collect()
}

fn only_array(members: &Map<String, Value>) -> Option<&[Value]> {
    members.values().next().filter(|_| members.len() == 1)?.as_array().map(Vec::as_slice)
}

/// The columns and rows of a table read from a picture.
fn read_table(members: &Map<String, Value>) -> Option<(Vec<String>, Vec<Record>)> {
    let [columns, rows] = ["columns", "rows"].map(|name| members.get(name)?.as_array());
    let (columns, rows) = (columns?, rows.filter(|_| members.len() == 2)?);
    let width = rows.iter().filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0);
    let names = column_names(columns, width);
    let record = |row: &Value| {
        let cells = row.as_array()?.iter().map(cell).chain(std::iter::repeat(None));
        Some(Record(names.iter().cloned().zip(cells).collect()))
    };
    let records = rows.iter().map(record).collect::<Option<_>>()?;
    Some((names, records))
}

/// At least `width` distinct column names. Cells beyond the known columns, and columns without a name, are named by their
/// number, or by the next number that is not taken.
fn column_names(columns: &[Value], width: usize) -> Vec<String> {
    let mut taken: HashSet<String> = columns.iter().filter_map(cell).collect();
    let mut named = HashSet::new();
    let name = |index: usize| {
        let own =
            columns.get(index).and_then(cell).filter(|own| !own.is_empty() && named.insert(own.clone()));
        own.unwrap_or_else(|| {
            let mut numbered = (index + 1..).map(|number| format!("column {number}"));
            let free = numbered.find(|name| !taken.contains(name)).unwrap_or_default();
            taken.insert(free.clone());
            free
        })
    };
    (0..width.max(columns.len())).map(name).collect()
}

/// A string as it is, any other value as JSON.
fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Distinct column names in order.
#[derive(Clone, Debug, Default)]
pub struct Names {
    order: Vec<String>,
    indices: HashMap<String, usize>,
}

impl Names {
    /// Appends a name unless it is already present.
    pub fn add(&mut self, name: &str) {
        if !self.indices.contains_key(name) {
            self.indices.insert(name.to_owned(), self.order.len());
            self.order.push(name.to_owned());
        }
    }

    /// The index of the name, from 0, if present.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.indices.get(name).copied()
    }

    /// The names, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }
}

impl<S: AsRef<str>> Extend<S> for Names {
    fn extend<T: IntoIterator<Item = S>>(&mut self, names: T) {
        names.into_iter().for_each(|name| self.add(name.as_ref()));
    }
}

/// Writes rows as CSV in UTF-8 according to RFC 4180.
pub struct CsvWriter<W: Write>(csv::Writer<W>);

impl<W: Write> CsvWriter<W> {
    /// A writer of a table to `output`.
    pub fn new(output: W) -> Self {
        Self(csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(output))
    }

    /// Writes a row; the first row holds the column names.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item = Option<&'a str>>) -> io::Result<()> {
        let written = self.0.write_record(cells.into_iter().map(Option::unwrap_or_default));
        written.map_err(|error| {
            let kind = match error.kind() {
                csv::ErrorKind::Io(error) => error.kind(),
                _ => io::ErrorKind::Other,
            };
            // the plain conversion would lose the error's kind
            io::Error::new(kind, error)
        })
    }

    /// Writes a row of `width` cells from the non-empty cells, given by index.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn line(&mut self, cells: impl IntoIterator<Item = (usize, String)>, width: usize) -> io::Result<()> {
        let mut row = vec![None; width];
        for (index, cell) in cells {
            row[index] = Some(cell);
        }
        self.row(row.iter().map(Option::as_deref))
    }

    /// Finishes the table and returns the output.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn finish(self) -> io::Result<W> {
        self.0.into_inner().map_err(csv::IntoInnerError::into_error)
    }
}

/// A whole answer as CSV: the columns that its schema names, and those that it brings; without any of them no line at all. None
/// where it is one value and no table.
#[must_use]
pub fn csv_of(answer: &Value, schema: &Value) -> Option<String> {
    let (own, records) = named_records(answer)?;
    let mut names = Names::default();
    names.extend(columns(schema).names);
    names.extend(own);
    records.iter().for_each(|record| names.extend(record.names()));
    if names.iter().next().is_none() {
        return Some(String::new()); // the writer's line without cells would be read as one empty cell
    }
    let mut table = CsvWriter::new(Vec::new());
    table.row(names.iter().map(Some)).ok()?;
    let width = names.iter().count();
    for record in records {
        table.line(record.cells(&names), width).ok()?;
    }
    String::from_utf8(table.finish().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use serde_json::json;

    #[test]
    fn a_full_disk_is_known_for_one_however_much_is_written() {
        for letters in [1, 1 << 16] {
            let mut table = CsvWriter::new(Disk(0));
            let row = table.row([Some("x".repeat(letters).as_str())]);
            let refused = row.and_then(|()| table.finish().map(drop)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{letters}: {refused}");
        }
    }

    #[test]
    fn objects_arrays_of_them_and_tables_are_rows() {
        let point = json!({"type": "object", "properties": {"x": {}, "y": {}}});
        let points = json!({"type": "array", "items": point});
        let cases = [
            (json!({"x": 1.5, "y": null}), point.clone(), "x,y\r\n1.5,\r\n"),
            (json!([{"x": "a,b"}, {"y": [1]}]), points.clone(), "x,y\r\n\"a,b\",\r\n,[1]\r\n"),
            (
                json!({"points": [{"x": 1, "z": true}]}),
                json!({"properties": {"points": points}}),
                "x,y,z\r\n1,,true\r\n",
            ),
            (json!({"points": []}), json!({"properties": {"points": points}}), "x,y\r\n"),
            (
                json!({"columns": ["day", "day", ""], "rows": [["Mon", "1"], ["Tue", "2", "3", "4"]]}),
                phi3v::presets::Preset::named("@table").unwrap().schema(),
                "day,column 2,column 3,column 4\r\nMon,1,,\r\nTue,2,3,4\r\n",
            ),
            // no name occurs twice, and no cell is lost
            (
                json!({"columns": ["x", "column 3"], "rows": [["1", "2", "3"]]}),
                json!({}),
                "x,column 3,column 4\r\n1,2,3\r\n",
            ),
            (
                json!({"columns": ["column 2", ""], "rows": [["a", "b"]]}),
                json!({}),
                "column 2,column 3\r\na,b\r\n",
            ),
            (
                json!({"columns": [null, "column 1", "column 1"], "rows": [["a", "b", "c"]]}),
                json!({}),
                "column 2,column 1,column 3\r\na,b,c\r\n",
            ),
            (json!({"columns": ["day"], "rows": []}), json!({}), "day\r\n"),
            (json!({"columns": [], "rows": []}), json!({}), ""),
            (json!({"columns": [], "rows": [[]]}), json!({}), ""),
            (json!([]), json!({"const": []}), ""),
            (json!([{}]), json!({}), ""),
            (json!({}), json!({}), ""),
            // an array among other members is a cell
            (json!({"a": [{"b": 1}], "c": 2}), json!({}), "a,c\r\n\"[{\"\"b\"\":1}]\",2\r\n"),
        ];
        for (answer, schema, csv) in cases {
            assert_eq!(csv_of(&answer, &schema).as_deref(), Some(csv), "{answer}");
        }
        for none in [json!(1), json!("a"), json!([1, {"a": 2}])] {
            assert_eq!(csv_of(&none, &json!({})), None, "{none}");
        }
    }
}
