//! Files that announce far more pixels than they hold are refused before memory is spent on them.
//!
//! A file of its own, because it watches the memory of the whole process.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::shared;
use phi3v::image::{ImageError, ImageLimits, ImageMode, decode};

/// What refusing a picture may cost: the file, headers and the decoder's tables, 16 MiB with much room.
const GROWTH_MAX_KB: u64 = 16 << 10;

/// The most memory the process has had, in kB; `None` where /proc does not say.
fn peak_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(&header);
    file.extend(crc32(&header).to_be_bytes());
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    };
    !bytes.iter().fold(!0, step)
}

fn jpeg(side: u16) -> Vec<u8> {
    let [high, low] = side.to_be_bytes();
    let frame = [0xff, 0xc0, 0, 17, 8, high, low, high, low, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];
    let scan = [0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0, 0, 0];
    [b"\xff\xd8".as_slice(), &frame, &scan].concat()
}

fn gif(side: u16) -> Vec<u8> {
    let side = side.to_le_bytes();
    let screen = [b"GIF89a".as_slice(), &side, &side, &[0x80, 0, 0], &[0; 6]].concat();
    let frame = [b",\0\0\0\0".as_slice(), &side, &side, &[0, 2, 1, 0x44, 0, b';']].concat();
    [screen, frame].concat()
}

fn bmp(side: u32) -> Vec<u8> {
    let mut file = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    file.extend(side.to_le_bytes());
    file.extend(side.to_le_bytes());
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    file
}

fn tiff(side: u32) -> Vec<u8> {
    let mut file = b"II\x2a\0\x08\0\0\0\x02\0".to_vec();
    for tag in [256_u16, 257] {
        file.extend(tag.to_le_bytes());
        file.extend([4, 0, 1, 0, 0, 0]);
        file.extend(side.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

/// Such a head with the beginning of data behind it: an empty stream.
fn started_png(side: u32) -> Vec<u8> {
    let data = b"IDAT\x78\x9c\x03\0\0\0\0\x01";
    [png(side, side), 8_u32.to_be_bytes().to_vec(), data.to_vec(), crc32(data).to_be_bytes().to_vec()]
        .concat()
}

#[test]
fn pixels_that_no_memory_holds_are_an_error_where_the_limits_were_raised() {
    let limits = ImageLimits { pixels_max: u64::MAX, side_max: u32::MAX, ..ImageLimits::default() };
    let told = decode(&started_png(1 << 24), ImageMode::AsSeen, &limits);
    assert_eq!(told, Err(ImageError::OutOfMemory { bytes: 3 << 48 }));
}

#[test]
fn pixels_within_the_limits_take_no_memory_before_they_are_decoded() {
    let before = peak_kb();
    let told = decode(&started_png(13_000), ImageMode::AsSeen, &ImageLimits::default());
    assert!(
        matches!(told, Err(ImageError::Truncated { .. } | ImageError::Damaged { .. })),
        "{:?}",
        told.err()
    );
    if let (Some(before), Some(after)) = (before, peak_kb()) {
        assert!(after - before < GROWTH_MAX_KB, "{} kB", after - before);
    }
}

/// A TIFF of 8x8 pixels whose only strip is this JPEG stream, with these tables.
fn tiff_of_jpeg(strip: &[u8], tables: &[u8]) -> Vec<u8> {
    const FIELDS: usize = 9;
    let data = 8 + 2 + 12 * FIELDS + 4;
    let (short, long, bytes) = (3_u16, 4_u16, 7_u16);
    let (strip_bytes, tables_bytes) = (strip.len() as u32, tables.len() as u32);
    let fields: [(u16, u16, u32, u32); FIELDS] = [
        (256, long, 1, 8),
        (257, long, 1, 8),
        (258, short, 1, 8),
        (259, short, 1, 7), // JPEG
        (262, short, 1, 1), // grey
        (273, long, 1, data as u32),
        (278, long, 1, 8),
        (279, long, 1, strip_bytes),
        (347, bytes, tables_bytes, data as u32 + strip_bytes),
    ];
    let mut file = b"II\x2a\0\x08\0\0\0".to_vec();
    file.extend((FIELDS as u16).to_le_bytes());
    for (tag, kind, count, value) in fields {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    [file.as_slice(), &[0; 4], strip, tables].concat()
}

#[test]
fn strips_of_jpeg_cost_no_more_than_their_size() {
    let refused = |strip: &[u8], tables: &[u8]| {
        let error =
            decode(&tiff_of_jpeg(strip, tables), ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
        error.to_string()
    };
    let tables = [b"\xff\xd8".as_slice(), &[0xff; 9000]].concat();
    let long = refused(b"\xff\xd8", &tables);
    assert!(long.contains("its JPEG tables have 9002 bytes, the limit is 8192"), "{long}");
    let large = refused(&jpeg(20_000), b"\xff\xd8\xff\xd9");
    assert!(large.contains("its JPEG data does not fit its size"), "{large}");
}

#[test]
fn scans_that_go_over_a_jpeg_again_and_again_are_refused_before_they_are_read() {
    let [high, low] = 7000_u16.to_be_bytes();
    // gray, progressive and arithmetic-coded; of each block the last coefficient, then empty scans that refine all of them
    let frame = [0xff, 0xca, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0];
    let scan =
        |first: u8, bits: u8| [0xff, 0xda, 0, 8, 1, 1, 0, first, if first == 0 { 0 } else { 63 }, bits];
    let refining = scan(1, 0x10).repeat(98);
    let file = [b"\xff\xd8".as_slice(), &frame, &scan(0, 0), &scan(63, 1), &refining, b"\xff\xd9"].concat();
    let before = peak_kb();
    let told = decode(&file, ImageMode::AsSeen, &ImageLimits::default());
    let told = told.map(|image| image.width).unwrap_err().to_string();
    assert!(told.ends_with("its scans go over it 97 times, the limit is 8"), "{told}");
    if let (Some(before), Some(after)) = (before, peak_kb()) {
        assert!(after - before < GROWTH_MAX_KB, "{} kB", after - before);
    }
}

fn webp() -> Vec<u8> {
    riff(&[(b"VP8L", vp8l(16_383))])
}

/// A WebP file of these chunks.
fn riff(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (name, data) in chunks {
        body.extend(*name);
        body.extend((data.len() as u32).to_le_bytes());
        body.extend(data);
        body.resize(body.len().next_multiple_of(2), 0);
    }
    [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
}

/// A header that announces a canvas.
fn vp8x(width: u32, height: u32) -> Vec<u8> {
    let side = |length: u32| (length - 1).to_le_bytes();
    [[0; 4].as_slice(), &side(width)[..3], &side(height)[..3]].concat()
}

#[test]
fn sets_of_codes_are_counted_before_they_are_kept() {
    // a picture of 4x4 pixels whose only block has set 65,535, before which all others would stand
    let stream = [132, 254, 247, 191, 0, 5, 40, 0];
    let picture = [[0x2f].as_slice(), &(3_u32 | 3 << 14).to_le_bytes(), &stream].concat();
    let plain = riff(&[(b"VP8L", picture)]);
    let alpha = [[1].as_slice(), &stream].concat();
    let behind = riff(&[(b"VP8X", vp8x(4, 4)), (b"ALPH", alpha)]);
    for bytes in [plain, behind] {
        let error = decode(&bytes, ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
        assert!(error.to_string().contains("65536 sets of Huffman codes, the limit is 4096"), "{error}");
    }
}

/// The header of a picture without loss, whose sides have 14 bits each, less one; no pixels.
fn vp8l(side: u32) -> Vec<u8> {
    [[0x2f].as_slice(), &((side - 1) | (side - 1) << 14).to_le_bytes(), &[0; 5]].concat()
}

#[test]
fn a_second_header_does_not_make_a_picture_look_smaller() {
    let large_then_small =
        riff(&[(b"VP8X", vp8x(65_535, 65_535)), (b"VP8X", vp8x(1, 1)), (b"VP8L", vp8l(1))]);
    let ignored = riff(&[(b"VP8L", vp8l(16_383)), (b"VP8X", vp8x(1, 1))]);
    for mode in [ImageMode::AsSeen, ImageMode::Reference] {
        let refused = |file| decode(file, mode, &ImageLimits::default()).unwrap_err();
        let error = refused(&large_then_small);
        assert!(error.to_string().contains("contradict"), "{error}");
        let error = refused(&ignored);
        assert!(matches!(error, ImageError::Pixels { .. }), "{error}");
    }
}

#[test]
fn tiles_far_larger_than_their_picture_are_refused() {
    let mut file = b"II\x2a\0\x08\0\0\0\x05\0".to_vec();
    for (tag, value) in [(256_u16, 90_u32), (257, 90), (322, 80), (323, 80), (324, 8)] {
        file.extend(tag.to_le_bytes());
        file.extend([4, 0, 1, 0, 0, 0]);
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    let limits = ImageLimits { pixels_max: 10_000, ..ImageLimits::default() };
    let error = decode(&file, ImageMode::AsSeen, &limits).unwrap_err();
    assert!(error.to_string().contains("far larger"), "{error}");
}

#[test]
fn announced_sizes_are_refused_without_memory() {
    let files = [
        ("PNG", png(50_000, 50_000)),
        ("PNG", png(u32::MAX >> 1, u32::MAX >> 1)),
        ("JPEG", jpeg(60_000)),
        ("GIF", gif(60_000)),
        ("BMP", bmp(60_000)),
        ("TIFF", tiff(60_000)),
        ("WebP", webp()),
    ];
    let before = peak_kb();
    for (format, bytes) in files {
        for mode in [ImageMode::AsSeen, ImageMode::Reference] {
            let Err(error) = decode(&bytes, mode, &ImageLimits::default()) else {
                panic!("{format} was read")
            };
            assert!(
                matches!(error, ImageError::Pixels { .. } | ImageError::Side { .. }),
                "{format}: {error}"
            );
        }
    }
    if let Some(folder) = shared("images/pillow") {
        // This one is truncated as well, which may be noticed first.
        let bomb = std::fs::read(folder.join("decompression_bomb.gif")).unwrap();
        assert!(decode(&bomb, ImageMode::AsSeen, &ImageLimits::default()).is_err());
    }
    let (Some(before), Some(after)) = (before, peak_kb()) else {
        phi3v_kernels::testing::skip("no /proc/self/status here", "use Linux");
        return;
    };
    assert!(after - before < GROWTH_MAX_KB, "{before} kB to {after} kB");
}
