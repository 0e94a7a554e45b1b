//! WebP, lossy and lossless, with and without alpha; of an animation the first frame on its canvas.
//!
//! The container is walked here: sizes are checked before anything is decoded, and the first frame of an animation
//! is handed to the decoder as a still image, which is how libwebp treats it (it blends onto nothing).

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
/// The flags of a header that say that there is alpha, and an animation.
const ALPHA: u8 = 0x10;
const ANIMATED: u8 = 0x02;
/// All flags that there are.
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

/// The file as long as its header says: libwebp reads no further, and refuses a shorter one.
fn stated_part(bytes: &[u8]) -> Result<&[u8], ImageError> {
    let size = bytes.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let part = size.and_then(|size| bytes.get(..size.checked_add(CHUNK_HEADER)?));
    part.filter(|part| part.len() >= RIFF_HEADER).ok_or(ImageError::Truncated { format: FORMAT })
}

/// Decodes a still image. Its size is checked again as the decoder has read it, which is what it takes memory for.
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

/// Puts the first frame of an animation on its canvas, which is black and fully transparent.
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

/// What the container says.
#[derive(Default)]
struct Container<'a> {
    canvas: Size,
    /// Where the flags of the header stand, if it has one.
    flags: Option<usize>,
    /// What these flags say.
    announced: u8,
    /// Whether the still image has alpha.
    alpha: bool,
    /// Whether the walk has passed a still image.
    still: bool,
    /// Whether the walk has passed the head of an animation.
    animation: bool,
    /// Frames of the animation.
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
    /// Its chunks, as they stand in a still image.
    chunks: &'a [u8],
}

impl<'a> Container<'a> {
    /// Walks the chunks and checks every size they announce.
    fn read(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let mut container = Self::default();
        let mut end = RIFF_HEADER;
        for Chunk { name, body, is_whole } in chunks(bytes, RIFF_HEADER) {
            // the decoder makes up what is missing
            if !is_whole {
                return Err(ImageError::Truncated { format: FORMAT });
            }
            end = body.end + (body.len() & 1);
            container.check_order(name)?;
            container.take(name, &bytes[body.clone()], body.start)?;
            check_codes(name, &bytes[body], container.canvas)?;
            // what follows the one chunk of a simple file is no part of it
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

    /// Refuses a chunk that libwebp does not take after those before it.
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
            // the decoder goes by the first; a later one must not make the image look smaller
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

    /// The file with flags in its header that are true. The decoder goes by them, and misses what they announce;
    /// libwebp goes by what is there.
    fn with_true_flags<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        self.with_flags(bytes, self.announced & ANIMATED | if self.alpha { ALPHA } else { 0 })
    }

    /// The file with these flags in its header, if it has one.
    fn with_flags<'b>(&self, bytes: &'b [u8], flags: u8) -> Cow<'b, [u8]> {
        let Some(at) = self.flags.filter(|_| flags != self.announced) else { return Cow::Borrowed(bytes) };
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
        // libwebp goes by the size of the image and not by that of the frame's header
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

/// A part of the file.
struct Chunk<'a> {
    name: &'a [u8; 4],
    /// Where its contents are, as far as they are there.
    body: Range<usize>,
    /// Whether they are all there, and what fills them up to an even length.
    is_whole: bool,
}

/// The chunks from `at` on; one that is cut off ends the walk.
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
        check_frame_tag(body)?;
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

/// Refuses what libwebp does by the first bits of a lossy image (RFC 6386 section 9.1): no key frame, an unknown version,
/// a frame that is not shown, a first partition longer than the image.
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
