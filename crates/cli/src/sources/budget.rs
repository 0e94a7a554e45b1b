//! Limits on the cost of inputs: the file of each picture, and one memory shared by everything that clients send
//! (bodies, files of pictures, tiles).
//!
//! A budget is charged as bytes arrive, never by what a client announces, so nobody can block others by announcing
//! much. Sending much does not help either: if there are several clients, each may hold at most three times what it
//! leaves free. So there is always some memory for one more client, and the total is never exceeded. Equal parts for
//! any number of clients, as for places in the queue, could not guarantee that.

use super::error::{BudgetError, SourceError};
use super::held::Held;
use phi3v::engine::CacheSalt;
use std::io::Read;
use std::time::Duration;

/// Bytes per unit of the count: small enough that short questions take little, and large enough that few charges
/// change the count.
const UNIT: usize = 1 << 10;

/// How many times the memory that it leaves free a client may hold, if there are several clients. A single client may
/// hold three quarters, which suffices for 16 of the largest pictures by address.
const OF_FREE: usize = 3;

/// Bytes that are read before the budget is charged for them.
const PIECE: usize = 64 << 10;

/// Limits on the file of a picture: its length, and the time that a host may take.
#[derive(Clone, Copy, Debug)]
pub struct SourceLimits {
    /// Maximum bytes of a picture in a data URL or below the folder.
    pub bytes_max: usize,
    /// Maximum bytes of a picture from another server.
    pub remote_bytes_max: usize,
    /// Time limit for a picture from another server, redirects included.
    pub remote_time_max: Duration,
}

/// The memory reserved for the inputs of all requests together.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Units held.
    held: Held,
    bytes_max: usize,
}

impl Inputs {
    /// Creates a memory of `bytes_max` bytes for all requests together, counted in units of 1 KiB.
    pub fn new(bytes_max: usize) -> Self {
        Self { held: Held::default(), bytes_max }
    }

    /// Returns a request's share of the memory, with nothing charged yet, if all requests belong to one client.
    pub fn budget(&self) -> Budget {
        self.budget_of(CacheSalt::default())
    }

    /// Returns a request's share for `client`. Clients are distinguished by the salts of their caches; one with the
    /// default salt counts as the only client.
    pub fn budget_of(&self, client: CacheSalt) -> Budget {
        Budget { inputs: self.clone(), client, units: 0, bytes: 0 }
    }
}

/// A request's share of the memory for inputs. Dropping it releases the memory.
#[derive(Debug)]
pub struct Budget {
    inputs: Inputs,
    client: CacheSalt,
    /// Units held for the bytes.
    units: usize,
    bytes: usize,
}

impl Budget {
    /// The client that made the request.
    pub fn client(&self) -> CacheSalt {
        self.client
    }

    /// Charges `bytes` more bytes.
    ///
    /// # Errors
    /// The remaining memory does not suffice, or the request exceeds the limit by itself.
    pub fn charge(&mut self, bytes: usize) -> Result<(), BudgetError> {
        let total = self.bytes.saturating_add(bytes);
        let (all, is_alone) = (self.inputs.bytes_max, self.client == CacheSalt::default());
        let limit = if is_alone { all } else { all / (OF_FREE + 1) * OF_FREE };
        if total > limit {
            return Err(BudgetError::TooLarge { bytes: total, limit });
        }
        let missing = total.div_ceil(UNIT).saturating_sub(self.units);
        if missing > 0 {
            let mut held = self.inputs.held.lock();
            let left = (all / UNIT).checked_sub(held.values().sum::<usize>() + missing);
            let own = held.get(&self.client).copied().unwrap_or(0) + missing;
            if left.is_none_or(|left| !is_alone && own > left.saturating_mul(OF_FREE)) {
                return Err(BudgetError::Full);
            }
            held.insert(self.client, own);
            self.units += missing;
        }
        self.bytes = total;
        Ok(())
    }

    /// Returns another share of the same memory for the same client, with nothing charged yet.
    #[must_use]
    pub fn beside(&self) -> Self {
        self.inputs.budget_of(self.client)
    }

    /// Reads `source` to its end and charges the bytes as they arrive. Blocks.
    ///
    /// # Errors
    /// There are more than `bytes_max` bytes, the budget does not suffice, or the source fails, which is reported as `broken`.
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

impl Drop for Budget {
    fn drop(&mut self) {
        self.inputs.held.give_back(&self.client, self.units);
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
        assert_eq!(inputs.held.lock().values().sum::<usize>(), 3);
        second.charge(UNIT).unwrap();
        assert_eq!(second.charge(1), Err(BudgetError::Full));
        drop(first);
        second.charge(3 * UNIT).unwrap();
        assert_eq!(second.charge(1), Err(BudgetError::TooLarge { bytes: 4 * UNIT + 1, limit: 4 * UNIT }));
        drop(second);
        assert!(inputs.held.lock().is_empty());
    }

    #[test]
    fn no_client_takes_all_where_there_are_several_and_together_they_take_no_more_than_there_is() {
        let inputs = Inputs::new(64 * UNIT);
        let mut held: Vec<Budget> = Vec::new();
        for (client, most) in [(1, 48), (2, 12), (3, 3)] {
            // spread over several requests
            let mut took = 0;
            for _ in 0..64 {
                let mut budget = inputs.budget_of([client; 32]);
                took += usize::from(budget.charge(UNIT).is_ok());
                held.push(budget);
            }
            assert_eq!(took, most, "client {client}");
        }
        assert_eq!(
            inputs.budget_of([4; 32]).charge(UNIT),
            Err(BudgetError::Full),
            "of the last unit three leave none"
        );
        held.clear();
        let mut one = inputs.budget_of([1; 32]);
        assert_eq!(one.charge(49 * UNIT), Err(BudgetError::TooLarge { bytes: 49 * UNIT, limit: 48 * UNIT }));
        one.charge(48 * UNIT).unwrap();
        assert_eq!(
            one.beside().charge(1),
            Err(BudgetError::Full),
            "pictures beside it are the same client's"
        );
        drop(one);
        inputs.budget().charge(64 * UNIT).unwrap();
        assert!(inputs.held.lock().is_empty());
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
