//! TIFF: files of every kind against what Pillow reads from them (`testdata/tiff`), and what is refused, and how.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::collections::BTreeMap;

use common::repository;
use phi3v::image::{ImageError, ImageLimits, ImageMode, RgbImage, decode, decode_page, pages};
use sha2::{Digest, Sha256};

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const STRIP_OFFSETS: u16 = 273;
const SAMPLES: u16 = 277;
const STRIP_BYTES: u16 = 279;
const PLANAR: u16 = 284;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTES: u16 = 325;
const FORMAT: u16 = 339;
const SUBSAMPLING: u16 = 530;

/// A little-endian file of these tags, whose data begins at byte 8.
fn tiff(tags: &[(u16, &[u32])], data: &[u8]) -> Vec<u8> {
    let mut file = b"II\x2a\0".to_vec();
    let first = (8 + data.len()).next_multiple_of(2);
    file.extend((first as u32).to_le_bytes());
    file.extend(data);
    file.resize(first, 0);
    let tags: BTreeMap<u16, &[u32]> = tags.iter().copied().collect();
    let mut behind = first + 2 + 12 * tags.len() + 4;
    let mut tail = Vec::new();
    file.extend((tags.len() as u16).to_le_bytes());
    for (tag, values) in tags {
        file.extend(tag.to_le_bytes());
        file.extend(4_u16.to_le_bytes());
        file.extend((values.len() as u32).to_le_bytes());
        if values.len() == 1 {
            file.extend(values[0].to_le_bytes());
        } else {
            file.extend((behind as u32).to_le_bytes());
            tail.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            behind += 4 * values.len();
        }
    }
    [file.as_slice(), &[0; 4], &tail].concat()
}

/// The tags of a gray or black and white picture in one strip at byte 8, and its bytes.
fn page(
    width: u32,
    height: u32,
    bits: u32,
    compression: u32,
    more: &[(u16, &[u32])],
    data: &[u8],
) -> Vec<u8> {
    let mut tags: Vec<(u16, Vec<u32>)> = vec![
        (WIDTH, vec![width]),
        (HEIGHT, vec![height]),
        (BITS, vec![bits]),
        (COMPRESSION, vec![compression]),
        (PHOTOMETRIC, vec![1]),
        (STRIP_OFFSETS, vec![8]),
        (STRIP_BYTES, vec![data.len() as u32]),
    ];
    tags.extend(more.iter().map(|(tag, values)| (*tag, values.to_vec())));
    let tags: Vec<(u16, &[u32])> = tags.iter().map(|(tag, values)| (*tag, values.as_slice())).collect();
    tiff(&tags, data)
}

fn read(bytes: &[u8], mode: ImageMode) -> Result<RgbImage, ImageError> {
    decode(bytes, mode, &ImageLimits::default())
}

/// One colour of every pixel.
fn gray(bytes: &[u8], mode: ImageMode) -> Vec<u8> {
    read(bytes, mode).unwrap().pixels.chunks_exact(3).map(|pixel| pixel[0]).collect()
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes, ImageMode::Reference).unwrap_err().to_string()
}

#[test]
fn every_kind_is_what_pillow_reads() {
    let folder = repository().join("testdata/tiff");
    let expected = std::fs::read(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, (usize, usize, String)> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() >= 80);
    for (name, (width, height, digest)) in expected {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        let picture = read(&bytes, ImageMode::Reference).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((picture.width, picture.height), (width, height), "{name}");
        let ours: String = Sha256::digest(&picture.pixels).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(ours, digest, "{name}");
        read(&bytes, ImageMode::AsSeen).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn rows_of_group_4_are_made_up_behind_its_end_mark_only() {
    // one black row of eight pixels: horizontal, no white, eight black; then two end-of-line codes
    let row = "001".to_owned() + "00110101" + "000101";
    let end_mark = "000000000001000000000001";
    let packed = |bits: &str| -> Vec<u8> {
        let padded = bits.to_owned() + &"0".repeat(bits.len().next_multiple_of(8) - bits.len());
        padded
            .as_bytes()
            .chunks(8)
            .map(|b| u8::from_str_radix(std::str::from_utf8(b).unwrap(), 2).unwrap())
            .collect()
    };
    let picture = |bits: &str, height| page(8, height, 1, 4, &[(PHOTOMETRIC, &[0])], &packed(bits));
    let mut expected = vec![0; 8];
    assert_eq!(gray(&picture(&row, 1), ImageMode::Reference), expected);
    expected.resize(24, 255);
    assert_eq!(gray(&picture(&(row.clone() + end_mark), 3), ImageMode::Reference), expected);
    // without the mark, with half of it, with nothing before it
    for bits in [row.clone(), row + "000000000001", end_mark.to_owned(), "0".repeat(32)] {
        assert!(refusal(&picture(&bits, 3)).contains("truncated"), "{bits}");
    }
}

#[test]
fn fax_rows_that_cannot_be_read_do_not_become_a_page() {
    // run-length: no code begins with eight zeros and a one
    let stuck = page(8, 20, 1, 2, &[], &[0, 0xff, 0xff, 0xff]);
    assert!(refusal(&stuck).contains("a code that does not exist"), "{}", refusal(&stuck));
    // Group 3 without any row behind its end-of-line code
    let empty = page(8, 20, 1, 3, &[], &[0, 0x10]);
    assert!(refusal(&empty).contains("truncated"), "{}", refusal(&empty));
}

#[test]
fn a_large_page_of_nothing_is_refused() {
    for compression in [2, 3, 4, 32_771] {
        for mode in [ImageMode::AsSeen, ImageMode::Reference] {
            let file = page(13_000, 13_000, 1, compression, &[], &[0; 8]);
            // not unwrap_err, which would print a page
            let refused = matches!(read(&file, mode), Err(ImageError::Truncated { format: "TIFF" }));
            assert!(refused, "{compression} {mode:?}");
        }
    }
}

#[test]
fn samples_that_take_far_more_memory_than_pixels_are_refused() {
    let side = 6000;
    let limits = ImageLimits { pixels_max: u64::from(side * side), ..ImageLimits::default() };
    let of = |samples: u32| {
        let bits = vec![16; samples as usize];
        let more: &[(u16, &[u32])] = &[(PHOTOMETRIC, &[2]), (SAMPLES, &[samples]), (BITS, &bits)];
        let file = page(side, side, 16, 8, more, b"\x78\x9c\x03\0\0\0\0\x01");
        decode(&file, ImageMode::AsSeen, &limits).unwrap_err().to_string()
    };
    // what is stored, and a byte for each sample
    let told = of(6);
    assert!(told.ends_with("unpacked it takes 648000000 bytes, the limit is 576000000"), "{told}");
    assert_eq!(of(4), "the TIFF picture is truncated");
}

#[test]
fn group_3_without_end_of_line_codes_is_read() {
    // eight white pixels are 10011, eight black ones behind no white 00110101 000101
    let file = page(8, 3, 1, 3, &[(PHOTOMETRIC, &[0])], &[0b1001_1001, 0b1010_1000, 0b1011_0011]);
    let expected: Vec<u8> = [[255; 8], [0; 8], [255; 8]].concat();
    assert_eq!(gray(&file, ImageMode::Reference), expected);
}

#[test]
fn wide_gray_is_seen_by_its_high_bits() {
    let seen = |bits, format: u32, data: &[u8]| {
        let count = (data.len() * 8) as u32 / bits;
        gray(&page(count, 1, bits, 1, &[(FORMAT, &[format])], data), ImageMode::AsSeen)
    };
    assert_eq!(seen(12, 1, &[0xff, 0xf0, 0x10]), [255, 1]);
    assert_eq!(seen(16, 2, &[0, 0x80, 0, 0, 0xff, 0x7f]), [0, 128, 255]);
    assert_eq!(seen(32, 1, &[0, 0, 0, 0xfe]), [254]);
    assert_eq!(seen(32, 2, &[0, 0, 0, 0x80, 0, 0, 0, 0]), [0, 128]);
    let floats = [-1.0_f32, 0.0, 0.5, 1.0, 7.0, f32::NAN].map(f32::to_le_bytes).concat();
    assert_eq!(seen(32, 3, &floats), [0, 0, 128, 255, 255, 0]);
    // white as zero
    let inverted = page(1, 1, 12, 1, &[(PHOTOMETRIC, &[0])], &[0xff, 0xf0]);
    assert_eq!(gray(&inverted, ImageMode::AsSeen), [0]);
    assert_eq!(gray(&inverted, ImageMode::Reference), [255]);
}

#[test]
fn planes_of_16_bits_are_what_pillow_takes_them_for_in_reference_mode_only() {
    let tags: &[(u16, &[u32])] = &[
        (BITS, &[16; 3]),
        (PHOTOMETRIC, &[2]),
        (SAMPLES, &[3]),
        (PLANAR, &[2]),
        (STRIP_OFFSETS, &[8, 12, 16]),
        (STRIP_BYTES, &[4; 3]),
    ];
    let file = page(2, 1, 16, 1, tags, &[1, 10, 2, 20, 3, 30, 4, 40, 5, 50, 6, 60]);
    assert_eq!(read(&file, ImageMode::AsSeen).unwrap().pixels, [10, 30, 50, 20, 40, 60]);
    assert_eq!(read(&file, ImageMode::Reference).unwrap().pixels, [1, 3, 5, 10, 30, 50]);
}

#[test]
fn uncompressed_ycbcr_is_converted() {
    let tags: &[(u16, &[u32])] =
        &[(BITS, &[8; 3]), (PHOTOMETRIC, &[6]), (SAMPLES, &[3]), (SUBSAMPLING, &[2, 1])];
    // two pixels with one pair of colours: a red
    let file = page(2, 1, 8, 1, tags, &[76, 0, 85, 255]);
    let pixels = read(&file, ImageMode::Reference).unwrap().pixels;
    assert_eq!(pixels, [254, 0, 0, 178, 0, 0]);
}

/// Gray tiles of 16x16 at these places.
fn tiles(
    width: u32,
    height: u32,
    compression: u32,
    offsets: &[u32],
    lengths: &[u32],
    data: &[u8],
) -> Vec<u8> {
    let tags: &[(u16, &[u32])] = &[
        (WIDTH, &[width]),
        (HEIGHT, &[height]),
        (BITS, &[8]),
        (COMPRESSION, &[compression]),
        (PHOTOMETRIC, &[1]),
        (TILE_WIDTH, &[16]),
        (TILE_HEIGHT, &[16]),
        (TILE_OFFSETS, offsets),
        (TILE_BYTES, lengths),
    ];
    tiff(tags, data)
}

#[test]
fn tiles_may_share_their_bytes_but_not_their_idle_ones() {
    let white = tiles(64, 16, 1, &[8; 4], &[256; 4], &[255; 256]);
    assert_eq!(gray(&white, ImageMode::Reference), [255; 64 * 16]);
    // byte runs that do nothing, then the pixels
    let idle = [[0x80_u8; 5000].as_slice(), &[0x81, 255, 0x81, 255]].concat();
    let length = idle.len() as u32;
    let once = tiles(16, 16, 32_773, &[8], &[length], &idle);
    assert_eq!(gray(&once, ImageMode::Reference), [255; 256]);
    let often = tiles(64, 16, 32_773, &[8; 4], &[length; 4], &idle);
    assert!(refusal(&often).contains("overlap"), "{}", refusal(&often));
}

#[test]
fn lengths_of_tiles_may_be_missing() {
    let runs = [0x81, 255, 0x81, 255, 0x81, 7, 0x81, 7];
    let expected: Vec<u8> = (0..16).flat_map(|_| [[255; 16], [7; 16]].concat()).collect();
    for lengths in [[0, 0].as_slice(), &[4, 0], &[4, 9999]] {
        let file = tiles(32, 16, 32_773, &[8, 12], lengths, &runs);
        assert_eq!(gray(&file, ImageMode::Reference), expected, "{lengths:?}");
    }
    let short = tiles(32, 16, 32_773, &[8, 12], &[2, 4], &runs);
    assert!(refusal(&short).contains("truncated"), "{}", refusal(&short));
    let raw = [[255; 256], [7; 256]].concat();
    for lengths in [[0, 0], [1, 1], [u32::MAX, u32::MAX]] {
        let file = tiles(32, 16, 1, &[8, 264], &lengths, &raw);
        assert_eq!(gray(&file, ImageMode::Reference), expected, "{lengths:?}");
    }
    assert!(refusal(&tiles(32, 16, 1, &[8, 0], &[256; 2], &raw)).contains("stands nowhere"));
}

#[test]
fn what_is_not_read_is_named() {
    let rgb: &[(u16, &[u32])] = &[(BITS, &[8; 3]), (SAMPLES, &[3])];
    let with = |more: &[(u16, &[u32])], compression| {
        let tags = [rgb, more].concat();
        refusal(&page(4, 4, 8, compression, &tags, &[0; 64]))
    };
    for (refusal, kind) in [
        (with(&[(PHOTOMETRIC, &[8])], 1), "CIE L*a*b* colours"),
        (with(&[(PHOTOMETRIC, &[2])], 34_925), "LZMA compression"),
        (with(&[(PHOTOMETRIC, &[2])], 50_000), "Zstandard compression"),
        (
            with(&[(PHOTOMETRIC, &[6]), (PLANAR, &[2]), (SUBSAMPLING, &[2, 2])], 1),
            "subsampled YCbCr in planes",
        ),
        (refusal(&page(1, 1, 64, 1, &[(FORMAT, &[3])], &[0; 8])), "floating point samples of 64 bits"),
        (refusal(&page(1, 1, 24, 1, &[], &[0; 3])), "24 bits per sample"),
        (
            refusal(&page(1, 1, 8, 7, &[], b"\xff\xd8\xff\xc3\0\x0b\x08\0\x01\0\x01\x01\x01\x11\0")),
            "lossless JPEG compression",
        ),
    ] {
        assert!(refusal.contains("not supported") && refusal.contains(kind), "{refusal}");
    }
}

#[test]
fn raw_photographs_are_told_by_name_and_not_taken_for_their_thumbnails() {
    const DNG: (u16, &[u32]) = (50706, &[0x0401]);
    const REDUCED: (u16, &[u32]) = (254, &[1]);
    const PARTS: (u16, &[u32]) = (330, &[8]);
    let of = |more: &[(u16, &[u32])]| page(1, 1, 8, 1, more, &[7]);
    let by = |maker: &[u8]| {
        let words: Vec<u32> = maker
            .chunks(4)
            .map(|word| word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
            .collect();
        of(&[REDUCED, PARTS, (271, &words)])
    };
    for (file, name) in [
        (of(&[DNG]), "DNG"),
        (of(&[DNG, REDUCED, PARTS, (271, &[u32::from_le_bytes(*b"NIKO"), 0])]), "DNG"),
        (by(b"NIKON CORPORATION\0"), "Nikon RAW"),
        (by(b"Nikon\0"), "Nikon RAW"),
        (by(b"SONY\0"), "Sony RAW"),
        (by(b"PENTAX Corporation \0"), "Pentax RAW"),
        (by(b"RICOH IMAGING COMPANY, LTD.  \0"), "Pentax RAW"),
        (by(b"Hasselblad\0"), "camera RAW"),
        (of(&[REDUCED, PARTS]), "camera RAW"),
    ] {
        let refused = read(&file, ImageMode::AsSeen).unwrap_err();
        assert_eq!(refused, ImageError::UnsupportedFormat { format: name });
        assert!(refused.hint().unwrap().contains("darktable-cli"), "{name}");
        let chosen = decode_page(&file, 1, ImageMode::AsSeen, &ImageLimits::default());
        assert_eq!(chosen.unwrap_err(), refused);
        assert_eq!(gray(&file, ImageMode::Reference), [7], "{name}: as Pillow reads it");
    }
    // smaller pages of what is no photograph, and a preview by itself
    for file in [of(&[(254, &[0]), PARTS]), of(&[REDUCED]), of(&[PARTS])] {
        assert_eq!(gray(&file, ImageMode::AsSeen), [7]);
    }
}

/// A TIFF of so many pages, each of one pixel, which is the same.
fn many_pages(count: u32) -> Vec<u8> {
    const ENTRIES: u32 = 8;
    let directory = 2 + 12 * ENTRIES + 4;
    let mut file = b"II\x2a\0\x0c\0\0\0\x80\0\0\0".to_vec();
    for page in 1..=count {
        file.extend((ENTRIES as u16).to_le_bytes());
        for (tag, value) in [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1)] {
            file.extend([(tag as u16).to_le_bytes(), 3_u16.to_le_bytes()].concat());
            file.extend([1_u32.to_le_bytes(), (value as u32).to_le_bytes()].concat());
        }
        let next = if page == count { 0 } else { 12 + page * directory };
        file.extend(next.to_le_bytes());
    }
    file
}

#[test]
fn pages_within_the_limit_are_read_however_many_follow() {
    let read = |file: &[u8], page, limits: &ImageLimits| {
        decode_page(file, page, ImageMode::AsSeen, limits).map(|image| image.pixels)
    };
    let limits = ImageLimits::default();
    let many = many_pages(5000);
    assert_eq!(pages(&many, &limits), Ok(Some(1001)), "all that are beyond are one");
    for page in [1, 1000] {
        assert_eq!(read(&many, page, &limits), Ok(vec![128; 3]), "{page}");
    }
    for page in [1001, 6000] {
        let refused = read(&many, page, &limits).unwrap_err();
        assert_eq!(refused.to_string(), "the TIFF picture has more than 1000 pages, the limit");
    }
    let two = ImageLimits { frames_max: 2, ..limits };
    assert_eq!(pages(&many_pages(2), &two), Ok(Some(2)));
    assert_eq!(read(&many_pages(5), 2, &two), Ok(vec![128; 3]));
    assert!(matches!(read(&many_pages(5), 3, &two), Err(ImageError::Frames { limit: 2, .. })));
    let none = read(&many_pages(2), 3, &two).unwrap_err();
    assert!(!matches!(none, ImageError::Frames { .. }), "there are no more than the limit: {none}");
}
