//! GIF: the first frame on its screen.
//!
//! Bytes between blocks that do not begin a block are skipped, as the first edition of the format requires and the
//! reference does. An image without a palette uses gray levels as colours.

use weezl::{BitOrder, LzwStatus, decode::Configuration};

use super::super::error::ImageError;
use super::super::room::{filled, zeros};
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster, colors_of, is_gray_ramp};

const FORMAT: &str = "GIF";
/// Length of the signature and the screen's size, flags, background and pixel aspect ratio.
const SCREEN: usize = 13;
/// Length of a frame's position, size and flags.
const PLACE: usize = 9;
/// The kind of the extension that states the transparent index.
const CONTROL: u8 = 0xf9;
/// The largest initial code size: codes may be one bit longer.
const CODE_BITS_MAX: u8 = 11;
/// First row and row distance of each pass over an interlaced frame.
const PASSES: [(usize, usize); 4] = [(0, 8), (4, 8), (2, 4), (1, 2)];

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let mut blocks = Blocks::of(bytes)?;
    let Some(frame) = blocks.next() else {
        return Err(if blocks.at_end() { damaged("it has no frame") } else { TRUNCATED });
    };
    let global = blocks.palette;
    limits.check_frames(FORMAT, 1 + blocks.count())?;
    let (screen_width, screen_height) = (u32::from(u16_at(bytes, 6)), u32::from(u16_at(bytes, 8)));
    // a frame that extends beyond the screen enlarges the image
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

/// Iterates over the frames of a file by walking its blocks, without decompressing. A truncated block ends the walk.
struct Blocks<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The palette of frames that have none of their own.
    palette: Option<&'a [u8]>,
}

impl<'a> Blocks<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let flags = *bytes.get(10).ok_or(TRUNCATED)?;
        let end = SCREEN + palette_bytes(flags);
        let palette = bytes.get(SCREEN..end).ok_or(TRUNCATED)?;
        Ok(Self { bytes, at: end, palette: Some(palette).filter(|palette| !palette.is_empty()) })
    }

    /// Whether the walk has reached the end marker.
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

/// Length in bytes of the palette that `flags` announce.
fn palette_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

/// Returns the sub-blocks of data, of up to 255 bytes each. An empty or truncated sub-block ends them.
fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first()?;
        let (piece, rest) = rest.split_at_checked(usize::from(*length))?;
        data = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Returns the end of data in sub-blocks, the last of which is empty.
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
    /// The initial code size in bits, that is, the bits of an index.
    code_bits: u8,
    /// The frame's data from its first sub-block on.
    data: &'a [u8],
}

impl Frame<'_> {
    /// The index of every pixel, `[height, width]`, rows from top to bottom.
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

    /// The colour of each index. The reference ignores a palette in which every colour is the gray level of its own
    /// index. It shows such a frame with the palette of the screen, if there is one.
    fn colors(&self, global: Option<&[u8]>, mode: ImageMode) -> [[u8; 3]; 256] {
        let own = self.palette.filter(|own| mode == ImageMode::AsSeen || !is_gray_ramp(own));
        let palette = own.or(global).unwrap_or_default();
        if is_gray_ramp(palette) {
            return std::array::from_fn(|i| [i as u8; 3]);
        }
        colors_of(palette)
    }
}

/// Sorts the rows of an interlaced frame from top to bottom.
fn in_order(rows: &[u8], width: usize) -> Result<Vec<u8>, ImageError> {
    let mut sorted = zeros(rows.len())?;
    let height = rows.len() / width;
    let places = PASSES.into_iter().flat_map(|(first, step)| (first..height).step_by(step));
    for (row, y) in rows.chunks_exact(width).zip(places) {
        sorted[y * width..][..width].copy_from_slice(row);
    }
    Ok(sorted)
}

/// Places the frame on its screen. In [`ImageMode::AsSeen`], pixels that the frame does not cover or that are
/// transparent stay transparent. The reference shows them in the colour stored for the transparent index, or in colour 0.
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
