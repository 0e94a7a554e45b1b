//! What the directory says about the pixels, checked.

use super::compression::Compression;
use super::directory::{Directory, place};
use super::ycbcr::Subsampling;
use super::{ImageError, ImageLimits, ImageMode, Orientation, Size, tag, unsupported};
use crate::error::count;

/// Maximum number of samples per pixel: gray with alpha has 2, RGB with three extra samples has 6.
const SAMPLES_MAX: usize = 6;

/// The meaning of the samples, by the number of tag 262.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

/// How the bits of a sample are interpreted, by the number of tag 339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleFormat {
    Unsigned,
    Signed,
    Float,
}

/// The contents of the directory, checked.
pub(super) struct Header<'a> {
    pub(super) directory: Directory<'a>,
    pub(super) mode: ImageMode,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) bits: usize,
    pub(super) format: SampleFormat,
    pub(super) samples: usize,
    pub(super) photometric: Photometric,
    /// Subsampling of YCbCr that is not JPEG.
    pub(super) subsampling: Subsampling,
    pub(super) compression: Compression,
    /// Meaning of the extra samples: 0 unspecified, 1 premultiplied alpha, 2 alpha.
    pub(super) extra: Vec<u64>,
    pub(super) planar: bool,
    pub(super) reversed_bits: bool,
    /// Transformation of rows before compression: 1 none, 2 differences, 3 differences of float bytes.
    pub(super) predictor: u64,
    pub(super) tiled: bool,
    /// Size of a strip or tile.
    pub(super) chunk: Size,
}

impl<'a> Header<'a> {
    pub(super) fn read(
        directory: Directory<'a>,
        mode: ImageMode,
        limits: &ImageLimits,
    ) -> Result<Self, ImageError> {
        let side = |tag| -> Result<u32, ImageError> {
            Ok(u32::try_from(directory.value(tag, 0)?).unwrap_or(u32::MAX))
        };
        let (width, height) = (side(tag::WIDTH)?, side(tag::HEIGHT)?);
        limits.check_size(Size { width, height })?;
        let tiled = side(tag::TILE_WIDTH)? > 0;
        let chunk = if tiled {
            Size { width: side(tag::TILE_WIDTH)?, height: side(tag::TILE_HEIGHT)? }
        } else {
            // if absent (0), there is one strip
            let rows = side(tag::ROWS_PER_STRIP)?.wrapping_sub(1).min(height - 1) + 1;
            Size { width, height: rows }
        };
        limits.check_size(chunk)?;
        let two_dimensional = directory.value(tag::GROUP3_OPTIONS, 0)? & 1 == 1;
        let compression =
            Compression::from_tag(directory.value(tag::COMPRESSION, 1)?, two_dimensional, mode)?;
        let old_jpeg = compression == Compression::OldJpeg;
        let samples = place(directory.value(tag::SAMPLES, if old_jpeg { 3 } else { 1 })?)?;
        let photometric = match photometric(&directory) {
            // the number of samples decides, regardless of the directory
            _ if old_jpeg && samples == 3 => Photometric::YCbCr,
            _ if old_jpeg && samples == 1 => Photometric::BlackIsZero,
            Ok(Photometric::YCbCr) if samples == 1 => Photometric::BlackIsZero,
            other => other?,
        };
        let predictor = if compression.has_predictor() { directory.value(tag::PREDICTOR, 1)? } else { 1 };
        let mut header = Self {
            mode,
            width,
            height,
            bits: uniform_bits(&directory)?,
            format: sample_format(&directory)?,
            samples,
            photometric,
            subsampling: Subsampling::NONE,
            compression,
            extra: directory.values(tag::EXTRA)?,
            planar: directory.value(tag::PLANAR, 1)? == 2 && samples > 1,
            reversed_bits: directory.value(tag::FILL_ORDER, 1)? == 2 && !compression.is_jpeg(),
            predictor,
            tiled,
            chunk,
            directory,
        };
        if photometric == Photometric::YCbCr && !compression.is_jpeg() {
            header.subsampling = Subsampling::read(&header.directory)?;
        }
        header.check()?;
        header.follow_reference();
        Ok(header)
    }

    /// Refuses samples that cannot be converted to 8 bits.
    fn check(&self) -> Result<(), ImageError> {
        let wanted = match self.photometric {
            Photometric::WhiteIsZero | Photometric::BlackIsZero | Photometric::Palette => 1,
            Photometric::Rgb | Photometric::YCbCr => 3,
            Photometric::Cmyk => 4,
        };
        if self.samples < wanted || self.samples > SAMPLES_MAX {
            return Err(unsupported(&format!("{} per pixel", count(self.samples, "sample"))));
        }
        let plain_gray = self.is_gray() && self.samples == 1;
        let format_known = match self.format {
            SampleFormat::Unsigned => true,
            SampleFormat::Signed => plain_gray && matches!(self.bits, 8 | 16 | 32),
            SampleFormat::Float => plain_gray && self.bits == 32,
        };
        if !format_known {
            let kind = if self.format == SampleFormat::Float { "floating point" } else { "signed" };
            return Err(unsupported(&format!("{kind} samples of {}", count(self.bits, "bit"))));
        }
        let bits_known = match (self.photometric, self.bits) {
            (_, 8) => true,
            (Photometric::YCbCr, _) => false,
            (_, 16) => self.photometric != Photometric::Palette,
            (_, 1 | 2 | 4) => {
                (self.is_gray() || self.photometric == Photometric::Palette) && self.samples == 1
            }
            (_, 12 | 32) => plain_gray,
            _ => false,
        };
        let fax = matches!(self.compression, Compression::Fax(_));
        if !bits_known || (fax && self.bits != 1) || (self.compression.is_jpeg() && self.bits != 8) {
            return Err(unsupported(&format!("{} per sample", count(self.bits, "bit"))));
        }
        let predictable = match self.predictor {
            1 => true,
            2 => matches!(self.bits, 8 | 16 | 32) && self.subsampling == Subsampling::NONE,
            3 => self.format == SampleFormat::Float,
            _ => false,
        };
        if !predictable {
            return Err(unsupported(&format!(
                "predictor {} with {} per sample",
                self.predictor,
                count(self.bits, "bit")
            )));
        }
        self.check_planes()
    }

    /// Refuses images that cannot be assembled from planes.
    fn check_planes(&self) -> Result<(), ImageError> {
        if self.planar && self.subsampling != Subsampling::NONE {
            return Err(unsupported("subsampled YCbCr in planes"));
        }
        let several = self.planar || (self.tiled && self.chunk.width < self.width);
        if self.compression == Compression::OldJpeg && several {
            return Err(unsupported("old-style JPEG compression in planes or in tiles side by side"));
        }
        Ok(())
    }

    /// Follows Pillow, which reads uncompressed planes as 8-bit planes of red, green and blue, whatever they contain.
    fn follow_reference(&mut self) {
        let raw_planes = self.planar && self.compression == Compression::None;
        if self.mode == ImageMode::Reference && raw_planes {
            self.bits = self.bits.min(8);
            if self.photometric == Photometric::YCbCr {
                self.photometric = Photometric::Rgb;
            }
        }
    }

    /// The rotation that makes the image upright. Pillow ignores the tag if its number has the wrong type.
    pub(super) fn orientation(&self) -> Result<Orientation, ImageError> {
        if self.mode == ImageMode::Reference && !self.directory.is_short_or_long(tag::ORIENTATION) {
            return Ok(Orientation::Upright);
        }
        let value = self.directory.value(tag::ORIENTATION, 1)?;
        Ok(Orientation::from_exif_value(u16::try_from(value).unwrap_or(1)))
    }

    pub(super) fn is_gray(&self) -> bool {
        matches!(self.photometric, Photometric::WhiteIsZero | Photometric::BlackIsZero)
    }

    /// Number of strips or tiles across and down, and number of planes.
    pub(super) fn grid(&self) -> [usize; 3] {
        let (across, down) = (self.width.div_ceil(self.chunk.width), self.height.div_ceil(self.chunk.height));
        [across as usize, down as usize, if self.planar { self.samples } else { 1 }]
    }

    /// Bytes of `rows` rows of a chunk.
    pub(super) fn rows_bytes(&self, rows: usize) -> usize {
        if self.subsampling != Subsampling::NONE {
            return self.subsampling.block_row_bytes(self.chunk.width as usize)
                * rows.div_ceil(self.subsampling.down);
        }
        self.row_bytes() * rows
    }

    /// Bytes of one row of a chunk without subsampled colours.
    pub(super) fn row_bytes(&self) -> usize {
        (self.chunk.width as usize * self.bits * self.chunk_depth()).div_ceil(8)
    }

    /// Rows stored in a chunk: tiles are complete, the last strip ends with the image.
    pub(super) fn chunk_rows(&self, down: usize) -> usize {
        let rows = self.chunk.height as usize;
        if self.tiled { rows } else { rows.min(self.height as usize - down * rows) }
    }

    /// Samples per pixel within a chunk.
    pub(super) fn chunk_depth(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }
}

/// Bits per sample, which must be the same for all samples.
fn uniform_bits(directory: &Directory<'_>) -> Result<usize, ImageError> {
    let bits = directory.values(tag::BITS)?;
    let first = bits.first().copied().unwrap_or(1);
    if bits.iter().any(|b| *b != first) {
        return Err(unsupported("samples of different bits"));
    }
    place(first)
}

/// The format of all samples. Undefined formats (4, void) are read as unsigned.
fn sample_format(directory: &Directory<'_>) -> Result<SampleFormat, ImageError> {
    let formats = directory.values(tag::SAMPLE_FORMAT)?;
    let first = formats.first().copied().unwrap_or(1);
    if formats.iter().any(|format| *format != first) {
        return Err(unsupported("samples of different formats"));
    }
    match first {
        1 | 4 => Ok(SampleFormat::Unsigned),
        2 => Ok(SampleFormat::Signed),
        3 => Ok(SampleFormat::Float),
        other => Err(unsupported(&format!("sample format {other}"))),
    }
}

fn photometric(directory: &Directory<'_>) -> Result<Photometric, ImageError> {
    Ok(match directory.value(tag::PHOTOMETRIC, 0)? {
        0 => Photometric::WhiteIsZero,
        1 => Photometric::BlackIsZero,
        2 => Photometric::Rgb,
        3 => Photometric::Palette,
        5 => Photometric::Cmyk,
        6 => Photometric::YCbCr,
        8..=10 => return Err(unsupported("CIE L*a*b* colours")),
        other => return Err(unsupported(&format!("photometric interpretation {other}"))),
    })
}
