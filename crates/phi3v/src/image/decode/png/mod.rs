//! PNG of every colour type and depth, interlaced or not; the default image of an animated PNG.

mod chunks;

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use png::{BitDepth, ColorType, DecodeOptions, DecodingError, Info, Transformations};

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::room::{gathered, zeros};
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster, colors_of, stretch, unpack_bits};

const FORMAT: &str = "PNG";

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let whole = chunks::with_end(bytes);
    let cut = matches!(whole, Cow::Owned(_));
    decode_whole(&whole, mode, limits).map_err(|error| match error {
        ImageError::Damaged { .. } if cut => ImageError::Truncated { format: FORMAT },
        other => other,
    })
}

/// Decodes a file that has an end chunk.
fn decode_whole(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    // a damaged tRNS would silently change the pixels; the reference refuses it as well
    options.set_skip_ancillary_crc_failures(false);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_transformations(Transformations::IDENTITY);
    let header = decoder.read_header_info().map_err(error)?;
    limits.check_size(Size { width: header.width, height: header.height })?;
    let mut reader = decoder.read_info().map_err(error)?;
    if let Some(animation) = reader.info().animation_control() {
        limits.check_frames(FORMAT, animation.num_frames as usize)?;
    }
    let bytes_out = reader.output_buffer_size().ok_or(ImageError::Pixels {
        width: reader.info().width,
        height: reader.info().height,
        limit: limits.pixels_max,
    })?;
    // colours and transparency after the pixels are ignored
    let info = reader.info().clone();
    if info.color_type == ColorType::Indexed && info.palette.is_none() {
        return Err(damaged("its palette does not stand before its pixels"));
    }
    let mut packed = zeros(bytes_out)?;
    let frame = reader.next_frame(&mut packed).map_err(error)?;
    if (frame.width, frame.height) != reader.info().size() {
        return Err(damaged("its first frame does not cover it"));
    }
    // EXIF may come after the pixels; damage after the pixels is ignored
    let _ = reader.finish();
    let mut raster = raster(&info, packed, frame.line_size, mode)?;
    if mode == ImageMode::AsSeen {
        let own = reader.info().exif_metadata.as_ref().and_then(|exif| Orientation::in_exif(exif));
        raster.orientation = own.or_else(|| chunks::orientation(bytes)).unwrap_or_default();
    }
    Ok(raster)
}

/// Converts packed rows to 8-bit samples.
fn raster(info: &Info<'_>, packed: Vec<u8>, row_bytes: usize, mode: ImageMode) -> Result<Raster, ImageError> {
    let (layout, samples) = match (info.color_type, info.bit_depth) {
        (ColorType::Indexed, depth) => palette(info, &indices(info, packed, row_bytes, depth)?, mode)?,
        (color, BitDepth::Sixteen) => sixteen_bits(info, color, &packed, mode)?,
        (ColorType::Grayscale, depth) => gray(info, indices(info, packed, row_bytes, depth)?, mode)?,
        (ColorType::Rgb, _) => rgb(info, packed, mode)?,
        (ColorType::GrayscaleAlpha, _) => (Layout::GrayAlpha, packed),
        (ColorType::Rgba, _) => (Layout::Rgba, packed),
    };
    if samples.len() != info.width as usize * info.height as usize * layout.samples() {
        return Err(damaged("its rows do not fit its size"));
    }
    Ok(Raster::new(Size { width: info.width, height: info.height }, layout, samples))
}

/// Returns one byte per sample of an image with one sample per pixel.
fn indices(
    info: &Info<'_>,
    packed: Vec<u8>,
    row_bytes: usize,
    depth: BitDepth,
) -> Result<Vec<u8>, ImageError> {
    match depth as usize {
        bits @ (1 | 2 | 4) => unpack_bits(&packed, info.width as usize, row_bytes, bits),
        _ => Ok(packed),
    }
}

/// 8-bit samples and their layout.
type Samples = Result<(Layout, Vec<u8>), ImageError>;

/// Looks up the palette colour of each index.
fn palette(info: &Info<'_>, indices: &[u8], mode: ImageMode) -> Samples {
    let table = colors_of(info.palette.as_deref().unwrap_or_default());
    let color = |&i: &u8| table[usize::from(i)];
    let Some(alphas) = info.trns.as_deref().filter(|_| mode == ImageMode::AsSeen) else {
        return Ok((Layout::Rgb, gathered(indices.len() * 3, indices.iter().flat_map(color))?));
    };
    let pixel = |i: &u8| {
        let [r, g, b] = color(i);
        [r, g, b, alphas.get(usize::from(*i)).copied().unwrap_or(255)]
    };
    Ok((Layout::Rgba, gathered(indices.len() * 4, indices.iter().flat_map(pixel))?))
}

/// Gray of up to 8 bits. A transparent level, if there is one, becomes alpha.
fn gray(info: &Info<'_>, mut samples: Vec<u8>, mode: ImageMode) -> Samples {
    let bits = info.bit_depth as usize;
    let Some([clear]) = transparent_color(info, mode) else {
        stretch(&mut samples, bits);
        return Ok((Layout::Gray, samples));
    };
    let factor = 255 / ((1_u16 << bits) - 1);
    let pixel = |&v: &u8| [(u16::from(v) * factor) as u8, opacity(u16::from(v) == clear)];
    Ok((Layout::GrayAlpha, gathered(samples.len() * 2, samples.iter().flat_map(pixel))?))
}

/// RGB of 8 bits. A transparent colour, if there is one, becomes alpha.
fn rgb(info: &Info<'_>, samples: Vec<u8>, mode: ImageMode) -> Samples {
    let Some(clear) = transparent_color::<3>(info, mode) else {
        return Ok((Layout::Rgb, samples));
    };
    let pixel = |p: &[u8]| {
        let hit = [p[0], p[1], p[2]].map(u16::from) == clear;
        [p[0], p[1], p[2], opacity(hit)]
    };
    Ok((Layout::Rgba, gathered(samples.len() / 3 * 4, samples.chunks_exact(3).flat_map(pixel))?))
}

/// 16-bit samples: keeps the high byte. The reference treats 16-bit gray without alpha differently: it clips at 255,
/// so nearly all of an ordinary image turns white.
fn sixteen_bits(info: &Info<'_>, color: ColorType, packed: &[u8], mode: ImageMode) -> Samples {
    let count = packed.len() / 2;
    let values = packed.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let high = |v: u16| (v >> 8) as u8;
    match color {
        ColorType::Grayscale => {
            if let Some([clear]) = transparent_color(info, mode) {
                let pixels = values.flat_map(|v| [high(v), opacity(v == clear)]);
                return Ok((Layout::GrayAlpha, gathered(count * 2, pixels)?));
            }
            let level = |v: u16| match mode {
                ImageMode::AsSeen => high(v),
                ImageMode::Reference => v.min(255) as u8,
            };
            Ok((Layout::Gray, gathered(count, values.map(level))?))
        }
        ColorType::GrayscaleAlpha => Ok((Layout::GrayAlpha, gathered(count, values.map(high))?)),
        ColorType::Rgba => Ok((Layout::Rgba, gathered(count, values.map(high))?)),
        ColorType::Rgb | ColorType::Indexed => {
            let Some(clear) = transparent_color::<3>(info, mode) else {
                return Ok((Layout::Rgb, gathered(count, values.map(high))?));
            };
            let pixel = |p: &[u8]| {
                let color = [0, 2, 4].map(|at| u16::from_be_bytes([p[at], p[at + 1]]));
                [high(color[0]), high(color[1]), high(color[2]), opacity(color == clear)]
            };
            Ok((Layout::Rgba, gathered(count / 3 * 4, packed.chunks_exact(6).flat_map(pixel))?))
        }
    }
}

/// Returns the transparent colour of an image without alpha, in [`ImageMode::AsSeen`] only. The decoder stores it in
/// as many bytes per sample as the pixels have.
fn transparent_color<const N: usize>(info: &Info<'_>, mode: ImageMode) -> Option<[u16; N]> {
    let bytes = info.trns.as_deref().filter(|_| mode == ImageMode::AsSeen)?;
    if info.bit_depth == BitDepth::Sixteen {
        let color = bytes.get(..N * 2)?;
        return Some(std::array::from_fn(|c| u16::from_be_bytes([color[c * 2], color[c * 2 + 1]])));
    }
    let color: &[u8; N] = bytes.first_chunk()?;
    Some(color.map(u16::from))
}

fn opacity(clear: bool) -> u8 {
    if clear { 0 } else { 255 }
}

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: reason.to_owned() }
}

fn error(error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format: FORMAT }
        }
        other => damaged(&plain(&other.to_string())),
    }
}

/// The decoder's message without debug output of chunk types: `ChunkType { type: IHDR, ... }` becomes `IHDR`.
fn plain(text: &str) -> String {
    let parts = text.trim_end_matches('.').split_once("ChunkType { type: ");
    let Some((before, rest)) = parts else { return text.trim_end_matches('.').to_owned() };
    let (name, rest) = rest.split_once(',').unwrap_or((rest, ""));
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    format!("{before}{}{after}", name.escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_types_are_named_and_not_dumped() {
        let text = "Chunk length wrong: ChunkType { type: IHDR, critical: true, private: false } chunk.";
        assert_eq!(plain(text), "Chunk length wrong: IHDR chunk");
        assert_eq!(plain("Corrupt deflate stream."), "Corrupt deflate stream");
    }
}
