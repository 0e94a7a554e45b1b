//! Unusual files that other software reads are read here, as Pillow 10.3 reads them; what is not read is named.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::path::PathBuf;

use phi3v::image::{ImageError, ImageLimits, ImageMode, RgbImage, decode};

const MODES: [ImageMode; 2] = [ImageMode::AsSeen, ImageMode::Reference];

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/images");
    std::fs::read(folder.join(name)).unwrap()
}

fn read(bytes: &[u8], mode: ImageMode) -> Result<RgbImage, ImageError> {
    decode(bytes, mode, &ImageLimits::default())
}

/// Reads in both modes, which have to agree.
fn read_alike(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    let [seen, reference] = MODES.map(|mode| read(bytes, mode));
    assert_eq!(seen, reference);
    seen
}

/// The bytes with one changed, `by` behind the first place of `mark`.
fn changed(bytes: &[u8], mark: &[u8], by: usize, value: u8) -> Vec<u8> {
    let at = bytes.windows(mark.len()).position(|window| window == mark).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at + by] = value;
    bytes
}

#[test]
fn a_jpeg_needs_no_end_mark_once_its_rows_are_there() {
    let trailers: [&[u8]; 5] =
        [&[0; 64], b"some other data", b"\xff\xd8\xff\xe0", b"\xff\xc0\0\x0bjunk", b"\xff\xd9"];
    for name in ["420.jpg", "422.jpg", "444.jpg", "gray.jpg", "restart.jpg", "cmyk.jpg", "arithmetic.jpg"] {
        let whole = fixture(name);
        let pixels = read_alike(&whole).unwrap();
        let rows = whole.strip_suffix(b"\xff\xd9").unwrap();
        for trailer in trailers {
            let read = read_alike(&[rows, trailer].concat());
            assert!(read.as_ref() == Ok(&pixels), "{name} {trailer:x?}: {:?}", read.err());
        }
        // without anything behind them the last bits may be missing; filling bytes are nothing
        for nothing in [b"".as_slice(), &[0xff; 20]] {
            let error = read_alike(&[rows, nothing].concat());
            assert_eq!(error, Err(ImageError::Truncated { format: "JPEG" }), "{name}");
        }
    }
    for name in ["progressive.jpg", "arithmetic_progressive.jpg"] {
        // more scans may come: the reference waits for them
        let whole = fixture(name);
        let rows = whole.strip_suffix(b"\xff\xd9").unwrap();
        let text = [rows, b"some other data"].concat();
        assert_eq!(read_alike(&text), Err(ImageError::Truncated { format: "JPEG" }), "{name}");
    }
}

#[test]
fn kinds_of_jpeg_that_are_not_decoded_are_named() {
    const SOF0: &[u8] = b"\xff\xc0\0\x11\x08";
    let sound = fixture("420.jpg");
    let kind = |bytes: &[u8]| match read_alike(bytes) {
        Err(ImageError::UnsupportedKind { format: "JPEG", kind }) => kind,
        other => panic!("{other:?}"),
    };
    for (marker, name) in [
        (0xc3, "lossless"),
        (0xc5, "hierarchical"),
        (0xc6, "hierarchical"),
        (0xc7, "hierarchical"),
        (0xcb, "lossless and arithmetic-coded"),
        (0xcd, "hierarchical and arithmetic-coded"),
        (0xce, "hierarchical and arithmetic-coded"),
        (0xcf, "hierarchical and arithmetic-coded"),
        (0xde, "hierarchical"),
        (0xf7, "JPEG-LS"),
    ] {
        assert_eq!(kind(&changed(&sound, SOF0, 1, marker)), name);
    }
    for bits in [2, 12, 16] {
        assert_eq!(kind(&changed(&sound, SOF0, 4, bits)), format!("{bits}-bit samples"));
    }
    let two = changed(&fixture("gray.jpg"), b"\xff\xc0\0\x0b\x08", 9, 2);
    assert!(matches!(read_alike(&two), Err(ImageError::Damaged { .. })), "its header has the wrong length");
    let unknown = changed(&sound, SOF0, 1, 0xf5);
    assert!(matches!(read_alike(&unknown), Err(ImageError::Damaged { .. })));
}

/// A frame's pixels without compression: the code for "clear" before every index.
fn gif_data(indices: &[u8], bits: u8) -> Vec<u8> {
    let (clear, width) = (1_u32 << bits, u32::from(bits) + 1);
    let codes = indices.iter().flat_map(|i| [clear, u32::from(*i)]).chain([clear + 1]);
    let bits_of = codes.flat_map(|code| (0..width).map(move |bit| code >> bit & 1));
    let bits_of: Vec<u32> = bits_of.collect();
    let bytes: Vec<u8> =
        bits_of.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | *bit as u8)).collect();
    let pieces = bytes.chunks(255).flat_map(|piece| [&[piece.len() as u8], piece].concat());
    [bits].into_iter().chain(pieces).chain([0]).collect()
}

/// A palette of four colours as its flags, and itself.
fn flagged(palette: Option<[u8; 12]>) -> (u8, Vec<u8>) {
    palette.map_or((0, Vec::new()), |palette| (0x81, palette.to_vec()))
}

/// A GIF of 2x2 pixels with indices 0 to 3: its palettes, and bytes before its frame.
fn gif(global: Option<[u8; 12]>, local: Option<[u8; 12]>, before: &[u8]) -> Vec<u8> {
    let ((screen_flags, global), (flags, local)) = (flagged(global), flagged(local));
    let screen = [b"GIF89a\x02\0\x02\0".as_slice(), &[screen_flags, 0, 0], &global].concat();
    let frame = [b",\0\0\0\0\x02\0\x02\0".as_slice(), &[flags], &local, &gif_data(&[0, 1, 2, 3], 2)].concat();
    [&screen, before, &frame, b";".as_slice()].concat()
}

const COLORS: [u8; 12] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120];
const RAMP: [u8; 12] = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3];

#[test]
fn a_gif_without_a_palette_has_levels_of_gray() {
    assert_eq!(read_alike(&gif(None, None, b"")).unwrap().pixels, RAMP);
    assert_eq!(read_alike(&gif(None, Some(COLORS), b"")).unwrap().pixels, COLORS);
    assert_eq!(read_alike(&gif(Some(RAMP), Some(COLORS), b"")).unwrap().pixels, COLORS);
    assert_eq!(read_alike(&gif(Some(COLORS), None, b"")).unwrap().pixels, COLORS);
}

#[test]
fn the_reference_takes_a_frames_ramp_of_grays_for_no_palette() {
    let both = gif(Some(COLORS), Some(RAMP), b"");
    assert_eq!(read(&both, ImageMode::AsSeen).unwrap().pixels, RAMP);
    assert_eq!(read(&both, ImageMode::Reference).unwrap().pixels, COLORS);
    let mut nearly = RAMP;
    nearly[11] = 4;
    assert_eq!(read_alike(&gif(Some(COLORS), Some(nearly), b"")).unwrap().pixels, nearly);
}

#[test]
fn bytes_between_the_blocks_of_a_gif_are_passed_over() {
    let control = b"!\xf9\x04\0\0\0\0\0".as_slice();
    let control_of_five = b"!\xf9\x05\0\0\0\0\0\0".as_slice();
    let application = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0".as_slice();
    let (comment, zero, junk) = (b"!\xfe\x02hi\0".as_slice(), b"\0".as_slice(), b"junk\xff\x01".as_slice());
    for before in [
        vec![zero],
        vec![junk],
        vec![control, zero],
        vec![control, junk],
        vec![zero, application, zero, comment, junk, control, zero],
        vec![control_of_five],
        vec![control_of_five, junk],
    ] {
        let file = gif(Some(COLORS), None, &before.concat());
        assert_eq!(read_alike(&file).unwrap().pixels, COLORS, "{before:x?}");
    }
    let none = [&gif(Some(COLORS), None, b"")[..25], b"junk;"].concat();
    assert!(matches!(read_alike(&none), Err(ImageError::Damaged { .. })));
    assert_eq!(read_alike(&none[..29]), Err(ImageError::Truncated { format: "GIF" }));
}

#[test]
fn a_transparent_index_is_known_however_long_its_extension() {
    for control in [b"!\xf9\x04\x01\0\0\x02\0".as_slice(), b"!\xf9\x06\x01\0\0\x02ab\0"] {
        let file = gif(Some(COLORS), None, control);
        assert_eq!(read(&file, ImageMode::Reference).unwrap().pixels, COLORS);
        let mut white = COLORS;
        white[6..9].fill(255);
        assert_eq!(read(&file, ImageMode::AsSeen).unwrap().pixels, white);
    }
}

/// A BMP of one row with a palette of two gray levels.
fn two_levels(width: u32, bits: u16, levels: [u8; 2], row: &[u8]) -> Vec<u8> {
    let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
    for number in [62, 40, width, 1] {
        file.extend(number.to_le_bytes());
    }
    file.extend([1, 0]);
    file.extend(bits.to_le_bytes());
    for number in [0_u32, 0, 0, 0, 2, 0] {
        file.extend(number.to_le_bytes());
    }
    let palette: Vec<u8> = levels.iter().flat_map(|level| [*level, *level, *level, 0]).collect();
    [file.as_slice(), &palette, row].concat()
}

#[test]
fn a_bmp_of_black_and_white_is_of_bits_for_the_reference() {
    // what Pillow 10.3 reads: the first bits of the row, whatever a pixel has
    let of = |file: &[u8], mode| -> Vec<u8> {
        let image = read(file, mode).unwrap();
        image.pixels.chunks(3).map(|pixel| pixel[0] / 255).collect()
    };
    let bytes = [1, 0x80, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0];
    let file = two_levels(10, 8, [0, 255], &bytes);
    assert_eq!(of(&file, ImageMode::Reference), [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]);
    assert_eq!(of(&file, ImageMode::AsSeen), [1, 0, 1, 0, 1, 1, 0, 1, 1, 1]);
    let file = two_levels(10, 4, [0, 255], &[0x10, 0x40, 0x11, 0x01, 0x10, 0, 0, 0]);
    assert_eq!(of(&file, ImageMode::Reference), [0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(of(&file, ImageMode::AsSeen), [1, 0, 0, 0, 1, 1, 0, 1, 1, 0]);
    let file = two_levels(10, 8, [255, 0], &bytes);
    assert_eq!(of(&file, ImageMode::Reference), of(&file, ImageMode::AsSeen), "white first is a palette");
    // the bits are all there
    let file = two_levels(10, 8, [0, 255], &bytes[..2]);
    assert_eq!(of(&file, ImageMode::Reference), [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]);
    assert!(matches!(read(&file, ImageMode::AsSeen), Err(ImageError::Truncated { .. })));
}

/// A BMP of run lengths, 4 pixels wide, with a palette of gray levels 16 times their index, upside down.
fn rle(rows: u32, bits: u16, codes: &[u8]) -> Vec<u8> {
    let palette: Vec<u8> = (0..16).flat_map(|i| [i * 16, i * 16, i * 16, 0]).collect();
    let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
    for number in [118, 40, 4, rows] {
        file.extend(number.to_le_bytes());
    }
    file.extend([1, 0]);
    file.extend(bits.to_le_bytes());
    for number in [if bits == 8 { 1_u32 } else { 2 }, 0, 0, 0, 16, 0] {
        file.extend(number.to_le_bytes());
    }
    [file.as_slice(), &palette, codes].concat()
}

/// Indices of the rows from the bottom up.
fn rle_indices(rows: u32, bits: u16, codes: &[u8], mode: ImageMode) -> Vec<Vec<u8>> {
    let image = read(&rle(rows, bits, codes), mode).unwrap();
    image.pixels.chunks(12).rev().map(|row| row.chunks(3).map(|pixel| pixel[0] / 16).collect()).collect()
}

#[test]
fn jumps_and_odd_literals_of_a_bmp_are_read_right_and_as_the_reference_reads_them() {
    let jump = [2, 5, 0, 2, 1, 1, 1, 7, 0, 0, 0, 1];
    assert_eq!(rle_indices(2, 8, &jump, ImageMode::AsSeen), [[5, 5, 0, 0], [0, 0, 0, 7]]);
    // the length of the jump is taken from the run behind it: one to the right and seven rows up
    assert_eq!(rle_indices(2, 8, &jump, ImageMode::Reference), [[5, 5, 0, 0], [0, 0, 0, 0]]);
    let odd = [0, 3, 0x12, 0x30, 1, 0x90, 0, 0, 4, 0xab, 0, 1];
    assert_eq!(rle_indices(2, 4, &odd, ImageMode::AsSeen), [[1, 2, 3, 9], [10, 11, 10, 11]]);
    // the third pixel is lost, and what follows moves to its place
    assert_eq!(rle_indices(2, 4, &odd, ImageMode::Reference), [[1, 2, 9, 0], [10, 11, 10, 11]]);
    let plain = [3, 4, 0, 0, 0, 4, 1, 2, 3, 4, 0, 0];
    for mode in MODES {
        assert_eq!(rle_indices(2, 8, &plain, mode), [[4, 4, 4, 0], [1, 2, 3, 4]]);
    }
}

/// What the container and the first bits of a WebP say has to fit together, where libwebp looks at it.
#[test]
fn a_webp_is_as_long_as_it_says_and_has_what_it_says() {
    let (lossy, extended, animated) =
        (fixture("lossy.webp"), fixture("alpha_flag.webp"), fixture("animated.webp"));
    let mut twice = [extended.as_slice(), &lossy[12..]].concat();
    let length = twice.len() as u32 - 8;
    twice[4..8].copy_from_slice(&length.to_le_bytes());
    let whole = read_alike(&lossy).unwrap();
    // what lies behind the length in the header, or behind the one chunk of a simple file, is not looked at
    let mut longer = [lossy.as_slice(), b"behind"].concat();
    assert_eq!(read_alike(&longer).unwrap(), whole);
    longer[4] += 6;
    assert_eq!(read_alike(&longer).unwrap(), whole);
    for (name, bytes, truncated) in [
        ("a shorter length", changed(&lossy, b"RIFF", 5, 0), true),
        ("a longer length", changed(&lossy, b"RIFF", 5, lossy[5] + 1), true),
        ("a longer chunk", changed(&lossy, b"VP8 ", 5, lossy[17] + 1), true),
        ("a longer chunk behind a header", changed(&extended, b"VP8 ", 6, 1), true),
        (
            "bytes behind the last chunk",
            {
                let mut bytes = [extended.as_slice(), b"abcd"].concat();
                bytes[4] += 4;
                bytes
            },
            true,
        ),
        ("an unknown flag", changed(&extended, b"VP8X", 8, 0x80), false),
        ("a frame without an animation", changed(&animated, b"ANIM", 3, b'X'), false),
        ("an image behind the image", twice, false),
        ("no key frame", changed(&lossy, b"VP8 ", 8, lossy[20] | 1), false),
        ("a frame that is not shown", changed(&lossy, b"VP8 ", 8, lossy[20] & !0x10), false),
        ("an unknown version", changed(&lossy, b"VP8 ", 8, lossy[20] | 0x0e), false),
        ("a partition that is too long", changed(&lossy, b"VP8 ", 10, 1), false),
    ] {
        let error = read_alike(&bytes).unwrap_err();
        assert_eq!(matches!(error, ImageError::Truncated { .. }), truncated, "{name}: {error}");
        assert!(truncated || matches!(error, ImageError::Damaged { .. }), "{name}: {error}");
    }
    // the size of a frame is that of its image
    let frame = animated.windows(4).position(|name| name == b"ANMF").unwrap();
    let mut other = animated.clone();
    other[frame + 14] ^= 8;
    other[frame + 18] = 1;
    for mode in MODES {
        assert_eq!(read(&other, mode), read(&animated, mode));
    }
}

#[test]
fn a_picture_without_pixels_is_empty_and_not_too_large() {
    let bmp = [b"BM".as_slice(), &[0; 12], b"\x28\0\0\0", &[0; 8], b"\x01\0\x18\0", &[0; 24]].concat();
    let gif = [b"GIF89a".as_slice(), &[0; 7], b",\0\0\0\0\0\0\0\0\0\x02\0;"].concat();
    let webp = b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a\0\0\0\0";
    let tiff = b"II\x2a\0\x08\0\0\0\0\0\0\0\0\0";
    for (name, bytes) in [("BMP", bmp.as_slice()), ("GIF", &gif), ("WebP", webp), ("TIFF", tiff)] {
        let error = read_alike(bytes).unwrap_err();
        assert_eq!(error, ImageError::Empty { width: 0, height: 0 }, "{name}");
        assert!(error.hint().is_some());
    }
}

/// A PNG chunk with its checksum.
fn png_chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(name);
    sum.update(body);
    [&(body.len() as u32).to_be_bytes(), name.as_slice(), body, &sum.sum().to_be_bytes()].concat()
}

/// The chunks of a PNG.
fn png_chunks(file: &[u8]) -> Vec<&[u8]> {
    let mut rest = &file[8..];
    std::iter::from_fn(|| {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let (chunk, after) = rest.split_at(length + 12);
        rest = after;
        Some(chunk)
    })
    .collect()
}

#[test]
fn a_png_is_read_without_the_checksums_behind_its_pixels() {
    for name in ["rgb.png", "interlaced.png", "palette.png", "gray16.png"] {
        let whole = fixture(name);
        // 16-bit gray is not read alike in both modes
        let read = |bytes: &[u8]| read(bytes, ImageMode::Reference);
        let image = read(&whole).unwrap();
        // the end, the checksum of the chunk, the checksum of the compressed data
        for cut in 1..=12 + 4 + 4 {
            assert_eq!(read(&whole[..whole.len() - cut]).as_ref(), Ok(&image), "{name} less {cut}");
        }
        let short = read(&whole[..whole.len() - 12 - 8 - 40]).unwrap_err();
        assert!(matches!(short, ImageError::Truncated { .. }), "{name}: {short}");
    }
}

#[test]
fn colours_and_transparency_behind_the_pixels_of_a_png_do_not_count() {
    let file = fixture("palette.png");
    let chunks = png_chunks(&file);
    let (end, others) = chunks.split_last().unwrap();
    let (palette, others): (Vec<&[u8]>, Vec<&[u8]>) =
        others.iter().partition(|chunk| &chunk[4..8] == b"PLTE");
    let before = [&file[..8], &others.concat()].concat();
    for bytes in [[&before, &palette.concat(), *end].concat(), [&before, *end].concat()] {
        let error = read_alike(&bytes).unwrap_err();
        assert!(error.to_string().contains("palette does not stand before its pixels"), "{error}");
    }
    for (name, samples) in [("gray.png", 1), ("rgb.png", 3)] {
        let file = fixture(name);
        let seen = read_alike(&file).unwrap();
        let color: Vec<u8> = seen.pixels[..samples].iter().flat_map(|v| [0, *v]).collect();
        let clear = png_chunk(b"tRNS", &color);
        let (front, end) = file.split_at(file.len() - 12);
        let before = [&file[..33], &clear, &file[33..]].concat();
        assert_ne!(read(&before, ImageMode::AsSeen).unwrap(), seen, "{name}");
        assert_eq!(read_alike(&[front, &clear, end].concat()).unwrap(), seen, "{name}");
    }
}
