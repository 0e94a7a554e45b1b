//! Pictures of every format against what Pillow and torch make of them (`testdata/images`), and hostile files.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::tolerances;
use phi3v::image::{
    HdGrid, ImageError, ImageLimits, ImageMode, ImageParams, RgbImage, TILE_SIDE, TILE_VALUES, decode,
    frames, hd_transform, process,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/images")
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap()
}

/// Name, bytes and expectations of every fixture.
fn fixtures() -> Vec<(String, Vec<u8>, Value)> {
    let expected = expected();
    let files = expected["files"].as_object().unwrap();
    let load = |(name, entry): (&String, &Value)| {
        (name.clone(), std::fs::read(folder().join(name)).unwrap(), entry.clone())
    };
    files.iter().map(load).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn reference(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode(bytes, ImageMode::Reference, &ImageLimits::default())
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

#[test]
fn every_format_decodes_as_pillow_does() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 45);
    for (name, bytes, entry) in fixtures {
        for (mode, size, digest) in
            [(ImageMode::Reference, "size", "reference"), (ImageMode::AsSeen, "seen_size", "seen")]
        {
            let image =
                decode(&bytes, mode, &ImageLimits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let ours = Value::from(vec![image.width, image.height]);
            assert_eq!(ours, entry[size], "{name} {mode:?}");
            assert_eq!(sha256(&image.pixels), entry[digest].as_str().unwrap(), "{name} {mode:?}");
        }
    }
}

#[test]
fn hd_images_are_identical() {
    let mut checked = 0;
    for (name, bytes, entry) in fixtures() {
        let Some(hds) = entry["hd"].as_object() else { continue };
        let image = reference(&bytes).unwrap();
        for (num_crops, hd) in hds {
            let ours = hd_transform(&image, num_crops.parse().unwrap()).unwrap();
            assert_eq!(Value::from(vec![ours.width, ours.height]), hd["size"], "{name} {num_crops}");
            assert_eq!(sha256(&ours.pixels), hd["sha256"].as_str().unwrap(), "{name} {num_crops}");
            checked += 1;
        }
    }
    assert!(checked >= 36);
}

#[test]
fn global_views_agree_with_torch() {
    let spots = expected()["spots"].clone();
    let spots = spots.as_array().unwrap();
    for (name, bytes, entry) in fixtures() {
        let Some(planes) = entry["global"].as_array() else { continue };
        let params = ImageParams { num_crops: 4, ..ImageParams::default() };
        let values = process(&reference(&bytes).unwrap(), &params).unwrap().pixel_values();
        for (c, plane) in planes.iter().enumerate() {
            for (spot, theirs) in spots.iter().zip(plane.as_array().unwrap()) {
                let index = |i: usize| spot[i].as_u64().unwrap() as usize;
                let ours = values[(c * TILE_SIDE + index(0)) * TILE_SIDE + index(1)];
                let diff = (ours - theirs.as_f64().unwrap() as f32).abs();
                assert!(diff <= tolerances::GLOBAL_VIEW, "{name} colour {c} at {spot}: {diff}");
            }
        }
    }
}

#[test]
fn tiles_are_the_normalised_hd_image() {
    let image = reference(&fixture("rgb.png")).unwrap();
    let params = ImageParams { num_crops: 6, ..ImageParams::default() };
    let inputs = process(&image, &params).unwrap();
    let hd = hd_transform(&image, params.num_crops).unwrap();
    let values = inputs.pixel_values();
    assert_eq!(values.len(), (1 + inputs.grid.tiles()) * TILE_VALUES);
    for (tile, values) in values.chunks_exact(TILE_VALUES).skip(1).enumerate() {
        let (top, left) = (tile / inputs.grid.w_crop * TILE_SIDE, tile % inputs.grid.w_crop * TILE_SIDE);
        for (i, value) in values.iter().enumerate() {
            let (c, y, x) = (i / TILE_SIDE / TILE_SIDE, i / TILE_SIDE % TILE_SIDE, i % TILE_SIDE);
            let level = hd.pixels[((top + y) * hd.width + left + x) * 3 + c];
            let expected = (f32::from(level) / 255.0 - params.image_mean[c]) / params.image_std[c];
            assert_eq!(value.to_bits(), expected.to_bits());
        }
    }
}

#[test]
fn equal_tiles_are_stored_once() {
    let white = RgbImage { width: 50, height: 40, pixels: vec![255; 6000] };
    let one_tile = process(&white, &ImageParams { num_crops: 1, ..ImageParams::default() }).unwrap();
    assert_eq!(one_tile.tile_of, [0, 0]);
    assert_eq!(one_tile.distinct_tiles(), 1);
    let many = process(&white, &ImageParams::default()).unwrap();
    assert_eq!(many.grid.tiles(), 16);
    assert!(many.distinct_tiles() <= 2, "white tiles and at most their global view");
    let pixels = many.pixel_values();
    assert_eq!(pixels.len(), 17 * TILE_VALUES);
    assert_eq!(pixels[TILE_VALUES..2 * TILE_VALUES], pixels[16 * TILE_VALUES..]);
}

#[test]
fn the_hash_names_pixels_size_and_settings() {
    let image = reference(&fixture("rgb.png")).unwrap();
    let params = ImageParams { num_crops: 4, ..ImageParams::default() };
    let hash = |image: &RgbImage, params: &ImageParams| process(image, params).unwrap().hash;
    let base = hash(&image, &params);
    assert_eq!(base, hash(&image.clone(), &params));
    let mut darker = image.clone();
    darker.pixels.iter_mut().for_each(|v| *v /= 2);
    assert_ne!(base, hash(&darker, &params));
    assert_ne!(base, hash(&image, &ImageParams { num_crops: 5, ..params }));
    assert_ne!(base, hash(&image, &ImageParams { image_mean: [0.5; 3], ..params }));
    assert_ne!(base, hash(&image, &ImageParams { image_std: [0.5; 3], ..params }));
    let flat = |width, height| RgbImage { width, height, pixels: vec![9; width * height * 3] };
    assert_ne!(hash(&flat(10, 10), &params), hash(&flat(20, 20), &params));
}

#[test]
fn unusable_settings_are_errors() {
    let image = reference(&fixture("rgb.png")).unwrap();
    let params = ImageParams { image_std: [0.0; 3], ..ImageParams::default() };
    assert!(matches!(process(&image, &params), Err(ImageError::Normalisation { .. })));
    let params = ImageParams { num_crops: 0, ..ImageParams::default() };
    assert!(matches!(process(&image, &params), Err(ImageError::NumCrops { .. })));
}

#[test]
fn a_model_that_misreads_many_tiles_gets_no_more_than_it_can_use() {
    let image = reference(&fixture("rgb.png")).unwrap();
    let demo = ImageParams { num_crops: 1, num_crops_max: 4, ..ImageParams::default() };
    let four = process(&image, &ImageParams { num_crops: 4, ..ImageParams::default() }).unwrap();
    for asked in [4, 16, 256] {
        let inputs = process(&image, &ImageParams { num_crops: asked, ..demo }).unwrap();
        assert_eq!((inputs.grid, inputs.pixel_values()), (four.grid, four.pixel_values()), "{asked}");
        assert_eq!(demo.with_num_crops(asked).num_crops, 4);
    }
    assert_eq!(process(&image, &demo).unwrap().grid.tiles(), 1);
    let beyond = ImageParams { num_crops: 257, ..demo };
    assert!(matches!(process(&image, &beyond), Err(ImageError::NumCrops { num_crops: 257, .. })));
}

#[test]
fn token_counts_need_no_pixels() {
    for (_, bytes, entry) in fixtures() {
        let (width, height) = (entry["size"][0].as_u64().unwrap(), entry["size"][1].as_u64().unwrap());
        let grid = HdGrid::of(width as usize, height as usize, 4).unwrap();
        let params = ImageParams { num_crops: 4, ..ImageParams::default() };
        let inputs = process(&reference(&bytes).unwrap(), &params).unwrap();
        assert_eq!((inputs.grid, inputs.num_img_tokens()), (grid, grid.num_img_tokens()));
    }
}

#[test]
fn limits_are_checked_before_decoding() {
    for (name, bytes, entry) in fixtures() {
        let side = entry["size"][0].as_u64().unwrap() as u32;
        let small = ImageLimits { side_max: side - 1, ..ImageLimits::default() };
        let few = ImageLimits { pixels_max: 100, ..ImageLimits::default() };
        let short = ImageLimits { bytes_max: bytes.len() - 1, ..ImageLimits::default() };
        let refused = |limits| decode(&bytes, ImageMode::AsSeen, &limits).unwrap_err();
        assert!(matches!(refused(small), ImageError::Side { .. }), "{name}");
        assert!(matches!(refused(few), ImageError::Pixels { .. }), "{name}");
        assert!(matches!(refused(short), ImageError::Bytes { .. }), "{name}");
    }
    let none = ImageLimits { frames_max: 1, ..ImageLimits::default() };
    for name in ["animated.webp", "animated.gif"] {
        let animated = decode(&fixture(name), ImageMode::AsSeen, &none);
        assert!(matches!(animated, Err(ImageError::Frames { frames: 2, .. })), "{name}: {animated:?}");
    }
}

#[test]
fn what_stands_behind_a_jpeg_is_no_part_of_it() {
    let read = |bytes: &[u8]| decode(bytes, ImageMode::AsSeen, &ImageLimits::default());
    let bytes = fixture("420.jpg");
    let scans = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0".repeat(101);
    let film = [bytes.as_slice(), &scans].concat();
    assert_eq!(read(&bytes).unwrap(), read(&film).unwrap());
    let many = [&bytes[..2], &scans, &bytes[2..]].concat();
    let refused = read(&many).unwrap_err();
    assert!(matches!(refused, ImageError::Frames { frames: 102, .. }), "{refused}");
}

#[test]
fn a_third_of_a_file_is_an_error() {
    // Half would do, but for the animations: there it can hold the whole first frame.
    for (name, bytes, _) in fixtures() {
        let Err(error) = reference(&bytes[..bytes.len() / 3]) else { panic!("{name} was read") };
        assert!(error.hint().is_some(), "{name}");
        let text = error.to_string();
        assert!(!text.ends_with('.') && !text.contains('\n'), "{name}: {text}");
    }
}

#[test]
fn no_bytes_and_other_things_are_errors() {
    assert!(matches!(reference(b""), Err(ImageError::Bytes { bytes: 0, .. })));
    assert!(matches!(reference(b"GIF"), Err(ImageError::NotAnImage { .. })));
    assert!(matches!(reference(b"%PDF-1.4"), Err(ImageError::UnsupportedFormat { format: "PDF" })));
}

/// A PNG chunk with its checksum.
fn png_chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(name);
    sum.update(body);
    [&(body.len() as u32).to_be_bytes(), name.as_slice(), body, &sum.sum().to_be_bytes()].concat()
}

/// `png` with `chunk` behind its header, which is always 33 bytes long.
fn with_chunk(png: &[u8], chunk: &[u8]) -> Vec<u8> {
    [&png[..33], chunk, &png[33..]].concat()
}

#[test]
fn a_png_without_its_end_is_read_and_one_without_pixels_is_not() {
    for name in ["rgb.png", "interlaced.png", "palette.png", "gray16.png"] {
        let whole = fixture(name);
        let image = reference(&whole).unwrap();
        for cut in [1, 4, 11, 12] {
            assert_eq!(reference(&whole[..whole.len() - cut]).as_ref(), Ok(&image), "{name} less {cut}");
        }
        let short = reference(&whole[..whole.len() - 12 - 40]).unwrap_err();
        assert!(matches!(short, ImageError::Truncated { .. }), "{name}: {short}");
    }
}

#[test]
fn a_damaged_transparent_colour_is_refused() {
    let mut bytes = fixture("palette_clear.png");
    let at = bytes.windows(4).position(|name| name == b"tRNS").unwrap();
    bytes[at + 4] ^= 1;
    let error = decode(&bytes, ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
    assert!(matches!(&error, ImageError::Damaged { reason, .. } if reason.contains("tRNS")), "{error}");
}

#[test]
fn a_png_is_turned_upright_by_its_texts_where_it_has_no_exif() {
    let plain = fixture("rgb.png");
    let upright = reference(&plain).unwrap();
    let seen = |bytes: &[u8]| decode(bytes, ImageMode::AsSeen, &ImageLimits::default()).unwrap();
    let turned = |value: u8| {
        let xmp = format!("XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation=\"{value}\"/>");
        seen(&with_chunk(&plain, &png_chunk(b"iTXt", xmp.as_bytes())))
    };
    let half = turned(3);
    let backwards: Vec<u8> = upright.pixels.chunks_exact(3).rev().flatten().copied().collect();
    assert_eq!((half.width, half.pixels), (upright.width, backwards));
    assert_eq!((turned(6).width, turned(6).height), (upright.height, upright.width));
    let exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0";
    let digits: String = exif.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("Raw profile type exif\0\nexif\n{:8}\n{digits}\n", exif.len());
    let both = with_chunk(&plain, &png_chunk(b"tEXt", text.as_bytes()));
    assert_eq!(seen(&both), turned(6));
    assert_eq!(reference(&both).unwrap(), upright, "the reference does not turn");
}

#[test]
fn a_camera_program_s_own_words_turn_its_picture() {
    let Some(folder) = common::shared("images/pillow") else { return };
    let bytes = std::fs::read(folder.join("xmp_tags_orientation.png")).unwrap();
    let seen = decode(&bytes, ImageMode::AsSeen, &ImageLimits::default()).unwrap();
    assert_ne!(seen, reference(&bytes).unwrap());
    let end_lost = std::fs::read(folder.join("truncated_end_chunk.png")).unwrap();
    assert!(reference(&end_lost).is_ok());
    let pixels_lost = std::fs::read(folder.join("truncated_image.png")).unwrap();
    assert!(matches!(reference(&pixels_lost), Err(ImageError::Truncated { .. })));
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Decodes hostile bytes in both modes; whatever comes out must be whole.
fn survive(name: &str, bytes: &[u8]) {
    let limits = ImageLimits { pixels_max: 1 << 20, ..ImageLimits::default() };
    for mode in [ImageMode::AsSeen, ImageMode::Reference] {
        if let Ok(image) = decode(bytes, mode, &limits) {
            assert_eq!(image.pixels.len(), image.width * image.height * 3, "{name}");
            assert!(image.width * image.height <= 1 << 20, "{name}");
        }
    }
}

#[test]
fn hostile_files_never_panic() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    // Our own decoders contain panics of others; this sees them all the same.
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (name, bytes, _) in fixtures() {
        let cuts = (0..bytes.len().min(64)).chain((64..bytes.len()).step_by(bytes.len() / 40 + 1));
        for cut in cuts {
            survive(&name, &bytes[..cut]);
        }
        for _ in 0..120 {
            let mut broken = bytes.clone();
            for _ in 0..=random.below(4) {
                // Headers stand in front: half of the damage is done there.
                let reach = if random.below(2) == 0 { bytes.len().min(200) } else { bytes.len() };
                let at = random.below(reach);
                broken[at] = match random.below(4) {
                    0 => 0,
                    1 => 0xff,
                    _ => broken[at] ^ 1 << random.below(8),
                };
            }
            survive(&name, &broken);
        }
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

fn document(name: &str) -> Vec<u8> {
    std::fs::read(folder().join("../documents").join(name)).unwrap()
}

#[test]
fn frames_of_an_animation_are_what_pillow_reads() {
    let limits = ImageLimits::default();
    for mode in [ImageMode::AsSeen, ImageMode::Reference] {
        let expected = decode(&document("blended.png"), mode, &limits).unwrap();
        let read = frames(&document("blended.webp"), mode, &limits).unwrap().unwrap();
        let (mut pixels, mut durations) = (Vec::new(), Vec::new());
        for frame in read.map(Result::unwrap) {
            assert_eq!((frame.image.width, frame.image.height), (40, 30));
            pixels.extend(frame.image.pixels);
            durations.push(frame.duration.as_millis());
        }
        assert_eq!(durations, [100, 40, 300, 100, 100, 70]);
        assert_eq!(pixels.len(), expected.pixels.len());
        let most = pixels.iter().zip(&expected.pixels).map(|(ours, theirs)| ours.abs_diff(*theirs)).max();
        assert_eq!(most, Some(0), "{mode:?}");
    }
}

#[test]
fn frames_of_an_animation_go_by_what_is_there_and_not_by_its_header() {
    let limits = ImageLimits::default();
    let of = |bytes: &[u8], mode| {
        let read = frames(bytes, mode, &limits).unwrap().unwrap();
        read.map(|frame| frame.unwrap().image).collect::<Vec<_>>()
    };
    let whole = document("blended.webp");
    let flags = whole.windows(4).position(|name| name == b"VP8X").unwrap() + 8;
    assert_eq!(whole[flags], 0x12, "alpha, and an animation");
    // alpha is not announced; EXIF and XMP are, and missing
    for announced in [0x02, 0x12 | 0x08, 0x12 | 0x04, 0x02 | 0x0c] {
        let mut other = whole.clone();
        other[flags] = announced;
        for mode in [ImageMode::AsSeen, ImageMode::Reference] {
            assert_eq!(of(&other, mode), of(&whole, mode), "{announced:#x} {mode:?}");
            assert_eq!(
                of(&other, mode)[0],
                decode(&other, mode, &limits).unwrap(),
                "{announced:#x} {mode:?}"
            );
        }
    }
    let mut still = whole.clone();
    still[flags] = 0x10;
    let told = frames(&still, ImageMode::AsSeen, &limits).map(|frames| frames.is_some());
    assert!(matches!(told, Err(ImageError::Damaged { .. })), "{told:?}");
}

#[test]
fn frames_are_bounded_and_what_is_still_has_none() {
    let limits = ImageLimits::default();
    let of = |bytes: &[u8], limits: &ImageLimits| match frames(bytes, ImageMode::AsSeen, limits) {
        Ok(Some(frames)) => Ok(frames.count()),
        Ok(None) => Ok(0),
        Err(error) => Err(error),
    };
    let animation = document("blended.webp");
    assert_eq!(of(&animation, &limits), Ok(6));
    assert_eq!(of(&std::fs::read(folder().join("lossless.webp")).unwrap(), &limits), Ok(0));
    assert_eq!(of(&document("blended.png"), &limits), Ok(0));
    let few = ImageLimits { frames_max: 5, ..limits };
    assert!(matches!(of(&animation, &few), Err(ImageError::Frames { frames: 6, .. })));
    let small = ImageLimits { pixels_max: 1199, ..limits };
    assert!(matches!(of(&animation, &small), Err(ImageError::Pixels { .. })));
    assert!(of(&animation[..animation.len() - 20], &limits).is_err());
    for at in 12..animation.len() {
        let mut damaged = animation.clone();
        damaged[at] ^= 0x55;
        // as many frames as it says at most, and none after one that is damaged
        if let Ok(Some(read)) = frames(&damaged, ImageMode::AsSeen, &limits) {
            let read: Vec<bool> = read.map(|frame| frame.is_ok()).collect();
            assert!(read.len() <= 6 && read.iter().rev().skip(1).all(|is_whole| *is_whole), "{at}: {read:?}");
        }
    }
}
