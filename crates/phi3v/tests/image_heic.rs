//! HEIC against libheif: files of its own encoder, and what its decoder reads from them.
#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![cfg(feature = "heic")]

mod common;

use common::photographs::{LIMITS, Photographs, largest};
use phi3v::image::{ImageError, ImageLimits, ImageMode, RgbImage, decode};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

const HEIC: Photographs = Photographs("heic");

fn read(name: &str, mode: ImageMode) -> RgbImage {
    decode(&HEIC.bytes(name), mode, &LIMITS).unwrap()
}

fn files() -> Vec<Vec<u8>> {
    HEIC.names(18).iter().map(|name| HEIC.bytes(&format!("{name}.heic"))).collect()
}

#[test]
fn pixels_are_libheifs() {
    for mode in [ImageMode::AsSeen, ImageMode::Reference] {
        for name in HEIC.names(18) {
            let difference =
                largest(&read(&format!("{name}.heic"), mode), &read(&format!("{name}.png"), mode));
            assert!(difference <= 1, "{name}: {difference}");
        }
    }
}

#[test]
fn transparency_is_on_white() {
    for mode in [ImageMode::AsSeen, ImageMode::Reference] {
        let difference = largest(&read("alpha.heic", mode), &read("alpha.png", mode));
        assert!(difference <= 2, "{difference}");
    }
    let seen = read("alpha.heic", ImageMode::AsSeen);
    assert!(seen.pixels[..3].iter().all(|value| *value >= 250), "the left is transparent");
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    let bytes = HEIC.bytes("color_420.heic");
    let limited = |limits: ImageLimits| decode(&bytes, ImageMode::AsSeen, &limits).unwrap_err();
    assert!(matches!(limited(ImageLimits { pixels_max: 96 * 64 - 1, ..LIMITS }), ImageError::Pixels { .. }));
    assert!(matches!(limited(ImageLimits { side_max: 95, ..LIMITS }), ImageError::Side { .. }));
    // the size that the file states, made enormous
    let stated = bytes.windows(12).position(|window| window == b"ispe\0\0\0\0\0\0\0\x60").unwrap();
    let mut large = bytes.clone();
    large[stated + 8..stated + 12].copy_from_slice(&0xb504_u32.to_be_bytes());
    large[stated + 12..stated + 16].copy_from_slice(&0xb504_u32.to_be_bytes());
    let refused = decode(&large, ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
    assert!(matches!(refused, ImageError::Pixels { width: 46_340, .. }), "{refused}");
}

#[test]
fn other_codecs_in_the_same_container_are_named() {
    for (brands, format) in [("ftypavif\0\0\0\0mif1", "AVIF"), ("ftypmif1\0\0\0\0avif", "AVIF")] {
        let file = [&(4 + brands.len() as u32).to_be_bytes(), brands.as_bytes()].concat();
        let refused = decode(&file, ImageMode::AsSeen, &LIMITS).unwrap_err();
        let expected = match cfg!(feature = "avif") {
            true => ImageError::OwnProcess { format },
            false => ImageError::UnsupportedFormat { format },
        };
        assert_eq!(refused, expected);
    }
}

/// A box of a file.
fn part(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(8 + content.len() as u32).to_be_bytes(), name.as_slice(), content].concat()
}

/// A grid of 255 x 257 tiles, all of them one and the same, each said to be as large as `side`.
fn grid(side: u32) -> Vec<u8> {
    let tiles = 255_usize * 257;
    let item = |id: u16, kind: &[u8; 4]| {
        part(b"infe", &[&[2, 0, 0, 0], &id.to_be_bytes()[..], &[0, 0], kind, &[0]].concat())
    };
    let items = part(b"iinf", &[&[0, 0, 0, 0, 0, 2], &item(1, b"grid")[..], &item(2, b"hvc1")].concat());
    let mut references = [&1_u16.to_be_bytes()[..], &(tiles as u16).to_be_bytes()].concat();
    references.extend([0, 2].repeat(tiles));
    let references = part(b"iref", &[&[0, 0, 0, 0][..], &part(b"dimg", &references)].concat());
    let size = |side: u32| part(b"ispe", &[&[0; 4][..], &side.to_be_bytes(), &side.to_be_bytes()].concat());
    let properties = part(b"ipco", &[size(side * 255), size(side)].concat());
    let owners = part(b"ipma", &[0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1, 1, 0, 2, 1, 2]);
    let properties = part(b"iprp", &[properties, owners].concat());
    let data = [&[0, 1, 254, 254][..], &(side * 255).to_be_bytes(), &(side * 255).to_be_bytes()].concat();
    let places = part(
        b"iloc",
        &[
            &[1, 0, 0, 0, 0x44, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1][..],
            &[0; 4],
            &(data.len() as u32).to_be_bytes(),
        ]
        .concat(),
    );
    let handler = part(b"hdlr", &[&[0; 8][..], b"pict", &[0; 13]].concat());
    let first = part(b"pitm", &[0, 0, 0, 0, 0, 1]);
    let meta =
        [vec![0; 4], handler, first, items, references, properties, places, part(b"idat", &data)].concat();
    [part(b"ftyp", b"heic\0\0\0\0mif1heic"), part(b"meta", &meta)].concat()
}

#[test]
fn a_grid_of_65_535_tiles_is_refused_by_its_size() {
    for side in [1, 64, 512, 1 << 20] {
        let refused = decode(&grid(side), ImageMode::AsSeen, &ImageLimits::default());
        assert!(refused.is_err(), "{side}");
    }
    let refused = decode(&grid(512), ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
    assert!(matches!(refused, ImageError::Side { .. } | ImageError::Pixels { .. }), "{refused}");
}

#[test]
fn what_is_put_together_is_bounded() {
    let refused = |bytes: &[u8]| decode(bytes, ImageMode::AsSeen, &LIMITS).unwrap_err().to_string();
    // two rows of two tiles of 64 x 64 for 120 x 100 pixels
    let grid = |width, height| {
        HEIC.changed("grid.heic", &[0, 0, 1, 1, 0, 120, 0, 100], &[0, 0, 1, 1, 0, width, 0, height])
    };
    assert!(decode(&grid(128, 128), ImageMode::AsSeen, &LIMITS).is_ok());
    for (width, height) in [(64, 100), (120, 64), (129, 100), (120, 129)] {
        let told = refused(&grid(width, height));
        assert_eq!(told, "the HEIC picture is damaged: its tiles do not fit its size", "{width}x{height}");
    }
    // layers that are the picture itself
    let itself =
        HEIC.changed("layers.heic", b"dimg\0\x01\0\x02\0\x02\0\x02", b"dimg\0\x01\0\x02\0\x01\0\x01");
    assert!(refused(&itself).contains("made of others, too deep"));
    // as many layers of the same picture as the file has room to name
    let bytes = HEIC.bytes("layers.heic");
    let many = many_layers(&bytes, 60_000);
    let told = refused(&many);
    assert!(told.contains("more than a picture of its size can be"), "{told}");
}

/// A file whose picture is so many layers of one and the same, each of 96 x 64 pixels.
fn many_layers(layers: &[u8], count: u16) -> Vec<u8> {
    let find = |name: &[u8]| layers.windows(name.len()).position(|window| window == name).unwrap();
    let whole = |name: &[u8]| {
        let start = find(name) - 4;
        let length = u32::from_be_bytes(layers[start..start + 4].try_into().unwrap()) as usize;
        layers[start..start + length].to_vec()
    };
    let coded = whole(b"mdat")[8..].to_vec();
    // the overlay's own 22 bytes come first
    let coded = &coded[22..];
    let mut overlay = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 90, 0, 60];
    overlay.extend(vec![0; 4 * usize::from(count)]);
    let mut references = [1_u16.to_be_bytes(), count.to_be_bytes()].concat();
    references.extend([0, 2].repeat(count.into()));
    let references = part(b"iref", &[&[0; 4][..], &part(b"dimg", &references)].concat());
    let data = [&overlay, coded].concat();
    let place = |id: u16, start: usize, length: usize| {
        let (start, length) = (start as u32, length as u32);
        [&id.to_be_bytes()[..], &[0, 1, 0, 0, 0, 1], &start.to_be_bytes(), &length.to_be_bytes()].concat()
    };
    let places = [place(1, 0, overlay.len()), place(2, overlay.len(), coded.len())].concat();
    let places = part(b"iloc", &[&[1, 0, 0, 0, 0x44, 0, 0, 2][..], &places].concat());
    let kept: Vec<u8> =
        [&b"hdlr"[..], b"pitm", b"iinf", b"iprp"].iter().flat_map(|name| whole(name)).collect();
    let meta = [vec![0; 4], kept, references, places, part(b"idat", &data)].concat();
    [part(b"ftyp", b"heic\0\0\0\0mif1heic"), part(b"meta", &meta)].concat()
}

#[test]
fn damaged_files_are_read_or_refused() {
    let seeds = files();
    let mut random = Pcg64Mcg::seed_from_u64(18);
    let mut below = |bound: usize| (random.next_u64() % bound.max(1) as u64) as usize;
    let mut whole = 0;
    for round in 0..1000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + below(4) {
            let at = below(bytes.len());
            match below(4) {
                0 | 1 => bytes[at] = below(256) as u8,
                2 => bytes.truncate(at.max(40)),
                _ => drop(bytes.drain(at..(at + below(9)).min(bytes.len()))),
            }
        }
        match decode(&bytes, ImageMode::AsSeen, &LIMITS) {
            Ok(image) => {
                whole += 1;
                assert_eq!(image.pixels.len(), image.width * image.height * 3);
            }
            Err(error) => assert!(!error.to_string().contains('\n') && error.hint().is_some()),
        }
    }
    assert!(whole > 25, "only {whole} were read");
}
