//! TIFF, the first page: gray, palette, RGB and CMYK, in strips or tiles, in one plane or several.
//!
//! The reader is ours because the `tiff` crate knows no palette and none of the rarer packings; the compressions
//! themselves come from crates. Unlike other formats Pillow turns a TIFF upright by itself, so both modes do.

mod compression;
mod directory;

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::{ImageLimits, ImageMode};
use super::jpeg;
use super::raster::{Layout, Raster, cmyk_to_rgb, stretch, unpack_bits};
use compression::{Compression, unpack};
use directory::{Directory, place};

const FORMAT: &str = "TIFF";
/// Gray with alpha is 2, RGB with three extra samples is 6.
const SAMPLES_MAX: usize = 6;
/// Longest JPEG tables, which are read for every strip: four of quantisation and eight of Huffman codes take 2.8 kB.
const JPEG_TABLES_MAX: usize = 8 << 10;

/// The tags that are read.
mod tag {
    pub(super) const WIDTH: u16 = 256;
    pub(super) const HEIGHT: u16 = 257;
    pub(super) const BITS: u16 = 258;
    pub(super) const COMPRESSION: u16 = 259;
    pub(super) const PHOTOMETRIC: u16 = 262;
    pub(super) const FILL_ORDER: u16 = 266;
    pub(super) const STRIP_OFFSETS: u16 = 273;
    pub(super) const ORIENTATION: u16 = 274;
    pub(super) const SAMPLES: u16 = 277;
    pub(super) const ROWS_PER_STRIP: u16 = 278;
    pub(super) const STRIP_BYTES: u16 = 279;
    pub(super) const PLANAR: u16 = 284;
    pub(super) const GROUP3_OPTIONS: u16 = 292;
    pub(super) const PREDICTOR: u16 = 317;
    pub(super) const PALETTE: u16 = 320;
    pub(super) const TILE_WIDTH: u16 = 322;
    pub(super) const TILE_HEIGHT: u16 = 323;
    pub(super) const TILE_OFFSETS: u16 = 324;
    pub(super) const TILE_BYTES: u16 = 325;
    pub(super) const EXTRA: u16 = 338;
    pub(super) const SAMPLE_FORMAT: u16 = 339;
    pub(super) const JPEG_TABLES: u16 = 347;
}

/// What the samples mean, by the number of tag 262.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    /// Only as JPEG, which turns it to RGB.
    YCbCr,
}

/// What the directory says, checked.
struct Header<'a> {
    directory: Directory<'a>,
    width: u32,
    height: u32,
    bits: usize,
    samples: usize,
    photometric: Photometric,
    compression: Compression,
    /// Meaning of the samples beyond the colour's own: 0 none, 1 premultiplied alpha, 2 alpha.
    extra: Vec<u64>,
    planar: bool,
    reversed_bits: bool,
    differenced: bool,
    tiled: bool,
    /// Width and height of a strip or tile.
    chunk: (u32, u32),
}

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let header = Header::read(bytes, limits)?;
    let samples = header.read_samples(mode, limits)?;
    let mut raster = header.raster(samples, mode)?;
    let orientation = header.directory.value(tag::ORIENTATION, 1)?;
    raster.orientation = Orientation::from_exif_value(u16::try_from(orientation).unwrap_or(1));
    Ok(raster)
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let directory = Directory::read(bytes)?;
        let side = |tag| -> Result<u32, ImageError> {
            Ok(u32::try_from(directory.value(tag, 0)?).unwrap_or(u32::MAX))
        };
        let (width, height) = (side(tag::WIDTH)?, side(tag::HEIGHT)?);
        limits.check_size(width, height)?;
        let tiled = !directory.values(tag::TILE_OFFSETS)?.is_empty();
        let chunk = if tiled {
            (side(tag::TILE_WIDTH)?, side(tag::TILE_HEIGHT)?)
        } else {
            // Absent (0), it is one strip.
            (width, side(tag::ROWS_PER_STRIP)?.wrapping_sub(1).min(height - 1) + 1)
        };
        limits.check_size(chunk.0, chunk.1)?;
        let compression = Compression::from_tag(directory.value(tag::COMPRESSION, 1)?)?;
        if compression == Compression::Group3 && directory.value(tag::GROUP3_OPTIONS, 0)? & 1 == 1 {
            return Err(unsupported("two-dimensional Group 3 compression"));
        }
        let samples = place(directory.value(tag::SAMPLES, 1)?)?;
        let predictor = directory.value(tag::PREDICTOR, 1)?;
        let header = Self {
            width,
            height,
            bits: uniform_bits(&directory)?,
            samples,
            photometric: photometric(&directory)?,
            compression,
            extra: directory.values(tag::EXTRA)?,
            planar: directory.value(tag::PLANAR, 1)? == 2 && samples > 1,
            reversed_bits: directory.value(tag::FILL_ORDER, 1)? == 2,
            differenced: compression.has_predictor() && predictor == 2,
            tiled,
            chunk,
            directory,
        };
        if compression.has_predictor() && !matches!(predictor, 1 | 2) {
            return Err(unsupported(&format!("predictor {predictor}")));
        }
        header.check()?;
        Ok(header)
    }

    /// Refuses what cannot be turned into 8-bit samples.
    fn check(&self) -> Result<(), ImageError> {
        let format = self.directory.values(tag::SAMPLE_FORMAT)?;
        if format.iter().any(|f| *f != 1 && !(*f == 2 && self.bits == 8 && self.samples == 1)) {
            return Err(unsupported("signed or floating point samples"));
        }
        let wanted = match self.photometric {
            Photometric::WhiteIsZero | Photometric::BlackIsZero | Photometric::Palette => 1,
            Photometric::Rgb | Photometric::YCbCr => 3,
            Photometric::Cmyk => 4,
        };
        if self.samples < wanted || self.samples > SAMPLES_MAX {
            return Err(unsupported(&format!("{} samples per pixel", self.samples)));
        }
        let bits_known = match self.photometric {
            Photometric::Palette => matches!(self.bits, 1 | 2 | 4 | 8),
            Photometric::WhiteIsZero | Photometric::BlackIsZero => matches!(self.bits, 1 | 2 | 4 | 8 | 16),
            _ => matches!(self.bits, 8 | 16),
        };
        let packed = self.bits < 8 && (self.samples > 1 || self.differenced);
        let fax = matches!(self.compression, Compression::Group3 | Compression::Group4);
        let jpeg = self.compression == Compression::Jpeg;
        if !bits_known || packed || (fax && self.bits != 1) || (jpeg && self.bits != 8) {
            return Err(unsupported(&format!("{} bits per sample", self.bits)));
        }
        if self.photometric == Photometric::YCbCr && (!jpeg || self.planar) {
            return Err(unsupported("YCbCr without JPEG compression"));
        }
        Ok(())
    }

    /// Reads all strips or tiles. `[height, width, samples]`, of fewer than 8 bits not yet stretched.
    fn read_samples(&self, mode: ImageMode, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
        let mut offsets = self.directory.values(tag::TILE_OFFSETS)?;
        let mut lengths = self.directory.values(tag::TILE_BYTES)?;
        if offsets.is_empty() {
            offsets = self.directory.values(tag::STRIP_OFFSETS)?;
            lengths = self.directory.values(tag::STRIP_BYTES)?;
        }
        let [across, down, planes] = self.grid();
        let chunks = across * down * planes;
        // what stands beyond the picture's edges costs as much as its pixels do
        let padded = (across * down) as u64 * u64::from(self.chunk.0) * u64::from(self.chunk.1);
        if padded > limits.pixels_max.saturating_mul(2) {
            return Err(damaged("its tiles are far larger than it"));
        }
        if offsets.len() < chunks {
            return Err(ImageError::Truncated { format: FORMAT });
        }
        let mut samples = vec![0; self.width as usize * self.height as usize * self.samples];
        // Chunks that share their bytes would let a small file ask for endless work.
        let mut budget = self.directory.bytes.len();
        for (i, offset) in offsets.iter().take(chunks).enumerate() {
            let (plane, cell) = (i / (across * down), i % (across * down));
            let rows = self.chunk_rows(cell / across);
            let packed = self.packed(*offset, lengths.get(i).copied(), rows)?;
            budget = budget.checked_sub(packed.len()).ok_or_else(|| damaged("its strips overlap"))?;
            let unpacked = self.chunk_samples(packed, rows, mode, limits)?;
            self.place_chunk(&unpacked, (cell % across, cell / across), plane, &mut samples);
        }
        Ok(samples)
    }

    /// The bytes of one chunk in the file; what stands behind uncompressed rows is not part of it.
    fn packed(&self, offset: u64, length: Option<u64>, rows: usize) -> Result<&'a [u8], ImageError> {
        let packed = self.directory.bytes.get(place(offset)?..);
        let packed = packed.ok_or(ImageError::Truncated { format: FORMAT })?;
        let mut length = length.map_or(Ok(packed.len()), place)?;
        if self.compression == Compression::None {
            length = length.min(self.row_bytes() * rows);
        }
        Ok(&packed[..length.min(packed.len())])
    }

    /// Bytes of one row of a chunk.
    fn row_bytes(&self) -> usize {
        (self.chunk.0 as usize * self.bits * self.chunk_depth()).div_ceil(8)
    }

    /// Rows stored in a chunk: tiles are whole, the last strip ends with the picture.
    fn chunk_rows(&self, down: usize) -> usize {
        let rows = self.chunk.1 as usize;
        if self.tiled { rows } else { rows.min(self.height as usize - down * rows) }
    }

    /// Samples of one pixel within a chunk.
    fn chunk_depth(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    /// Unpacks one chunk. `[rows, chunk width, chunk_depth]`
    fn chunk_samples(
        &self,
        packed: &[u8],
        rows: usize,
        mode: ImageMode,
        limits: &ImageLimits,
    ) -> Result<Vec<u8>, ImageError> {
        if self.compression == Compression::Jpeg {
            return self.jpeg_samples(packed, rows, limits);
        }
        let row_bytes = self.row_bytes();
        let mut unpacked = vec![0; row_bytes * rows];
        let layout = (self.chunk.0, row_bytes);
        if self.reversed_bits {
            let packed: Vec<u8> = packed.iter().map(|b| b.reverse_bits()).collect();
            unpack(self.compression, &packed, layout, &mut unpacked)?;
        } else {
            unpack(self.compression, packed, layout, &mut unpacked)?;
        }
        if self.differenced {
            unpacked.chunks_exact_mut(row_bytes).for_each(|row| self.undo_differences(row));
        }
        Ok(match self.bits {
            8 => unpacked,
            16 => unpacked.chunks_exact(2).map(|v| self.narrow(self.u16(v), mode)).collect(),
            bits => unpack_bits(&unpacked, self.chunk.0 as usize, row_bytes, bits),
        })
    }

    fn u16(&self, bytes: &[u8]) -> u16 {
        let bytes = [bytes[0], bytes[1]];
        if self.directory.little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    }

    /// 16 bits to 8: the high byte, but the reference clips plain gray at 255.
    fn narrow(&self, value: u16, mode: ImageMode) -> u8 {
        if mode == ImageMode::Reference && self.samples == 1 {
            return value.min(255) as u8;
        }
        (value >> 8) as u8
    }

    /// Each sample was stored as the difference to the one before it in its row.
    fn undo_differences(&self, row: &mut [u8]) {
        let depth = self.chunk_depth();
        if self.bits == 8 {
            for i in depth..row.len() {
                row[i] = row[i].wrapping_add(row[i - depth]);
            }
            return;
        }
        for i in (depth * 2..row.len()).step_by(2) {
            let sum = self.u16(&row[i..]).wrapping_add(self.u16(&row[i - depth * 2..]));
            let bytes = if self.directory.little_endian { sum.to_le_bytes() } else { sum.to_be_bytes() };
            row[i..i + 2].copy_from_slice(&bytes);
        }
    }

    /// Decodes a chunk that is a JPEG stream without its tables.
    fn jpeg_samples(&self, packed: &[u8], rows: usize, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
        const START: &[u8] = b"\xff\xd8";
        let body = packed.strip_prefix(START).ok_or_else(|| damaged("its JPEG data has no start"))?;
        let tables = self.directory.raw(tag::JPEG_TABLES).unwrap_or_default();
        if tables.len() > JPEG_TABLES_MAX {
            let bytes = tables.len();
            return Err(damaged(&format!(
                "its JPEG tables have {bytes} bytes, the limit is {JPEG_TABLES_MAX}"
            )));
        }
        let tables = tables.strip_prefix(START).unwrap_or_default();
        let tables = tables.strip_suffix(b"\xff\xd9").unwrap_or(tables);
        // An Adobe marker tells libjpeg what the directory says: whether the colours are YCbCr.
        let ycbcr = u8::from(self.photometric == Photometric::YCbCr);
        let adobe = [b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0".as_slice(), &[ycbcr]].concat();
        let stream = [START, adobe.as_slice(), tables, body].concat();
        // Rows beyond the chunk's own are dropped: all chunks together may cost one more picture at the limit.
        let own = u64::from(self.chunk.0) * u64::from(self.chunk.1);
        let chunks: usize = self.grid().iter().product();
        let share = (limits.pixels_max / chunks as u64).max(own).min(limits.pixels_max);
        let share = ImageLimits { pixels_max: share, ..*limits };
        let mut picture = jpeg::decompress(&stream, &share).map_err(|error| match error {
            ImageError::Pixels { .. } => damaged("its JPEG data does not fit its size"),
            other => other,
        })?;
        let fits = picture.size.0 == self.chunk.0 && picture.size.1 as usize >= rows;
        if !fits || picture.components != self.chunk_depth() {
            return Err(damaged("its JPEG data does not fit its size"));
        }
        picture.samples.truncate(rows * self.chunk.0 as usize * picture.components);
        Ok(picture.samples)
    }

    /// Strips or tiles of the picture: across, down, and planes of them.
    fn grid(&self) -> [usize; 3] {
        let (across, down) = (self.width.div_ceil(self.chunk.0), self.height.div_ceil(self.chunk.1));
        [across as usize, down as usize, if self.planar { self.samples } else { 1 }]
    }

    /// Copies the part of a chunk that lies in the picture.
    fn place_chunk(&self, chunk: &[u8], (across, down): (usize, usize), plane: usize, samples: &mut [u8]) {
        let (chunk_width, chunk_height) = (self.chunk.0 as usize, self.chunk.1 as usize);
        let (left, top) = (across * chunk_width, down * chunk_height);
        let width = self.width as usize;
        let used = chunk_width.min(width - left);
        let depth = self.chunk_depth();
        let rows = samples.chunks_exact_mut(width * self.samples).skip(top);
        for (row, line) in rows.zip(chunk.chunks_exact(chunk_width * depth)) {
            let row = &mut row[left * self.samples..][..used * self.samples];
            if self.planar {
                let pixels = row.chunks_exact_mut(self.samples);
                pixels.zip(line).for_each(|(pixel, sample)| pixel[plane] = *sample);
            } else {
                row.copy_from_slice(&line[..used * depth]);
            }
        }
    }

    /// From samples to gray or RGB, with alpha where there is one.
    fn raster(&self, mut samples: Vec<u8>, mode: ImageMode) -> Result<Raster, ImageError> {
        let size = (self.width, self.height);
        let gray = matches!(self.photometric, Photometric::WhiteIsZero | Photometric::BlackIsZero);
        if gray && self.bits < 8 {
            stretch(&mut samples, self.bits);
        }
        // Pillow does not invert 16-bit gray.
        let keep = self.bits == 16 && mode == ImageMode::Reference;
        if self.photometric == Photometric::WhiteIsZero && !keep {
            samples.chunks_exact_mut(self.samples).for_each(|pixel| pixel[0] = 255 - pixel[0]);
        }
        let pixels = samples.chunks_exact(self.samples);
        let alpha = self.alpha();
        Ok(match (self.photometric, alpha) {
            (Photometric::Cmyk, _) => {
                let ink: Vec<u8> = pixels.flat_map(|p| [p[0], p[1], p[2], p[3]]).collect();
                Raster::new(size, Layout::Rgb, cmyk_to_rgb(&ink))
            }
            (Photometric::Palette, _) => {
                let table = self.palette()?;
                let opacity = |p: &[u8]| if alpha.is_some() { p[1] } else { 255 };
                let pixel = |p: &[u8]| {
                    let [r, g, b] = table[usize::from(p[0])];
                    [r, g, b, opacity(p)]
                };
                Raster::new(size, Layout::Rgba, pixels.flat_map(pixel).collect())
            }
            (Photometric::WhiteIsZero | Photometric::BlackIsZero, None) => {
                Raster::new(size, Layout::Gray, pixels.map(|p| p[0]).collect())
            }
            (Photometric::WhiteIsZero | Photometric::BlackIsZero, Some(alpha)) => {
                let pixel = |p: &[u8]| [alpha.color(p[0], p[1]), p[1]];
                Raster::new(size, Layout::GrayAlpha, pixels.flat_map(pixel).collect())
            }
            (Photometric::Rgb | Photometric::YCbCr, None) => {
                Raster::new(size, Layout::Rgb, pixels.flat_map(|p| [p[0], p[1], p[2]]).collect())
            }
            (Photometric::Rgb | Photometric::YCbCr, Some(alpha)) => {
                let pixel = |p: &[u8]| {
                    let [r, g, b] = [p[0], p[1], p[2]].map(|c| alpha.color(c, p[3]));
                    [r, g, b, p[3]]
                };
                Raster::new(size, Layout::Rgba, pixels.flat_map(pixel).collect())
            }
        })
    }

    /// What the first sample beyond the colour's own is. Four samples of RGB without a word on the fourth are taken
    /// for RGB and alpha.
    fn alpha(&self) -> Option<Alpha> {
        let unsaid = self.photometric == Photometric::Rgb && self.samples == 4;
        match self.extra.first() {
            Some(1) => Some(Alpha::Premultiplied),
            Some(2 | 999) => Some(Alpha::Plain),
            None if unsaid => Some(Alpha::Plain),
            _ => None,
        }
        .filter(|_| {
            let color = matches!(self.photometric, Photometric::Rgb | Photometric::YCbCr);
            self.samples > if color { 3 } else { 1 }
        })
    }

    /// The colours: all reds, all greens, all blues, 16 bits each.
    fn palette(&self) -> Result<[[u8; 3]; 256], ImageError> {
        let values = self.directory.values(tag::PALETTE)?;
        let len = values.len() / 3;
        let mut table = [[0; 3]; 256];
        for (i, color) in table.iter_mut().enumerate().take(len) {
            *color = std::array::from_fn(|c| (values[c * len + i] >> 8) as u8);
        }
        Ok(table)
    }
}

/// How colours and alpha go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alpha {
    Plain,
    Premultiplied,
}

impl Alpha {
    /// The colour as it is without its transparency.
    fn color(self, color: u8, alpha: u8) -> u8 {
        match (self, alpha) {
            (Self::Plain, _) | (_, 255) => color,
            (_, 0) => 0,
            _ => (u32::from(color) * 255 / u32::from(alpha)).min(255) as u8,
        }
    }
}

/// Bits per sample, the same for all samples.
fn uniform_bits(directory: &Directory<'_>) -> Result<usize, ImageError> {
    let bits = directory.values(tag::BITS)?;
    let first = bits.first().copied().unwrap_or(1);
    if bits.iter().any(|b| *b != first) {
        return Err(unsupported("samples of different bits"));
    }
    place(first)
}

fn photometric(directory: &Directory<'_>) -> Result<Photometric, ImageError> {
    Ok(match directory.value(tag::PHOTOMETRIC, 0)? {
        0 => Photometric::WhiteIsZero,
        1 => Photometric::BlackIsZero,
        2 => Photometric::Rgb,
        3 => Photometric::Palette,
        5 => Photometric::Cmyk,
        6 => Photometric::YCbCr,
        8 => return Err(unsupported("CIE L*a*b* colours")),
        other => return Err(unsupported(&format!("photometric interpretation {other}"))),
    })
}

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: reason.to_owned() }
}

fn unsupported(kind: &str) -> ImageError {
    ImageError::UnsupportedKind { format: FORMAT, kind: kind.to_owned() }
}
