//! Pictures coded with AV1.
//!
//! The decoder panics inside functions that must not unwind, so a panic ends the process.

mod color;

use super::canvas::Canvas;
use super::coding::{Coding, Role};
use super::{Fault, damaged, unsupported};
use color::{Planes, Samples};
use heifer_isobmff::boxes::Property;
use heifer_isobmff::{HeifFile, ItemId};
use re_rav1d::pixel::YUVRange;
use re_rav1d::{Decoder, Error, Picture, PixelLayout, PlanarImageComponent, Settings};

/// Maximum number of attempts to get a picture from the decoder, which may consume its data in any number of parts.
const ATTEMPTS_MAX: usize = 1000;
/// The layer selector that means "all layers".
const ALL_LAYERS: [u8; 2] = [0xff, 0xff];

/// Decodes the planes of an item, which may have up to `pixels_max` pixels.
pub(super) fn decode(
    file: &HeifFile<'_>,
    id: ItemId,
    pixels_max: u64,
    threads: usize,
) -> Result<Picture, Fault> {
    let mut settings = Settings::new();
    settings.set_n_threads(u32::try_from(threads).unwrap_or(1));
    settings.set_max_frame_delay(1);
    settings.set_all_layers(false);
    // 0 would mean no limit
    settings.set_frame_size_limit(u32::try_from(pixels_max.max(1)).unwrap_or(u32::MAX));
    for property in file.item_properties(id)? {
        match property {
            Property::Unknown(kind, content) if &kind.0 == b"a1op" => {
                let point = content.first().filter(|point| **point < 32);
                let point = point.ok_or_else(|| damaged("its operating point is none"))?;
                settings.set_operating_point((*point).into());
            }
            Property::Unknown(kind, content) if &kind.0 == b"lsel" && content[..] != ALL_LAYERS => {
                return Err(unsupported("one of several layers"));
            }
            _ => {}
        }
    }
    first_picture(&settings, file.item_data(id)?.into_owned()).map_err(|error| match error {
        Error::Again => damaged("there is no picture in it"),
        Error::UnsupportedBitstream => unsupported("a kind of AV1 that is not decoded"),
        other => damaged(&other.to_string().to_lowercase()),
    })
}

fn first_picture(settings: &Settings, data: Vec<u8>) -> Result<Picture, Error> {
    let mut decoder = Decoder::with_settings(settings)?;
    let mut sent = decoder.send_data(data, None, None, None);
    for _ in 0..ATTEMPTS_MAX {
        match (decoder.get_picture(), sent) {
            (Err(Error::Again), Err(Error::Again)) => sent = decoder.send_pending_data(),
            (Err(Error::Again), Err(error)) => return Err(error),
            (got, _) => return got,
        }
    }
    Err(Error::Again)
}

/// The colour coding that the coded picture itself states.
fn coding_of(picture: &Picture) -> Coding {
    let matrix = picture.matrix_coefficients() as u16;
    let primaries =
        if matrix == color::OF_PRIMARIES { picture.color_primaries() as u16 } else { color::UNSPECIFIED };
    Coding { primaries, matrix, is_full_range: picture.color_range() == YUVRange::Full }
}

/// Converts the picture's first `width` columns and `height` rows; the picture may have fewer. Colours follow `coding`
/// or, without it, the coding that the picture states.
pub(super) fn to_canvas(
    picture: &Picture,
    coding: Option<Coding>,
    role: Role,
    width: usize,
    height: usize,
) -> Result<Canvas, Fault> {
    let coding = coding.unwrap_or_else(|| coding_of(picture));
    let depth = picture.bits_per_component().ok_or_else(|| damaged("its samples have no depth"))?.0;
    let (shift_x, shift_y) = match picture.pixel_layout() {
        PixelLayout::I420 => (1, 1),
        PixelLayout::I422 => (1, 0),
        PixelLayout::I400 | PixelLayout::I444 => (0, 0),
    };
    let is_gray = picture.pixel_layout() == PixelLayout::I400 || role == Role::Alpha;
    let (coded_width, coded_height) = (picture.width() as usize, picture.height() as usize);
    let plane = |component| {
        let stride = picture.stride(component) as usize;
        (picture.plane(component), stride)
    };
    let (luma, stride) = plane(PlanarImageComponent::Y);
    let wide = depth > 8;
    let chroma = (!is_gray).then(|| [PlanarImageComponent::U, PlanarImageComponent::V].map(plane));
    let planes = Planes {
        width: width.min(coded_width),
        height: height.min(coded_height),
        chroma_width: coded_width.div_ceil(1 << shift_x),
        chroma_height: coded_height.div_ceil(1 << shift_y),
        depth,
        is_halved: [shift_x == 1, shift_y == 1],
        luma: Samples { bytes: &luma, stride, is_wide: wide },
        chroma: chroma.as_ref().map(|planes| {
            planes.each_ref().map(|(bytes, stride)| Samples { bytes, stride: *stride, is_wide: wide })
        }),
    };
    color::to_canvas(&planes, coding)
}
