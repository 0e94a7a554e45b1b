//! Unpacks the weights that lie in the program.

use super::code::{BLOCK_BYTES, CODE_BITS_MAX, STREAMS, codes};

/// The file that was packed.
///
/// # Panics
/// If `packed` is not what `pack` writes.
pub(super) fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut packed = packed;
    let lengths: &[u8; 256] =
        packed.split_off(..256).and_then(<[u8]>::first_chunk).expect("lengths of codes");
    let blocks = integer(&mut packed);
    let mut streams: [Bits; STREAMS] = std::array::from_fn(|_| {
        let bytes = integer(&mut packed);
        Bits { left: packed.split_off(..bytes).expect("a stream"), pending: 0, count: 0 }
    });
    let table = table(lengths);
    let rests = packed.split_off(..blocks * BLOCK_BYTES / 2).expect("a byte for each number");
    let (rests, _) = rests.as_chunks::<STREAMS>();
    let mut file = vec![0; blocks * BLOCK_BYTES + packed.len()];
    let (numbers, last) = file.split_at_mut(blocks * BLOCK_BYTES);
    last.copy_from_slice(packed);
    let (numbers, _) = numbers.as_chunks_mut::<2>();
    let (numbers, _) = numbers.as_chunks_mut::<STREAMS>();
    for (numbers, rests) in numbers.chunks_exact_mut(STREAMS).zip(rests.chunks_exact(STREAMS)) {
        for ((numbers, rests), stream) in numbers.iter_mut().zip(rests).zip(&mut streams) {
            stream.fill();
            for (number, &rest) in numbers.iter_mut().zip(rests) {
                let exponent = stream.take(&table);
                *number = u16::from_be_bytes([exponent, rest]).rotate_right(1).to_le_bytes();
            }
        }
    }
    file
}

fn integer(packed: &mut &[u8]) -> usize {
    let bytes = packed.split_off(..8).and_then(<[u8]>::first_chunk).expect("a number of 8 bytes");
    usize::try_from(u64::from_le_bytes(*bytes)).expect("what fits into memory")
}

/// A stream of codes.
struct Bits<'a> {
    /// What follows the whole bytes that are counted.
    left: &'a [u8],
    /// The next bits, the next one lowest.
    pending: u64,
    /// How many of them count: those above are the next bytes' too, and will be the same.
    count: u32,
}

impl Bits<'_> {
    /// Makes at least 56 bits count.
    fn fill(&mut self) {
        let next = self.left.first_chunk().expect("zeros after a stream");
        self.pending |= u64::from_le_bytes(*next) << self.count;
        self.left = &self.left[(63 - self.count) as usize / 8..];
        self.count |= 56;
    }

    /// The exponent whose code is the next.
    fn take(&mut self, table: &Table) -> u8 {
        let entry = table[self.pending as usize % table.len()];
        self.pending >>= entry.length;
        self.count -= u32::from(entry.length);
        entry.exponent
    }
}

/// For all bits that may follow, the code that they begin with.
type Table = [Entry; 1 << CODE_BITS_MAX];

/// What the next bits begin with.
#[derive(Clone, Copy)]
struct Entry {
    exponent: u8,
    length: u8,
}

fn table(lengths: &[u8; 256]) -> Table {
    let mut table = [Entry { exponent: 0, length: 0 }; 1 << CODE_BITS_MAX];
    for (exponent, (&length, code)) in (0..=255).zip(lengths.iter().zip(codes(lengths))) {
        if length > 0 {
            for entry in table[usize::from(code)..].iter_mut().step_by(1 << length) {
                *entry = Entry { exponent, length };
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::pack::{ZEROS, pack};
    use super::*;

    /// Its size when packed.
    fn comes_back(numbers: impl IntoIterator<Item = u16>) -> usize {
        let file: Vec<u8> = numbers.into_iter().flat_map(u16::to_le_bytes).collect();
        let packed = pack(&file);
        assert!(unpack(&packed) == file);
        // of lengths that fill no block or no number
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

    #[test]
    fn common_exponents_take_less_room() {
        // a quarter each of four exponents: 2 bits in place of 8
        let packed = comes_back((0..8000u16).map(|i| 0x3f00 + ((i % 4) << 7) + (i % 128)));
        assert_eq!(packed, 256 + 8 + 8000 / 4 + STREAMS * (8 + 1 + ZEROS) + 8000);
    }

    #[test]
    fn the_program_has_the_weights_that_the_source_has() {
        let written =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/model.safetensors")).unwrap();
        let (_, unpacked) = super::super::contents()[6];
        assert!(unpacked == written);
    }
}
