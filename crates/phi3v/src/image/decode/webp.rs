//! WebP, lossy and lossless, with and without alpha; of an animation the first frame on its canvas.
//!
//! The container is walked here: sizes are checked before anything is decoded, and the first frame of an animation
//! is handed to the decoder as a still image, which is how libwebp treats it (it blends onto nothing).

mod groups;

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};
use std::ops::Range;

use image_webp::{DecodingError, WebPDecoder};

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster};

const FORMAT: &str = "WebP";
/// Length of `RIFF`, size, `WEBP`.
const RIFF_HEADER: usize = 12;
/// Length of a chunk's name and size.
const CHUNK_HEADER: usize = 8;
/// The flags of a header that say that there is alpha, and an animation.
const ALPHA: u8 = 0x10;
const ANIMATED: u8 = 0x02;
/// Length of an animation frame's position, size, duration and flags.
const FRAME_HEADER: usize = 16;

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let container = Container::read(bytes, limits)?;
    let mut raster = match &container.frame {
        None => still(&container.with_true_flags(bytes), limits)?,
        Some(frame) => on_canvas(still(&frame.as_still(), limits)?, frame, container.canvas),
    };
    if mode == ImageMode::AsSeen {
        raster.orientation = container.exif.map(Orientation::from_exif).unwrap_or_default();
    }
    Ok(raster)
}

/// Decodes a still image. Its size is checked again as the decoder has read it, which is what it takes memory for.
fn still(bytes: &[u8], limits: &ImageLimits) -> Result<Raster, ImageError> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(error)?;
    let (width, height) = decoder.dimensions();
    let size = Size { width, height };
    limits.check_size(size)?;
    let bytes_out = decoder.output_buffer_size().ok_or_else(|| damaged("it is too large"))?;
    let layout = if decoder.has_alpha() { Layout::Rgba } else { Layout::Rgb };
    let mut samples = vec![0; bytes_out];
    decoder.read_image(&mut samples).map_err(error)?;
    Ok(Raster::new(size, layout, samples))
}

/// Puts the first frame of an animation on its canvas, which is black and fully transparent.
fn on_canvas(frame: Raster, place: &Frame<'_>, canvas: Size) -> Raster {
    let width = canvas.width as usize;
    let mut samples = vec![0; width * canvas.height as usize * 4];
    let rows = samples.chunks_exact_mut(width * 4).skip(place.top as usize);
    let bytes = frame.layout.samples();
    for (row, line) in rows.zip(frame.samples.chunks_exact(frame.width * bytes)) {
        let out = row[place.left as usize * 4..].chunks_exact_mut(4);
        for (pixel, sample) in out.zip(line.chunks_exact(bytes)) {
            pixel[3] = 255;
            pixel[..bytes].copy_from_slice(sample);
        }
    }
    Raster::new(canvas, Layout::Rgba, samples)
}

/// What the container says.
#[derive(Default)]
struct Container<'a> {
    canvas: Size,
    /// Where the flags of the header stand, if it has one.
    flags: Option<usize>,
    /// Whether the still image has alpha.
    alpha: bool,
    /// Whether the walk has passed a still image.
    still: bool,
    exif: Option<&'a [u8]>,
    /// The first frame, if the image is animated.
    frame: Option<Frame<'a>>,
}

/// The first frame of an animation.
struct Frame<'a> {
    left: u32,
    top: u32,
    size: Size,
    /// Its chunks, as they stand in a still image.
    chunks: &'a [u8],
}

impl<'a> Container<'a> {
    /// Walks the chunks and checks every size they announce.
    fn read(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let mut container = Self::default();
        // The decoder makes up what is missing at the end.
        let stated = bytes.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
        if stated.is_none_or(|size| size > bytes.len() - CHUNK_HEADER) {
            return Err(ImageError::Truncated { format: FORMAT });
        }
        let mut frames = 0;
        for (name, range) in chunks(bytes, RIFF_HEADER) {
            let body = &bytes[range.clone()];
            match name {
                // the decoder goes by the first; a later one must not make the image look smaller
                b"VP8X" if container.canvas == Size::default() => {
                    container.canvas = canvas_size(body)?;
                    container.flags = Some(range.start);
                }
                b"ALPH" => container.alpha |= !container.still,
                b"EXIF" => container.exif = container.exif.or(Some(body)),
                b"ANMF" => {
                    frames += 1;
                    if container.frame.is_none() {
                        container.frame = Some(Frame::read(body, container.canvas)?);
                    }
                }
                b"VP8 " | b"VP8L" => {
                    container.still = true;
                    container.alpha |= name == b"VP8L" && lossless_alpha(body);
                    let size = image_size(name, body)?;
                    if container.canvas == Size::default() {
                        container.canvas = size;
                    }
                    check_same(size, container.canvas)?;
                }
                _ => {}
            }
            check_codes(name, body, container.canvas)?;
        }
        limits.check_size(container.canvas)?;
        limits.check_frames(FORMAT, frames)?;
        Ok(container)
    }

    /// The file with flags in its header that are true. The decoder goes by them, and misses what they announce;
    /// libwebp goes by what is there.
    fn with_true_flags<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let Some(at) = self.flags else { return Cow::Borrowed(bytes) };
        let flags = bytes[at] & ANIMATED | if self.alpha { ALPHA } else { 0 };
        if flags == bytes[at] {
            return Cow::Borrowed(bytes);
        }
        let mut bytes = bytes.to_vec();
        bytes[at] = flags;
        Cow::Owned(bytes)
    }
}

/// Whether a lossless image says that it has alpha.
fn lossless_alpha(body: &[u8]) -> bool {
    // bit 28 behind a signature byte
    body.get(4).is_some_and(|byte| byte & 0x10 != 0)
}

impl<'a> Frame<'a> {
    fn read(body: &'a [u8], canvas: Size) -> Result<Self, ImageError> {
        if body.len() < FRAME_HEADER {
            return Err(ImageError::Truncated { format: FORMAT });
        }
        let frame = Self {
            left: three_bytes(body, 0) * 2,
            top: three_bytes(body, 3) * 2,
            size: Size { width: three_bytes(body, 6) + 1, height: three_bytes(body, 9) + 1 },
            chunks: &body[FRAME_HEADER..],
        };
        if frame.left + frame.size.width > canvas.width || frame.top + frame.size.height > canvas.height {
            return Err(damaged("its first frame sticks out of the canvas"));
        }
        for (name, body) in chunks(frame.chunks, 0) {
            let body = &frame.chunks[body];
            if matches!(name, b"VP8 " | b"VP8L") {
                check_same(image_size(name, body)?, frame.size)?;
            }
            check_codes(name, body, frame.size)?;
        }
        Ok(frame)
    }

    /// The frame as a file of its own.
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

/// Names and bodies of the chunks from `at` on; a chunk that is cut off ends the walk.
fn chunks(bytes: &[u8], mut at: usize) -> impl Iterator<Item = (&[u8; 4], Range<usize>)> {
    std::iter::from_fn(move || {
        let header: &[u8; CHUNK_HEADER] = bytes.get(at..at + CHUNK_HEADER)?.try_into().ok()?;
        let (name, size) = header.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
        let start = at + CHUNK_HEADER;
        let end = start.checked_add(size)?.min(bytes.len());
        // Bodies are padded to an even length.
        at = end + (size & 1);
        Some((name, start..end))
    })
}

/// Refuses lossless data with more sets of Huffman codes than any encoder makes: the decoder keeps them all.
fn check_codes(name: &[u8; 4], body: &[u8], size: Size) -> Result<(), ImageError> {
    let stream = match (name, body.first()) {
        // behind the signature and the size
        (b"VP8L", _) => body.get(5..),
        // behind the flags, whose lowest two bits say how it is compressed
        (b"ALPH", Some(flags)) if flags & 3 == 1 => body.get(1..),
        _ => None,
    };
    match stream.and_then(|stream| groups::count(stream, size)) {
        Some(sets) if sets > groups::MAX => {
            Err(damaged(&format!("it has {sets} sets of Huffman codes, the limit is {}", groups::MAX)))
        }
        // of what the walk does not understand the decoder will say what is wrong
        _ => Ok(()),
    }
}

/// The canvas in a VP8X chunk.
fn canvas_size(body: &[u8]) -> Result<Size, ImageError> {
    if body.len() < 10 {
        return Err(ImageError::Truncated { format: FORMAT });
    }
    Ok(Size { width: three_bytes(body, 4) + 1, height: three_bytes(body, 7) + 1 })
}

/// The size in the first bytes of a bitstream.
fn image_size(name: &[u8; 4], body: &[u8]) -> Result<Size, ImageError> {
    let size = if name == b"VP8 " {
        // Frame tag (3), start code (3), then 14 bits each and 2 of scaling.
        body.get(6..10).map(|b| {
            let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Size { width: side(b[0], b[1]), height: side(b[2], b[3]) }
        })
    } else {
        // Signature (1), then 14 bits each, less one.
        body.get(1..5).map(|b| {
            let bits = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            Size { width: (bits & 0x3fff) + 1, height: (bits >> 14 & 0x3fff) + 1 }
        })
    };
    size.ok_or(ImageError::Truncated { format: FORMAT })
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
