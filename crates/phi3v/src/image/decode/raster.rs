//! The output of the decoders and its conversion to RGB.

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::room::{gathered, room};
use super::super::{ImageMode, RgbImage, Size};

/// The samples of a pixel, 8 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
}

impl Layout {
    /// Samples per pixel.
    pub(super) fn samples(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// A decoded image before transparency and orientation are applied.
pub(super) struct Raster {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) layout: Layout,
    /// `[height, width, samples]`
    pub(super) samples: Vec<u8>,
    /// How the camera was held. A decoder sets it only if the mode applies it.
    pub(super) orientation: Orientation,
}

impl Raster {
    /// Creates an upright image. `samples` must fit the size, which every decoder guarantees by construction.
    pub(super) fn new(size: Size, layout: Layout, samples: Vec<u8>) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        debug_assert_eq!(samples.len(), width * height * layout.samples());
        Self { width, height, layout, samples, orientation: Orientation::Upright }
    }

    /// Converts to RGB: puts transparency on white or drops it, depending on the mode, then turns the image upright.
    pub(super) fn into_rgb(self, mode: ImageMode) -> Result<RgbImage, ImageError> {
        let as_seen = mode == ImageMode::AsSeen;
        let over = |c: u8, a: u8| if as_seen { over_white(c, a) } else { c };
        let samples = &self.samples;
        let bytes = self.width * self.height * 3;
        let pixels = match self.layout {
            Layout::Rgb => self.samples,
            Layout::Gray => gathered(bytes, samples.iter().flat_map(|&v| [v; 3]))?,
            Layout::GrayAlpha => {
                gathered(bytes, samples.chunks_exact(2).flat_map(|p| [over(p[0], p[1]); 3]))?
            }
            Layout::Rgba => {
                let pixel = |p: &[u8]| [over(p[0], p[3]), over(p[1], p[3]), over(p[2], p[3])];
                gathered(bytes, samples.chunks_exact(4).flat_map(pixel))?
            }
        };
        self.orientation.apply(RgbImage { width: self.width, height: self.height, pixels })
    }
}

/// A colour of opacity `alpha` on white: `c*a + 255*(1-a)`, rounded to nearest.
fn over_white(color: u8, alpha: u8) -> u8 {
    let (c, a) = (u32::from(color), u32::from(alpha));
    // at most 255 * 255 + 127, divided by 255: fits in 8 bits
    ((c * a + 255 * (255 - a) + 127) / 255) as u8
}

/// A colour for each of 256 indices; an index without a colour is black.
pub(super) fn colors_of(palette: &[u8]) -> [[u8; 3]; 256] {
    let mut table = [[0; 3]; 256];
    for (entry, color) in table.iter_mut().zip(palette.chunks_exact(3)) {
        entry.copy_from_slice(color);
    }
    table
}

/// Whether every colour of a palette is the gray level of its own index. The palette may be shorter than 256 colours.
pub(super) fn is_gray_ramp(palette: &[u8]) -> bool {
    palette.chunks_exact(3).enumerate().all(|(i, color)| color.iter().all(|v| usize::from(*v) == i))
}

/// Converts amounts of ink, `[pixels, 4]`, to RGB as Pillow does: `light - light * ink / 255` with light = 255 -
/// black, the product rounded to nearest.
pub(super) fn cmyk_to_rgb(samples: &[u8]) -> Result<Vec<u8>, ImageError> {
    let pixel = |p: &[u8]| {
        let light = 255 - p[3];
        let channel = |ink: u8| light - rounded_product(ink, light);
        [channel(p[0]), channel(p[1]), channel(p[2])]
    };
    gathered(samples.len() / 4 * 3, samples.chunks_exact(4).flat_map(pixel))
}

/// `a * b / 255`, rounded to nearest; never more than `b`.
fn rounded_product(a: u8, b: u8) -> u8 {
    let t = u32::from(a) * u32::from(b) + 128;
    (((t >> 8) + t) >> 8) as u8
}

/// Expands samples of 1, 2 or 4 bits to one byte each. The input has the highest bits first and rows padded to whole bytes.
pub(super) fn unpack_bits(
    packed: &[u8],
    width: usize,
    row_bytes: usize,
    bits: usize,
) -> Result<Vec<u8>, ImageError> {
    let mask = ((1_u16 << bits) - 1) as u8;
    let per_byte = 8 / bits;
    let mut samples = room(packed.len() / row_bytes * width)?;
    for row in packed.chunks_exact(row_bytes) {
        let sample = |x: usize| (row[x / per_byte] >> (8 - bits - x % per_byte * bits)) & mask;
        samples.extend((0..width).map(sample));
    }
    Ok(samples)
}

/// Scales samples of `bits` bits to 8 bits: 255 / (2^bits - 1) is an integer for 1, 2, 4 and 8.
pub(super) fn stretch(samples: &mut [u8], bits: usize) {
    let factor = (255 / ((1_u16 << bits) - 1)) as u8;
    samples.iter_mut().for_each(|v| *v *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparency_on_white() {
        assert_eq!(over_white(10, 255), 10);
        assert_eq!(over_white(10, 0), 255);
        assert_eq!(over_white(0, 128), 127);
        for c in 0..=255 {
            assert_eq!(over_white(c, 255), c);
            assert_eq!(over_white(255, c), 255);
        }
    }

    #[test]
    fn bits_are_unpacked_row_by_row() {
        assert_eq!(unpack_bits(&[0b1010_0000, 0b0111_1111], 3, 1, 1).unwrap(), [1, 0, 1, 0, 1, 1]);
        assert_eq!(unpack_bits(&[0b11_10_01_00, 0b1000_0000], 5, 2, 2).unwrap(), [3, 2, 1, 0, 2]);
        let mut samples = unpack_bits(&[0xf0, 0x50], 3, 2, 4).unwrap();
        stretch(&mut samples, 4);
        assert_eq!(samples, [255, 0, 85]);
    }
}
