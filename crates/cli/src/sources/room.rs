//! Memory for what clients send: bodies, files of pictures, tiles. One bound for all requests together.
//!
//! Room is taken as bytes arrive, never by what a client announces: nobody keeps others out by promising much.

use super::error::{RoomError, SourceError};
use std::io::Read;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit: small enough for short questions to take little, large enough to count 1 TiB in a `u32`.
const UNIT: usize = 1 << 10;

/// Bytes that are read between two looks at the room.
const PIECE: usize = 64 << 10;

/// The memory for inputs of all requests.
#[derive(Clone, Debug)]
pub struct Inputs {
    permits: Arc<Semaphore>,
    bytes_max: usize,
}

impl Inputs {
    /// Of `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        let permits = (bytes_max / UNIT).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits)), bytes_max }
    }

    /// A request's share, empty at first.
    pub fn room(&self) -> Room {
        Room { inputs: self.clone(), held: None, bytes: 0 }
    }
}

/// A request's share of the memory for inputs. Dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    inputs: Inputs,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Room {
    /// Takes room for `bytes` more.
    ///
    /// # Errors
    /// There is none left, or there could never be.
    pub fn grow(&mut self, bytes: usize) -> Result<(), RoomError> {
        let total = self.bytes.saturating_add(bytes);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = total.div_ceil(UNIT).saturating_sub(held);
        if total > self.inputs.bytes_max {
            return Err(RoomError::TooLarge { bytes: total, limit: self.inputs.bytes_max });
        }
        let count = u32::try_from(missing).map_err(|_| RoomError::Full)?;
        let more = Arc::clone(&self.inputs.permits).try_acquire_many_owned(count);
        let more = more.map_err(|_| RoomError::Full)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        self.bytes = total;
        Ok(())
    }

    /// Another share of the same memory, empty at first.
    #[must_use]
    pub fn beside(&self) -> Self {
        self.inputs.room()
    }

    /// Reads `source` to its end, growing with what comes. Blocks.
    ///
    /// # Errors
    /// There are more than `bytes_max` bytes, there is no room for them, or the source fails, which is `broken`.
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
            self.grow(count)?;
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
        let (mut first, mut second) = (inputs.room(), inputs.room());
        for _ in 0..3 * UNIT {
            first.grow(1).unwrap();
        }
        assert_eq!(inputs.permits.available_permits(), 1);
        second.grow(UNIT).unwrap();
        assert_eq!(second.grow(1), Err(RoomError::Full));
        drop(first);
        second.grow(3 * UNIT).unwrap();
        assert_eq!(second.grow(1), Err(RoomError::TooLarge { bytes: 4 * UNIT + 1, limit: 4 * UNIT }));
        drop(second);
        assert_eq!(inputs.permits.available_permits(), 4);
    }

    #[test]
    fn a_source_is_read_within_its_limit_and_the_room() {
        let inputs = Inputs::new(2 * UNIT);
        let source = vec![7; 2 * UNIT];
        let read = |mut room: Room, bytes_max| room.read(source.as_slice(), bytes_max, SourceError::NoFile);
        assert_eq!(read(inputs.room(), 2 * UNIT), Ok(source.clone()));
        assert_eq!(read(inputs.room(), UNIT), Err(SourceError::TooLarge { limit: UNIT }));
        let mut other = inputs.room();
        other.grow(UNIT).unwrap();
        assert_eq!(read(other.beside(), 2 * UNIT), Err(SourceError::Room(RoomError::Full)));
    }
}
