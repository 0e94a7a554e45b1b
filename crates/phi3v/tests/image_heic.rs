//! HEIC against libheif: files of its own encoder, and what its decoder reads from them.
#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![cfg(feature = "heic")]

use phi3v::image::{ImageError, ImageLimits, ImageMode, RgbImage, decode};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::path::{Path, PathBuf};

const LIMITS: ImageLimits =
    ImageLimits { bytes_max: 1 << 20, pixels_max: 1 << 20, side_max: 4096, frames_max: 100 };

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/heic")
}

fn read(name: &str, mode: ImageMode) -> RgbImage {
    decode(&std::fs::read(folder().join(name)).unwrap(), mode, &LIMITS).unwrap()
}

fn files() -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "heic"));
    paths.sort();
    assert_eq!(paths.len(), 9);
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// The largest difference of a value.
fn largest(ours: &RgbImage, theirs: &RgbImage) -> u8 {
    assert_eq!((ours.width, ours.height), (theirs.width, theirs.height));
    ours.pixels.iter().zip(&theirs.pixels).map(|(ours, theirs)| ours.abs_diff(*theirs)).max().unwrap()
}

#[test]
fn pixels_are_libheifs() {
    for mode in [ImageMode::AsSeen, ImageMode::Reference] {
        for (name, most) in [("color_444", 1), ("lossless", 1), ("gray", 0), ("odd", 0), ("ten_bits", 1)] {
            let difference =
                largest(&read(&format!("{name}.heic"), mode), &read(&format!("{name}.png"), mode));
            assert!(difference <= most, "{name}: {difference}");
        }
    }
}

#[test]
fn brightness_is_libheifs_where_pixels_share_colours() {
    // libheif repeats shared colours, and others blend from one to the next, so that only the brightness is the same
    let brightness = |image: &RgbImage| -> Vec<f32> {
        let weigh = |p: &[u8]| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]);
        image.pixels.chunks_exact(3).map(weigh).collect()
    };
    for name in ["color_420", "color_422", "thumbnail"] {
        let ours = brightness(&read(&format!("{name}.heic"), ImageMode::AsSeen));
        let theirs = brightness(&read(&format!("{name}.png"), ImageMode::AsSeen));
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let sum: f32 = ours.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs()).sum();
        let mean = sum / ours.len() as f32;
        assert!(mean < 2.0, "{name}: {mean}");
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
    let bytes = std::fs::read(folder().join("color_420.heic")).unwrap();
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
        assert_eq!(refused, ImageError::UnsupportedFormat { format });
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
fn damaged_files_are_read_or_refused() {
    let seeds = files();
    let mut random = Pcg64Mcg::seed_from_u64(18);
    let mut below = |bound: usize| (random.next_u64() % bound.max(1) as u64) as usize;
    let mut whole = 0;
    for round in 0..500 {
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
    assert!(whole > 20, "only {whole} were read");
}
