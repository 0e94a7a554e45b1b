//! The format shared by `pack` and `unpack`: the packed form of a file of bf16 numbers, less than two
//! thirds of its size.
//!
//! A bf16 number is a sign, 8 bits of exponent and 7 of mantissa:
//!
//! - The exponents of a trained model are few and unequally common: under 3 bits of information each. They are written in a
//!   Huffman code; each section of the file has its own.
//! - Signs and mantissas look random and are stored unchanged, in a byte. They take half a byte if the last 4 bits of all
//!   mantissas of a section are 0, as in matrices that training rounds.
//! - Zero, of which some matrices mostly consist, is a separate symbol besides the exponents in sections of bytes, and has
//!   neither mantissa nor sign.
//!
//! The whole file is treated as 16-bit numbers: its header costs next to nothing.
//!
//! A block is 16 numbers, and each of four streams has the codes of four numbers of every block: a processor decodes the
//! streams in parallel. Layout, integers little-endian:
//!
//! - the number of blocks (u64);
//! - for each stream, its length in bytes (u64) and the codes, first bit lowest, followed by zeros;
//! - for each section, the last of which may be shorter, these bytes:
//!   - 1 if its mantissas and signs take half a byte, else 0,
//!   - the length of zero's code in bits, 0 if it has none,
//!   - the length of the code and the value of each exponent that occurs, and
//!   - a 0;
//! - for each number without zero's code, a byte, or half a byte, of mantissa and sign;
//! - four zeros;
//! - the remainder that does not fill a block, unchanged.

/// Bits of the longest code. The lookup table has 2048 entries and stays in the L1 cache, and four codes fit into
/// 56 bits.
pub(super) const CODE_BITS_MAX: u8 = 11;

/// Number of streams, and of each stream's numbers in a block.
pub(super) const STREAMS: usize = 4;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 2 * STREAMS * STREAMS;

/// Blocks of a section. Half as many would save only 6 KB, since twice as many code tables would be written.
pub(super) const SECTION_BLOCKS: usize = 1024;

/// Bits of a mantissa-and-sign byte that are kept in half a byte: the first three of the mantissa, and the sign.
pub(super) const HALF: u8 = 0b1110_0001;

/// Number of symbols with a code: the exponents, and zero.
pub(super) const SYMBOLS: usize = 257;

/// The symbol of zero.
pub(super) const ZERO: usize = 256;

/// Returns the codes of the given lengths, first bit lowest. Codes of one length are consecutive in the symbols' order,
/// after all shorter ones (canonical Huffman codes).
pub(super) fn codes(lengths: &[u8; SYMBOLS]) -> [u16; SYMBOLS] {
    let mut counts = [0; CODE_BITS_MAX as usize + 1];
    for &length in lengths.iter().filter(|&&length| length > 0) {
        counts[usize::from(length)] += 1;
    }
    // the next code of each length
    let mut next = [0u16; CODE_BITS_MAX as usize + 1];
    for length in 1..next.len() {
        next[length] = (next[length - 1] + counts[length - 1]) << 1;
    }
    let mut codes = [0; SYMBOLS];
    for (code, &length) in codes.iter_mut().zip(lengths).filter(|(_, length)| **length > 0) {
        let next = &mut next[usize::from(length)];
        *code = next.reverse_bits() >> (16 - length);
        *next += 1;
    }
    codes
}
