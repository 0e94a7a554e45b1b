//! What `pack` and `unpack` agree on: the packed form of a file of bf16 numbers, two
//! thirds as large.
//!
//! A bf16 number is a sign, 8 bits of exponent and 7 of mantissa. Exponents of a trained model are few and unequally
//! common, 3 bits of information each, and are written in a Huffman code; signs and mantissas look like chance and stay
//! as they are. The file is taken as numbers of 16 bits throughout: its header costs next to nothing.
//!
//! A block is 16 numbers, and each of four streams has the codes of four numbers of every block: a processor reads the
//! streams at the same time. Layout, integers little-endian: for each exponent the length of its code in bits, 0 where it
//! does not occur (256 bytes); number of blocks (u64); for each stream its length in bytes (u64) and the codes, first bit
//! lowest, with zeros after them; for each number a byte of mantissa and sign; what fills no block, as it is.

/// Bits of the longest code. The table of all that may follow has 4096 entries and stays in the L1 cache, and four codes
/// fit into 56 bits.
pub(super) const CODE_BITS_MAX: u8 = 12;

/// Streams, and numbers of a block in each.
pub(super) const STREAMS: usize = 4;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 2 * STREAMS * STREAMS;

/// The codes of these lengths: those of a length follow each other in the exponents' order, after all shorter ones
/// (canonical Huffman codes); first bit lowest.
pub(super) fn codes(lengths: &[u8; 256]) -> [u16; 256] {
    let mut codes = [0; 256];
    let mut next = 0u16;
    for length in 1..=CODE_BITS_MAX {
        for (code, _) in codes.iter_mut().zip(lengths).filter(|(_, of)| **of == length) {
            *code = next.reverse_bits() >> (16 - length);
            next += 1;
        }
        next <<= 1;
    }
    codes
}
