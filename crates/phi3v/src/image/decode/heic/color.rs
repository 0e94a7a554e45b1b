//! From the planes of a coded picture to RGB, as libheif does it: colours that pixels share are repeated.

use super::super::super::error::ImageError;
use super::canvas::Canvas;
use super::{damaged, unsupported};
use heifer_hevc_dec::recon::Frame;

/// What luma of the narrow range is multiplied by after its offset is taken off: libheif's number, 256 / 219.
const NARROW_LUMA: f32 = 1.1689;
/// What chroma of the narrow range is multiplied by: libheif's number, 256 / 224.
const NARROW_CHROMA: f32 = 1.1429;

/// How samples stand for colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    /// `matrix_coefficients` of ITU-T H.273.
    pub(super) matrix: u16,
    /// Whether samples use all of their range.
    pub(super) is_full_range: bool,
}

impl Coding {
    /// What the coded picture says of itself.
    pub(super) fn of_frame(frame: &Frame) -> Self {
        Self { matrix: frame.matrix_coeffs.into(), is_full_range: frame.full_range }
    }
}

/// From luma and two chromas to RGB.
enum Conversion {
    /// There is luma only.
    Gray,
    /// The planes are green, blue and red.
    Identity,
    /// Luma, green against magenta, orange against blue.
    YCgCo,
    /// What chroma adds to luma.
    Matrix { r_cr: f32, g_cb: f32, g_cr: f32, b_cb: f32 },
}

impl Conversion {
    fn of(matrix: u16, is_gray: bool) -> Result<Self, ImageError> {
        // the weights of red and blue in luma
        let (kr, kb) = match matrix {
            _ if is_gray => return Ok(Self::Gray),
            0 => return Ok(Self::Identity),
            8 => return Ok(Self::YCgCo),
            11 | 14 => return Err(unsupported(format!("colours by matrix {matrix}"))),
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 | 10 => (0.2627, 0.0593),
            _ => (0.299_f32, 0.114_f32),
        };
        Ok(Self::Matrix {
            r_cr: 2.0 * (1.0 - kr),
            g_cb: 2.0 * kb * (1.0 - kb) / (kb + kr - 1.0),
            g_cr: 2.0 * kr * (1.0 - kr) / (kb + kr - 1.0),
            b_cb: 2.0 * (1.0 - kb),
        })
    }
}

/// Makes RGB of samples of one depth and range.
struct Converter {
    conversion: Conversion,
    is_full_range: bool,
    /// Bits of a sample.
    depth: u8,
}

impl Converter {
    fn pixel(&self, [y, cb, cr]: [u16; 3]) -> [u8; 4] {
        let half = (1_u32 << (self.depth - 1)) as f32;
        let offset = if self.is_full_range { 0.0 } else { (16_u32 << (self.depth - 8)) as f32 };
        let (luma_scale, chroma_scale) =
            if self.is_full_range { (1.0, 1.0) } else { (NARROW_LUMA, NARROW_CHROMA) };
        let luma = (f32::from(y) - offset) * luma_scale;
        let chroma = |sample: u16| (f32::from(sample) - half) * chroma_scale;
        let [r, g, b] = match self.conversion {
            Conversion::Gray => [luma; 3],
            Conversion::Identity => {
                let plane = |sample: u16| (f32::from(sample) - offset) * chroma_scale;
                [plane(cr), luma, plane(cb)]
            }
            Conversion::YCgCo => {
                let (cg, co) = (chroma(cb), chroma(cr));
                [luma - cg + co, luma + cg, luma - cg - co]
            }
            Conversion::Matrix { r_cr, g_cb, g_cr, b_cb } => {
                let (cb, cr) = (chroma(cb), chroma(cr));
                [luma + r_cr * cr, luma + g_cb * cb + g_cr * cr, luma + b_cb * cb]
            }
        };
        [self.to_byte(r), self.to_byte(g), self.to_byte(b), u8::MAX]
    }

    /// Rounded at the depth of the samples, of which the upper 8 bits are kept.
    fn to_byte(&self, value: f32) -> u8 {
        let most = (1_i32 << self.depth) - 1;
        (((value + 0.5) as i32).clamp(0, most) >> (self.depth - 8)) as u8
    }
}

/// The picture's first `width` columns and `height` rows, of which it may have fewer: what is coded beyond is padding.
pub(super) fn to_canvas(
    frame: &Frame,
    coding: Coding,
    width: usize,
    height: usize,
) -> Result<Canvas, ImageError> {
    let (coded_width, coded_height) = (frame.widths[0] as usize, frame.heights[0] as usize);
    let (width, height) = (width.min(coded_width), height.min(coded_height));
    let is_gray = frame.chroma_format == 0;
    let [depth, chroma_depth] = frame.bit_depth;
    if !(8..=16).contains(&depth) || (!is_gray && depth != chroma_depth) {
        return Err(unsupported(format!("{depth} bits of luma and {chroma_depth} of chroma")));
    }
    let conversion = Conversion::of(coding.matrix, is_gray)?;
    let converter = Converter { conversion, is_full_range: coding.is_full_range, depth };
    let (shift_x, shift_y) =
        (usize::from(matches!(frame.chroma_format, 1 | 2)), usize::from(frame.chroma_format == 1));
    let chroma_width = frame.widths[1] as usize;
    let chroma_rows = frame.heights[1] as usize;
    if !is_gray && (chroma_width == 0 || chroma_rows == 0) {
        return Err(damaged("it has no colours"));
    }
    let mut pixels = Vec::with_capacity(width * height);
    for y in 0..height {
        let luma = &frame.planes[0][y * coded_width..][..width];
        if is_gray {
            pixels.extend(luma.iter().map(|&luma| converter.pixel([luma, 0, 0])));
            continue;
        }
        let start = (y >> shift_y).min(chroma_rows - 1) * chroma_width;
        let (cb, cr) = (&frame.planes[1][start..], &frame.planes[2][start..]);
        pixels.extend(luma.iter().enumerate().map(|(x, &luma)| {
            let x = (x >> shift_x).min(chroma_width - 1);
            converter.pixel([luma, cb[x], cr[x]])
        }));
    }
    Ok(Canvas { width, height, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of 4 x 2 pixels of one luma, whose left and right half have other colours.
    fn frame(luma: u16, cb: [u16; 2], cr: [u16; 2], depth: u8) -> Frame {
        Frame {
            widths: [4, 2, 2],
            heights: [2, 1, 1],
            planes: [vec![luma; 8], cb.to_vec(), cr.to_vec()],
            bit_depth: [depth; 2],
            chroma_format: 1,
            full_range: true,
            matrix_coeffs: 6,
        }
    }

    fn rgb(frame: &Frame, coding: Coding) -> Vec<[u8; 3]> {
        let canvas = to_canvas(frame, coding, 4, 2).unwrap();
        canvas.pixels.iter().map(|[r, g, b, _]| [*r, *g, *b]).collect()
    }

    #[test]
    fn shared_colours_are_repeated() {
        let frame = frame(128, [128, 0], [128, 255], 8);
        let (gray, other) = ([128, 128, 128], [255, 81, 0]);
        let expected = [gray, gray, other, other, gray, gray, other, other];
        assert_eq!(rgb(&frame, Coding::of_frame(&frame)), expected);
    }

    #[test]
    fn ranges_and_matrices_are_heeded() {
        let of = |luma, cb, cr, matrix, is_full_range| {
            rgb(&frame(luma, [cb; 2], [cr; 2], 8), Coding { matrix, is_full_range })[0]
        };
        assert_eq!(of(16, 128, 128, 1, false), [0, 0, 0]);
        assert_eq!(of(235, 128, 128, 1, false), [255, 255, 255]);
        assert_eq!(of(76, 85, 255, 6, true), [254, 0, 0]);
        assert_eq!(of(1, 2, 3, 0, true), [3, 1, 2]);
        assert_eq!(of(100, 138, 128, 8, true), [90, 110, 90]);
        let frame = frame(1, [1; 2], [1; 2], 8);
        for matrix in [11, 14] {
            let refused = to_canvas(&frame, Coding { matrix, is_full_range: true }, 4, 2).err().unwrap();
            assert!(matches!(refused, ImageError::UnsupportedKind { .. }), "{refused}");
        }
    }

    #[test]
    fn of_ten_bits_the_upper_eight_are_kept() {
        let deep = frame(515, [512; 2], [512; 2], 10);
        assert_eq!(rgb(&deep, Coding::of_frame(&deep))[0], [128, 128, 128]);
        let mixed = Frame { bit_depth: [8, 10], ..deep };
        assert!(to_canvas(&mixed, Coding::of_frame(&mixed), 4, 2).is_err());
    }
}
