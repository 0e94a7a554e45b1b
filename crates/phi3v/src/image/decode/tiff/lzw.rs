//! LZW in TIFF's two forms: codes with the highest bits first, and the older form with the lowest bits first, which
//! early versions of libtiff wrote.

use super::super::super::error::ImageError;
use super::damaged;

/// The code that empties the table.
const CLEAR: usize = 256;
const END: usize = 257;
/// The first code that stands for a string in the table.
const FIRST: usize = 258;
const CODES: usize = 1 << 12;
/// Some encoders use up all codes and continue without a clear code, up to this many entries.
const ENTRIES_MAX: usize = CODES + 1023;

/// The strings of the codes: each is another string plus one byte.
struct Table {
    prefix: Vec<u16>,
    last: Vec<u8>,
    first: Vec<u8>,
    length: Vec<u32>,
    /// The code of the next string.
    next: usize,
}

impl Table {
    fn new() -> Self {
        let bytes = (0..CODES).map(|code| code as u8);
        let single = |code| u32::from(code < CLEAR);
        let (last, first) = (bytes.clone().collect(), bytes.collect());
        Self { prefix: vec![0; CODES], last, first, length: (0..CODES).map(single).collect(), next: FIRST }
    }

    /// Assigns the next code to the string of `code` plus `byte`.
    fn add(&mut self, code: usize, byte: u8) {
        if self.next < CODES {
            self.prefix[self.next] = code as u16;
            self.last[self.next] = byte;
            self.first[self.next] = self.first[code];
            self.length[self.next] = self.length[code] + 1;
        }
        self.next += 1;
    }

    /// Writes the string of a code as far as it fits, and returns the number of bytes written.
    fn write(&self, mut code: usize, out: &mut [u8]) -> usize {
        let length = self.length[code] as usize;
        let written = length.min(out.len());
        for _ in written..length {
            code = usize::from(self.prefix[code]);
        }
        for byte in out[..written].iter_mut().rev() {
            *byte = self.last[code];
            code = usize::from(self.prefix[code]);
        }
        written
    }
}

/// Reads the codes of a strip in sequence.
struct Codes<'a> {
    bytes: std::slice::Iter<'a, u8>,
    buffer: usize,
    held: u32,
    lowest_first: bool,
}

impl Codes<'_> {
    /// Returns the next code of `width` bits, or the end code if no bits are left.
    fn next(&mut self, width: u32) -> usize {
        while self.held < width {
            let Some(&byte) = self.bytes.next() else { return END };
            if self.lowest_first {
                self.buffer |= usize::from(byte) << self.held;
            } else {
                self.buffer = self.buffer << 8 | usize::from(byte);
            }
            self.held += 8;
        }
        self.held -= width;
        let mask = (1 << width) - 1;
        if self.lowest_first {
            let code = self.buffer & mask;
            self.buffer >>= width;
            return code;
        }
        let code = self.buffer >> self.held & mask;
        self.buffer &= (1 << self.held) - 1;
        code
    }
}

/// Unpacks a strip into `out` as far as there is data, and returns the number of bytes written.
pub(super) fn unpack(packed: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    // both forms begin with a 9-bit clear code, 256
    let lowest_first = matches!(packed, [0, second, ..] if second & 1 == 1);
    let mut codes = Codes { bytes: packed.iter(), buffer: 0, held: 0, lowest_first };
    // the newer form widens its codes one string early
    let early = usize::from(!lowest_first);
    let mut table = Table::new();
    let (mut width, mut previous, mut filled) = (9, None, 0);
    while filled < out.len() {
        let code = codes.next(width);
        match (code, previous) {
            (END, _) => break,
            (CLEAR, _) => {
                table.next = FIRST;
                width = 9;
                // at the start of the strip or after a full table; a string must follow
                let first = loop {
                    match codes.next(width) {
                        CLEAR => {}
                        code => break code,
                    }
                };
                if first == END {
                    break;
                }
                if first > CLEAR {
                    return Err(damaged("its LZW data has a code that stands for nothing"));
                }
                out[filled] = first as u8;
                filled += 1;
                previous = Some(first);
                continue;
            }
            (code, Some(before)) if code <= table.next && table.next < ENTRIES_MAX => {
                let byte = if code < table.next { table.first[code] } else { table.first[before] };
                table.add(before, byte);
                if table.next + early >= 1 << width && width < 12 {
                    width += 1;
                }
                filled += table.write(code, &mut out[filled..]);
                previous = Some(code);
            }
            _ => return Err(damaged("its LZW data has a code that stands for nothing")),
        }
    }
    Ok(filled)
}
