//! Unpacking one strip or tile of a TIFF into a buffer of known length.

use std::convert::Infallible;

use fax::Color;
use fax::decoder::{DecodeStatus, Group3Decoder, decode_g4, pels};
use flate2::{Decompress, FlushDecompress};
use weezl::{BitOrder, LzwStatus};

use super::super::super::error::ImageError;
use super::{FORMAT, damaged, unsupported};

/// How strips and tiles are compressed, by the number of tag 259.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Group3,
    Group4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
}

impl Compression {
    pub(super) fn from_tag(number: u64) -> Result<Self, ImageError> {
        let name = match number {
            1 => return Ok(Self::None),
            3 => return Ok(Self::Group3),
            4 => return Ok(Self::Group4),
            5 => return Ok(Self::Lzw),
            7 => return Ok(Self::Jpeg),
            8 | 32_946 => return Ok(Self::Deflate),
            32_773 => return Ok(Self::PackBits),
            2 => "CCITT run-length compression".to_owned(),
            6 => "old-style JPEG compression".to_owned(),
            34_925 => "LZMA compression".to_owned(),
            50_000 => "Zstandard compression".to_owned(),
            50_001 => "WebP compression".to_owned(),
            other => format!("compression {other}"),
        };
        Err(unsupported(&name))
    }

    /// Whether rows may have been differenced before they were compressed.
    pub(super) fn has_predictor(self) -> bool {
        matches!(self, Self::Lzw | Self::Deflate)
    }
}

/// Unpacks `packed` into the whole of `out`, `[rows, row_bytes]` with `width` pixels in a row.
///
/// JPEG is not done here, since it makes samples and not bytes.
pub(super) fn unpack(
    compression: Compression,
    packed: &[u8],
    (width, row_bytes): (u32, usize),
    out: &mut [u8],
) -> Result<(), ImageError> {
    let len = out.len();
    let filled = match compression {
        Compression::None => {
            let taken = packed.len().min(len);
            out[..taken].copy_from_slice(&packed[..taken]);
            taken
        }
        Compression::Lzw => lzw(packed, out)?,
        Compression::Deflate => deflate(packed, out)?,
        Compression::PackBits => pack_bits(packed, out),
        Compression::Group3 => {
            let mut page = Page { out, row_bytes, width, filled: 0 };
            group3(packed, &mut page);
            page.filled
        }
        Compression::Group4 => {
            let height = u32::try_from(len / row_bytes.max(1)).ok();
            let mut page = Page { out, row_bytes, width, filled: 0 };
            decode_g4(packed.iter().copied(), width, height, |line| page.push(line));
            page.filled
        }
        Compression::Jpeg => return Err(damaged("JPEG where bytes are expected")),
    };
    if filled < len {
        return Err(ImageError::Truncated { format: FORMAT });
    }
    Ok(())
}

/// TIFF's LZW: highest bits first, code length switched one code early.
fn lzw(mut packed: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut filled = 0;
    while filled < out.len() {
        let step = decoder.decode_bytes(packed, &mut out[filled..]);
        packed = &packed[step.consumed_in..];
        filled += step.consumed_out;
        match step.status {
            Ok(LzwStatus::Ok) if step.consumed_in + step.consumed_out > 0 => {}
            Ok(_) => break,
            Err(error) => return Err(damaged(&error.to_string())),
        }
    }
    Ok(filled)
}

fn deflate(packed: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let mut inflater = Decompress::new(true);
    inflater.decompress(packed, out, FlushDecompress::Finish).map_err(|error| damaged(&error.to_string()))?;
    // Never more than out.len(), which is a usize.
    Ok(inflater.total_out() as usize)
}

/// Group 3, one-dimensional. The end-of-line code behind the last row may be missing.
fn group3(packed: &[u8], page: &mut Page<'_>) {
    let bytes = packed.iter().map(|b| Ok::<u8, Infallible>(*b));
    let Ok(mut decoder) = Group3Decoder::new(bytes) else { return };
    while page.filled < page.out.len() {
        let more = matches!(decoder.advance(), Ok(DecodeStatus::Incomplete));
        let row = decoder.transitions();
        if row.last().is_some_and(|end| *end >= page.width) {
            page.push(row);
        }
        if !more {
            break;
        }
    }
}

/// Apple's byte runs: n in 0..=127 literal bytes + 1, -n repeats + 1, -128 nothing.
fn pack_bits(packed: &[u8], out: &mut [u8]) -> usize {
    let (mut at, mut filled) = (0, 0);
    while filled < out.len() && at < packed.len() {
        let code = packed[at] as i8;
        at += 1;
        if code >= 0 {
            let run = (code as usize + 1).min(out.len() - filled).min(packed.len() - at);
            out[filled..filled + run].copy_from_slice(&packed[at..at + run]);
            at += run;
            filled += run;
        } else if code != -128 {
            let run = (1 - i32::from(code)) as usize;
            let Some(&value) = packed.get(at) else { break };
            let run = run.min(out.len() - filled);
            out[filled..filled + run].fill(value);
            at += 1;
            filled += run;
        }
    }
    filled
}

/// Rows of a fax, black as 1.
struct Page<'a> {
    out: &'a mut [u8],
    row_bytes: usize,
    width: u32,
    filled: usize,
}

impl Page<'_> {
    fn push(&mut self, transitions: &[u32]) {
        let Some(row) = self.out.get_mut(self.filled..self.filled + self.row_bytes) else { return };
        row.fill(0);
        for (x, color) in pels(transitions, self.width).enumerate() {
            if color == Color::Black {
                row[x / 8] |= 0x80 >> (x % 8);
            }
        }
        self.filled += self.row_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_runs_of_the_specification() {
        let packed =
            [0xfe, 0xaa, 0x02, 0x80, 0x00, 0x2a, 0xfd, 0xaa, 0x03, 0x80, 0x00, 0x2a, 0x22, 0xf7, 0xaa];
        let expected = [
            0xaa, 0xaa, 0xaa, 0x80, 0x00, 0x2a, 0xaa, 0xaa, 0xaa, 0xaa, 0x80, 0x00, 0x2a, 0x22, 0xaa, 0xaa,
            0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
        ];
        let mut out = [0; 24];
        assert_eq!(pack_bits(&packed, &mut out), 24);
        assert_eq!(out, expected);
        assert_eq!(pack_bits(&packed[..1], &mut out), 0);
    }
}
