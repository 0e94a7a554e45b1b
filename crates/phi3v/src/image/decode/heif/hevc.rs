//! Pictures coded with HEVC. Planes are converted to RGB as libheif does, with shared chroma repeated.

use super::super::super::Size;
use super::super::super::room::room;
use super::canvas::Canvas;
use super::coding::{Coding, Role};
use super::{Fault, damaged, unsupported};
use heifer_hevc_dec::Error;
use heifer_hevc_dec::nal::{NalUnit, split_annex_b};
use heifer_hevc_dec::params::{ParameterSets, Pps, Sps};
use heifer_hevc_dec::recon::{Frame, Reconstructor};
use heifer_hevc_dec::slice::SliceHeader;
use heifer_hevc_dec::syntax::{Picture, decode_slice_segment};

/// Factor for limited-range luma after its offset is subtracted: libheif's value for 256 / 219.
const NARROW_LUMA: f32 = 1.1689;
/// Factor for limited-range chroma: libheif's value for 256 / 224.
const NARROW_CHROMA: f32 = 1.1429;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Unimplemented(kind) => unsupported(kind),
            other => damaged(&other.to_string()),
        }
    }
}

/// A picture whose parameters are read but that is not decoded, so that its cost is known beforehand.
pub(super) struct CodedPicture<'a> {
    sets: ParameterSets,
    /// The NAL units of its slices, in stream order.
    slices: Vec<NalUnit<'a>>,
}

impl<'a> CodedPicture<'a> {
    /// Reads the first picture of a stream.
    pub(super) fn of(stream: &'a [u8]) -> Result<Self, Fault> {
        let (mut sets, mut slices) = (ParameterSets::default(), Vec::new());
        for part in split_annex_b(stream) {
            let part = NalUnit::parse(part)?;
            if part.header.unit_type.is_slice() {
                let is_first = part.rbsp.first().is_some_and(|byte| byte & 0x80 != 0);
                if is_first && !slices.is_empty() {
                    // the next picture begins
                    break;
                }
                slices.push(part);
            } else if slices.is_empty() {
                // parameters after a slice belong to another picture
                sets.add(&part)?;
            }
        }
        Ok(Self { sets, slices })
    }

    /// Returns the parameters of the whole picture, which are those of its first slice.
    fn parameters(&self) -> Result<(&Pps, &Sps), Fault> {
        let first = self.slices.first().ok_or_else(|| damaged("there is no picture in it"))?;
        let header = SliceHeader::parse(&first.rbsp, &first.header, &self.sets, None)?;
        Ok(self.sets.get(header.slice_pic_parameter_set_id.into())?)
    }

    /// Returns the size of the decoded picture. A cropping window may reduce it to any smaller size.
    pub(super) fn size(&self) -> Result<Size, Fault> {
        let (_, sps) = self.parameters()?;
        Ok(Size { width: sps.pic_width_in_luma_samples, height: sps.pic_height_in_luma_samples })
    }

    /// Decodes the planes. Every block is decoded once: a slice must begin where the previous one ended.
    pub(super) fn decode(&self) -> Result<Frame, Fault> {
        let (pps, sps) = self.parameters()?;
        let mut picture = Picture::new(sps, pps);
        let mut planes = Reconstructor::new(sps, pps);
        let mut previous = None;
        for slice in &self.slices {
            let header = SliceHeader::parse(&slice.rbsp, &slice.header, &self.sets, previous.as_ref())?;
            let own = self.sets.get(header.slice_pic_parameter_set_id.into())?;
            let start = picture.layout.rs_to_ts.get(header.slice_segment_address as usize);
            if !std::ptr::eq(own.0, pps) || start != Some(&picture.decoded_ctbs) {
                return Err(damaged("its slices do not follow each other"));
            }
            planes.start_slice(&header);
            let data = slice.rbsp.get(header.header_size..).unwrap_or_default();
            decode_slice_segment(&mut picture, &header, header.slice_qp_y(&self.sets)?, data, &mut planes)?;
            if let Some(error) = planes.error.take() {
                return Err(error.into());
            }
            if !header.dependent_slice_segment_flag {
                previous = Some(header);
            }
        }
        if !picture.is_complete() {
            return Err(damaged("a part of its picture is missing"));
        }
        let frame = planes.finish(false);
        Ok(if sps.conf_win_offsets == [0; 4] { frame } else { frame.cropped(sps) })
    }
}

/// The colour coding that the coded picture itself states.
fn coding_of(frame: &Frame) -> Coding {
    const UNKNOWN: u16 = 2;
    Coding { primaries: UNKNOWN, matrix: frame.matrix_coeffs.into(), is_full_range: frame.full_range }
}

/// Conversion from luma and two chroma values to RGB.
enum Conversion {
    /// Luma only.
    Gray,
    /// The planes are green, blue and red.
    Identity,
    /// Luma, green against magenta and orange against blue.
    YCgCo,
    /// The amounts that chroma adds to luma.
    Matrix { r_cr: f32, g_cb: f32, g_cr: f32, b_cb: f32 },
}

impl Conversion {
    fn of(matrix: u16, is_gray: bool) -> Result<Self, Fault> {
        // weights of red and blue in luma
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

/// Converts samples of one depth and range to RGB.
struct Converter {
    conversion: Conversion,
    is_full_range: bool,
    /// Bits per sample.
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

    /// Rounds at the depth of the samples and keeps the upper 8 bits.
    fn to_byte(&self, value: f32) -> u8 {
        let most = (1_i32 << self.depth) - 1;
        (((value + 0.5) as i32).clamp(0, most) >> (self.depth - 8)) as u8
    }
}

/// Converts the picture's first `width` columns and `height` rows; the rest is padding, and the picture may have
/// fewer. Colours follow `coding` or, without it, the coding that the picture states.
pub(super) fn to_canvas(
    frame: &Frame,
    coding: Option<Coding>,
    role: Role,
    width: usize,
    height: usize,
) -> Result<Canvas, Fault> {
    let coding = coding.unwrap_or_else(|| coding_of(frame));
    let (coded_width, coded_height) = (frame.widths[0] as usize, frame.heights[0] as usize);
    let (width, height) = (width.min(coded_width), height.min(coded_height));
    let is_gray = frame.chroma_format == 0 || role == Role::Alpha;
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
    let mut pixels = room(width * height)?;
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
    use heifer_isobmff::HeifFile;

    /// A picture of 4 x 2 pixels with one luma value, whose left and right halves differ in colour.
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

    fn rgb(frame: &Frame, coding: Option<Coding>) -> Vec<[u8; 3]> {
        let canvas = to_canvas(frame, coding, Role::Color, 4, 2).unwrap();
        canvas.pixels.iter().map(|[r, g, b, _]| [*r, *g, *b]).collect()
    }

    #[test]
    fn shared_colours_are_repeated() {
        let frame = frame(128, [128, 0], [128, 255], 8);
        let (gray, other) = ([128, 128, 128], [255, 81, 0]);
        let expected = [gray, gray, other, other, gray, gray, other, other];
        assert_eq!(rgb(&frame, None), expected);
    }

    #[test]
    fn ranges_and_matrices_are_heeded() {
        let of = |luma, cb, cr, matrix, is_full_range| {
            rgb(&frame(luma, [cb; 2], [cr; 2], 8), Some(Coding { primaries: 1, matrix, is_full_range }))[0]
        };
        assert_eq!(of(16, 128, 128, 1, false), [0, 0, 0]);
        assert_eq!(of(235, 128, 128, 1, false), [255, 255, 255]);
        assert_eq!(of(76, 85, 255, 6, true), [254, 0, 0]);
        assert_eq!(of(1, 2, 3, 0, true), [3, 1, 2]);
        assert_eq!(of(100, 138, 128, 8, true), [90, 110, 90]);
        let frame = frame(1, [1; 2], [1; 2], 8);
        for matrix in [11, 14] {
            let coding = Coding { primaries: 1, matrix, is_full_range: true };
            let refused = to_canvas(&frame, Some(coding), Role::Color, 4, 2).err().unwrap();
            assert!(matches!(refused, Fault::Unsupported(_)), "{refused:?}");
        }
    }

    #[test]
    fn transparency_is_luma() {
        let frame = frame(77, [0; 2], [255; 2], 8);
        let canvas = to_canvas(&frame, None, Role::Alpha, 4, 2).unwrap();
        assert!(canvas.pixels.iter().all(|pixel| pixel[0] == 77));
    }

    #[test]
    fn of_ten_bits_the_upper_eight_are_kept() {
        let deep = frame(515, [512; 2], [512; 2], 10);
        assert_eq!(rgb(&deep, None)[0], [128, 128, 128]);
        let mixed = Frame { bit_depth: [8, 10], ..deep };
        assert!(to_canvas(&mixed, None, Role::Color, 4, 2).is_err());
    }

    /// A slice of `picture` that is not its first one but repeats its blocks from the beginning.
    fn repeated(picture: &CodedPicture<'_>) -> NalUnit<'static> {
        let first = &picture.slices[0];
        let header = SliceHeader::parse(&first.rbsp, &first.header, &picture.sets, None).unwrap();
        let (_, sps) = picture.parameters().unwrap();
        let (width, height) = sps.pic_size_in_ctbs();
        let address_bits = (width * height).next_power_of_two().ilog2() as usize;
        let bits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:08b}")).collect::<String>();
        let head = bits(&first.rbsp[..header.header_size]);
        // fields: first slice in the picture, omit output of earlier pictures, parameter set 0
        assert_eq!((&head[..1], &head[2..3], header.slice_pic_parameter_set_id), ("1", "1", 0));
        let fields = head[3..].trim_end_matches('0').strip_suffix('1').unwrap();
        let mut changed = format!("0{}{}{fields}1", &head[1..3], "0".repeat(address_bits));
        changed.push_str(&"0".repeat(changed.len().next_multiple_of(8) - changed.len()));
        let bytes = changed.as_bytes().chunks(8);
        let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 2).unwrap();
        let rbsp =
            bytes.map(byte).chain(first.rbsp[header.header_size..].iter().copied()).collect::<Vec<_>>();
        NalUnit { header: first.header, rbsp: rbsp.into() }
    }

    #[test]
    fn blocks_are_decoded_once() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/heic");
        let stream = |name| {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            let file = HeifFile::parse(&bytes).unwrap();
            file.hevc_bitstream(file.primary_id).unwrap()
        };
        let whole = stream("color_420.heic");
        let mut picture = CodedPicture::of(&whole).unwrap();
        assert!(picture.decode().is_ok());
        let again = repeated(&picture);
        picture.slices.extend(std::iter::repeat_n(again, 3));
        let refused = picture.decode().err().unwrap();
        assert_eq!(refused, damaged("its slices do not follow each other"));
    }
}
