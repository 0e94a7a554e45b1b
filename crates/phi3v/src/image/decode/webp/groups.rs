//! Counts the sets of Huffman codes of a lossless stream by reading what comes before them (RFC 9649, section 3). A
//! set takes up to 126 KB in the decoder and 138 bytes in a file, whatever the size of the image.

use super::super::super::Size;

/// Maximum number of sets of codes. Real encoders use far fewer, and this many take 250 MB in the decoder.
pub(super) const MAX: usize = 4_096;

/// Number of symbols of each code in a set: green with lengths (and the colour cache), red, blue, alpha, distance.
const ALPHABETS: [usize; 5] = [256 + 24, 256, 256, 256, 40];
/// The order in which the lengths of the code length code are stored.
const LENGTHS_ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const CODE_BITS_MAX: usize = 15;

/// Counts the sets of codes in a stream for an image of this size. Returns `None` if the stream is damaged before the
/// sets begin.
pub(super) fn count(stream: &[u8], size: Size) -> Option<usize> {
    let mut bits = Bits { bytes: stream, at: 0 };
    let (mut width, height) = (size.width as usize, size.height as usize);
    // each of the four transforms may occur once
    for _ in 0..=4 {
        if bits.read(1)? == 0 {
            break;
        }
        match bits.read(2)? {
            0 | 1 => {
                let block = bits.read(3)? + 2;
                bits.image(blocks(width, block), blocks(height, block))?;
            }
            2 => {}
            _ => {
                let colours = bits.read(8)? + 1;
                bits.image(colours, 1)?;
                let packed = match colours {
                    0..=2 => 3,
                    3..=4 => 2,
                    5..=16 => 1,
                    _ => 0,
                };
                width = blocks(width, packed);
            }
        }
    }
    bits.cache()?;
    if bits.read(1)? == 0 {
        return Some(1);
    }
    let block = bits.read(3)? + 2;
    Some(bits.image(blocks(width, block), blocks(height, block))? + 1)
}

/// Number of blocks of `1 << bits` pixels along a side.
fn blocks(side: usize, bits: usize) -> usize {
    side.div_ceil(1 << bits)
}

/// Reads a stream from the lowest bit of each byte.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Position in the stream, in bits.
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: usize) -> Option<usize> {
        let end = self.at + count;
        if end > self.bytes.len() * 8 {
            return None;
        }
        let bit = |at: usize| usize::from(self.bytes[at / 8] >> (at % 8) & 1);
        let value = (0..count).fold(0, |value, i| value | bit(self.at + i) << i);
        self.at = end;
        Some(value)
    }

    /// Number of colours in the colour cache; 0 without a cache.
    fn cache(&mut self) -> Option<usize> {
        if self.read(1)? == 0 {
            return Some(0);
        }
        let bits = self.read(4)?;
        (1..=11).contains(&bits).then_some(1 << bits)
    }

    /// Skips an image that has one set of codes, and returns the largest `red << 8 | green` in it.
    fn image(&mut self, width: usize, height: usize) -> Option<usize> {
        let cache = self.cache()?;
        let mut codes = Vec::new();
        for (i, size) in ALPHABETS.into_iter().enumerate() {
            codes.push(Code::read(self, if i == 0 { size + cache } else { size })?);
        }
        let [green, red, blue, alpha, distance] = <[Code; 5]>::try_from(codes).ok()?;
        let (mut left, mut largest) = (width.saturating_mul(height), 0);
        while left > 0 {
            let before = self.at;
            let symbol = green.symbol(self)?;
            let pixels = if symbol < 256 {
                largest = largest.max(red.symbol(self)? << 8 | symbol);
                blue.symbol(self)?;
                alpha.symbol(self)?;
                1
            } else if symbol < ALPHABETS[0] {
                let length = self.length(symbol - 256)?;
                let symbol = distance.symbol(self)?;
                self.length(symbol)?;
                length
            } else {
                1
            };
            if self.at == before {
                // codes of one symbol take no bits, so all pixels are the same
                return Some(largest);
            }
            left = left.checked_sub(pixels)?;
        }
        Some(largest)
    }

    /// Reads the length or distance that `symbol`, one of at most 40, begins.
    fn length(&mut self, symbol: usize) -> Option<usize> {
        if symbol >= ALPHABETS[4] {
            return None;
        }
        if symbol < 4 {
            return Some(symbol + 1);
        }
        let extra = (symbol - 2) >> 1;
        Some(((2 + (symbol & 1)) << extra) + self.read(extra)? + 1)
    }
}

/// A Huffman code.
struct Code {
    /// Number of symbols for each code length.
    counts: [usize; CODE_BITS_MAX + 1],
    /// Symbols in order of code length. A single symbol takes no bits.
    symbols: Vec<usize>,
}

impl Code {
    fn read(bits: &mut Bits<'_>, size: usize) -> Option<Self> {
        if bits.read(1)? == 1 {
            let two = bits.read(1)? == 1;
            let wide = bits.read(1)?;
            let mut symbols = vec![bits.read(1 + 7 * wide)?];
            if two {
                symbols.push(bits.read(8)?);
            }
            let mut counts = [0; CODE_BITS_MAX + 1];
            counts[1] = symbols.len();
            return Some(Self { counts, symbols });
        }
        let mut lengths = [0; LENGTHS_ORDER.len()];
        let given = bits.read(4)? + 4;
        for symbol in LENGTHS_ORDER.iter().take(given) {
            lengths[*symbol] = bits.read(3)?;
        }
        let code = Self::of(&lengths)?;
        let mut left = size;
        if bits.read(1)? == 1 {
            let wide = bits.read(3)? * 2 + 2;
            left = bits.read(wide)? + 2;
        }
        let (mut lengths, mut last) = (Vec::with_capacity(size), 8);
        while lengths.len() < size && left > 0 {
            left -= 1;
            let (length, times) = match code.symbol(bits)? {
                16 => (last, bits.read(2)? + 3),
                17 => (0, bits.read(3)? + 3),
                18 => (0, bits.read(7)? + 11),
                length => (length, 1),
            };
            if length > 0 {
                last = length;
            }
            lengths.resize(lengths.len() + times, length);
        }
        (lengths.len() <= size).then(|| Self::of(&lengths))?
    }

    /// Builds a code from the code length of each symbol.
    fn of(lengths: &[usize]) -> Option<Self> {
        let mut counts = [0; CODE_BITS_MAX + 1];
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.iter().for_each(|symbol| counts[lengths[*symbol]] += 1);
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        (!symbols.is_empty()).then_some(Self { counts, symbols })
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Option<usize> {
        if let [only] = self.symbols[..] {
            return Some(only);
        }
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.read(1)?;
            if code < first + count {
                return self.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream without transforms and colour cache, whose only block of pixels uses the set `red << 8 | green`.
    fn stream(red: usize, green: usize) -> Vec<u8> {
        let mut bits = Vec::new();
        let mut put = |value: usize, count: usize| bits.extend((0..count).map(|i| value >> i & 1));
        put(0, 2); // no transform, no cache
        put(1, 1); // several sets, for blocks of
        put(0, 3); // 4x4 pixels
        put(0, 1); // no cache
        for symbol in [green, red, 0, 0, 0] {
            put(0b101, 3); // a code of one symbol of 8 bits
            put(symbol, 8);
        }
        bits.chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |all, (i, bit)| all | (*bit as u8) << i))
            .collect()
    }

    #[test]
    fn sets_are_counted() {
        assert_eq!(count(&stream(0, 0), Size { width: 4, height: 4 }), Some(1));
        assert_eq!(count(&stream(0, 7), Size { width: 4, height: 4 }), Some(8));
        assert_eq!(count(&stream(255, 255), Size { width: 4, height: 4 }), Some(65_536));
        assert_eq!(count(&stream(255, 255)[..6], Size { width: 4, height: 4 }), None);
        assert_eq!(count(&[0, 0], Size { width: 4, height: 4 }), Some(1), "a stream with one set for all");
    }
}
