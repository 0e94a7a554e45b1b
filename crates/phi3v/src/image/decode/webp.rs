//! WebP, lossy and lossless, with and without alpha; the first frame of an animation on its canvas.
//!
//! The container is read here, so that sizes are checked before anything is decoded. The first frame of an animation
//! is passed to the decoder as a still image, which is how libwebp treats it: the frame blends onto nothing.

mod animation;
mod groups;

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};
use std::ops::Range;

use image_webp::{DecodingError, WebPDecoder};

pub(super) use animation::Frames;

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::room::zeros;
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster};

const FORMAT: &str = "WebP";
/// Length of `RIFF`, size, `WEBP`.
const RIFF_HEADER: usize = 12;
/// Length of a chunk's name and size.
const CHUNK_HEADER: usize = 8;
/// The header flags for alpha and for an animation.
const ALPHA: u8 = 0x10;
const ANIMATED: u8 = 0x02;
/// All defined flags.
const FLAGS: u8 = 0x3e;
/// Length of an animation frame's position, size, duration and flags.
const FRAME_HEADER: usize = 16;

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let bytes = stated_part(bytes)?;
    let container = Container::read(bytes, limits)?;
    let mut raster = match &container.frame {
        None => still(&container.with_true_flags(bytes), limits)?,
        Some(frame) => on_canvas(still(&frame.as_still(), limits)?, frame, container.canvas)?,
    };
    if mode == ImageMode::AsSeen {
        raster.orientation = container.exif.map(Orientation::from_exif).unwrap_or_default();
    }
    Ok(raster)
}

/// The file up to the length in its header. libwebp reads no further, and refuses a shorter file.
fn stated_part(bytes: &[u8]) -> Result<&[u8], ImageError> {
    let size = bytes.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let part = size.and_then(|size| bytes.get(..size.checked_add(CHUNK_HEADER)?));
    part.filter(|part| part.len() >= RIFF_HEADER).ok_or(ImageError::Truncated { format: FORMAT })
}

/// Decodes a still image. Checks again the size that the decoder has read, since the decoder allocates memory for it.
fn still(bytes: &[u8], limits: &ImageLimits) -> Result<Raster, ImageError> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(error)?;
    let (width, height) = decoder.dimensions();
    let size = Size { width, height };
    limits.check_size(size)?;
    let bytes_out = decoder.output_buffer_size().ok_or_else(|| damaged("it is too large"))?;
    let layout = if decoder.has_alpha() { Layout::Rgba } else { Layout::Rgb };
    let mut samples = zeros(bytes_out)?;
    decoder.read_image(&mut samples).map_err(error)?;
    Ok(Raster::new(size, layout, samples))
}

/// Places the first frame of an animation on its canvas, which is black and fully transparent.
fn on_canvas(frame: Raster, place: &Frame<'_>, canvas: Size) -> Result<Raster, ImageError> {
    let width = canvas.width as usize;
    let mut samples = zeros(width * canvas.height as usize * 4)?;
    let rows = samples.chunks_exact_mut(width * 4).skip(place.top as usize);
    let bytes = frame.layout.samples();
    for (row, line) in rows.zip(frame.samples.chunks_exact(frame.width * bytes)) {
        let out = row[place.left as usize * 4..].chunks_exact_mut(4);
        for (pixel, sample) in out.zip(line.chunks_exact(bytes)) {
            pixel[3] = 255;
            pixel[..bytes].copy_from_slice(sample);
        }
    }
    Ok(Raster::new(canvas, Layout::Rgba, samples))
}

/// The contents of the container.
#[derive(Default)]
struct Container<'a> {
    canvas: Size,
    /// Position of the header's flags, if there is a header.
    flags: Option<usize>,
    /// The flags of the header.
    announced: u8,
    /// Whether the still image has alpha.
    alpha: bool,
    /// Whether a still image has been read.
    still: bool,
    /// Whether the start of an animation has been read.
    animation: bool,
    /// Number of frames of the animation.
    frames: usize,
    exif: Option<&'a [u8]>,
    /// The first frame, if the image is animated.
    frame: Option<Frame<'a>>,
}

/// The first frame of an animation.
struct Frame<'a> {
    left: u32,
    top: u32,
    size: Size,
    /// The frame's chunks, as they would be stored in a still image.
    chunks: &'a [u8],
}

impl<'a> Container<'a> {
    /// Reads the chunks and checks every size that they state.
    fn read(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let mut container = Self::default();
        let mut end = RIFF_HEADER;
        for Chunk { name, body, is_whole } in chunks(bytes, RIFF_HEADER) {
            // the decoder would fill in missing data
            if !is_whole {
                return Err(ImageError::Truncated { format: FORMAT });
            }
            end = body.end + (body.len() & 1);
            container.check_order(name)?;
            container.take(name, &bytes[body.clone()], body.start)?;
            check_codes(name, &bytes[body], container.canvas)?;
            // data after the single chunk of a simple file is not part of the image
            if container.flags.is_none() {
                end = bytes.len();
                break;
            }
        }
        if end != bytes.len() {
            return Err(ImageError::Truncated { format: FORMAT });
        }
        limits.check_size(container.canvas)?;
        limits.check_frames(FORMAT, container.frames)?;
        Ok(container)
    }

    /// Refuses a chunk that libwebp does not accept after the chunks before it.
    fn check_order(&self, name: &[u8; 4]) -> Result<(), ImageError> {
        match name {
            b"ALPH" if self.still && self.announced & ALPHA != 0 => {
                Err(damaged("its alpha stands behind its image"))
            }
            b"VP8 " | b"VP8L" if self.still || self.animation => Err(damaged("it has a second image")),
            b"ANMF" if !self.animation => Err(damaged("it has a frame before its animation begins")),
            _ => Ok(()),
        }
    }

    fn take(&mut self, name: &[u8; 4], body: &'a [u8], start: usize) -> Result<(), ImageError> {
        match name {
            // the decoder uses the first; a later one must not make the image look smaller
            b"VP8X" if self.canvas == Size::default() => {
                self.canvas = canvas_size(body)?;
                (self.flags, self.announced) = (Some(start), body[0]);
                if self.announced & !FLAGS != 0 {
                    return Err(damaged("its header has flags that there are none of"));
                }
            }
            b"ALPH" => self.alpha |= !self.still,
            b"EXIF" => self.exif = self.exif.or(Some(body)),
            b"ANIM" => self.animation = true,
            b"ANMF" => {
                self.frames += 1;
                let frame = Frame::read(body, self.canvas)?;
                self.frame.get_or_insert(frame);
            }
            b"VP8 " | b"VP8L" => {
                self.still = true;
                self.alpha |= name == b"VP8L" && lossless_alpha(body);
                let size = image_size(name, body)?;
                if self.canvas == Size::default() {
                    self.canvas = size;
                }
                check_same(size, self.canvas)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the file with header flags that match its contents. The decoder relies on the flags and reports
    /// announced parts that are missing; libwebp relies on the contents.
    fn with_true_flags<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        self.with_flags(bytes, self.announced & ANIMATED | if self.alpha { ALPHA } else { 0 })
    }

    /// Returns the file with these flags in its header, if it has a header.
    fn with_flags<'b>(&self, bytes: &'b [u8], flags: u8) -> Cow<'b, [u8]> {
        let Some(at) = self.flags.filter(|_| flags != self.announced) else { return Cow::Borrowed(bytes) };
        let mut bytes = bytes.to_vec();
        bytes[at] = flags;
        Cow::Owned(bytes)
    }
}

/// Whether a lossless image states that it has alpha.
fn lossless_alpha(body: &[u8]) -> bool {
    // bit 28, after a signature byte
    body.get(4).is_some_and(|byte| byte & 0x10 != 0)
}

impl<'a> Frame<'a> {
    fn read(body: &'a [u8], canvas: Size) -> Result<Self, ImageError> {
        if body.len() < FRAME_HEADER {
            return Err(ImageError::Truncated { format: FORMAT });
        }
        let chunks_of = &body[FRAME_HEADER..];
        let mut image = None;
        for Chunk { name, body, is_whole } in chunks(chunks_of, 0) {
            if matches!(name, b"VP8 " | b"VP8L") {
                if !is_whole {
                    return Err(ImageError::Truncated { format: FORMAT });
                }
                image = Some((image_size(name, &chunks_of[body.clone()])?, body.end));
                break;
            }
        }
        // libwebp uses the size of the image, not the size in the frame's header
        let (size, end) = image.ok_or(ImageError::Truncated { format: FORMAT })?;
        let chunks_of = &chunks_of[..end + (end & 1)];
        let (left, top) = (three_bytes(body, 0) * 2, three_bytes(body, 3) * 2);
        if left + size.width > canvas.width || top + size.height > canvas.height {
            return Err(damaged("its first frame sticks out of the canvas"));
        }
        for Chunk { name, body, .. } in chunks(chunks_of, 0) {
            check_codes(name, &chunks_of[body], size)?;
        }
        Ok(Self { left, top, size, chunks: chunks_of })
    }

    /// Builds a separate file from the frame.
    fn as_still(&self) -> Vec<u8> {
        let (width, height) = (self.size.width - 1, self.size.height - 1);
        let alpha = match self.chunks.get(..4) {
            Some(b"ALPH") => ALPHA,
            Some(b"VP8L") if self.chunks.get(CHUNK_HEADER..).is_some_and(lossless_alpha) => ALPHA,
            _ => 0,
        };
        let mut still = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0".to_vec();
        still.extend([alpha, 0, 0, 0]);
        still.extend(&width.to_le_bytes()[..3]);
        still.extend(&height.to_le_bytes()[..3]);
        still.extend(self.chunks);
        let riff_size = u32::try_from(still.len() - CHUNK_HEADER).unwrap_or(u32::MAX);
        still[4..8].copy_from_slice(&riff_size.to_le_bytes());
        still
    }
}

/// A chunk of the file.
struct Chunk<'a> {
    name: &'a [u8; 4],
    /// The range of the available contents.
    body: Range<usize>,
    /// Whether the contents and their padding to an even length are complete.
    is_whole: bool,
}

/// Returns the chunks from `at` on. A truncated chunk is the last.
fn chunks(bytes: &[u8], mut at: usize) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; CHUNK_HEADER] = bytes.get(at..at + CHUNK_HEADER)?.try_into().ok()?;
        let (name, size) = header.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
        let start = at + CHUNK_HEADER;
        at = start.checked_add(size)? + (size & 1);
        let is_whole = at <= bytes.len();
        Some(Chunk { name, body: start..(start + size).min(bytes.len()), is_whole })
    })
}

/// Refuses lossless data with more sets of Huffman codes than any encoder writes: the decoder keeps all sets in memory.
fn check_codes(name: &[u8; 4], body: &[u8], size: Size) -> Result<(), ImageError> {
    let stream = match (name, body.first()) {
        // after the signature and the size
        (b"VP8L", _) => body.get(5..),
        // after the flags, whose lowest two bits state the compression
        (b"ALPH", Some(flags)) if flags & 3 == 1 => body.get(1..),
        _ => None,
    };
    match stream.and_then(|stream| groups::count(stream, size)) {
        Some(sets) if sets > groups::MAX => {
            Err(damaged(&format!("it has {sets} sets of Huffman codes, the limit is {}", groups::MAX)))
        }
        // the decoder reports errors in a stream that cannot be counted
        _ => Ok(()),
    }
}

/// Reads the canvas size from a VP8X chunk.
fn canvas_size(body: &[u8]) -> Result<Size, ImageError> {
    if body.len() < 10 {
        return Err(ImageError::Truncated { format: FORMAT });
    }
    Ok(Size { width: three_bytes(body, 4) + 1, height: three_bytes(body, 7) + 1 })
}

/// Reads the size from the first bytes of a bitstream.
fn image_size(name: &[u8; 4], body: &[u8]) -> Result<Size, ImageError> {
    let size = if name == b"VP8 " {
        check_frame_tag(body)?;
        // frame tag (3), start code (3), then 14 bits each and 2 bits of scaling
        body.get(6..10).map(|b| {
            let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Size { width: side(b[0], b[1]), height: side(b[2], b[3]) }
        })
    } else {
        // signature (1), then 14 bits each, minus one
        body.get(1..5).map(|b| {
            let bits = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            Size { width: (bits & 0x3fff) + 1, height: (bits >> 14 & 0x3fff) + 1 }
        })
    };
    size.ok_or(ImageError::Truncated { format: FORMAT })
}

/// Refuses lossy images that libwebp refuses because of their first bits (RFC 6386 section 9.1):
/// - not a key frame
/// - an unknown version
/// - a frame that is not shown
/// - a first partition that is longer than the image
fn check_frame_tag(body: &[u8]) -> Result<(), ImageError> {
    if body.len() < 3 {
        return Err(ImageError::Truncated { format: FORMAT });
    }
    let tag = three_bytes(body, 0);
    let (version, is_shown, partition) = (tag >> 1 & 7, tag >> 4 & 1 == 1, tag >> 5);
    if tag & 1 == 1 || version > 3 || !is_shown || partition as usize >= body.len() {
        return Err(damaged("its first bits are of no still image"));
    }
    Ok(())
}

fn three_bytes(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], 0])
}

fn check_same(size: Size, canvas: Size) -> Result<(), ImageError> {
    if size == canvas {
        return Ok(());
    }
    Err(damaged("its sizes contradict each other"))
}

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: reason.to_owned() }
}

fn error(error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format: FORMAT }
        }
        other => damaged(other.to_string().trim_end_matches('.')),
    }
}
