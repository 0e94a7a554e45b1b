//! What inputs may cost: bounds on each picture's file, and one memory for what all clients send together (bodies, files
//! of pictures, tiles).
//!
//! A budget is charged as bytes arrive, never by what a client announces: nobody keeps others out by promising much.

use super::error::{BudgetError, SourceError};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit: small enough for short questions to take little, large enough to count 1 TiB in a `u32`.
const UNIT: usize = 1 << 10;

/// Bytes that are read before the budget is charged for them.
const PIECE: usize = 64 << 10;

/// Bounds on the file of a picture: its bytes, and the time a host may take.
#[derive(Clone, Copy, Debug)]
pub struct SourceLimits {
    /// Bytes of a picture in a data URL or below the folder.
    pub bytes_max: usize,
    /// Bytes of a picture from another server.
    pub remote_bytes_max: usize,
    /// Time for a picture from another server, redirects included.
    pub remote_time_max: Duration,
}

/// The memory that is set aside for the inputs of all requests together.
#[derive(Clone, Debug)]
pub struct Inputs {
    permits: Arc<Semaphore>,
    bytes_max: usize,
}

impl Inputs {
    /// A memory of `bytes_max` bytes for all requests together, counted in units of 1 KiB.
    pub fn new(bytes_max: usize) -> Self {
        let permits = (bytes_max / UNIT).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits)), bytes_max }
    }

    /// A request's share of the memory, of which nothing is charged yet.
    pub fn budget(&self) -> Budget {
        Budget { inputs: self.clone(), held: None, bytes: 0 }
    }
}

/// A request's share of the memory for inputs. Dropping it gives it back.
#[derive(Debug)]
pub struct Budget {
    inputs: Inputs,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Budget {
    /// Charges `bytes` more.
    ///
    /// # Errors
    /// There is none left, or there could never be.
    pub fn charge(&mut self, bytes: usize) -> Result<(), BudgetError> {
        let total = self.bytes.saturating_add(bytes);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = total.div_ceil(UNIT).saturating_sub(held);
        if total > self.inputs.bytes_max {
            return Err(BudgetError::TooLarge { bytes: total, limit: self.inputs.bytes_max });
        }
        let count = u32::try_from(missing).map_err(|_| BudgetError::Full)?;
        let more = Arc::clone(&self.inputs.permits).try_acquire_many_owned(count);
        let more = more.map_err(|_| BudgetError::Full)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        self.bytes = total;
        Ok(())
    }

    /// Another share of the same memory, of which nothing is charged yet.
    #[must_use]
    pub fn beside(&self) -> Self {
        self.inputs.budget()
    }

    /// Reads `source` to its end, charging what comes. Blocks.
    ///
    /// # Errors
    /// There are more than `bytes_max` bytes, no budget is left for them, or the source fails, which is `broken`.
    pub fn read(
        &mut self,
        source: impl Read,
        bytes_max: usize,
        broken: SourceError,
    ) -> Result<Vec<u8>, SourceError> {
        let mut source = source.take((bytes_max as u64).saturating_add(1));
        let (mut bytes, mut piece) = (Vec::new(), vec![0; PIECE]);
        loop {
            let count = match source.read(&mut piece) {
                Ok(0) => return Ok(bytes),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(broken),
            };
            if bytes.len() + count > bytes_max {
                return Err(SourceError::TooLarge { limit: bytes_max });
            }
            self.charge(count)?;
            bytes.extend_from_slice(&piece[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_as_it_is_needed_and_given_back() {
        let inputs = Inputs::new(4 * UNIT);
        let (mut first, mut second) = (inputs.budget(), inputs.budget());
        for _ in 0..3 * UNIT {
            first.charge(1).unwrap();
        }
        assert_eq!(inputs.permits.available_permits(), 1);
        second.charge(UNIT).unwrap();
        assert_eq!(second.charge(1), Err(BudgetError::Full));
        drop(first);
        second.charge(3 * UNIT).unwrap();
        assert_eq!(second.charge(1), Err(BudgetError::TooLarge { bytes: 4 * UNIT + 1, limit: 4 * UNIT }));
        drop(second);
        assert_eq!(inputs.permits.available_permits(), 4);
    }

    #[test]
    fn a_source_is_read_within_its_limit_and_the_room() {
        let inputs = Inputs::new(2 * UNIT);
        let source = vec![7; 2 * UNIT];
        let read =
            |mut budget: Budget, bytes_max| budget.read(source.as_slice(), bytes_max, SourceError::NoFile);
        assert_eq!(read(inputs.budget(), 2 * UNIT), Ok(source.clone()));
        assert_eq!(read(inputs.budget(), UNIT), Err(SourceError::TooLarge { limit: UNIT }));
        let mut other = inputs.budget();
        other.charge(UNIT).unwrap();
        assert_eq!(read(other.beside(), 2 * UNIT), Err(SourceError::Budget(BudgetError::Full)));
    }
}
