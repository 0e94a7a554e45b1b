//! The engine's loop: requests come in as they are prepared, rows go out as they are whole.

use super::error::BatchError;
use super::prepare::{Group, Key};
use super::row::{Row, RowMaker};
use crate::server::error::ApiError;
use phi3v::batch::{Answer, Batch, Ended};
use phi3v::engine::Engine;
use phi3v_kernels::Backend;
use std::collections::HashMap;
use std::sync::mpsc::Receiver;

/// Takes the rows of a batch as they come.
pub trait Sink {
    /// Takes a row.
    ///
    /// # Errors
    /// It cannot be written, and nothing can any more.
    fn row(&mut self, row: Row) -> Result<(), BatchError>;

    /// Has a moment between two steps of the engine.
    ///
    /// # Errors
    /// What was written has not reached the disk.
    fn moment(&mut self) -> Result<(), BatchError>;
}

/// Answers what comes from `coming`, in the order in which answers end, until there is no more or `stop` says so:
/// then what runs is finished.
///
/// # Errors
/// The sink's.
pub fn run<B: Backend>(
    engine: &mut Engine<B>,
    coming: Receiver<Group>,
    maker: &RowMaker,
    stop: &dyn Fn() -> bool,
    sink: &mut dyn Sink,
) -> Result<(), BatchError> {
    let mut batch = Batch::new(engine, coming);
    let mut parts = Parts::default();
    let mut stopped = false;
    while !batch.is_done() {
        if !stopped && stop() {
            stopped = true;
            batch.stop();
        }
        for ended in batch.step() {
            if let Some(row) = parts.add(ended, maker) {
                sink.row(row)?;
            }
        }
        sink.moment()?;
    }
    Ok(())
}

/// Rows some of whose answers are still being made, by their names.
#[derive(Default)]
struct Parts(HashMap<String, Part>);

struct Part {
    answers: Vec<Option<Answer>>,
    error: Option<ApiError>,
    missing: usize,
}

impl Parts {
    /// Adds an answer, and gives the row that it completes.
    fn add(&mut self, ended: Ended<Key, ApiError>, maker: &RowMaker) -> Option<Row> {
        let Ended { key: Key { row, choice }, result } = ended;
        let whole = || Part { answers: vec![None; row.choices], error: None, missing: row.choices };
        let part = self.0.entry(row.custom_id.clone()).or_insert_with(whole);
        part.missing -= 1;
        match result {
            Ok(answer) => part.answers[choice] = Some(answer),
            Err(error) => part.error = Some(error),
        }
        if part.missing > 0 {
            return None;
        }
        let Part { answers, error, .. } = self.0.remove(&row.custom_id)?;
        let answers: Vec<Answer> = answers.into_iter().flatten().collect();
        Some(match error {
            Some(error) => maker.failed(&row.custom_id, &error),
            None => maker.answered(&row, &answers),
        })
    }
}
