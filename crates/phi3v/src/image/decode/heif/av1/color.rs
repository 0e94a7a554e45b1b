//! Converts planes to RGB as libavif does at its best quality: in single precision, with shared chroma interpolated
//! between neighbouring samples.

use super::super::super::super::room::room;
use super::super::canvas::Canvas;
use super::super::coding::Coding;
use super::super::{Fault, damaged, unsupported};

/// The matrix derived from the positions of the primaries.
pub(super) const OF_PRIMARIES: u16 = 12;
/// Unspecified primaries.
pub(super) const UNSPECIFIED: u16 = 2;
const IDENTITY: u16 = 0;
/// Weights for interpolating chroma: 9, 3, 3 and 1 of 16 in a square, or 3 and 1 of 4 in a row.
const NEAR: f32 = 9.0 / 16.0;
const BESIDE: f32 = 3.0 / 16.0;
const FAR: f32 = 1.0 / 16.0;

/// The planes of a picture.
pub(super) struct Planes<'a> {
    /// Number of columns that are read.
    pub(super) width: usize,
    /// Number of rows that are read.
    pub(super) height: usize,
    pub(super) chroma_width: usize,
    pub(super) chroma_height: usize,
    /// Bits per sample.
    pub(super) depth: usize,
    /// Whether two columns share their chroma, and whether two rows do.
    pub(super) is_halved: [bool; 2],
    pub(super) luma: Samples<'a>,
    /// Blue and red; `None` for a gray picture.
    pub(super) chroma: Option<[Samples<'a>; 2]>,
}

/// The samples of a plane.
#[derive(Clone, Copy)]
pub(super) struct Samples<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    /// Whether a sample takes two bytes.
    pub(super) is_wide: bool,
}

impl Samples<'_> {
    /// Looks up the first `width` samples of a row in `table`.
    fn row(&self, y: usize, width: usize, table: &[f32], values: &mut Vec<f32>) -> Result<(), Fault> {
        let bytes = width * if self.is_wide { 2 } else { 1 };
        let row = y.checked_mul(self.stride).and_then(|start| self.bytes.get(start..start + bytes));
        let row = row.ok_or_else(|| damaged("its planes are smaller than it"))?;
        let value = |sample: usize| table[sample.min(table.len() - 1)];
        values.clear();
        if self.is_wide {
            let sample = |pair: &[u8]| usize::from(u16::from_ne_bytes([pair[0], pair[1]]));
            values.extend(row.chunks_exact(2).map(|pair| value(sample(pair))));
        } else {
            values.extend(row.iter().map(|sample| value(usize::from(*sample))));
        }
        Ok(())
    }
}

/// Conversion from luma and two chroma values to RGB, all as fractions of their range.
enum Conversion {
    /// Luma only.
    Gray,
    /// The planes are green, blue and red.
    Identity,
    /// Luma, green against magenta and orange against blue.
    YCgCo,
    /// The weights of red and blue in luma.
    Matrix { kr: f32, kb: f32 },
}

impl Conversion {
    fn of(planes: &Planes<'_>, coding: Coding) -> Result<Self, Fault> {
        let Coding { primaries, matrix, .. } = coding;
        let (kr, kb) = match matrix {
            _ if planes.chroma.is_none() => return Ok(Self::Gray),
            IDENTITY if planes.is_halved == [false; 2] => return Ok(Self::Identity),
            8 => return Ok(Self::YCgCo),
            IDENTITY | 3 | 10 | 11 | 13.. => return Err(unsupported(format!("colours by matrix {matrix}"))),
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 => (0.2627, 0.0593),
            OF_PRIMARIES => weights_of(primaries),
            _ => (0.299_f32, 0.114_f32),
        };
        Ok(Self::Matrix { kr, kb })
    }

    fn rgb(&self, [y, cb, cr]: [f32; 3]) -> [f32; 3] {
        match *self {
            Self::Gray => [y; 3],
            Self::Identity => [cr, y, cb],
            Self::YCgCo => {
                let t = y - cb;
                [t + cr, y + cb, t - cr]
            }
            Self::Matrix { kr, kb } => {
                let (without_kr, without_kb) = (1.0 - kr, 1.0 - kb);
                let green = 2.0 * (kr * without_kr * cr + kb * without_kb * cb) / (1.0 - kr - kb);
                [y + 2.0 * without_kr * cr, y - green, y + 2.0 * without_kb * cb]
            }
        }
    }
}

/// The weights of red and blue in luma for these primaries, by equations 32 to 37 of ITU-T H.273.
fn weights_of(primaries: u16) -> (f32, f32) {
    // x and y of red, green, blue and white
    let [r, g, b, w]: [[f32; 2]; 4] = match primaries {
        4 => [[0.67, 0.33], [0.21, 0.71], [0.14, 0.08], [0.310, 0.316]],
        5 => [[0.64, 0.33], [0.29, 0.60], [0.15, 0.06], [0.3127, 0.3290]],
        6 | 7 => [[0.630, 0.340], [0.310, 0.595], [0.155, 0.070], [0.3127, 0.3290]],
        8 => [[0.681, 0.319], [0.243, 0.692], [0.145, 0.049], [0.310, 0.316]],
        9 => [[0.708, 0.292], [0.170, 0.797], [0.131, 0.046], [0.3127, 0.3290]],
        10 => [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.3333, 0.3333]],
        11 => [[0.680, 0.320], [0.265, 0.690], [0.150, 0.060], [0.314, 0.351]],
        12 => [[0.680, 0.320], [0.265, 0.690], [0.150, 0.060], [0.3127, 0.3290]],
        22 => [[0.630, 0.340], [0.295, 0.605], [0.155, 0.077], [0.3127, 0.3290]],
        UNSPECIFIED => return (0.299, 0.114),
        _ => [[0.64, 0.33], [0.30, 0.60], [0.15, 0.06], [0.3127, 0.3290]],
    };
    let z = |[x, y]: [f32; 2]| 1.0 - x - y;
    let cross = |a: [f32; 2], b: [f32; 2]| a[1] * z(b) - b[1] * z(a);
    let white = |first: f32, second: f32, third: f32| w[0] * first + w[1] * second + z(w) * third;
    let under = w[1] * (r[0] * cross(g, b) + g[0] * (b[1] * z(r) - r[1] * z(b)) + b[0] * cross(r, g));
    let kr = r[1] * white(cross(g, b), b[0] * z(g) - g[0] * z(b), g[0] * b[1] - b[0] * g[1]) / under;
    let kb = b[1] * white(cross(r, g), g[0] * z(r) - r[0] * z(g), r[0] * g[1] - g[0] * r[1]) / under;
    (kr, kb)
}

/// Lookup tables from luma and chroma samples to fractions of their range.
struct Tables {
    luma: Vec<f32>,
    chroma: Vec<f32>,
}

impl Tables {
    fn of(depth: usize, is_full_range: bool, conversion: &Conversion) -> Self {
        let most = ((1_u32 << depth) - 1) as f32;
        let scale = (1_u32 << (depth - 8)) as f32;
        let (low, luma, chroma) =
            if is_full_range { (0.0, most, most) } else { (16.0 * scale, 219.0 * scale, 224.0 * scale) };
        let table = |bias: f32, range: f32| (0..1_u32 << depth).map(|v| (v as f32 - bias) / range).collect();
        let chroma = match conversion {
            Conversion::Identity => table(low, luma),
            _ => table((1_u32 << (depth - 1)) as f32, chroma),
        };
        Self { luma: table(low, luma), chroma }
    }
}

/// Converts the picture to RGB.
pub(super) fn to_canvas(planes: &Planes<'_>, coding: Coding) -> Result<Canvas, Fault> {
    let (width, height) = (planes.width, planes.height);
    if !(8..=12).contains(&planes.depth) || planes.chroma_width == 0 || planes.chroma_height == 0 {
        return Err(damaged("its planes are empty"));
    }
    let conversion = Conversion::of(planes, coding)?;
    let tables = Tables::of(planes.depth, coding.is_full_range, &conversion);
    let mut pixels = room(width * height)?;
    let (mut luma, mut blue, mut red) = (Vec::new(), Chroma::default(), Chroma::default());
    let to_byte = |value: f32| (0.5 + value.clamp(0.0, 1.0) * 255.0) as u8;
    for y in 0..height {
        planes.luma.row(y, width, &tables.luma, &mut luma)?;
        if let Some([b, r]) = &planes.chroma {
            blue.read(planes, b, y, &tables.chroma)?;
            red.read(planes, r, y, &tables.chroma)?;
        } else {
            // a chroma of 0 means no colour
            blue.row.resize(width, 0.0);
            red.row.resize(width, 0.0);
        }
        pixels.extend(luma.iter().zip(&blue.row).zip(&red.row).map(|((y, cb), cr)| {
            let [r, g, b] = conversion.rgb([*y, *cb, *cr]).map(to_byte);
            [r, g, b, u8::MAX]
        }));
    }
    Ok(Canvas { width, height, pixels })
}

/// A row of chroma with a value for each pixel, and the two sample rows that it is computed from.
#[derive(Default)]
struct Chroma {
    near: Vec<f32>,
    far: Vec<f32>,
    row: Vec<f32>,
}

impl Chroma {
    /// Computes row `y` of the picture.
    fn read(
        &mut self,
        planes: &Planes<'_>,
        samples: &Samples<'_>,
        y: usize,
        table: &[f32],
    ) -> Result<(), Fault> {
        let columns = planes.chroma_width;
        let [halved_x, halved_y] = planes.is_halved;
        let (near, far) = pair(y, planes.height, planes.chroma_height, halved_y);
        samples.row(near, columns, table, &mut self.near)?;
        if !halved_x {
            self.row.clear();
            self.row.extend_from_slice(&self.near[..planes.width]);
            return Ok(());
        }
        samples.row(far, columns, table, &mut self.far)?;
        self.row.clear();
        let (near, far) = (&self.near, &self.far);
        self.row.extend((0..planes.width).map(|x| {
            let (x, beside) = pair(x, planes.width, columns, true);
            near[x] * NEAR + near[beside] * BESIDE + far[x] * BESIDE + far[beside] * FAR
        }));
        Ok(())
    }
}

/// The chroma sample that covers a pixel and the nearest neighbour of that sample; the same sample twice at an edge.
fn pair(place: usize, pixels: usize, samples: usize, is_halved: bool) -> (usize, usize) {
    if !is_halved {
        return (place, place);
    }
    let within = place / 2;
    let is_odd = place % 2 == 1;
    let beside = match place {
        0 => within,
        _ if !is_odd => within - 1,
        _ if place + 1 == pixels => within,
        _ => (within + 1).min(samples - 1),
    };
    (within, beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coding(matrix: u16, is_full_range: bool) -> Coding {
        Coding { primaries: 1, matrix, is_full_range }
    }

    /// A picture of 4 x 2 pixels with one luma value, whose left and right halves differ in colour.
    fn rgb(luma: &[u8], cb: &[u8], cr: &[u8], coding: Coding) -> Result<Vec<[u8; 3]>, Fault> {
        let samples = |bytes, stride| Samples { bytes, stride, is_wide: false };
        let planes = Planes {
            width: 4,
            height: 2,
            chroma_width: 2,
            chroma_height: 1,
            depth: 8,
            is_halved: [true, true],
            luma: samples(luma, 4),
            chroma: Some([samples(cb, 2), samples(cr, 2)]),
        };
        let canvas = to_canvas(&planes, coding)?;
        Ok(canvas.pixels.iter().map(|[r, g, b, _]| [*r, *g, *b]).collect())
    }

    #[test]
    fn shared_colours_are_blended_with_those_beside() {
        let row = rgb(&[128; 8], &[128, 128], &[128, 228], coding(6, true)).unwrap();
        // red rises by 1.402 times 0, 25, 75 and 100
        let reds: Vec<u8> = row.iter().map(|[red, ..]| *red).collect();
        assert_eq!(reds, [128, 163, 233, 255, 128, 163, 233, 255]);
    }

    #[test]
    fn ranges_and_matrices_are_heeded() {
        let of = |luma, cb, cr, matrix, is_full_range| {
            rgb(&[luma; 8], &[cb; 2], &[cr; 2], coding(matrix, is_full_range)).unwrap()[0]
        };
        assert_eq!(of(16, 128, 128, 1, false), [0, 0, 0]);
        assert_eq!(of(235, 128, 128, 1, false), [255, 255, 255]);
        assert_eq!(of(76, 85, 255, 6, true), [254, 0, 0]);
        assert_eq!(of(100, 138, 128, 8, true), [90, 110, 90]);
        for matrix in [0, 3, 10, 11, 13, 14, 15] {
            let refused = rgb(&[1; 8], &[1; 2], &[1; 2], coding(matrix, true)).unwrap_err();
            assert!(matches!(refused, Fault::Unsupported(_)), "{refused:?}");
        }
        assert!(rgb(&[1; 7], &[1; 2], &[1; 2], coding(6, true)).is_err(), "a plane is short");
    }

    #[test]
    fn primaries_weigh_red_and_blue() {
        // the weights that the standards for these primaries state
        for (primaries, kr, kb) in [(1, 0.2126, 0.0722), (9, 0.2627, 0.0593), (6, 0.2124, 0.0866)] {
            let (red, blue) = weights_of(primaries);
            assert!((red - kr).abs() < 2e-4 && (blue - kb).abs() < 2e-4, "{primaries}: {red} {blue}");
        }
    }
}
