//! JPEG streams assembled from the parts in which a TIFF stores them.

use super::{ImageError, damaged, unsupported};

/// The parts of a JPEG stream, each with its marker.
#[derive(Default)]
pub(super) struct JpegStream {
    /// Quantization tables, Huffman tables and the restart interval.
    pub(super) tables: Vec<u8>,
    /// The frame header.
    pub(super) frame: Vec<u8>,
    /// The header of the first scan.
    pub(super) scan: Vec<u8>,
}

impl JpegStream {
    /// Takes over the segments up to the first scan's header, and returns the bytes after them.
    ///
    /// Application data is left out: the directory decides whether the colours are YCbCr.
    pub(super) fn read<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], ImageError> {
        while let [0xff, marker, rest @ ..] = bytes {
            // fill bytes, and the start marker
            if matches!(marker, 0xff | 0xd8) {
                bytes = &bytes[if *marker == 0xff { 1 } else { 2 }..];
                continue;
            }
            let length = rest.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
            if *marker == 0xd9 || length < 2 || rest.len() < length {
                break;
            }
            let (segment, behind) = bytes.split_at(2 + length);
            bytes = behind;
            match marker {
                0xc3 | 0xc7 | 0xcb | 0xcf => return Err(unsupported("lossless JPEG compression")),
                0xc4 | 0xcc | 0xdb | 0xdd => self.tables.extend(segment),
                0xc0..=0xcf => self.frame = segment.to_vec(),
                0xda => {
                    self.scan = segment.to_vec();
                    break;
                }
                _ => {}
            }
        }
        Ok(bytes)
    }

    /// Returns the whole stream; `rest` is what follows the first scan's header.
    pub(super) fn assemble(&self, ycbcr: bool, rest: &[u8]) -> Result<Vec<u8>, ImageError> {
        if self.frame.is_empty() || self.scan.is_empty() {
            return Err(damaged("its JPEG data has no header"));
        }
        // an Adobe marker tells libjpeg whether the colours are YCbCr
        let adobe = [b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0".as_slice(), &[u8::from(ycbcr)]].concat();
        let head = [b"\xff\xd8", adobe.as_slice(), &self.tables, &self.frame, &self.scan].concat();
        Ok([head.as_slice(), rest].concat())
    }

    /// Raises the frame's height to the image's if it is smaller: some writers state the height of a strip.
    pub(super) fn fit(&mut self, height: u32) {
        if let [_, _, _, _, _, high, low, ..] = &mut self.frame[..]
            && u32::from(*high) << 8 | u32::from(*low) < height
        {
            [*high, *low] = (height as u16).to_be_bytes();
        }
    }

    /// Whether the tables include a restart interval.
    pub(super) fn restarts(&self) -> bool {
        let mut rest = &self.tables[..];
        while let [0xff, marker, high, low, ..] = rest {
            if *marker == 0xdd {
                return true;
            }
            rest = rest.get(2 + (usize::from(*high) << 8 | usize::from(*low))..).unwrap_or_default();
        }
        false
    }

    /// Width and height of a block of all components.
    pub(super) fn block(&self) -> [u8; 2] {
        match self.frame[..] {
            // several components: the sampling factors of the first
            [_, _, _, _, _, _, _, _, _, components, _, sampling, ..] if components > 1 => {
                [sampling >> 4, sampling & 15].map(|samples| samples.clamp(1, 4) * 8)
            }
            _ => [8, 8],
        }
    }
}
