//! Photographs of phones: asked about, in folders, and what hostile ones come to.

use super::Fixture;
use std::path::{Path, PathBuf};

fn photograph(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(kind).join(name)
}

/// The formats that this build reads, and a photograph that is turned in each.
fn turned() -> Vec<(&'static str, PathBuf)> {
    let mut all = Vec::new();
    if cfg!(feature = "heic") {
        all.push(("HEIC", photograph("heic", "grid_turned.heic")));
    }
    if cfg!(feature = "avif") {
        all.push(("AVIF", photograph("avif", "turned.avif")));
    }
    all
}

#[test]
fn the_alt_text_of_a_photograph_is_what_photo_tools_read() {
    for (kind, file) in turned() {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.path("phone")).unwrap();
        std::fs::copy(file, fixture.path(&format!("phone/IMG_0001.{kind}"))).unwrap();
        let job = [
            "batch",
            "phone",
            "--prompt",
            "What?",
            "--sidecar",
            "xmp",
            "--out",
            "r.jsonl",
            "--model",
            "demo",
        ];
        let run = fixture.run(&job);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let rows = std::fs::read_to_string(fixture.path("r.jsonl")).unwrap();
        let row: serde_json::Value = rows.lines().nth(1).unwrap().parse().unwrap();
        let answer = row["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap();
        let sidecar = fixture.path("phone/IMG_0001.xmp");
        let mut exiftool = std::process::Command::new("exiftool");
        let Ok(told) = exiftool.args(["-s3", "-AltTextAccessibility"]).arg(&sidecar).output() else {
            phi3v_kernels::testing::skip("alt text is looked at with exiftool", "install exiftool");
            return;
        };
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim_end(), answer, "{kind}");
    }
}

#[cfg(feature = "avif")]
mod avif {
    use super::*;
    use phi3v::image::{ImageError, ImageLimits, ImageMode, decode_avif};
    use phi3v_cli::documents::{DocumentError, DrawLimits, Drawer};
    use std::time::Duration;

    fn drawer() -> Drawer {
        Drawer::by(Path::new(env!("CARGO_BIN_EXE_phi3v")))
    }

    fn bytes(name: &str) -> Vec<u8> {
        std::fs::read(photograph("avif", name)).unwrap()
    }

    /// Eight bytes that the decoder of AV1 panics at, in the place of the coded picture's first.
    fn ends_its_decoder() -> Vec<u8> {
        let mut bytes = bytes("color_420.avif");
        let start = bytes.windows(4).rposition(|name| name == b"mdat").unwrap() + 4;
        bytes[start..start + 8].copy_from_slice(&[0x2f, 0x2f, 5, 4, 0x80, 0, 0, 0]);
        bytes
    }

    #[test]
    fn it_is_asked_about_as_the_pixels_that_it_has() {
        let fixture = Fixture::new();
        std::fs::copy(photograph("avif", "turned.avif"), fixture.path("a.avif")).unwrap();
        std::fs::copy(photograph("avif", "turned.png"), fixture.path("a.png")).unwrap();
        let asked = |name| {
            let told = fixture.run(&["ask", "--json", "--max-new-tokens", "4", name, "What?"]).json();
            let image = &told["images"][0];
            (told["text"].clone(), image["width"].clone(), image["height"].clone())
        };
        assert_eq!(asked("a.avif"), asked("a.png"));
        assert_eq!(asked("a.avif").1, 48, "it is turned");
        let piped = ["ask", "--max-new-tokens", "4", "-", "What?"];
        let piped = fixture.run_with_input(&piped, &bytes("turned.avif"));
        assert_eq!(piped.code, Some(0), "{}", piped.stderr);
    }

    #[test]
    fn one_that_ends_its_decoder_is_refused() {
        let limits = ImageLimits::default();
        let refused = drawer().picture("AVIF", &ends_its_decoder(), ImageMode::AsSeen, &limits).unwrap_err();
        assert!(matches!(refused, DocumentError::Image(ImageError::Damaged { .. })), "{refused}");
        let fixture = Fixture::new();
        std::fs::write(fixture.path("a.avif"), ends_its_decoder()).unwrap();
        let told = fixture.run(&["ask", "a.avif", "What?"]);
        let expected = "a.avif: the AVIF picture is damaged: the decoder gave up\nhint: ";
        assert!(told.code == Some(3) && told.stderr.contains(expected), "{:?} {}", told.code, told.stderr);
    }

    #[test]
    fn limits_are_those_of_the_other_side_too() {
        let refused = |limits: &ImageLimits| {
            drawer()
                .picture("AVIF", &bytes("color_420.avif"), ImageMode::AsSeen, limits)
                .unwrap_err()
                .to_string()
        };
        let few = ImageLimits { pixels_max: 3071, ..ImageLimits::default() };
        assert_eq!(refused(&few), "the picture is 64x48, that is 3072 pixels, the limit is 3071");
        let narrow = ImageLimits { side_max: 63, ..ImageLimits::default() };
        assert_eq!(refused(&narrow), "the picture is 64x48, the limit of a side is 63 pixels");
    }

    /// The program, told to wait for a file that never comes, so that a picture takes as long as it is given. `None` without mkfifo.
    #[cfg(unix)]
    fn endless(fixture: &Fixture) -> Option<Drawer> {
        use std::os::unix::fs::PermissionsExt;
        let (program, never) = (fixture.path("draws"), fixture.path("never"));
        let made = std::process::Command::new("mkfifo").arg(&never).status();
        if !made.is_ok_and(|status| status.success()) {
            phi3v_kernels::testing::skip("a pipe needs mkfifo", "install mkfifo");
            return None;
        }
        let (real, never) = (env!("CARGO_BIN_EXE_phi3v"), never.display());
        // the pipe of the one that asks stays open, as that of a decoder at work
        std::fs::write(&program, format!("#!/bin/sh\nexec '{real}' \"$@\" 3<&0 0<>'{never}'\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Some(Drawer::by(&program))
    }

    #[cfg(unix)]
    #[test]
    fn one_that_takes_too_long_or_too_much_memory_is_ended() {
        let fixture = Fixture::new();
        let Some(drawer) = endless(&fixture) else { return };
        let refused = |limits: DrawLimits| {
            let drawer = drawer.clone().with_limits(limits);
            let (bytes, limits) = (bytes("grid.avif"), ImageLimits::default());
            drawer.picture("AVIF", &bytes, ImageMode::AsSeen, &limits).unwrap_err()
        };
        let late =
            refused(DrawLimits { page_time_max: Duration::from_millis(1500), ..DrawLimits::default() });
        assert!(matches!(late, DocumentError::PictureTime { .. }), "{late}");
        let large = refused(DrawLimits { memory_max: 1, ..DrawLimits::default() });
        assert!(matches!(large, DocumentError::PictureMemory { limit: 1 }), "{large}");
    }

    #[test]
    fn damaged_files_are_read_or_refused() {
        let limits = ImageLimits { bytes_max: 1 << 20, pixels_max: 1 << 20, side_max: 4096, frames_max: 100 };
        let files = std::fs::read_dir(photograph("avif", "")).unwrap().map(|entry| entry.unwrap().path());
        let mut seeds: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|ending| ending == "avif")).collect();
        seeds.sort();
        let seeds: Vec<Vec<u8>> = seeds.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let tried = |first: usize| {
            let mut state = first as u64;
            let mut below = |bound: usize| {
                // Knuth's numbers of MMIX
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 33) % bound.max(1) as u64) as usize
            };
            let mut whole = 0;
            for round in (first..500).step_by(threads) {
                let mut bytes = seeds[round % seeds.len()].clone();
                // the brand stays, so that it is AVIF still
                for _ in 0..1 + below(4) {
                    let at = 32 + below(bytes.len().saturating_sub(33));
                    match below(4) {
                        0 | 1 => bytes[at] = below(256) as u8,
                        2 => bytes.truncate(at.max(40)),
                        _ => drop(bytes.drain(at..(at + below(9)).min(bytes.len()))),
                    }
                }
                match drawer().picture("AVIF", &bytes, ImageMode::AsSeen, &limits) {
                    Ok(image) => {
                        whole += 1;
                        assert_eq!(image.pixels.len(), image.width * image.height * 3);
                    }
                    Err(DocumentError::Image(error)) => assert!(!error.to_string().contains('\n')),
                    Err(DocumentError::PictureTime { .. } | DocumentError::PictureMemory { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            whole
        };
        let whole: usize = std::thread::scope(|scope| {
            let tried = &tried;
            let threads: Vec<_> = (0..threads).map(|first| scope.spawn(move || tried(first))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(whole > 25, "only {whole} were read");
    }

    #[test]
    fn the_process_gives_the_pixels_of_the_library() {
        for name in ["alpha", "ten_bits_420", "grid", "sequence"] {
            for mode in [ImageMode::AsSeen, ImageMode::Reference] {
                let limits = ImageLimits::default();
                let bytes = bytes(&format!("{name}.avif"));
                let image = drawer().picture("AVIF", &bytes, mode, &limits).unwrap();
                assert_eq!(image, decode_avif(&bytes, mode, &limits).unwrap(), "{name}");
            }
        }
    }
}

#[cfg(feature = "heic")]
mod heic {
    use super::*;
    use phi3v::image::{ImageError, ImageLimits, ImageMode, decode};
    use phi3v_cli::documents::{DocumentError, Drawer};

    fn drawer() -> Drawer {
        Drawer::by(Path::new(env!("CARGO_BIN_EXE_phi3v")))
    }

    fn bytes(name: &str) -> Vec<u8> {
        std::fs::read(photograph("heic", name)).unwrap()
    }

    #[test]
    fn the_process_gives_the_pixels_of_the_library() {
        for name in ["alpha.heic", "ten_bits_420.heic", "grid_turned.heic", "layers.heic"] {
            for mode in [ImageMode::AsSeen, ImageMode::Reference] {
                let limits = ImageLimits::default();
                let image = drawer().picture("HEIC", &bytes(name), mode, &limits).unwrap();
                assert_eq!(image, decode(&bytes(name), mode, &limits).unwrap(), "{name}");
            }
        }
    }

    #[test]
    fn what_is_refused_is_told_as_the_library_tells_it() {
        let limits = ImageLimits::default();
        let whole = bytes("color_420.heic");
        let few = ImageLimits { pixels_max: 6143, ..limits };
        let cases = [
            (&whole[..whole.len() - 200], limits, "the HEIC picture is truncated"),
            (&whole[..], few, "the picture is 96x64, that is 6144 pixels, the limit is 6143"),
            (&bytes("bounds/window.heic"), limits, "the HEIC picture is damaged: it is made of more than"),
        ];
        for (file, limits, expected) in cases {
            let refused = drawer().picture("HEIC", file, ImageMode::AsSeen, &limits).unwrap_err();
            let DocumentError::Image(told) = &refused else { panic!("{refused}") };
            assert!(told.to_string().starts_with(expected), "{told}");
            assert_eq!(*told, decode(file, ImageMode::AsSeen, &limits).unwrap_err());
        }
    }

    #[test]
    fn a_download_that_was_cut_short_is_to_be_fetched_again() {
        let fixture = Fixture::new();
        let whole = bytes("color_420.heic");
        std::fs::write(fixture.path("a.heic"), &whole[..whole.len() - 200]).unwrap();
        let told = fixture.run(&["ask", "a.heic", "What?"]);
        let expected = "a.heic: the HEIC picture is truncated\nhint: copy or download the file again";
        assert!(told.code == Some(3) && told.stderr.contains(expected), "{:?} {}", told.code, told.stderr);
    }

    #[test]
    fn a_picture_of_another_codec_is_refused_by_name() {
        let file = b"\0\0\0\x18ftypavci\0\0\0\0mif1miaf";
        let refused = decode(file, ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
        assert_eq!(refused, ImageError::UnsupportedFormat { format: "HEIF" });
    }
}
