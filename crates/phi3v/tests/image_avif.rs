//! AVIF against libavif: files of its own encoder, and what its decoder reads from them. What ends the process is tried through the
//! command, which decodes AVIF in another.
#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![cfg(feature = "avif")]

mod common;

use common::photographs::{LIMITS, Photographs, largest};
use phi3v::image::{ImageError, ImageLimits, ImageMode, RgbImage, decode, decode_avif};

const AVIF: Photographs = Photographs("avif");

fn read(name: &str, mode: ImageMode) -> RgbImage {
    decode_avif(&AVIF.bytes(name), mode, &LIMITS).unwrap()
}

/// What libavif converts by its own arithmetic. All else is converted by that of libyuv, whole numbers of few bits.
const EXACT: [&str; 10] = [
    "gray",
    "lossless",
    "narrow_gray",
    "narrow_ten_bits",
    "odd_ten_bits",
    "primaries",
    "ten_bits",
    "ten_bits_420",
    "twelve_bits_422",
    "ycgco",
];

#[test]
fn pixels_are_libavifs() {
    let names = AVIF.names(30);
    assert!(EXACT.iter().all(|name| names.iter().any(|other| other == name)));
    for name in names {
        for mode in [ImageMode::AsSeen, ImageMode::Reference] {
            let (ours, theirs) = (read(&format!("{name}.avif"), mode), read(&format!("{name}.png"), mode));
            let (largest, mean) = (largest(&ours, &theirs), mean(&ours, &theirs));
            if EXACT.contains(&name.as_str()) {
                assert_eq!(largest, 0, "{name}");
            }
            // colours of transparent pixels are divided by little
            let most = if name == "premultiplied" && mode == ImageMode::Reference { 8 } else { 4 };
            assert!(largest <= most && mean < 0.65, "{name}: {largest}, mean {mean}");
        }
    }
}

/// The mean difference of a value.
fn mean(ours: &RgbImage, theirs: &RgbImage) -> f64 {
    let differences = ours.pixels.iter().zip(&theirs.pixels).map(|(ours, theirs)| ours.abs_diff(*theirs));
    differences.map(f64::from).sum::<f64>() / ours.pixels.len() as f64
}

#[test]
fn transparency_is_on_white() {
    for name in ["alpha.avif", "alpha_420.avif", "premultiplied.avif", "grid_alpha.avif"] {
        let seen = read(name, ImageMode::AsSeen);
        assert!(seen.pixels[..3].iter().all(|value| *value >= 250), "{name}: the left is transparent");
    }
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    let limited = |limits: ImageLimits| {
        decode_avif(&AVIF.bytes("color_420.avif"), ImageMode::AsSeen, &limits).unwrap_err()
    };
    assert!(matches!(limited(ImageLimits { pixels_max: 64 * 48 - 1, ..LIMITS }), ImageError::Pixels { .. }));
    assert!(matches!(limited(ImageLimits { side_max: 63, ..LIMITS }), ImageError::Side { .. }));
    assert!(matches!(limited(ImageLimits { bytes_max: 600, ..LIMITS }), ImageError::Bytes { .. }));
    // the size that the file states, made enormous: 2^31 pixels
    let large = AVIF.changed(
        "color_420.avif",
        b"ispe\0\0\0\0\0\0\0\x40\0\0\0\x30",
        b"ispe\0\0\0\0\0\0\x80\0\0\x01\0\0",
    );
    let refused = decode_avif(&large, ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
    assert!(matches!(refused, ImageError::Side { height: 65_536, .. }), "{refused}");
    let large = AVIF.changed(
        "color_420.avif",
        b"ispe\0\0\0\0\0\0\0\x40\0\0\0\x30",
        b"ispe\0\0\0\0\0\0\xff\xff\0\0\x80\0",
    );
    let refused = decode_avif(&large, ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
    assert!(matches!(refused, ImageError::Pixels { width: 65_535, height: 32_768, .. }), "{refused}");
    // a small size, with a coded picture that has more pixels than the limit
    let small = AVIF.changed(
        "color_420.avif",
        b"ispe\0\0\0\0\0\0\0\x40\0\0\0\x30",
        b"ispe\0\0\0\0\0\0\0\x08\0\0\0\x08",
    );
    let limits = ImageLimits { pixels_max: 64 * 48 - 1, ..LIMITS };
    let refused = decode_avif(&small, ImageMode::AsSeen, &limits).unwrap_err();
    assert!(matches!(refused, ImageError::Damaged { format: "AVIF", .. }), "{refused}");
    assert!(decode_avif(&small, ImageMode::AsSeen, &LIMITS).is_ok());
}

#[test]
fn a_grid_is_as_large_as_its_tiles() {
    let grid = |width: u8, height: u8| {
        let stated = [0, 0, 1, 1, 0, width, 0, height];
        decode_avif(
            &AVIF.changed("grid.avif", &[0, 0, 1, 1, 0, 128, 0, 128], &stated),
            ImageMode::AsSeen,
            &LIMITS,
        )
    };
    assert!(grid(128, 128).is_ok() && grid(65, 127).is_ok());
    for (width, height) in [(64, 100), (129, 100), (120, 129)] {
        let told = grid(width, height).unwrap_err().to_string();
        assert_eq!(told, "the AVIF picture is damaged: its tiles do not fit its size", "{width}x{height}");
    }
}

#[test]
fn what_is_not_decoded_is_named() {
    let refused = |bytes: &[u8]| decode_avif(bytes, ImageMode::AsSeen, &LIMITS).unwrap_err().to_string();
    let other = AVIF.changed("color_420.avif", b"av01", b"vvc1");
    assert_eq!(refused(&other), "this kind of AVIF picture is not supported: coded as `vvc1`");
    let constant = AVIF.changed("bt709.avif", b"nclx\0\x01\0\x0d\0\x01", b"nclx\0\x01\0\x0d\0\x0a");
    assert_eq!(refused(&constant), "this kind of AVIF picture is not supported: colours by matrix 10");
    let cut = &AVIF.bytes("color_420.avif")[..500];
    assert_eq!(refused(cut), "the AVIF picture is truncated");
}

#[test]
fn other_formats_are_read_as_ever_and_avif_by_its_own_function_only() {
    let png = AVIF.bytes("color_420.png");
    assert_eq!(decode_avif(&png, ImageMode::AsSeen, &LIMITS), decode(&png, ImageMode::AsSeen, &LIMITS));
    let refused = decode(&AVIF.bytes("color_420.avif"), ImageMode::AsSeen, &LIMITS).unwrap_err();
    assert_eq!(refused, ImageError::OwnProcess { format: "AVIF" });
}

#[test]
fn a_file_that_is_cut_short_is_truncated_and_one_with_a_tail_is_read() {
    for name in ["color_420", "alpha", "grid"] {
        let whole = AVIF.bytes(&format!("{name}.avif"));
        let of = |bytes: &[u8]| decode_avif(bytes, ImageMode::AsSeen, &LIMITS);
        assert_eq!(of(&[&whole, &b"SEFT trailing bytes"[..]].concat()), of(&whole), "{name}");
        for left in [whole.len() - 1, whole.len() / 2, 60] {
            let refused = of(&whole[..left]).unwrap_err();
            assert_eq!(refused, ImageError::Truncated { format: "AVIF" }, "{name}, {left} bytes");
        }
    }
}
