//! Fax compression of black and white rows: Group 3 in one and two dimensions, Group 4 and run-length (ITU-T T.4 and
//! T.6, TIFF 6.0 sections 10 and 11).
//!
//! Scans are often damaged on their way, so a row with a wrong code is not an error: as in libtiff, which the reference
//! reads them with, it ends where the code stands, its rest keeps the colour it would have, and reading goes on at the
//! next row. What libtiff leaves undefined is an error here: rows that the data says nothing about.

mod bits;
mod codes;

use super::super::super::error::ImageError;
use super::{FORMAT, damaged};
use bits::{Bits, has_end_of_line};
use codes::{END_OF_LINE_ZEROS, MODE_BITS, Mode, Run, mode};

/// How rows are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Rows behind end-of-line codes; in two dimensions a bit behind each says which of the two codings follows.
    Group3 { two_dimensional: bool },
    /// Each row against the one above, no end-of-line codes.
    Group4,
    /// One-dimensional rows without end-of-line codes, each on its own bytes.
    RunLength {
        /// Whether zeros made up behind the data count where the next byte is looked for, as in libtiff: rows of
        /// fewer than two bytes are lost at the end of a strip.
        as_libtiff: bool,
    },
    /// The same, each row on its own pairs of bytes.
    RunLengthWords,
}

/// The colour of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Color {
    White,
    Black,
}

/// Why a row could not be read on.
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

/// Decodes rows of `width` pixels into `out`, `[rows, row_bytes]`, which must be zero: black pixels become ones.
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
        // Without any end-of-line code there is nothing to look for between rows.
        marked: matches!(coding, Coding::Group3 { .. }) && has_end_of_line(packed),
        end_of_line: false,
    };
    let rows = out.len() / row_bytes.max(1);
    for (y, pixels) in out.chunks_exact_mut(row_bytes).enumerate() {
        // Rows behind the end mark of Group 4 are white.
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
    /// Whether an end-of-line code stands before each row.
    marked: bool,
    /// Whether the zeros of an end-of-line code have been passed over.
    end_of_line: bool,
}

impl Decoder<'_> {
    /// Reads one row. The last one of a Group 4 strip may be cut.
    fn decode_row(&mut self, last: bool) -> Result<(), ImageError> {
        let start = self.bits.at();
        self.row.begin();
        // Zeros that are made up behind the data would go on for ever. libtiff's own way ends by itself.
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

    /// Looks for the next end-of-line code and passes over it, its fill bits included.
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

    /// Reads a row of runs, white first.
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

    /// Reads the codes of one run. What stands there instead, where no run does.
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

    /// Reads a row against the one above.
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

/// The runs of a row, white and black in turn, and of the one above it.
struct Row {
    width: i64,
    runs: Vec<i64>,
    used: usize,
    /// Where the next run begins, with what [`extend`](Self::extend) added.
    at: i64,
    /// Pixels of the next run that are known already.
    pending: i64,
    /// Whether the row ended at something else than a run.
    broken: bool,
    above: Vec<i64>,
    /// How many runs above were passed, and where the last of them ends.
    above_used: usize,
    above_at: i64,
}

impl Row {
    fn new(width: usize, coding: Coding) -> Self {
        // Two more than a row of single pixels needs; a row against another may hold empty runs as well.
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

    /// Ends a run with so many more pixels.
    fn push(&mut self, pixels: i64) -> Result<(), Stop> {
        self.check_room()?;
        self.runs[self.used] = self.pending + pixels;
        self.used += 1;
        self.at += pixels;
        self.pending = 0;
        Ok(())
    }

    /// Adds pixels to the run that has not ended.
    fn extend(&mut self, pixels: i64) {
        self.at += pixels;
        self.pending += pixels;
    }

    /// Gives the rest of the row the colour of the run that has not ended.
    fn end_here(&mut self) {
        // They fit: that was checked before the mode was read.
        self.runs[self.used] = self.width - self.at;
        self.used += 1;
        self.broken = true;
    }

    fn drop_empty_pair(&mut self) {
        if self.used >= 2 && self.runs[self.used - 2..self.used] == [0, 0] {
            self.used -= 2;
        }
    }

    /// The next run above.
    fn next_above(&mut self) -> Result<i64, Stop> {
        let run = *self.above.get(self.above_used).ok_or(Stop::TooManyRuns)?;
        self.above_used += 1;
        Ok(run)
    }

    /// Moves to the first change above that lies right of here and is to the other colour.
    fn find_above(&mut self) -> Result<(), Stop> {
        while self.used > 0 && self.above_at <= self.at && self.above_at < self.width {
            self.above_at += self.next_above()? + self.next_above()?;
        }
        Ok(())
    }

    /// Ends the run `by` pixels right of the change above.
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

    /// Goes on below the next two changes above.
    fn pass(&mut self) -> Result<(), Stop> {
        self.find_above()?;
        let end = self.above_at + self.next_above()?;
        self.extend(end - self.at);
        self.above_at = end + self.next_above()?;
        Ok(())
    }

    /// Makes the runs as long as the row: a short one ends white, a long one is cut.
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

    /// Sets the black pixels, and cuts runs at the row's end.
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

    /// The next row is coded against this one.
    fn becomes_reference(&mut self) {
        if let Some(end) = self.runs.get_mut(self.used) {
            *end = 0;
        }
        std::mem::swap(&mut self.runs, &mut self.above);
    }
}

/// Sets the bits `from..to`, highest first.
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
