//! GIF, the first frame on its screen.
//!
//! Bytes between the blocks that begin no block are passed over, as the first edition of the format wants it and the
//! reference does; an image without a palette has levels of gray for colours.

use weezl::{BitOrder, LzwStatus, decode::Configuration};

use super::super::error::ImageError;
use super::super::room::{filled, zeros};
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster, colors_of, is_gray_ramp};

const FORMAT: &str = "GIF";
/// Length of the mark and the screen's size, flags, background and shape of pixels.
const SCREEN: usize = 13;
/// Length of a frame's place, size and flags.
const PLACE: usize = 9;
/// The kind of an extension that says which index is transparent.
const CONTROL: u8 = 0xf9;
/// The largest size of a first code: codes have at most one bit more.
const CODE_BITS_MAX: u8 = 11;
/// First row and distance of rows of each pass over an interlaced frame.
const PASSES: [(usize, usize); 4] = [(0, 8), (4, 8), (2, 4), (1, 2)];

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let mut blocks = Blocks::of(bytes)?;
    let Some(frame) = blocks.next() else {
        return Err(if blocks.at_end() { damaged("it has no frame") } else { TRUNCATED });
    };
    let global = blocks.palette;
    limits.check_frames(FORMAT, 1 + blocks.count())?;
    let (screen_width, screen_height) = (u32::from(u16_at(bytes, 6)), u32::from(u16_at(bytes, 8)));
    // A frame that sticks out enlarges the image.
    let width = screen_width.max(u32::from(frame.left) + u32::from(frame.width));
    let height = screen_height.max(u32::from(frame.top) + u32::from(frame.height));
    let size = Size { width, height };
    limits.check_size(size)?;
    if frame.width == 0 || frame.height == 0 {
        return Err(damaged("its first frame is empty"));
    }
    let indices = frame.indices()?;
    compose(size, &frame, &indices, &frame.colors(global, mode), mode)
}

/// The frames of a file, by a walk over its blocks that unpacks nothing. What is cut off ends it.
struct Blocks<'a> {
    bytes: &'a [u8],
    at: usize,
    /// For frames without one.
    palette: Option<&'a [u8]>,
}

impl<'a> Blocks<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let flags = *bytes.get(10).ok_or(TRUNCATED)?;
        let end = SCREEN + palette_bytes(flags);
        let palette = bytes.get(SCREEN..end).ok_or(TRUNCATED)?;
        Ok(Self { bytes, at: end, palette: Some(palette).filter(|palette| !palette.is_empty()) })
    }

    /// Whether the walk has come to the mark of the end.
    fn at_end(&self) -> bool {
        self.bytes.get(self.at) == Some(&b';')
    }

    fn frame(&mut self, transparent: Option<u8>) -> Option<Frame<'a>> {
        let place = self.bytes.get(self.at + 1..self.at + 1 + PLACE)?;
        let flags = place[8];
        let palette_at = self.at + 1 + PLACE;
        let code_at = palette_at + palette_bytes(flags);
        let palette = self.bytes.get(palette_at..code_at)?;
        let frame = Frame {
            left: u16_at(place, 0),
            top: u16_at(place, 2),
            width: u16_at(place, 4),
            height: u16_at(place, 6),
            interlaced: flags & 0x40 != 0,
            palette: Some(palette).filter(|palette| !palette.is_empty()),
            transparent,
            code_bits: *self.bytes.get(code_at)?,
            data: self.bytes.get(code_at + 1..)?,
        };
        self.at = end_of_data(self.bytes, code_at + 1).unwrap_or(self.bytes.len());
        Some(frame)
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let mut transparent = None;
        loop {
            match *self.bytes.get(self.at)? {
                b';' => return None,
                b',' => return self.frame(transparent),
                b'!' => {
                    let kind = *self.bytes.get(self.at + 1)?;
                    let first = pieces(&self.bytes[self.at + 2..]).next();
                    if let (CONTROL, Some([flags, _, _, index, ..])) = (kind, first) {
                        transparent = Some(*index).filter(|_| flags & 1 != 0).or(transparent);
                    }
                    self.at = end_of_data(self.bytes, self.at + 2)?;
                }
                _ => self.at += 1,
            }
        }
    }
}

/// Length of the palette that flags announce.
fn palette_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

/// The pieces of up to 255 bytes in which data stands; the one that is empty, or cut off, is the end.
fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first()?;
        let (piece, rest) = rest.split_at_checked(usize::from(*length))?;
        data = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where data in pieces, the last of which is empty, ends.
fn end_of_data(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1 + length;
        if length == 0 {
            return Some(at);
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// A frame as its blocks describe it.
struct Frame<'a> {
    left: u16,
    top: u16,
    width: u16,
    height: u16,
    interlaced: bool,
    palette: Option<&'a [u8]>,
    transparent: Option<u8>,
    /// Bits of an index.
    code_bits: u8,
    /// From its first piece on.
    data: &'a [u8],
}

impl Frame<'_> {
    /// The index of every pixel, rows from the top. `[height, width]`
    fn indices(&self) -> Result<Vec<u8>, ImageError> {
        if self.code_bits > CODE_BITS_MAX {
            return Err(damaged(&format!("its codes begin with {} bits", self.code_bits)));
        }
        let width = usize::from(self.width);
        let mut indices = zeros(width * usize::from(self.height))?;
        let mut decoder =
            Configuration::new(BitOrder::Lsb, self.code_bits).with_yield_on_full_buffer(true).build();
        let mut left = indices.as_mut_slice();
        for mut piece in pieces(self.data) {
            while !left.is_empty() {
                let step = decoder.decode_bytes(piece, left);
                piece = &piece[step.consumed_in..];
                left = &mut left[step.consumed_out..];
                match step.status {
                    Ok(LzwStatus::Ok) => {}
                    Ok(LzwStatus::NoProgress | LzwStatus::Done) => break,
                    Err(error) => return Err(damaged(&error.to_string())),
                }
            }
        }
        if !left.is_empty() {
            return Err(TRUNCATED);
        }
        if self.interlaced { in_order(&indices, width) } else { Ok(indices) }
    }

    /// The colour of each index. The reference takes a palette in which every colour is the gray level of its own
    /// number for no palette, and so shows such a frame in the colours of the screen, where it has others.
    fn colors(&self, global: Option<&[u8]>, mode: ImageMode) -> [[u8; 3]; 256] {
        let own = self.palette.filter(|own| mode == ImageMode::AsSeen || !is_gray_ramp(own));
        let palette = own.or(global).unwrap_or_default();
        if is_gray_ramp(palette) {
            return std::array::from_fn(|i| [i as u8; 3]);
        }
        colors_of(palette)
    }
}

/// The rows of an interlaced frame from the top down.
fn in_order(rows: &[u8], width: usize) -> Result<Vec<u8>, ImageError> {
    let mut sorted = zeros(rows.len())?;
    let height = rows.len() / width;
    let places = PASSES.into_iter().flat_map(|(first, step)| (first..height).step_by(step));
    for (row, y) in rows.chunks_exact(width).zip(places) {
        sorted[y * width..][..width].copy_from_slice(row);
    }
    Ok(sorted)
}

/// Puts the frame on its screen. As people see it, what the frame leaves bare or transparent is see-through; the
/// reference shows it in the colour stored for "transparent", or in colour 0.
fn compose(
    size: Size,
    frame: &Frame<'_>,
    indices: &[u8],
    table: &[[u8; 3]; 256],
    mode: ImageMode,
) -> Result<Raster, ImageError> {
    let color = |i: u8| table[usize::from(i)];
    let clear = frame.transparent.unwrap_or(0);
    let alpha = |i: u8| if frame.transparent == Some(i) { 0 } else { 255 };
    let [r, g, b] = color(clear);
    let bare = match mode {
        ImageMode::AsSeen => [r, g, b, 0],
        ImageMode::Reference => [r, g, b, 255],
    };
    let mut samples = filled(size.pixels() as usize, bare)?.into_flattened();
    let row_bytes = size.width as usize * 4;
    let rows = samples.chunks_exact_mut(row_bytes).skip(usize::from(frame.top));
    for (row, line) in rows.zip(indices.chunks_exact(usize::from(frame.width))) {
        let out = row[usize::from(frame.left) * 4..].chunks_exact_mut(4);
        for (pixel, &i) in out.zip(line) {
            let [r, g, b] = color(i);
            pixel.copy_from_slice(&[r, g, b, alpha(i)]);
        }
    }
    Ok(Raster::new(size, Layout::Rgba, samples))
}

const TRUNCATED: ImageError = ImageError::Truncated { format: FORMAT };

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: reason.to_owned() }
}
