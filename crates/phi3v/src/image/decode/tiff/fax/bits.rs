//! The bits of a strip, highest first.

/// A position in packed bits.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the bits end; grows with the zeros that are appended.
    end: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, end: bytes.len() * 8 }
    }

    /// The next `count` bits, at most 16, as a number.
    ///
    /// Codes are looked up with as many bits as the longest code has, and the last code may be shorter. While any bit
    /// is left, missing bits are zeros. Returns `None` if no bit is left.
    pub(super) fn peek(&mut self, count: usize) -> Option<usize> {
        if self.at == self.end {
            return None;
        }
        self.end = self.end.max(self.at + count);
        Some(self.look(count))
    }

    /// Consumes bits that [`peek`](Self::peek) has returned.
    pub(super) fn skip(&mut self, count: usize) {
        self.at = (self.at + count).min(self.end);
    }

    /// The number of bits consumed.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether all bits of the data were consumed.
    pub(super) fn spent(&self) -> bool {
        self.at >= self.bytes.len() * 8
    }

    /// Consumes the rest of a unit of `size` bits.
    pub(super) fn align(&mut self, size: usize) {
        self.at = self.at.next_multiple_of(size).min(self.end);
    }

    /// Consumes bits until whole units of `size` bits are left, counting the appended zeros.
    pub(super) fn align_from_end(&mut self, size: usize) {
        self.at += (self.end - self.at) % size;
    }

    /// Whether two end-of-line codes follow: the end of a Group 4 strip.
    pub(super) fn at_end_of_block(&self) -> bool {
        self.at + 24 <= self.bytes.len() * 8 && self.look(12) == 1 && self.look_at(self.at + 12, 12) == 1
    }

    fn look(&self, count: usize) -> usize {
        self.look_at(self.at, count)
    }

    fn look_at(&self, at: usize, count: usize) -> usize {
        let byte = |i: usize| self.bytes.get(at / 8 + i).map_or(0, |byte| usize::from(*byte));
        let three = byte(0) << 16 | byte(1) << 8 | byte(2);
        (three >> (24 - at % 8 - count)) & ((1 << count) - 1)
    }
}

/// Whether the bits contain an end-of-line code: eleven or more zeros, then a one.
pub(super) fn has_end_of_line(bytes: &[u8]) -> bool {
    let mut zeros = 0;
    for byte in bytes {
        if zeros + byte.leading_zeros() >= 11 && *byte != 0 {
            return true;
        }
        zeros = if *byte == 0 { zeros + 8 } else { byte.trailing_zeros() };
    }
    false
}
