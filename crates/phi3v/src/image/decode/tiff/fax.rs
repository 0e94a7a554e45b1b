//! Fax compression of black and white rows: Group 3 in one and two dimensions, Group 4 and run-length (ITU-T T.4 and
//! T.6, TIFF 6.0 sections 10 and 11).
//!
//! Scans are often damaged in transmission, so a wrong code in a row is not an error. As in libtiff, which the
//! reference uses, the row ends at the code, the rest of the row keeps the current colour, and decoding continues with
//! the next row. Rows without any data, which libtiff leaves undefined, are an error here.

mod bits;
mod codes;

use super::super::super::error::ImageError;
use super::{FORMAT, damaged};
use bits::{Bits, has_end_of_line};
use codes::{END_OF_LINE_ZEROS, MODE_BITS, Mode, Run, mode};

/// How rows are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Rows after end-of-line codes. In two dimensions, a bit after each code selects the coding of the row.
    Group3 { two_dimensional: bool },
    /// Each row is coded against the row above, without end-of-line codes.
    Group4,
    /// One-dimensional rows without end-of-line codes, each starting at a byte.
    RunLength {
        /// Whether zeros appended after the data count when the next byte is located, as in libtiff. Rows of fewer
        /// than two bytes are then lost at the end of a strip.
        as_libtiff: bool,
    },
    /// As `RunLength`, but each row starts at a pair of bytes.
    RunLengthWords,
}

/// The colour of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Color {
    White,
    Black,
}

/// Why decoding of a row stopped.
enum Stop {
    DataEnds,
    TooManyRuns,
}

impl From<Stop> for ImageError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::DataEnds => Self::Truncated { format: FORMAT },
            Stop::TooManyRuns => damaged("a fax row has more runs than pixels"),
        }
    }
}

/// Decodes rows of `width` pixels into `out`, `[rows, row_bytes]`, which must be zero. Black pixels become ones.
pub(super) fn decode(
    coding: Coding,
    packed: &[u8],
    width: usize,
    row_bytes: usize,
    out: &mut [u8],
) -> Result<(), ImageError> {
    let mut decoder = Decoder {
        coding,
        bits: Bits::new(packed),
        row: Row::new(width, coding),
        // without any end-of-line code there is nothing to search for between rows
        marked: matches!(coding, Coding::Group3 { .. }) && has_end_of_line(packed),
        end_of_line: false,
    };
    let rows = out.len() / row_bytes.max(1);
    for (y, pixels) in out.chunks_exact_mut(row_bytes).enumerate() {
        // rows after the end marker of Group 4 are white
        if coding == Coding::Group4 && y > 0 && decoder.bits.at_end_of_block() {
            return Ok(());
        }
        decoder.decode_row(y + 1 == rows && y > 0)?;
        decoder.row.paint(pixels);
        decoder.row.becomes_reference();
    }
    Ok(())
}

struct Decoder<'a> {
    coding: Coding,
    bits: Bits<'a>,
    row: Row,
    /// Whether an end-of-line code precedes each row.
    marked: bool,
    /// Whether the zeros of an end-of-line code have been consumed.
    end_of_line: bool,
}

impl Decoder<'_> {
    /// Decodes one row. The last row of a Group 4 strip may be truncated.
    fn decode_row(&mut self, last: bool) -> Result<(), ImageError> {
        let start = self.bits.at();
        self.row.begin();
        // The zeros appended after the data would never end. libtiff's own variant ends by itself.
        if self.bits.spent() && self.coding != (Coding::RunLength { as_libtiff: true }) {
            return Err(Stop::DataEnds.into());
        }
        match self.coding {
            Coding::Group3 { two_dimensional } => {
                self.pass_end_of_line()?;
                if two_dimensional && !self.flag()? {
                    self.two_dimensional()?
                } else {
                    self.one_dimensional()?
                }
            }
            Coding::Group4 => self.group4_row(last)?,
            Coding::RunLength { as_libtiff } => {
                self.one_dimensional()?;
                if as_libtiff { self.bits.align_from_end(8) } else { self.bits.align(8) }
            }
            Coding::RunLengthWords => {
                self.one_dimensional()?;
                self.bits.align(16);
            }
        }
        if self.bits.at() == start {
            return Err(damaged("its fax data has a code that does not exist"));
        }
        Ok(self.row.close()?)
    }

    fn group4_row(&mut self, last: bool) -> Result<(), ImageError> {
        let end = self.two_dimensional();
        let cut = self.end_of_line || matches!(end, Err(Stop::DataEnds));
        if !cut {
            return Ok(end?);
        }
        if last && self.row.at > 0 { Ok(()) } else { Err(Stop::DataEnds.into()) }
    }

    /// Finds the next end-of-line code and consumes it together with its fill bits.
    fn pass_end_of_line(&mut self) -> Result<(), Stop> {
        if !self.marked {
            return Ok(());
        }
        if !self.end_of_line {
            while self.peek(END_OF_LINE_ZEROS)? != 0 {
                self.bits.skip(1);
            }
        }
        while self.peek(8)? == 0 {
            self.bits.skip(8);
        }
        while !self.flag()? {}
        self.end_of_line = false;
        Ok(())
    }

    /// Decodes a row of runs, white first.
    fn one_dimensional(&mut self) -> Result<(), Stop> {
        for color in [Color::White, Color::Black].into_iter().cycle() {
            if let Some(Run::EndOfLine) = self.run(color)? {
                self.end_of_line = true;
                break;
            }
            if self.row.broken || self.row.at >= self.row.width {
                break;
            }
            if color == Color::Black {
                self.row.drop_empty_pair();
            }
        }
        Ok(())
    }

    /// Decodes the codes of one run. Returns any other code found instead, or `None` after a run.
    fn run(&mut self, color: Color) -> Result<Option<Run>, Stop> {
        loop {
            let next = self.peek(color.code_bits())?;
            let code = color.code(next);
            self.bits.skip(code.bits.into());
            match code.run {
                Run::Last(pixels) => return self.row.push(pixels.into()).map(|()| None),
                Run::More(pixels) => self.row.extend(pixels.into()),
                other => {
                    self.row.broken = true;
                    return Ok(Some(other));
                }
            }
        }
    }

    /// Decodes a row against the row above.
    fn two_dimensional(&mut self) -> Result<(), Stop> {
        while self.row.at < self.row.width && !self.row.broken {
            self.row.check_room()?;
            let (mode, bits) = mode(self.peek(MODE_BITS)?);
            self.bits.skip(bits);
            match mode {
                Mode::Vertical(by) => self.row.change_below(by)?,
                Mode::Pass => self.row.pass()?,
                Mode::Horizontal => {
                    let first = self.row.color();
                    let second = if first == Color::White { Color::Black } else { Color::White };
                    if self.run(first)?.is_none() && self.run(second)?.is_none() {
                        self.row.find_above()?;
                    }
                }
                Mode::Extension => self.row.end_here(),
                Mode::EndOfLine => {
                    self.row.end_here();
                    self.peek(4)?;
                    self.bits.skip(END_OF_LINE_ZEROS - MODE_BITS);
                    self.end_of_line = true;
                }
            }
        }
        Ok(())
    }

    fn flag(&mut self) -> Result<bool, Stop> {
        let bit = self.peek(1)?;
        self.bits.skip(1);
        Ok(bit == 1)
    }

    fn peek(&mut self, count: usize) -> Result<usize, Stop> {
        self.bits.peek(count).ok_or(Stop::DataEnds)
    }
}

/// The runs of a row, alternately white and black, and those of the row above.
struct Row {
    width: i64,
    runs: Vec<i64>,
    used: usize,
    /// Where the next run begins, including the pixels that [`extend`](Self::extend) added.
    at: i64,
    /// Pixels of the next run that are known already.
    pending: i64,
    /// Whether the row ended at a code that is not a run.
    broken: bool,
    above: Vec<i64>,
    /// The number of runs above that were consumed; `above_at` is where the last of them ends.
    above_used: usize,
    above_at: i64,
}

impl Row {
    fn new(width: usize, coding: Coding) -> Self {
        // Two more than a row of single pixels needs; a two-dimensional row may also hold empty runs.
        let rows = if matches!(coding, Coding::RunLength { .. } | Coding::RunLengthWords) { 1 } else { 2 };
        let capacity = (width + 1).next_multiple_of(32) * rows;
        let mut above = vec![0; capacity];
        above[0] = width as i64;
        let runs = vec![0; capacity];
        let (width, used, at, pending, broken) = (width as i64, 0, 0, 0, false);
        Self { width, runs, used, at, pending, broken, above, above_used: 0, above_at: 0 }
    }

    fn begin(&mut self) {
        (self.used, self.at, self.pending, self.broken) = (0, 0, 0, false);
        (self.above_used, self.above_at) = (1, self.above[0]);
    }

    /// The colour of the next run.
    fn color(&self) -> Color {
        if self.used.is_multiple_of(2) { Color::White } else { Color::Black }
    }

    fn check_room(&self) -> Result<(), Stop> {
        if self.used < self.runs.len() { Ok(()) } else { Err(Stop::TooManyRuns) }
    }

    /// Ends a run with `pixels` more pixels.
    fn push(&mut self, pixels: i64) -> Result<(), Stop> {
        self.check_room()?;
        self.runs[self.used] = self.pending + pixels;
        self.used += 1;
        self.at += pixels;
        self.pending = 0;
        Ok(())
    }

    /// Adds pixels to the current run without ending it.
    fn extend(&mut self, pixels: i64) {
        self.at += pixels;
        self.pending += pixels;
    }

    /// Gives the rest of the row the colour of the current run.
    fn end_here(&mut self) {
        // the run fits: this was checked before the mode was read
        self.runs[self.used] = self.width - self.at;
        self.used += 1;
        self.broken = true;
    }

    fn drop_empty_pair(&mut self) {
        if self.used >= 2 && self.runs[self.used - 2..self.used] == [0, 0] {
            self.used -= 2;
        }
    }

    /// Returns the length of the next run above.
    fn next_above(&mut self) -> Result<i64, Stop> {
        let run = *self.above.get(self.above_used).ok_or(Stop::TooManyRuns)?;
        self.above_used += 1;
        Ok(run)
    }

    /// Moves to the first change above that lies to the right and changes to the opposite colour.
    fn find_above(&mut self) -> Result<(), Stop> {
        while self.used > 0 && self.above_at <= self.at && self.above_at < self.width {
            self.above_at += self.next_above()? + self.next_above()?;
        }
        Ok(())
    }

    /// Ends the run `by` pixels to the right of the change above.
    fn change_below(&mut self, by: i64) -> Result<(), Stop> {
        self.find_above()?;
        if self.above_at + by < self.at {
            self.broken = true;
            return Ok(());
        }
        self.push(self.above_at + by - self.at)?;
        if by < 0 {
            self.above_used = self.above_used.checked_sub(1).ok_or(Stop::TooManyRuns)?;
            self.above_at -= self.above[self.above_used];
        } else {
            self.above_at += self.next_above()?;
        }
        Ok(())
    }

    /// Continues the run past the next two changes above.
    fn pass(&mut self) -> Result<(), Stop> {
        self.find_above()?;
        let end = self.above_at + self.next_above()?;
        self.extend(end - self.at);
        self.above_at = end + self.next_above()?;
        Ok(())
    }

    /// Adjusts the runs to the length of the row: a short row ends in white, a long one is cut.
    fn close(&mut self) -> Result<(), Stop> {
        if self.pending > 0 {
            self.push(0)?;
        }
        while self.at > self.width && self.used > 0 {
            self.used -= 1;
            self.at -= self.runs[self.used];
        }
        if self.at < self.width {
            self.at = self.at.max(0);
            if self.used % 2 == 1 {
                self.push(0)?;
            }
            self.push(self.width - self.at)?;
        }
        Ok(())
    }

    /// Sets the black pixels, and cuts runs at the end of the row.
    fn paint(&mut self, pixels: &mut [u8]) {
        let mut x = 0;
        for (i, run) in self.runs[..self.used].iter_mut().enumerate() {
            *run = (*run).min(self.width - x);
            if i % 2 == 1 {
                set_bits(pixels, x as usize, (x + *run) as usize);
            }
            x += *run;
        }
    }

    /// Makes this row the one that the next row is coded against.
    fn becomes_reference(&mut self) {
        if let Some(end) = self.runs.get_mut(self.used) {
            *end = 0;
        }
        std::mem::swap(&mut self.runs, &mut self.above);
    }
}

/// Sets the bits `from..to`, highest bit first.
fn set_bits(bytes: &mut [u8], from: usize, to: usize) {
    if from == to {
        return;
    }
    let (first, last) = (from / 8, (to - 1) / 8);
    let head = 0xff_u8 >> (from % 8);
    let tail = 0xff_u8 << (7 - (to - 1) % 8);
    if first == last {
        bytes[first] |= head & tail;
        return;
    }
    bytes[first] |= head;
    bytes[first + 1..last].fill(0xff);
    bytes[last] |= tail;
}
