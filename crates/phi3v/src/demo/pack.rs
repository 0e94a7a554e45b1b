//! Packs the weights: for the build script, and for tests.

use super::code::{BLOCK_BYTES, CODE_BITS_MAX, STREAMS, codes};

/// Zeros after the codes of a stream: it is read 8 bytes at a time, and 7 bytes ahead.
pub(super) const ZEROS: usize = 16;

/// The packed form of a file.
pub(super) fn pack(file: &[u8]) -> Vec<u8> {
    let (blocks, rest) = file.as_chunks::<BLOCK_BYTES>();
    let parts: Vec<Parts> = blocks.as_flattened().as_chunks().0.iter().map(|&number| split(number)).collect();
    let mut counts = [0; 256];
    for number in &parts {
        counts[usize::from(number.exponent)] += 1;
    }
    let lengths = code_lengths(counts);
    let mut packed = lengths.to_vec();
    packed.extend((blocks.len() as u64).to_le_bytes());
    for stream in 0..STREAMS {
        let codes = encoded(parts.chunks(STREAMS).skip(stream).step_by(STREAMS).flatten(), &lengths);
        packed.extend((codes.len() as u64).to_le_bytes());
        packed.extend(codes);
    }
    packed.extend(parts.iter().map(|number| number.rest));
    packed.extend(rest);
    packed
}

struct Parts {
    exponent: u8,
    /// The mantissa, and below it the sign.
    rest: u8,
}

fn split(number: [u8; 2]) -> Parts {
    let [exponent, rest] = u16::from_le_bytes(number).rotate_left(1).to_be_bytes();
    Parts { exponent, rest }
}

/// A stream of these numbers' exponents.
fn encoded<'a>(numbers: impl Iterator<Item = &'a Parts>, lengths: &[u8; 256]) -> Vec<u8> {
    let codes = codes(lengths);
    let (mut written, mut pending, mut pending_bits) = (Vec::new(), 0u32, 0);
    for number in numbers {
        let exponent = usize::from(number.exponent);
        pending |= u32::from(codes[exponent]) << pending_bits;
        pending_bits += lengths[exponent];
        while pending_bits >= 8 {
            written.push(pending as u8);
            pending >>= 8;
            pending_bits -= 8;
        }
    }
    written.push(pending as u8);
    written.extend([0; ZEROS]);
    written
}

/// Lengths of the codes of what occurs so often. Where the longest would be too long, rare exponents are taken for more
/// common ones.
fn code_lengths(mut counts: [u64; 256]) -> [u8; 256] {
    loop {
        let lengths = huffman(&counts);
        if lengths.iter().all(|&length| length <= CODE_BITS_MAX) {
            return lengths;
        }
        for count in counts.iter_mut().filter(|count| **count > 0) {
            *count = count.div_ceil(2);
        }
    }
}

/// Exponents that share the bits that their codes have so far.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    count: u64,
    members: Vec<usize>,
}

/// Huffman's lengths, which may exceed the limit; the same for the same counts.
fn huffman(counts: &[u64; 256]) -> [u8; 256] {
    let occurs = (0..256).filter(|&exponent| counts[exponent] > 0);
    let mut groups: Vec<Group> =
        occurs.map(|exponent| Group { count: counts[exponent], members: vec![exponent] }).collect();
    let mut lengths = [0; 256];
    if let [only] = &groups[..] {
        lengths[only.members[0]] = 1;
    }
    loop {
        // the rarest last
        groups.sort_by(|a, b| b.cmp(a));
        let (Some(a), Some(b)) = (groups.pop(), groups.pop()) else { return lengths };
        let members = [a.members, b.members].concat();
        for &member in &members {
            lengths[member] += 1;
        }
        groups.push(Group { count: a.count + b.count, members });
    }
}
