//! Converts YCbCr to RGB as libtiff does (TIFF 6.0 section 21). JPEG is converted by its own decoder.

use super::directory::Directory;
use super::{ImageError, damaged, room, tag};

/// Fractional bits of the products.
const SHIFT: u32 = 16;
const HALF: i32 = 1 << (SHIFT - 1);
/// Limit for values beyond the black and white points, so that extreme points cannot overflow.
const CODE_MAX: f32 = 4096.0;

/// The amounts that each sample adds to red, green and blue.
pub(super) struct YCbCr {
    luma: [i32; 256],
    cr_to_red: [i32; 256],
    cb_to_blue: [i32; 256],
    /// With [`SHIFT`] fractional bits, including the rounding half.
    cb_to_green: [i32; 256],
    cr_to_green: [i32; 256],
}

impl YCbCr {
    /// Reads the directory's coefficients (tag 529) and black and white points (tag 532).
    pub(super) fn read(directory: &Directory<'_>) -> Result<Self, ImageError> {
        let read = |tag, default: &[f32]| -> Result<Vec<f32>, ImageError> {
            let values = directory.floats(tag)?;
            Ok(if values.len() < default.len() { default.to_vec() } else { values })
        };
        let luma = read(tag::YCBCR_COEFFICIENTS, &[0.299, 0.587, 0.114])?;
        let points = read(tag::REFERENCE_BLACK_WHITE, &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0])?;
        if luma.iter().any(|value| value.is_nan()) || luma[1] == 0.0 {
            return Err(damaged("its YCbCr coefficients cannot be used"));
        }
        if points.iter().any(|value| value.is_nan() || value.abs() >= i32::MAX as f32) {
            return Err(damaged("its black and white points cannot be used"));
        }
        Ok(Self::new(&luma, &points))
    }

    fn new(luma: &[f32], points: &[f32]) -> Self {
        let fixed = |value: f32| {
            let value = if value >= 0.0 { value.min(2.0) } else { 0.0 };
            (f64::from(value * 65_536.0) + 0.5) as i32
        };
        let (red, blue) = (2.0 - 2.0 * luma[0], 2.0 - 2.0 * luma[2]);
        let (cr_to_red, cb_to_blue) = (fixed(red), fixed(blue));
        let cr_to_green = -fixed(luma[0] * red / luma[1]);
        let cb_to_green = -fixed(luma[2] * blue / luma[1]);
        // the integer part of the black point is subtracted, and the result scaled to the range
        let code = |sample: i32, black: f32, white: f32, range: f32| {
            let span = if white - black == 0.0 { 1.0 } else { white - black };
            (sample.saturating_sub(black as i32) as f32 * range / span).clamp(-CODE_MAX, CODE_MAX) as i32
        };
        let mut tables = Self {
            luma: [0; 256],
            cr_to_red: [0; 256],
            cb_to_blue: [0; 256],
            cb_to_green: [0; 256],
            cr_to_green: [0; 256],
        };
        for i in 0..256 {
            let sample = i as i32;
            let cr = code(sample - 128, points[4] - 128.0, points[5] - 128.0, 127.0);
            let cb = code(sample - 128, points[2] - 128.0, points[3] - 128.0, 127.0);
            tables.luma[i] = code(sample, points[0], points[1], 255.0);
            tables.cr_to_red[i] = (cr_to_red * cr + HALF) >> SHIFT;
            tables.cb_to_blue[i] = (cb_to_blue * cb + HALF) >> SHIFT;
            tables.cr_to_green[i] = cr_to_green * cr;
            tables.cb_to_green[i] = cb_to_green * cb + HALF;
        }
        tables
    }

    /// Converts one pixel.
    pub(super) fn to_rgb(&self, [y, cb, cr]: [u8; 3]) -> [u8; 3] {
        let [y, cb, cr] = [y, cb, cr].map(usize::from);
        let luma = self.luma[y];
        let green = (self.cb_to_green[cb] + self.cr_to_green[cr]) >> SHIFT;
        [luma + self.cr_to_red[cr], luma + green, luma + self.cb_to_blue[cb]].map(|v| v.clamp(0, 255) as u8)
    }
}

/// How many pixels share a pair of chroma samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subsampling {
    pub(super) across: usize,
    pub(super) down: usize,
}

impl Subsampling {
    /// One pair for every pixel.
    pub(super) const NONE: Self = Self { across: 1, down: 1 };

    /// Reads tag 530; if it is absent, subsampling is 2 by 2.
    pub(super) fn read(directory: &Directory<'_>) -> Result<Self, ImageError> {
        let values = directory.values(tag::YCBCR_SUBSAMPLING)?;
        let (across, down) = match values[..] {
            [across, down, ..] => (across, down),
            _ => (2, 2),
        };
        let known = matches!((across, down), (1 | 2 | 4, 1) | (1 | 2 | 4, 2) | (4, 4));
        if !known {
            return Err(damaged(&format!("its colours are subsampled {across} by {down}")));
        }
        Ok(Self { across: across as usize, down: down as usize })
    }

    /// Bytes of a row of blocks. A block holds the luma of `across * down` pixels, then one Cb and one Cr.
    pub(super) fn block_row_bytes(self, width: usize) -> usize {
        width.div_ceil(self.across) * (self.across * self.down + 2)
    }

    /// Expands blocks to pixels. `[rows, width, 3]`
    pub(super) fn spread(self, blocks: &[u8], width: usize, rows: usize) -> Result<Vec<u8>, ImageError> {
        let mut pixels = room(width * rows * 3)?;
        let block_bytes = self.across * self.down + 2;
        for y in 0..rows {
            let line = &blocks[y / self.down * self.block_row_bytes(width)..];
            for x in 0..width {
                let block = &line[x / self.across * block_bytes..][..block_bytes];
                let luma = block[y % self.down * self.across + x % self.across];
                pixels.extend([luma, block[block_bytes - 2], block[block_bytes - 1]]);
            }
        }
        Ok(pixels)
    }
}
