//! Unpacks one strip or tile of a TIFF into a buffer of known length.

use flate2::{Decompress, FlushDecompress};

use super::fax::{self, Coding};
use super::{FORMAT, ImageError, ImageMode, damaged, lzw, unsupported};

/// The compression of strips and tiles, by the number of tag 259.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Fax(Coding),
    Lzw,
    /// One JPEG image spread over all strips (6). TIFF 6.0 defined it, but implementations differ.
    OldJpeg,
    Jpeg,
    Deflate,
    PackBits,
}

impl Compression {
    /// The compression with this number; `two_dimensional` is the value of tag 292 for Group 3.
    pub(super) fn from_tag(number: u64, two_dimensional: bool, mode: ImageMode) -> Result<Self, ImageError> {
        let as_libtiff = mode == ImageMode::Reference;
        let name = match number {
            1 => return Ok(Self::None),
            2 => return Ok(Self::Fax(Coding::RunLength { as_libtiff })),
            3 => return Ok(Self::Fax(Coding::Group3 { two_dimensional })),
            4 => return Ok(Self::Fax(Coding::Group4)),
            5 => return Ok(Self::Lzw),
            6 => return Ok(Self::OldJpeg),
            7 => return Ok(Self::Jpeg),
            8 | 32_946 => return Ok(Self::Deflate),
            32_771 => return Ok(Self::Fax(Coding::RunLengthWords)),
            32_773 => return Ok(Self::PackBits),
            32_809 => "ThunderScan compression".to_owned(),
            34_661 => "JBIG compression".to_owned(),
            34_712 => "JPEG 2000 compression".to_owned(),
            34_925 => "LZMA compression".to_owned(),
            50_000 => "Zstandard compression".to_owned(),
            50_001 => "WebP compression".to_owned(),
            other => format!("compression {other}"),
        };
        Err(unsupported(&name))
    }

    /// Whether rows may be stored as differences.
    pub(super) fn has_predictor(self) -> bool {
        matches!(self, Self::Lzw | Self::Deflate)
    }

    /// Whether the compression is JPEG in either form.
    pub(super) fn is_jpeg(self) -> bool {
        matches!(self, Self::Jpeg | Self::OldJpeg)
    }
}

/// Unpacks `packed` into the whole of `out`, `[rows, row_bytes]` with `width` pixels in a row. `out` must be zero.
///
/// JPEG is handled elsewhere, since it produces samples instead of bytes.
pub(super) fn unpack(
    compression: Compression,
    packed: &[u8],
    width: u32,
    row_bytes: usize,
    out: &mut [u8],
) -> Result<(), ImageError> {
    let len = out.len();
    let filled = match compression {
        Compression::None => {
            let taken = packed.len().min(len);
            out[..taken].copy_from_slice(&packed[..taken]);
            taken
        }
        Compression::Lzw => lzw::unpack(packed, out)?,
        Compression::Deflate => deflate(packed, out)?,
        Compression::PackBits => pack_bits(packed, out),
        Compression::Fax(coding) => {
            fax::decode(coding, packed, width as usize, row_bytes, out)?;
            len
        }
        Compression::Jpeg | Compression::OldJpeg => return Err(damaged("JPEG where bytes are expected")),
    };
    if filled < len {
        return Err(ImageError::Truncated { format: FORMAT });
    }
    Ok(())
}

fn deflate(packed: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let mut inflater = Decompress::new(true);
    inflater.decompress(packed, out, FlushDecompress::Finish).map_err(|error| damaged(&error.to_string()))?;
    // at most out.len(), which is a usize
    Ok(inflater.total_out() as usize)
}

/// Decodes Apple's byte runs: n in 0..=127 means n + 1 literal bytes, -n means n + 1 repeats, and -128 means nothing.
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
