//! The codes of ITU-T T.4 and T.6, as tables indexed by the next bits.

use super::Color;

/// The meaning of the next bits if the length of a run is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// The run's last code, with its number of pixels.
    Last(u16),
    /// A number of pixels; another code follows.
    More(u16),
    /// The eleven zeros that begin an end-of-line code.
    EndOfLine,
    /// No code begins with these bits.
    Unknown,
}

/// The meaning of the next bits if the coding mode of a row is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The change lies this many pixels to the right of the change above.
    Vertical(i64),
    /// Horizontal mode: two runs follow.
    Horizontal,
    /// The two changes above have no counterparts below.
    Pass,
    /// An extension: uncompressed data or one of the reserved kinds.
    Extension,
    /// The first zeros of an end-of-line code.
    EndOfLine,
}

/// Number of zeros that begin an end-of-line code.
pub(super) const END_OF_LINE_ZEROS: usize = 11;
/// Bits looked up for a mode: the length of the longest code.
pub(super) const MODE_BITS: usize = 7;

/// Runs of 0 to 63 pixels, then of 64, 128 and so on to 1728.
const WHITE: [&str; 91] = [
    "00110101",
    "000111",
    "0111",
    "1000",
    "1011",
    "1100",
    "1110",
    "1111",
    "10011",
    "10100",
    "00111",
    "01000",
    "001000",
    "000011",
    "110100",
    "110101",
    "101010",
    "101011",
    "0100111",
    "0001100",
    "0001000",
    "0010111",
    "0000011",
    "0000100",
    "0101000",
    "0101011",
    "0010011",
    "0100100",
    "0011000",
    "00000010",
    "00000011",
    "00011010",
    "00011011",
    "00010010",
    "00010011",
    "00010100",
    "00010101",
    "00010110",
    "00010111",
    "00101000",
    "00101001",
    "00101010",
    "00101011",
    "00101100",
    "00101101",
    "00000100",
    "00000101",
    "00001010",
    "00001011",
    "01010010",
    "01010011",
    "01010100",
    "01010101",
    "00100100",
    "00100101",
    "01011000",
    "01011001",
    "01011010",
    "01011011",
    "01001010",
    "01001011",
    "00110010",
    "00110011",
    "00110100",
    "11011",
    "10010",
    "010111",
    "0110111",
    "00110110",
    "00110111",
    "01100100",
    "01100101",
    "01101000",
    "01100111",
    "011001100",
    "011001101",
    "011010010",
    "011010011",
    "011010100",
    "011010101",
    "011010110",
    "011010111",
    "011011000",
    "011011001",
    "011011010",
    "011011011",
    "010011000",
    "010011001",
    "010011010",
    "011000",
    "010011011",
];
const BLACK: [&str; 91] = [
    "0000110111",
    "010",
    "11",
    "10",
    "011",
    "0011",
    "0010",
    "00011",
    "000101",
    "000100",
    "0000100",
    "0000101",
    "0000111",
    "00000100",
    "00000111",
    "000011000",
    "0000010111",
    "0000011000",
    "0000001000",
    "00001100111",
    "00001101000",
    "00001101100",
    "00000110111",
    "00000101000",
    "00000010111",
    "00000011000",
    "000011001010",
    "000011001011",
    "000011001100",
    "000011001101",
    "000001101000",
    "000001101001",
    "000001101010",
    "000001101011",
    "000011010010",
    "000011010011",
    "000011010100",
    "000011010101",
    "000011010110",
    "000011010111",
    "000001101100",
    "000001101101",
    "000011011010",
    "000011011011",
    "000001010100",
    "000001010101",
    "000001010110",
    "000001010111",
    "000001100100",
    "000001100101",
    "000001010010",
    "000001010011",
    "000000100100",
    "000000110111",
    "000000111000",
    "000000100111",
    "000000101000",
    "000001011000",
    "000001011001",
    "000000101011",
    "000000101100",
    "000001011010",
    "000001100110",
    "000001100111",
    "0000001111",
    "000011001000",
    "000011001001",
    "000001011011",
    "000000110011",
    "000000110100",
    "000000110101",
    "0000001101100",
    "0000001101101",
    "0000001001010",
    "0000001001011",
    "0000001001100",
    "0000001001101",
    "0000001110010",
    "0000001110011",
    "0000001110100",
    "0000001110101",
    "0000001110110",
    "0000001110111",
    "0000001010010",
    "0000001010011",
    "0000001010100",
    "0000001010101",
    "0000001011010",
    "0000001011011",
    "0000001100100",
    "0000001100101",
];
/// Runs of 1792, 1856 and so on to 2560 pixels, of either colour.
const LONG: [&str; 13] = [
    "00000001000",
    "00000001100",
    "00000001101",
    "000000010010",
    "000000010011",
    "000000010100",
    "000000010101",
    "000000010110",
    "000000010111",
    "000000011100",
    "000000011101",
    "000000011110",
    "000000011111",
];

/// A code: its length in bits and its meaning. Small, since the program holds 12,288 of them.
#[derive(Clone, Copy)]
pub(super) struct RunCode {
    pub(super) bits: u8,
    pub(super) run: Run,
}

static WHITE_TABLE: [RunCode; 1 << 12] = table(&WHITE);
static BLACK_TABLE: [RunCode; 1 << 13] = table(&BLACK);

impl Color {
    /// Bits looked up for a run: the length of the colour's longest code.
    pub(super) fn code_bits(self) -> usize {
        match self {
            Self::White => 12,
            Self::Black => 13,
        }
    }

    /// The code that these [`code_bits`](Self::code_bits) bits begin with.
    pub(super) fn code(self, bits: usize) -> RunCode {
        match self {
            Self::White => WHITE_TABLE[bits],
            Self::Black => BLACK_TABLE[bits],
        }
    }
}

/// The mode whose code these [`MODE_BITS`] bits begin with, and the length of that code.
pub(super) fn mode(bits: usize) -> (Mode, usize) {
    match bits {
        0 => (Mode::EndOfLine, 7),
        1 => (Mode::Extension, 7),
        2 => (Mode::Vertical(-3), 7),
        3 => (Mode::Vertical(3), 7),
        4..=5 => (Mode::Vertical(-2), 6),
        6..=7 => (Mode::Vertical(2), 6),
        8..=15 => (Mode::Pass, 4),
        16..=31 => (Mode::Horizontal, 3),
        32..=47 => (Mode::Vertical(-1), 3),
        48..=63 => (Mode::Vertical(1), 3),
        _ => (Mode::Vertical(0), 1),
    }
}

const fn table<const N: usize>(codes: &[&str]) -> [RunCode; N] {
    let mut table = [RunCode { bits: 0, run: Run::Unknown }; N];
    let mut i = 0;
    while i < codes.len() {
        let run = if i < 64 { Run::Last(i as u16) } else { Run::More((i as u16 - 63) * 64) };
        enter(&mut table, codes[i].as_bytes(), run);
        i += 1;
    }
    i = 0;
    while i < LONG.len() {
        enter(&mut table, LONG[i].as_bytes(), Run::More(1792 + 64 * i as u16));
        i += 1;
    }
    enter(&mut table, b"00000000000", Run::EndOfLine);
    table
}

/// Enters a code at every index that begins with it.
const fn enter<const N: usize>(table: &mut [RunCode; N], code: &[u8], run: Run) {
    let (mut first, mut places, mut i) = (0, N, 0);
    while i < code.len() {
        places /= 2;
        if code[i] == b'1' {
            first += places;
        }
        i += 1;
    }
    i = first;
    while i < first + places {
        assert!(table[i].bits == 0, "one code begins another");
        table[i] = RunCode { bits: code.len() as u8, run };
        i += 1;
    }
}
