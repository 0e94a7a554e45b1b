//! Converts samples to gray or RGB.

use super::super::raster::{Layout, Raster, cmyk_to_rgb, stretch};
use super::compression::Compression;
use super::header::{Header, Photometric};
use super::ycbcr::YCbCr;
use super::{ImageError, ImageMode, Size, gathered, tag};

impl Header<'_> {
    /// Converts samples, `[height, width, samples]`, to gray or RGB, with alpha if there is any.
    pub(super) fn raster(&self, mut samples: Vec<u8>) -> Result<Raster, ImageError> {
        let size = Size { width: self.width, height: self.height };
        if self.is_gray() && self.bits < 8 {
            stretch(&mut samples, self.bits);
        }
        // Pillow does not invert gray of more than 8 bits
        let keep = self.bits > 8 && self.mode == ImageMode::Reference;
        if self.photometric == Photometric::WhiteIsZero && !keep {
            samples.chunks_exact_mut(self.samples).for_each(|pixel| pixel[0] = 255 - pixel[0]);
        }
        // the JPEG decoder has already converted interleaved YCbCr to RGB
        let converted = self.compression == Compression::Jpeg && !self.planar;
        if self.photometric == Photometric::YCbCr && !converted {
            let table = YCbCr::read(&self.directory)?;
            for pixel in samples.chunks_exact_mut(self.samples) {
                let rgb = table.to_rgb([pixel[0], pixel[1], pixel[2]]);
                pixel[..3].copy_from_slice(&rgb);
            }
        }
        let alpha = self.alpha();
        let layout = match (self.photometric, self.samples) {
            (Photometric::WhiteIsZero | Photometric::BlackIsZero, 1) => Some(Layout::Gray),
            (Photometric::Rgb | Photometric::YCbCr, 3) => Some(Layout::Rgb),
            _ => None,
        };
        if let Some(layout) = layout {
            return Ok(Raster::new(size, layout, samples));
        }
        let (pixels, count) = (samples.chunks_exact(self.samples), size.pixels() as usize);
        Ok(match (self.photometric, alpha) {
            (Photometric::Cmyk, _) => {
                let ink = gathered(count * 4, pixels.flat_map(|p| [p[0], p[1], p[2], p[3]]))?;
                Raster::new(size, Layout::Rgb, cmyk_to_rgb(&ink)?)
            }
            (Photometric::Palette, _) => {
                let table = self.palette()?;
                let opacity = |p: &[u8]| if alpha.is_some() { p[1] } else { 255 };
                let pixel = |p: &[u8]| {
                    let [r, g, b] = table[usize::from(p[0])];
                    [r, g, b, opacity(p)]
                };
                Raster::new(size, Layout::Rgba, gathered(count * 4, pixels.flat_map(pixel))?)
            }
            (Photometric::WhiteIsZero | Photometric::BlackIsZero, None) => {
                Raster::new(size, Layout::Gray, gathered(count, pixels.map(|p| p[0]))?)
            }
            (Photometric::WhiteIsZero | Photometric::BlackIsZero, Some(alpha)) => {
                let pixel = |p: &[u8]| [alpha.color(p[0], p[1]), p[1]];
                Raster::new(size, Layout::GrayAlpha, gathered(count * 2, pixels.flat_map(pixel))?)
            }
            (Photometric::Rgb | Photometric::YCbCr, None) => {
                Raster::new(size, Layout::Rgb, gathered(count * 3, pixels.flat_map(|p| [p[0], p[1], p[2]]))?)
            }
            (Photometric::Rgb | Photometric::YCbCr, Some(alpha)) => {
                let pixel = |p: &[u8]| {
                    let [r, g, b] = [p[0], p[1], p[2]].map(|c| alpha.color(c, p[3]));
                    [r, g, b, p[3]]
                };
                Raster::new(size, Layout::Rgba, gathered(count * 4, pixels.flat_map(pixel))?)
            }
        })
    }

    /// Returns the kind of the first extra sample if it is alpha. If RGB has four samples and the file does not
    /// describe the fourth, it is taken as alpha.
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

    /// Reads the palette: all reds, all greens, all blues, 16 bits each.
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

/// Whether colours are premultiplied by alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alpha {
    Plain,
    Premultiplied,
}

impl Alpha {
    /// Returns the colour with premultiplication undone.
    fn color(self, color: u8, alpha: u8) -> u8 {
        match (self, alpha) {
            (Self::Plain, _) | (_, 255) => color,
            (_, 0) => 0,
            _ => (u32::from(color) * 255 / u32::from(alpha)).min(255) as u8,
        }
    }
}
