//! The engine's loop: requests come in as they are prepared, rows go out as they are whole.

use super::error::BatchError;
use super::prepare::{Group, Key};
use super::row::{Row, RowMaker};
use crate::server::error::{ApiError, Code};
use phi3v::batch::{Answer, Batch, Coming, Ended};
use phi3v::engine::Engine;
use phi3v_kernels::Backend;
use std::collections::HashMap;

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
/// The sink's, or [`BatchError::Device`]: the device has failed, and what it was asked then has no row.
pub fn run<B: Backend>(
    engine: &mut Engine<B>,
    coming: Coming<Group>,
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
        let mut lost = None;
        for ended in batch.step() {
            // the device is to blame, and not what was asked: whatever is asked next has the error too
            if let Some(error) = ended.result.as_ref().err().filter(|error| error.code == Code::DeviceFailed)
            {
                lost = Some(error.message.clone());
            } else if let Some(row) = parts.add(ended, maker) {
                sink.row(row)?;
            }
        }
        sink.moment()?;
        if let Some(reason) = lost {
            return Err(BatchError::Device(reason));
        }
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

#[cfg(test)]
mod tests {
    use super::super::row::RowKey;
    use super::*;
    use crate::server::openai::offline::Extras;
    use phi3v::batch::{Asked, read_ahead};
    use phi3v_kernels::BackendError;
    use std::sync::Arc;

    /// Rows by name, and whether they have an error.
    #[derive(Default)]
    struct Rows(Vec<(String, bool)>);

    impl Sink for Rows {
        fn row(&mut self, row: Row) -> Result<(), BatchError> {
            self.0.push((row.custom_id.clone(), row.is_failed()));
            Ok(())
        }

        fn moment(&mut self) -> Result<(), BatchError> {
            Ok(())
        }
    }

    #[test]
    fn a_device_that_fails_ends_the_run_and_gives_no_rows() {
        let choice = phi3v_kernels::testing::test_device().parse().unwrap();
        let device = phi3v::device::DeviceOptions { choice, ..Default::default() };
        let options = phi3v::SessionOptions { device, ..Default::default() };
        let session = phi3v::Session::load("demo", &options).unwrap();
        let tokenizer = Arc::clone(session.tokenizer());
        let (job, model) = ("j".to_owned(), "demo".to_owned());
        let maker = RowMaker { job, created: 7, model, tokenizer, limit: "max_tokens" };
        let mut engine = session.into_engine();
        type Made = fn() -> phi3v::Error;
        let asked = |(id, error): (&str, Made)| {
            let (custom_id, extras) = (id.to_owned(), Extras::default());
            let row = Arc::new(RowKey { custom_id, choices: 1, extras, warning: None, _budget: None });
            vec![Asked { key: Key { row, choice: 0 }, request: Err(ApiError::from(error())) }]
        };
        let picture = || phi3v::Error::from(phi3v::engine::EngineError::EmptyPrompt);
        let memory = || phi3v::Error::from(BackendError::OutOfMemory { bytes: 7 });
        let device = || {
            let lost = BackendError::Device { reason: "the device is lost".to_owned() };
            phi3v::Error::Shared(Arc::new(lost.into()))
        };
        let all: [(&str, Made); 5] =
            [("a", picture), ("b", memory), ("c", device), ("d", device), ("e", picture)];
        let coming = read_ahead(all, 1, asked).unwrap();
        let mut rows = Rows::default();
        let ended = run(&mut engine, coming, &maker, &|| false, &mut rows).unwrap_err();
        assert!(
            matches!(&ended, BatchError::Device(reason) if reason.contains("the device is lost")),
            "{ended}"
        );
        let failed = |id: &str| (id.to_owned(), true);
        // what has ended in the same step has a row
        assert_eq!(rows.0[..2], [failed("a"), failed("b")]);
        assert!(rows.0.iter().all(|(id, _)| id != "c" && id != "d"), "{:?}", rows.0);
    }
}
