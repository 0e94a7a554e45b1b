//! Packs the weights: for the build script, and for tests.

use super::code::{BLOCK_BYTES, CODE_BITS_MAX, HALF, SECTION_BLOCKS, STREAMS, SYMBOLS, ZERO, codes};

/// Zeros after the codes of a stream: it is read 8 bytes at a time, and 7 bytes ahead.
pub(super) const ZEROS: usize = 16;

/// Returns the packed form of a file.
pub(super) fn pack(file: &[u8]) -> Vec<u8> {
    let (blocks, rest) = file.as_chunks::<BLOCK_BYTES>();
    let mut numbers: Vec<Number> =
        blocks.as_flattened().as_chunks().0.iter().map(|&number| split(number)).collect();
    let sections: Vec<_> = numbers.chunks_mut(SECTION_BLOCKS * STREAMS * STREAMS).map(Section::of).collect();
    let mut packed = (blocks.len() as u64).to_le_bytes().to_vec();
    for stream in 0..STREAMS {
        let codes = encoded(&sections, stream);
        packed.extend((codes.len() as u64).to_le_bytes());
        packed.extend(codes);
    }
    for section in &sections {
        packed.push(section.halves.into());
        packed.extend(written_lengths(&section.lengths));
    }
    for section in &sections {
        packed.extend(section.rests());
    }
    packed.extend([0; STREAMS]);
    packed.extend(rest);
    packed
}

/// Numbers that share a code.
struct Section<'a> {
    numbers: &'a [Number],
    /// The lengths of the codes, in bits.
    lengths: [u8; SYMBOLS],
    /// Whether mantissas and signs take half a byte.
    halves: bool,
}

impl<'a> Section<'a> {
    /// Zero shares the code of its exponent in sections of half bytes, and if it is rare: a section without a separate code for
    /// zero is decoded faster.
    fn of(numbers: &'a mut [Number]) -> Self {
        let zeros = numbers.iter().filter(|number| number.symbol == ZERO).count();
        let halves = numbers.iter().all(|number| number.rest & !HALF == 0) && zeros <= numbers.len() / 2;
        if halves || zeros < numbers.len() / 256 {
            numbers.iter_mut().filter(|number| number.symbol == ZERO).for_each(|number| number.symbol = 0);
        }
        Self { lengths: code_lengths(counts(numbers)), numbers, halves }
    }

    /// Returns the mantissas and signs in packed form.
    fn rests(&self) -> Vec<u8> {
        if self.halves {
            let half = |number: &Number| number.rest >> 4 | number.rest & 1;
            let pairs = self.numbers.as_chunks::<2>().0;
            return pairs.iter().map(|[first, second]| half(first) | half(second) << 4).collect();
        }
        self.numbers.iter().filter(|number| number.symbol != ZERO).map(|number| number.rest).collect()
    }
}

/// Returns the lengths of a section's codes in packed form.
fn written_lengths(lengths: &[u8; SYMBOLS]) -> Vec<u8> {
    let mut written = vec![lengths[ZERO]];
    for (exponent, &length) in (0..=255).zip(lengths).filter(|(_, length)| **length > 0) {
        written.extend([length, exponent]);
    }
    written.push(0);
    written
}

struct Number {
    symbol: usize,
    /// The mantissa in the upper bits, and the sign in the lowest.
    rest: u8,
}

fn split(number: [u8; 2]) -> Number {
    let [exponent, rest] = u16::from_le_bytes(number).rotate_left(1).to_be_bytes();
    Number { symbol: if number == [0, 0] { ZERO } else { exponent.into() }, rest }
}

fn counts(numbers: &[Number]) -> [u64; SYMBOLS] {
    let mut counts = [0; SYMBOLS];
    for number in numbers {
        counts[number.symbol] += 1;
    }
    counts
}

/// Returns the codes of a stream: those of its four numbers in every block.
fn encoded(sections: &[Section], stream: usize) -> Vec<u8> {
    let (mut written, mut pending, mut pending_bits) = (Vec::new(), 0u32, 0);
    for Section { numbers, lengths, .. } in sections {
        let codes = codes(lengths);
        for number in numbers.chunks(STREAMS).skip(stream).step_by(STREAMS).flatten() {
            pending |= u32::from(codes[number.symbol]) << pending_bits;
            pending_bits += lengths[number.symbol];
            while pending_bits >= 8 {
                written.push(pending as u8);
                pending >>= 8;
                pending_bits -= 8;
            }
        }
    }
    written.push(pending as u8);
    written.extend([0; ZEROS]);
    written
}

/// Returns code lengths for symbols that occur `counts` times. If the longest code is too long, halves the counts, rounding
/// up, so that rare symbols count for more.
fn code_lengths(mut counts: [u64; SYMBOLS]) -> [u8; SYMBOLS] {
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

/// Symbols that share the bits their codes have so far.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    count: u64,
    members: Vec<usize>,
}

/// Returns Huffman code lengths, which may exceed the limit. Deterministic: equal counts give equal lengths.
fn huffman(counts: &[u64; SYMBOLS]) -> [u8; SYMBOLS] {
    let occurs = (0..SYMBOLS).filter(|&symbol| counts[symbol] > 0);
    let mut groups: Vec<Group> =
        occurs.map(|symbol| Group { count: counts[symbol], members: vec![symbol] }).collect();
    let mut lengths = [0; SYMBOLS];
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
