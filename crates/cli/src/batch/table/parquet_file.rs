//! The table as a Parquet file.

use super::{Columns, Unfinished};
use crate::batch::error::BatchError;
use crate::batch::journal::{DoneRows, Journal, write_error};
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use phi3v::files::{Existing, NewFile};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Name of the schema of every file.
const ROOT: &str = "answers";

/// Rows of a group: a group's cells are held in memory before it is written.
const GROUP_ROWS: usize = 1 << 16;

/// See [`super::parquet_writer`].
///
/// # Errors
/// The file cannot be written, or the journal cannot be read.
pub(super) fn write_parquet(
    path: &Path,
    columns: &Columns,
    journal: &Journal,
    done: &DoneRows,
    existing: Existing,
) -> Result<(), BatchError> {
    let mut file = Unfinished(NewFile::create(path, existing).map_err(write_error)?);
    let failed = |error| BatchError::written(path, system_error(error));
    let columns = columns.complete(journal, done)?;
    let names = columns.names();
    let schema = schema(&names).map_err(failed)?;
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut file, schema, properties).map_err(failed)?;
    let mut group = Group::new(names.len());
    for row in columns.rows(journal, done) {
        for line in columns.lines(&row?) {
            group.add(line);
            if group.rows == GROUP_ROWS {
                group.write_to(&mut writer).map_err(failed)?;
                group = Group::new(names.len());
            }
        }
    }
    group.write_to(&mut writer).map_err(failed)?;
    writer.close().map_err(failed)?;
    file.0.finish().map_err(write_error)
}

/// Unwraps an error of the system, which would lose its kind inside other errors.
fn system_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => {
            inner.downcast::<io::Error>().map_or_else(io::Error::other, |error| *error)
        }
        other => io::Error::other(other),
    }
}

/// Whether the file at `path` has the schema that this module writes.
pub(super) fn is_ours(path: &Path) -> bool {
    let Ok(file) = phi3v::files::open_regular(path) else { return false };
    let Ok(reader) = SerializedFileReader::new(file) else { return false };
    let schema = reader.metadata().file_metadata().schema();
    schema.is_group()
        && schema.name() == ROOT
        && schema.get_fields().first().is_some_and(|field| field.name() == "custom_id")
}

fn schema(names: &[String]) -> Result<Arc<Type>, ParquetError> {
    let field = |name: &String| {
        let field = Type::primitive_type_builder(name, Physical::BYTE_ARRAY);
        field
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::String))
            .build()
            .map(Arc::new)
    };
    let fields = names.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Type::group_type_builder(ROOT).with_fields(fields).build().map(Arc::new)
}

/// A group of rows, stored by column. Columns that few rows have, as those of tables read from pictures, take little space.
struct Group {
    rows: usize,
    /// The non-empty cells of each column, with the indices of their rows.
    columns: Vec<Vec<(usize, ByteArray)>>,
}

impl Group {
    fn new(columns: usize) -> Self {
        Self { rows: 0, columns: vec![Vec::new(); columns] }
    }

    /// Adds a row with these cells.
    fn add(&mut self, cells: impl IntoIterator<Item = (usize, String)>) {
        for (column, cell) in cells {
            self.columns[column].push((self.rows, ByteArray::from(cell.into_bytes())));
        }
        self.rows += 1;
    }

    fn write_to(self, writer: &mut SerializedFileWriter<impl Write + Send>) -> Result<(), ParquetError> {
        let mut group = writer.next_row_group()?;
        for cells in self.columns {
            let Some(mut column) = group.next_column()? else { break };
            let mut levels: Vec<i16> = vec![0; self.rows];
            cells.iter().for_each(|(row, _)| levels[*row] = 1);
            let values: Vec<ByteArray> = cells.into_iter().map(|(_, value)| value).collect();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
            column.close()?;
        }
        group.close().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;

    #[test]
    fn a_full_disk_is_known_for_one_wherever_it_is_met() {
        let write = |room: usize, letters: usize| -> Result<(), ParquetError> {
            let schema = schema(&["custom_id".to_owned()])?;
            let mut disk = Disk(room);
            let mut writer = SerializedFileWriter::new(&mut disk, schema, Arc::default())?;
            let mut group = Group::new(1);
            group.add([(0, "x".repeat(letters))]);
            group.write_to(&mut writer)?;
            writer.close().map(drop)
        };
        // the whole file, including the footer with the positions of columns and groups
        let whole = |letters| (0..).find(|&room| write(room, letters).is_ok()).unwrap();
        for (room, letters) in [(0, 1), (whole(1) - 1, 1), (0, 1 << 16)] {
            let refused = system_error(write(room, letters).unwrap_err());
            assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{room}, {letters}: {refused}");
        }
        let other = system_error(ParquetError::General("a bug".to_owned()));
        assert_eq!((other.kind(), other.to_string().contains("a bug")), (io::ErrorKind::Other, true));
    }

    #[test]
    fn a_parquet_file_has_the_same_cells() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.parquet");
        let rows = [super::super::tests::row("b.png", "A d\u{f6}g"), super::super::tests::failed("a.png")];
        let (journal, done) = super::super::tests::journal(&dir.path().join("out.jsonl"), &rows);
        write_parquet(&path, &Columns::default(), &journal, &done, Existing::Keep).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let told: Vec<String> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("a.png") && told[0].contains("it is damaged") && told[0].contains("null"));
        assert!(told[1].contains("A d\u{f6}g"));
        assert!(is_ours(&path));
        // of another program, damaged, or missing
        let others = dir.path().join("others.parquet");
        let field = Type::primitive_type_builder("custom_id", Physical::BYTE_ARRAY).build().unwrap();
        let schema = Type::group_type_builder("schema").with_fields(vec![Arc::new(field)]).build().unwrap();
        let file = std::fs::File::create(&others).unwrap();
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::default()).unwrap();
        writer.close().unwrap();
        assert!(!is_ours(&others));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&others, &bytes[..bytes.len() - 1]).unwrap();
        assert!(!is_ours(&others) && !is_ours(&dir.path().join("absent")));
    }
}
