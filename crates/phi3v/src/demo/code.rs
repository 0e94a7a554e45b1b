//! What `pack` and `unpack` agree on: the packed form of a file of bf16 numbers, under two
//! thirds as large.
//!
//! A bf16 number is a sign, 8 bits of exponent and 7 of mantissa. Exponents of a trained model are few and unequally
//! common, under 3 bits of information each, and are written in a Huffman code, of which each section of the file has its
//! own; signs and mantissas look like chance and stay as they are, in a byte, or in half a byte where the last 4 bits of
//! all mantissas of a section are 0, as those are that training rounds. Zero, of which some matrices mostly consist, is a
//! symbol of its own beside the exponents in sections of bytes, and has neither. The file is taken as numbers of 16 bits
//! throughout: its header costs next to nothing.
//!
//! A block is 16 numbers, and each of four streams has the codes of four numbers of every block: a processor reads the
//! streams at the same time. Layout, integers little-endian: number of blocks (u64); for each stream its length in bytes
//! (u64) and the codes, first bit lowest, with zeros after them; for each section, the last of which may be shorter, 1 if
//! its mantissas and signs take half a byte, else 0, the length of zero's code in bits, 0 where it has none, then of each
//! exponent that occurs the length and itself, and a 0 (all of them bytes); for each number without zero's code a byte, or
//! half a byte, of mantissa and sign; four zeros; what fills no block, as it is.

/// Bits of the longest code. The table of all that may follow has 2048 entries and stays in the L1 cache, and four codes
/// fit into 56 bits.
pub(super) const CODE_BITS_MAX: u8 = 11;

/// Streams, and numbers of a block in each.
pub(super) const STREAMS: usize = 4;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 2 * STREAMS * STREAMS;

/// Blocks of a section: half as many save 6 KB, since there are twice as many codes to write.
pub(super) const SECTION_BLOCKS: usize = 1024;

/// Bits of a byte of mantissa and sign that half a byte has: the first three of the mantissa, and the sign.
pub(super) const HALF: u8 = 0b1110_0001;

/// What has a code: the exponents, and zero.
pub(super) const SYMBOLS: usize = 257;

/// The symbol of zero.
pub(super) const ZERO: usize = 256;

/// The codes of these lengths: those of a length follow each other in the symbols' order, after all shorter ones
/// (canonical Huffman codes); first bit lowest.
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
