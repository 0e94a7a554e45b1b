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
    let told = refused(&many_layers(&bytes, 60_000, 0));
    assert!(told.contains("more than a picture of its size can be"), "{told}");
    // a few hundred are read, but not with a megabyte of other data in each
    assert!(decode(&many_layers(&bytes, 400, 0), ImageMode::AsSeen, &LIMITS).is_ok());
    let large = ImageLimits { bytes_max: 2 << 20, ..LIMITS };
    let told = decode(&many_layers(&bytes, 400, 1 << 20), ImageMode::AsSeen, &large).unwrap_err();
    assert!(told.to_string().contains("more than a picture of its size can be"), "{told}");
}

#[test]
fn what_a_window_hides_is_counted_before_it_is_decoded() {
    // two tiles of 4096 x 4096 pixels, of each of which 2 x 2 are seen
    let mut bytes = HEIC.bytes("bounds/window.heic");
    let told = decode(&bytes, ImageMode::AsSeen, &LIMITS).unwrap_err();
    assert_eq!(
        told,
        ImageError::Pixels { width: 4096, height: 4096, limit: LIMITS.pixels_max },
        "by the limit of a picture"
    );
    let limits = ImageLimits::default();
    let of_size = "the HEIC picture is damaged: it is made of more than a picture of its size can be";
    assert_eq!(decode(&bytes, ImageMode::AsSeen, &limits).unwrap_err().to_string(), of_size);
    // where it were decoded first, it would be damaged in another way
    let end = bytes.len();
    bytes[end - 9000..].fill(0x55);
    assert_eq!(decode(&bytes, ImageMode::AsSeen, &limits).unwrap_err().to_string(), of_size);
}

#[test]
fn turns_without_end_are_refused() {
    let limits = ImageLimits::default();
    for times in [0, 4] {
        let image = decode(&turned(times), ImageMode::AsSeen, &limits).unwrap();
        assert_eq!((image.width, image.height), (1024, 1024));
    }
    let told = decode(&turned(200), ImageMode::AsSeen, &limits).unwrap_err();
    assert!(told.to_string().contains("more than a picture of its size can be"), "{told}");
}

/// A picture of 1024 x 1024 pixels that is turned so many times.
fn turned(times: u8) -> Vec<u8> {
    let mut bytes = HEIC.bytes("bounds/flat.heic");
    // how many properties the picture has, all of which are its own
    let count_at = find(&bytes, b"ipma") + 14;
    let properties = bytes[count_at];
    bytes[count_at] += times;
    insert(&mut bytes, &[b"meta", b"iprp", b"ipma"], &vec![properties + 1; times.into()]);
    insert(&mut bytes, &[b"meta", b"iprp", b"ipco"], &part(b"irot", &[1]));
    bytes
}

fn find(bytes: &[u8], name: &[u8; 4]) -> usize {
    bytes.windows(4).position(|window| window == name).unwrap()
}

/// Inserts `more` at the end of the last of `names`, boxes of which each is in the one before, in a file of one coded picture that
/// the fixtures' script has put together.
fn insert(bytes: &mut Vec<u8>, names: &[&[u8; 4]], more: &[u8]) {
    let mut end = 0;
    for name in names {
        let start = find(bytes, name) - 4;
        let length = u32::from_be_bytes(bytes[start..start + 4].try_into().unwrap());
        bytes[start..start + 4].copy_from_slice(&(length + more.len() as u32).to_be_bytes());
        end = start + length as usize;
    }
    bytes.splice(end..end, more.iter().copied());
    // where the coded picture begins now
    let (place, data) = (find(bytes, b"iloc") + 18, find(bytes, b"mdat") + 4);
    bytes[place..place + 4].copy_from_slice(&(data as u32).to_be_bytes());
}

#[test]
fn pictures_that_belong_to_another_are_counted() {
    let with = |count: usize| {
        let mut bytes = HEIC.bytes("narrow.heic");
        let belongs = part(b"auxl", &[0, 1, 0, 1, 0, 1]);
        insert(&mut bytes, &[b"meta"], &part(b"iref", &[&[0; 4][..], &belongs.repeat(count)].concat()));
        decode(&bytes, ImageMode::AsSeen, &LIMITS)
    };
    // as phones have them: depth, skin, hair and the like
    assert!(with(20) == Ok(read("narrow.heic", ImageMode::AsSeen)));
    let told = with(50_000).unwrap_err().to_string();
    assert!(told.contains("more than a picture of its size can be"), "{told}");
}

#[test]
fn a_file_that_is_cut_short_is_truncated_and_one_with_a_tail_is_read() {
    for name in HEIC.names(18) {
        let whole = HEIC.bytes(&format!("{name}.heic"));
        let image = decode(&whole, ImageMode::AsSeen, &LIMITS).unwrap();
        for tail in [&b"SEFT trailing bytes of a program"[..], &[0; 3], &[0xff; 9]] {
            let file = [&whole, tail].concat();
            assert!(decode(&file, ImageMode::AsSeen, &LIMITS).as_ref() == Ok(&image), "{name}");
        }
        for left in [whole.len() - 1, whole.len() - 200, whole.len() / 2, 60, 30] {
            let refused = decode(&whole[..left], ImageMode::AsSeen, &LIMITS).unwrap_err();
            assert_eq!(refused, ImageError::Truncated { format: "HEIC" }, "{name}, {left} bytes");
        }
    }
}

#[test]
fn what_the_container_s_reader_does_not_know_is_unsupported() {
    // an item told of in the way of an older format
    let old = HEIC.changed("color_420.heic", b"infe\x02", b"infe\x01");
    let refused = decode(&old, ImageMode::AsSeen, &LIMITS).unwrap_err();
    assert!(matches!(refused, ImageError::UnsupportedKind { format: "HEIC", .. }), "{refused}");
}

#[test]
fn lists_that_take_a_reader_minutes_are_refused_by_their_length() {
    let item = |id: u16| part(b"infe", &[&[2, 0, 0, 0], &id.to_be_bytes()[..], b"\0\0hvc1\0"].concat());
    let items: Vec<u8> = (1..=12_000).flat_map(item).collect();
    let items = part(b"iinf", &[&[1, 0, 0, 0, 0, 0, 0x2e, 0xe0][..], &items].concat());
    let owners = [&[0, 0, 0, 0, 0, 1, 0x38, 0x80][..], &[0xfd, 0xe8, 0].repeat(80_000)].concat();
    let properties = part(b"iprp", &[part(b"ipco", &[]), part(b"ipma", &owners)].concat());
    let handler = part(b"hdlr", &[&[0; 8][..], b"pict", &[0; 13]].concat());
    let first = part(b"pitm", &[0, 0, 0, 0, 0, 1]);
    let meta = part(b"meta", &[vec![0; 4], handler, first, items, properties].concat());
    let refused =
        decode(&[part(b"ftyp", b"heic\0\0\0\0mif1heic"), meta].concat(), ImageMode::AsSeen, &LIMITS);
    let expected = "this kind of HEIC picture is not supported: \
                    it has 80000 lists of items' properties, and 70000 at most are read";
    assert_eq!(refused.unwrap_err().to_string(), expected);
}

/// A file whose picture is so many layers of one and the same, each of 96 x 64 pixels and with so many bytes besides.
fn many_layers(layers: &[u8], count: u16, besides: usize) -> Vec<u8> {
    let find = |name: &[u8]| layers.windows(name.len()).position(|window| window == name).unwrap();
    let whole = |name: &[u8]| {
        let start = find(name) - 4;
        let length = u32::from_be_bytes(layers[start..start + 4].try_into().unwrap()) as usize;
        layers[start..start + length].to_vec()
    };
    let coded = whole(b"mdat")[8..].to_vec();
    // the overlay's own 22 bytes come first
    let mut coded = coded[22..].to_vec();
    if besides > 0 {
        // information that nobody needs
        coded.extend((besides as u32).to_be_bytes());
        coded.extend([39 << 1, 1]);
        coded.resize(coded.len() + besides - 2, 0x55);
    }
    let mut overlay = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 90, 0, 60];
    overlay.extend(vec![0; 4 * usize::from(count)]);
    let mut references = [1_u16.to_be_bytes(), count.to_be_bytes()].concat();
    references.extend([0, 2].repeat(count.into()));
    let references = part(b"iref", &[&[0; 4][..], &part(b"dimg", &references)].concat());
    let data = [&overlay[..], &coded].concat();
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
