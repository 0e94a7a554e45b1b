//! BMP with 1, 4, 8, 16, 24 or 32 bits per pixel, run-length coding or colour masks.

use crate::error::count;

use super::super::error::ImageError;
use super::super::room::{gathered, room, zeros};
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster, colors_of, is_gray_ramp, unpack_bits};

const FORMAT: &str = "BMP";
/// Length of the file header before the bitmap header.
const FILE_HEADER: usize = 14;
/// The bitmap header of OS/2 1.x with 16-bit sizes; every other one has 32-bit sizes.
const OS2_HEADER: usize = 12;

/// How the pixels are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Raw,
    Rle8,
    Rle4,
}

/// The contents of the headers.
struct Header {
    width: u32,
    height: u32,
    /// Whether the rows are stored from top to bottom.
    top_down: bool,
    bits: usize,
    coding: Coding,
    /// Red, green, blue, alpha.
    masks: Option<[u32; 4]>,
    /// Colours of the palette, blue first. `[colors, 3 or 4]`
    palette: Vec<[u8; 3]>,
    /// Where the pixels begin.
    data: usize,
}

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let header = Header::read(bytes, limits)?;
    let data = bytes.get(header.data..).unwrap_or_default();
    let size = Size { width: header.width, height: header.height };
    let (layout, mut samples) = match (header.coding, header.bits) {
        (Coding::Raw, 1 | 4 | 8) => (Layout::Rgb, header.look_up(&header.raw_indices(data, mode)?)?),
        (Coding::Raw, _) => header.direct(data)?,
        (coding, _) => {
            let indices = match mode {
                ImageMode::AsSeen => header.run_lengths(data, coding)?,
                ImageMode::Reference => header.run_lengths_of_reference(data, coding)?,
            };
            (Layout::Rgb, header.look_up(&indices)?)
        }
    };
    if !header.top_down {
        flip_rows(&mut samples, header.width as usize * layout.samples());
    }
    Ok(Raster::new(size, layout, samples))
}

/// Reads little-endian numbers at offsets in the file.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, at: usize) -> Result<u16, ImageError> {
        let bytes = self.0.get(at..at + 2).ok_or(ImageError::Truncated { format: FORMAT })?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&self, at: usize) -> Result<u32, ImageError> {
        Ok(u32::from(self.u16(at)?) | u32::from(self.u16(at + 2)?) << 16)
    }
}

impl Header {
    fn read(bytes: &[u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let fields = Fields(bytes);
        let length = fields.u32(FILE_HEADER)? as usize;
        let mut header = match length {
            OS2_HEADER => Self::read_os2(&fields)?,
            40 | 52 | 56 | 64 | 108 | 124 => Self::read_windows(&fields)?,
            other => return Err(unsupported(format!("a header of {}", count(other, "byte")))),
        };
        limits.check_size(Size { width: header.width, height: header.height })?;
        let mut at = FILE_HEADER + length;
        let compression = if length == OS2_HEADER { 0 } else { fields.u32(FILE_HEADER + 16)? };
        match (compression, header.bits) {
            (0, 1 | 4 | 8 | 16 | 24 | 32) => {}
            (1, 8) => header.coding = Coding::Rle8,
            (2, 4) => header.coding = Coding::Rle4,
            (3, 16 | 24 | 32) => {
                header.masks = Some(header.read_masks(&fields, length)?);
                at += if length == 40 { 12 } else { 0 };
            }
            (compression, bits) => {
                return Err(unsupported(format!("{} with compression {compression}", count(bits, "bit"))));
            }
        }
        if header.bits <= 8 {
            at = header.read_palette(&fields, at, length)?;
        }
        let offset = fields.u32(10)? as usize;
        // some writers give the offset of the palette
        let points_at_palette = offset == FILE_HEADER + length && header.bits <= 8;
        header.data = if offset == 0 || points_at_palette { at } else { offset };
        Ok(header)
    }

    fn read_os2(fields: &Fields<'_>) -> Result<Self, ImageError> {
        Ok(Self::new(u32::from(fields.u16(18)?), i64::from(fields.u16(20)?), fields.u16(24)?))
    }

    fn read_windows(fields: &Fields<'_>) -> Result<Self, ImageError> {
        let height = i64::from(fields.u32(22)? as i32);
        Ok(Self::new(fields.u32(18)?, height, fields.u16(28)?))
    }

    /// A negative height means that rows are stored from top to bottom.
    fn new(width: u32, height: i64, bits: u16) -> Self {
        Self {
            width,
            height: u32::try_from(height.unsigned_abs()).unwrap_or(u32::MAX),
            top_down: height < 0,
            bits: usize::from(bits),
            coding: Coding::Raw,
            masks: None,
            palette: Vec::new(),
            data: 0,
        }
    }

    /// Reads the masks, which are in the longer headers or follow the 40-byte header. The latter has no alpha mask.
    fn read_masks(&self, fields: &Fields<'_>, length: usize) -> Result<[u32; 4], ImageError> {
        let at = FILE_HEADER + 40;
        let alpha = if length >= 56 { fields.u32(at + 12)? } else { 0 };
        let masks = [fields.u32(at)?, fields.u32(at + 4)?, fields.u32(at + 8)?, alpha];
        let known: &[[u32; 3]] = match self.bits {
            16 => &[[0xf800, 0x7e0, 0x1f], [0x7c00, 0x3e0, 0x1f]],
            24 => &[[0xff_0000, 0xff00, 0xff]],
            _ => &[
                [0xff_0000, 0xff00, 0xff],
                [0xff00_0000, 0xff_0000, 0xff00],
                [0xff, 0xff00, 0xff_0000],
                [0, 0, 0],
            ],
        };
        let alpha_known = match (self.bits, masks[0]) {
            (16 | 24, _) => true,
            (_, 0xff00_0000) => matches!(alpha, 0 | 0xff),
            (_, 0) => alpha == 0,
            (_, _) => matches!(alpha, 0 | 0xff00_0000),
        };
        if known.contains(&[masks[0], masks[1], masks[2]]) && alpha_known {
            return Ok(masks);
        }
        Err(unsupported(format!("colour masks {masks:x?}")))
    }

    /// Reads the palette at `at` and returns its end.
    fn read_palette(&mut self, fields: &Fields<'_>, at: usize, length: usize) -> Result<usize, ImageError> {
        let stated = if length == OS2_HEADER { 0 } else { fields.u32(FILE_HEADER + 32)? as usize };
        let colors = if stated == 0 { 1 << self.bits } else { stated };
        if colors > 65_536 {
            return Err(unsupported(format!("a palette of {colors} colours")));
        }
        let entry = if length == OS2_HEADER { 3 } else { 4 };
        let end = at + colors * entry;
        let bytes = fields.0.get(at..end.min(fields.0.len())).unwrap_or_default();
        self.palette = bytes.chunks_exact(entry).map(|c| [c[2], c[1], c[0]]).collect();
        Ok(end)
    }

    /// Bytes per row: rows are padded to a multiple of 4 bytes.
    fn row_bytes(&self) -> usize {
        (self.width as usize * self.bits).div_ceil(32) * 4
    }

    /// The part of each row that holds pixels of `bits` bits each. The padding of the last row may be missing.
    fn rows<'a>(&self, data: &'a [u8], bits: usize) -> Result<impl Iterator<Item = &'a [u8]>, ImageError> {
        let (row_bytes, used) = (self.row_bytes(), (self.width as usize * bits).div_ceil(8));
        let height = self.height as usize;
        if data.len() < row_bytes * (height - 1) + used {
            return Err(ImageError::Truncated { format: FORMAT });
        }
        Ok(data.chunks(row_bytes).take(height).map(move |row| &row[..used]))
    }

    /// Palette indices of uncompressed pixels, `[height, width]`. If the palette is black and white, the reference
    /// reads every bit of a row as a pixel, regardless of the bits per pixel, and ignores the rest of the row.
    fn raw_indices(&self, data: &[u8], mode: ImageMode) -> Result<Vec<u8>, ImageError> {
        const BLACK_AND_WHITE: [[u8; 3]; 2] = [[0; 3], [255; 3]];
        let width = self.width as usize;
        let mut indices = room(width * self.height as usize)?;
        let is_of_bits = mode == ImageMode::Reference && self.palette == BLACK_AND_WHITE;
        let bits = if is_of_bits { 1 } else { self.bits };
        for row in self.rows(data, bits)? {
            match bits {
                8 => indices.extend_from_slice(row),
                bits => indices.extend(unpack_bits(row, width, row.len(), bits)?),
            }
        }
        Ok(indices)
    }

    fn look_up(&self, indices: &[u8]) -> Result<Vec<u8>, ImageError> {
        let palette = self.palette.as_flattened();
        let mut table = colors_of(palette);
        if palette.len() != 2 * 3 && is_gray_ramp(palette) {
            // the reference ignores such a palette
            table = std::array::from_fn(|i| [i as u8; 3]);
        }
        gathered(indices.len() * 3, indices.iter().flat_map(|&i| table[usize::from(i)]))
    }

    /// Decodes pixels that store their colour directly, in 16, 24 or 32 bits.
    fn direct(&self, data: &[u8]) -> Result<(Layout, Vec<u8>), ImageError> {
        let (bytes, count) = (self.bits / 8, self.width as usize * self.height as usize);
        let pixels = self.rows(data, self.bits)?.flat_map(|row| row.chunks_exact(bytes));
        let [red, _, _, alpha] = self.masks.unwrap_or([0xff_0000, 0, 0, 0]);
        // 5 or 6 bits become 8 by v * 255 / max, truncated.
        let wide = |v: u16, max: u16| (v * 255 / max) as u8;
        match (self.bits, red) {
            (16, _) => {
                let six = red == 0xf800;
                let pixel = |p: &[u8]| {
                    let v = u16::from_le_bytes([p[0], p[1]]);
                    if six {
                        [wide(v >> 11, 31), wide(v >> 5 & 63, 63), wide(v & 31, 31)]
                    } else {
                        [wide(v >> 10 & 31, 31), wide(v >> 5 & 31, 31), wide(v & 31, 31)]
                    }
                };
                Ok((Layout::Rgb, gathered(count * 3, pixels.flat_map(pixel))?))
            }
            (24, _) => Ok((Layout::Rgb, gathered(count * 3, pixels.flat_map(|p| [p[2], p[1], p[0]]))?)),
            (_, 0xff00_0000) => with_alpha(count, pixels.map(|p| [p[3], p[2], p[1], p[0]]), alpha != 0),
            (_, 0xff) => with_alpha(count, pixels.map(|p| [p[0], p[1], p[2], p[3]]), alpha != 0),
            // all masks zero: blue, green, red, alpha
            (_, 0) => with_alpha(count, pixels.map(|p| [p[2], p[1], p[0], p[3]]), true),
            (_, _) => with_alpha(count, pixels.map(|p| [p[2], p[1], p[0], p[3]]), alpha != 0),
        }
    }

    /// Palette indices of run-length coded pixels, `[height, width]`. Skipped or missing pixels have index 0.
    fn run_lengths(&self, data: &[u8], coding: Coding) -> Result<Vec<u8>, ImageError> {
        let (width, height) = (self.width as usize, self.height as usize);
        let mut canvas = Canvas { indices: zeros(width * height)?, width, x: 0, y: 0 };
        let mut codes = Codes { data, at: 0 };
        // the codes for the last end of line and the end of the image may be missing
        while canvas.y < height && (canvas.y + 1 < height || canvas.x < width) {
            match codes.take()? {
                [0, 0] => (canvas.x, canvas.y) = (0, canvas.y + 1),
                [0, 1] => break,
                [0, 2] => {
                    let [right, up] = codes.take()?.map(usize::from);
                    canvas.x += right;
                    canvas.y += up;
                }
                [0, count] => {
                    let count = usize::from(count);
                    let bytes = if coding == Coding::Rle8 { count } else { count.div_ceil(2) };
                    let literal = codes.bytes(bytes)?;
                    // literal pixels are padded to whole 16-bit words
                    codes.at += bytes % 2;
                    canvas.put(count, |i| pixel_of(literal, i, coding));
                }
                [count, value] => {
                    canvas.put(usize::from(count), |i| match coding {
                        Coding::Rle4 => pixel_of(&[value], i % 2, coding),
                        _ => value,
                    });
                }
            }
        }
        Ok(canvas.indices)
    }

    /// Palette indices of run-length coded pixels as the reference reads them, `[height, width]`:
    /// - A jump takes its distance from the second pair of bytes after its code and skips the first pair.
    /// - Literal 4-bit pixels are read in pairs and continue in the next row. The last of an odd number is lost.
    /// - An end-of-line code at the end of a row has no effect.
    fn run_lengths_of_reference(&self, data: &[u8], coding: Coding) -> Result<Vec<u8>, ImageError> {
        let (width, pixels) = (self.width as usize, self.width as usize * self.height as usize);
        // the last code may produce more pixels than fit
        let (mut indices, mut x) = (room(pixels + 2 * usize::from(u8::MAX))?, 0);
        let mut codes = Codes { data, at: 0 };
        while indices.len() < pixels {
            match codes.take()? {
                [0, 0] => {
                    indices.resize(indices.len().next_multiple_of(width), 0);
                    x = 0;
                }
                [0, 1] => break,
                [0, 2] => {
                    let _length = codes.take()?;
                    let [right, up] = codes.take()?.map(usize::from);
                    let end = indices.len() + right + up * width;
                    indices.resize(end.min(pixels), 0);
                    x = end % width;
                }
                [0, count] => {
                    let per_byte = if coding == Coding::Rle4 { 2 } else { 1 };
                    let bytes = usize::from(count) / per_byte;
                    // a truncated run may extend past the end of the image
                    let bytes = codes.bytes(bytes.min(codes.left()))?;
                    indices.extend((0..bytes.len() * per_byte).map(|i| pixel_of(bytes, i, coding)));
                    x += usize::from(count);
                    // align to 16-bit words, counted from the beginning of the file
                    codes.at += (self.data + codes.at) % 2;
                }
                [count, value] => {
                    let count = usize::from(count).min(width.saturating_sub(x));
                    indices.extend((0..count).map(|i| match coding {
                        Coding::Rle4 => pixel_of(&[value], i % 2, coding),
                        _ => value,
                    }));
                    x += count;
                }
            }
        }
        indices.resize(pixels, 0);
        Ok(indices)
    }
}

/// Reads run-length codes in sequence.
struct Codes<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Codes<'a> {
    fn left(&self) -> usize {
        self.data.len().saturating_sub(self.at)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], ImageError> {
        let bytes = self.data.get(self.at..).and_then(|rest| rest.get(..count));
        self.at += count;
        bytes.ok_or(ImageError::Truncated { format: FORMAT })
    }

    fn take(&mut self) -> Result<[u8; 2], ImageError> {
        let bytes = self.bytes(2)?;
        Ok([bytes[0], bytes[1]])
    }
}

/// Pixel `i` of literal bytes.
fn pixel_of(bytes: &[u8], i: usize, coding: Coding) -> u8 {
    match coding {
        Coding::Rle4 => bytes[i / 2] >> (4 * (1 - i % 2)) & 15,
        _ => bytes[i],
    }
}

/// The image that run lengths are painted on.
struct Canvas {
    indices: Vec<u8>,
    width: usize,
    x: usize,
    y: usize,
}

impl Canvas {
    /// Paints `count` pixels and drops those beyond the end of the row.
    fn put(&mut self, count: usize, pixel: impl Fn(usize) -> u8) {
        let left = self.x.min(self.width);
        let right = (self.x + count).min(self.width);
        let row = self.y * self.width;
        for (i, out) in self.indices[row + left..row + right].iter_mut().enumerate() {
            *out = pixel(i);
        }
        self.x += count;
    }
}

/// Collects `count` 32-bit pixels. If alpha is declared but zero in every pixel, it is ignored.
fn with_alpha(
    count: usize,
    pixels: impl Iterator<Item = [u8; 4]>,
    declared: bool,
) -> Result<(Layout, Vec<u8>), ImageError> {
    let mut samples = gathered(count, pixels)?.into_flattened();
    if !declared || samples.chunks_exact(4).all(|p| p[3] == 0) {
        samples.chunks_exact_mut(4).for_each(|p| p[3] = 255);
    }
    Ok((Layout::Rgba, samples))
}

fn flip_rows(samples: &mut [u8], row_bytes: usize) {
    let (upper, lower) = samples.split_at_mut(samples.len() / row_bytes / 2 * row_bytes);
    let pairs = upper.chunks_exact_mut(row_bytes).zip(lower.chunks_exact_mut(row_bytes).rev());
    pairs.for_each(|(a, b)| a.swap_with_slice(b));
}

fn unsupported(kind: String) -> ImageError {
    ImageError::UnsupportedKind { format: FORMAT, kind }
}
