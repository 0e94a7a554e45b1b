//! The engine's loop: takes requests as they are prepared and emits rows as they become complete.

use super::error::BatchError;
use super::prepare::{Group, Key};
use super::row::{Row, RowMaker};
use crate::server::error::{ApiError, Code};
use phi3v::batch::{Answer, Batch, Coming, Ended};
use phi3v::engine::Engine;
use phi3v_kernels::Backend;
use std::collections::HashMap;

/// Receives the rows of a batch.
pub trait Sink {
    /// Takes a row.
    ///
    /// # Errors
    /// The row cannot be written, and later rows could not be either.
    fn row(&mut self, row: Row) -> Result<(), BatchError>;

    /// Called between two steps of the engine.
    ///
    /// # Errors
    /// Written rows could not be synced to the disk.
    fn moment(&mut self) -> Result<(), BatchError>;
}

/// Answers the requests from `coming`, in the order in which answers end, until there are no more or `stop` returns true.
/// Running requests are then finished.
///
/// # Errors
/// The sink's error, or [`BatchError::Device`] if the device has failed; its running requests then have no row.
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
            // the device is to blame, not the request: every later request would get the same error
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

/// Incomplete rows, by name.
#[derive(Default)]
struct Parts(HashMap<String, Part>);

struct Part {
    answers: Vec<Option<Answer>>,
    error: Option<ApiError>,
    missing: usize,
}

impl Parts {
    /// Adds an answer; returns the row if this completes it.
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

    /// Rows by name, with whether they have an error.
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
        // requests that ended in the same step have rows
        assert_eq!(rows.0[..2], [failed("a"), failed("b")]);
        assert!(rows.0.iter().all(|(id, _)| id != "c" && id != "d"), "{:?}", rows.0);
    }
}
