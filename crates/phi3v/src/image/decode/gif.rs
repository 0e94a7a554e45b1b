//! GIF, the first frame on its screen.

use gif::{DecodeOptions, DecodingError, Frame, MemoryLimit};

use super::super::error::ImageError;
use super::super::{ImageLimits, ImageMode};
use super::raster::{Layout, Raster, colors_of};

const FORMAT: &str = "GIF";

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let screen = |at: usize| bytes.get(at..at + 2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])));
    let (Some(screen_width), Some(screen_height)) = (screen(6), screen(8)) else {
        return Err(ImageError::Truncated { format: FORMAT });
    };
    limits.check_frames(FORMAT, count_frames(bytes))?;
    let mut options = DecodeOptions::new();
    // The limits are checked here, before a buffer is made.
    options.set_memory_limit(MemoryLimit::Unlimited);
    options.allow_unknown_blocks(true);
    let mut decoder = options.read_info(bytes).map_err(error)?;
    let Some(frame) = decoder.next_frame_info().map_err(error)?.cloned() else {
        return Err(damaged("it has no frame"));
    };
    // A frame that sticks out enlarges the picture.
    let width = screen_width.max(u32::from(frame.left) + u32::from(frame.width));
    let height = screen_height.max(u32::from(frame.top) + u32::from(frame.height));
    limits.check_size(width, height)?;
    if frame.width == 0 || frame.height == 0 {
        return Err(damaged("its first frame is empty"));
    }
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(error)?;
    let table = colors_of(decoder.palette().map_err(error)?);
    Ok(compose((width, height), &frame, &indices, &table, mode))
}

/// Frames of the file, by a walk over its blocks that unpacks nothing. What the walk does not understand ends it: the
/// decoder will say what is wrong.
fn count_frames(bytes: &[u8]) -> usize {
    const SCREEN: usize = 13;
    /// Left, top, width, height, flags.
    const PLACE: usize = 9;
    let palette = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut frames = 0;
    let mut at = SCREEN + bytes.get(10).map_or(0, |flags| palette(*flags));
    loop {
        let data = match bytes.get(at) {
            // an extension and its kind
            Some(b'!') => at + 2,
            Some(b',') => {
                let Some(flags) = bytes.get(at + PLACE) else { return frames };
                frames += 1;
                // the size of the first code
                at + 1 + PLACE + palette(*flags) + 1
            }
            _ => return frames,
        };
        let Some(end) = end_of_data(bytes, data) else { return frames };
        at = end;
    }
}

/// Where data in pieces of up to 255 bytes, the last of which is empty, ends.
fn end_of_data(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1 + length;
        if length == 0 {
            return Some(at);
        }
    }
}

/// Puts the frame on its screen. As people see it, what the frame leaves bare or transparent is see-through; the
/// reference shows it in the colour stored for "transparent", or in colour 0.
fn compose(
    (width, height): (u32, u32),
    frame: &Frame<'_>,
    indices: &[u8],
    table: &[[u8; 3]; 256],
    mode: ImageMode,
) -> Raster {
    let color = |i: u8| table[usize::from(i)];
    let clear = frame.transparent.unwrap_or(0);
    let alpha = |i: u8| if frame.transparent == Some(i) { 0 } else { 255 };
    let [r, g, b] = color(clear);
    let bare: &[u8] = match mode {
        ImageMode::AsSeen => &[r, g, b, 0],
        ImageMode::Reference => &[r, g, b, 255],
    };
    let pixels = width as usize * height as usize;
    let mut samples = bare.repeat(pixels);
    let row_bytes = width as usize * 4;
    let rows = samples.chunks_exact_mut(row_bytes).skip(usize::from(frame.top));
    for (row, line) in rows.zip(indices.chunks_exact(usize::from(frame.width))) {
        let out = row[usize::from(frame.left) * 4..].chunks_exact_mut(4);
        for (pixel, &i) in out.zip(line) {
            let [r, g, b] = color(i);
            pixel.copy_from_slice(&[r, g, b, alpha(i)]);
        }
    }
    Raster::new((width, height), Layout::Rgba, samples)
}

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: reason.to_owned() }
}

fn error(error: DecodingError) -> ImageError {
    match error {
        DecodingError::UnexpectedEof => ImageError::Truncated { format: FORMAT },
        other => damaged(other.to_string().trim_end_matches('.')),
    }
}
