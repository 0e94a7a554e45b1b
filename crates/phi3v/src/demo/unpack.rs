//! Unpacks the weights contained in the program.

use super::code::{BLOCK_BYTES, CODE_BITS_MAX, HALF, SECTION_BLOCKS, STREAMS, SYMBOLS, ZERO, codes};

/// Returns the file that was packed.
///
/// # Panics
/// If `packed` is not what `pack` writes.
pub(super) fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut packed = packed;
    let blocks = integer(&mut packed);
    let mut streams: [Bits; STREAMS] = std::array::from_fn(|_| {
        let bytes = integer(&mut packed);
        Bits { left: packed.split_off(..bytes).expect("a stream"), pending: 0, count: 0 }
    });
    let sections = blocks.div_ceil(SECTION_BLOCKS);
    let forms: Vec<_> = (0..sections).map(|_| Form::read(&mut packed)).collect();
    let mut file = vec![0; blocks * BLOCK_BYTES];
    for (section, form) in file.chunks_mut(SECTION_BLOCKS * BLOCK_BYTES).zip(&forms) {
        let (numbers, _) = section.as_chunks_mut();
        let table = table(&form.lengths);
        packed = if form.halves {
            unpack_section(numbers, &mut streams, &table, packed, halves)
        } else if form.lengths[ZERO] > 0 {
            unpack_zeros(numbers, &mut streams, &table, packed)
        } else {
            unpack_section(numbers, &mut streams, &table, packed, bytes)
        };
    }
    file.extend(&packed[STREAMS..]);
    file
}

/// Numbers whose codes are consecutive in a stream, in the file's byte order.
type Few = [u8; 2 * STREAMS];

/// Decodes a section in which no number has zero's code, from its codes and from `rests`: `N` bytes for four numbers, which
/// `spread` distributes into lanes. Returns what follows those bytes.
fn unpack_section<'a, const N: usize>(
    numbers: &mut [Few],
    streams: &mut [Bits; STREAMS],
    table: &Table,
    rests: &'a [u8],
    spread: impl Fn([u8; N]) -> u64,
) -> &'a [u8] {
    let (here, after) = rests.split_at(numbers.len() * N);
    let (here, _) = here.as_chunks();
    for (block, rests) in numbers.chunks_exact_mut(STREAMS).zip(here.chunks_exact(STREAMS)) {
        for ((few, rests), stream) in block.iter_mut().zip(rests).zip(&mut *streams) {
            *few = joined(stream.take_few(table), spread(*rests));
        }
    }
    after
}

/// Spreads mantissas and signs of a byte each into lanes of 16 bits.
fn bytes(rests: [u8; STREAMS]) -> u64 {
    let rests = u64::from(u32::from_le_bytes(rests));
    let rests = (rests | rests << 16) & 0x0000_ffff_0000_ffff;
    (rests | rests << 8) & 0x00ff_00ff_00ff_00ff
}

/// Spreads mantissas and signs of half a byte each into lanes of 16 bits.
fn halves(rests: [u8; STREAMS / 2]) -> u64 {
    let rests = u64::from(u16::from_le_bytes(rests));
    let rests = (rests | rests << 24) & 0x0000_00ff_0000_00ff;
    let rests = (rests | rests << 12) & 0x000f_000f_000f_000f;
    // the mantissa's bits move up, the sign stays
    (rests | rests << 4) & (0x0001_0001_0001_0001 * u64::from(HALF))
}

/// Like [`unpack_section`], for a section in which some numbers have zero's code.
fn unpack_zeros<'a>(
    numbers: &mut [Few],
    streams: &mut [Bits; STREAMS],
    table: &Table,
    rests: &'a [u8],
) -> &'a [u8] {
    let mut rests = rests;
    for block in numbers.chunks_exact_mut(STREAMS) {
        for (few, stream) in block.iter_mut().zip(&mut *streams) {
            let entries = stream.take_few(table);
            let following = rests.first_chunk().expect("bytes after the last");
            let (found, count) = among_zeros(following, entries);
            rests = &rests[count..];
            *few = joined(entries, bytes(found));
        }
    }
    rests
}

/// Assigns the following bytes to the numbers that have one. Also returns how many do.
fn among_zeros(following: &[u8; STREAMS], entries: [Entry; STREAMS]) -> ([u8; STREAMS], usize) {
    let mut bytes = following.iter();
    let rest = |entry: Entry| if entry.0 & Entry::RESTS != 0 { bytes.next().copied() } else { None };
    (entries.map(rest).map(Option::unwrap_or_default), STREAMS - bytes.len())
}

/// Joins numbers from their exponents, and mantissas and signs in lanes. Joining each number separately makes unpacking a
/// quarter slower.
fn joined(entries: [Entry; STREAMS], rests: u64) -> Few {
    let [a, b, c, d] = entries.map(|entry| u64::from(entry.0));
    let exponents = (a | b << 16 | c << 32 | d << 48) & 0xff00_ff00_ff00_ff00;
    let rotated = (exponents | rests) >> 1 & 0x7fff_7fff_7fff_7fff | (rests & 0x0001_0001_0001_0001) << 15;
    rotated.to_le_bytes()
}

/// The encoding of a section.
struct Form {
    /// Whether mantissas and signs take half a byte.
    halves: bool,
    /// The lengths of its codes, in bits.
    lengths: [u8; SYMBOLS],
}

impl Form {
    fn read(packed: &mut &[u8]) -> Self {
        let mut next = || *packed.split_off_first().expect("a section's form");
        let halves = next() == 1;
        let mut lengths = [0; SYMBOLS];
        lengths[ZERO] = next();
        loop {
            match next() {
                0 => return Self { halves, lengths },
                length => lengths[usize::from(next())] = length,
            }
        }
    }
}

fn integer(packed: &mut &[u8]) -> usize {
    let bytes = packed.split_off(..8).and_then(<[u8]>::first_chunk).expect("a number of 8 bytes");
    usize::try_from(u64::from_le_bytes(*bytes)).expect("what fits into memory")
}

/// A stream of codes.
struct Bits<'a> {
    /// The bytes after the whole bytes that are counted.
    left: &'a [u8],
    /// The next bits, starting from the lowest.
    pending: u64,
    /// How many of the pending bits are valid. Those above belong to the next bytes, and reading these again sets the same bits.
    count: u32,
}

impl Bits<'_> {
    /// Makes at least 56 bits valid.
    fn fill(&mut self) {
        let next = self.left.first_chunk().expect("zeros after a stream");
        self.pending |= u64::from_le_bytes(*next) << self.count;
        self.left = &self.left[(63 - self.count) as usize / 8..];
        self.count |= 56;
    }

    /// Decodes the next codes.
    fn take_few(&mut self, table: &Table) -> [Entry; STREAMS] {
        self.fill();
        [(); STREAMS].map(|()| self.take(table))
    }

    /// Decodes the next code.
    fn take(&mut self, table: &Table) -> Entry {
        let entry = table[self.pending as usize % table.len()];
        self.pending >>= entry.length();
        self.count -= entry.length();
        entry
    }
}

/// For all possible next bits, the code that they begin with.
type Table = [Entry; 1 << CODE_BITS_MAX];

/// The decoded symbol: an exponent in the upper byte and the length of its code in the lower six bits.
#[derive(Clone, Copy)]
struct Entry(u16);

impl Entry {
    /// The flag of exponents, which are followed by a byte of mantissa and sign; zero has none.
    const RESTS: u16 = 0x80;

    fn length(self) -> u32 {
        u32::from(self.0 % 64)
    }
}

fn table(lengths: &[u8; SYMBOLS]) -> Table {
    let mut table = [Entry(0); 1 << CODE_BITS_MAX];
    for (symbol, (&length, code)) in lengths.iter().zip(codes(lengths)).enumerate() {
        if length > 0 {
            let exponent = if symbol == ZERO { 0 } else { (symbol as u16) << 8 | Entry::RESTS };
            for entry in table[usize::from(code)..].iter_mut().step_by(1 << length) {
                *entry = Entry(exponent | u16::from(length));
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::pack::{ZEROS, pack};
    use super::*;

    /// Returns the packed size of `numbers` after checking that they unpack unchanged.
    fn comes_back(numbers: impl IntoIterator<Item = u16>) -> usize {
        let file: Vec<u8> = numbers.into_iter().flat_map(u16::to_le_bytes).collect();
        let packed = pack(&file);
        assert!(unpack(&packed) == file);
        // lengths that are not a multiple of a block or of a number
        for cut in 0..BLOCK_BYTES.min(file.len()) {
            assert!(unpack(&pack(&file[cut..])) == file[cut..], "{cut}");
        }
        packed.len()
    }

    #[test]
    fn every_file_comes_back() {
        comes_back([]);
        comes_back([0x3f80]);
        comes_back([0x3f80; 100]);
        comes_back([0x3f80, 0x4000].repeat(8));
        comes_back(0..=u16::MAX);
        // counts that double would need a code of 17 bits
        comes_back((0..18u16).flat_map(|exponent| vec![exponent << 7 | 5; 1 << exponent]));
    }

    /// Bytes besides codes, their lengths, mantissas and signs.
    const AROUND: usize = 8 + STREAMS * (8 + 1 + ZEROS) + STREAMS;

    #[test]
    fn common_exponents_take_less_room() {
        // a quarter each of four exponents: 2 bits instead of 8
        let packed = comes_back((0..8000u16).map(|i| 0x3f00 + ((i % 4) << 7) + (i % 128)));
        assert_eq!(packed, AROUND + (3 + 2 * 4) + 8000 / 4 + 8000);
    }

    #[test]
    fn each_section_has_its_own_code() {
        // two exponents in one section and two others in the next: 1 bit, not 2
        let numbers = SECTION_BLOCKS * BLOCK_BYTES / 2;
        let packed =
            comes_back((0..2 * numbers).map(|i| {
                if i < numbers { 0x3f01 + 0x80 * (i as u16 % 2) } else { 0x101 * (1 + i as u16 % 2) }
            }));
        assert_eq!(packed, AROUND + 2 * (3 + 2 * 2) + 2 * numbers / 8 + 2 * numbers);
    }

    #[test]
    fn zeros_take_a_bit_and_their_negatives_and_neighbours_more() {
        let zeros = SECTION_BLOCKS * BLOCK_BYTES / 2;
        assert_eq!(comes_back(vec![0; zeros]), AROUND + 3 + zeros / 8);
        assert_eq!(comes_back(vec![0x8001; zeros]), AROUND + (3 + 2) + zeros / 8 + zeros);
        comes_back([0, 1, 0x8000, 0x8001].repeat(100));
    }

    #[test]
    fn mantissas_that_end_in_zeros_take_half_a_byte() {
        let numbers = SECTION_BLOCKS * BLOCK_BYTES / 2;
        // all of them of two exponents and both signs
        let coarse = |i: usize| (0x3f00 + 0x10 * (i as u16 % 16)) | ((i as u16 / 16 % 2) << 15);
        let small = AROUND + (3 + 2 * 2) + numbers / 8 + numbers / 2;
        assert_eq!(comes_back((0..numbers).map(coarse)), small);
        // one mantissa that does not end in zeros
        let large = small + numbers / 2;
        assert_eq!(comes_back((0..numbers).map(|i| coarse(i) | u16::from(i == 77))), large);
        // zeros take half a byte, too, if they are at most half of the numbers
        let zeros = |least| move |i| if i % 4096 < least { 0 } else { coarse(i) };
        for least in [1, 2048, 2049, 4095] {
            comes_back((0..numbers).map(zeros(least)));
        }
    }

    #[test]
    fn the_program_has_the_weights_that_the_source_has() {
        let written =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/model.safetensors")).unwrap();
        let (_, unpacked) = super::super::contents()[6];
        assert!(unpacked == written);
    }
}
