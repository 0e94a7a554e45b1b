//! Documents among the pictures: their pages asked about, and what hostile ones come to.
#![cfg(feature = "pdf")]

use super::{Fixture, Run};
use base64::Engine as _;
use phi3v::image::{ImageLimits, ImageMode, ImageParams};
use phi3v_cli::batch::inputs::{Inputs, find};
use phi3v_cli::documents::{DocumentError, DrawLimits, Drawer, OpenFiles};
use phi3v_cli::sources::{ImageOptions, NamedImage, NamedImageError, read_image, read_page};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/documents").join(name)
}

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    for name in ["shapes.pdf", "password.pdf", "pages.tif"] {
        std::fs::copy(document(name), fixture.path(name)).unwrap();
    }
    fixture
}

fn ask(fixture: &Fixture, args: &[&str]) -> Run {
    fixture.run(&[&["ask", "--max-new-tokens", "4", "--num-crops", "1"], args].concat())
}

/// Names and sizes of the pictures that were looked at.
fn looked_at(fixture: &Fixture, args: &[&str]) -> Vec<(String, u64, u64)> {
    let told = ask(fixture, &[&["--json"], args].concat()).json();
    let images = told["images"].as_array().unwrap().iter();
    let side = |image: &serde_json::Value, side: &str| image[side].as_u64().unwrap();
    images
        .map(|image| {
            (image["name"].as_str().unwrap().to_owned(), side(image, "width"), side(image, "height"))
        })
        .collect()
}

#[test]
fn pages_are_asked_about() {
    let fixture = fixture();
    let names =
        |args: &[&str]| looked_at(&fixture, args).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    let pages =
        |pages: &[usize]| pages.iter().map(|page| format!("shapes.pdf#page={page}")).collect::<Vec<_>>();
    assert_eq!(names(&["shapes.pdf", "What?"]), pages(&[1, 2, 3]));
    assert_eq!(names(&["shapes.pdf", "--pages", "3,1", "What?"]), pages(&[3, 1]));
    assert_eq!(names(&["shapes.pdf", "--pages", "2-", "What?"]), pages(&[2, 3]));
    assert_eq!(names(&["small.png", "shapes.pdf", "--pages", "2", "What?"])[0], "small.png");
    let drawn = looked_at(&fixture, &["shapes.pdf", "What?"]);
    assert_eq!((drawn[0].1, drawn[0].2, drawn[1].1, drawn[1].2), (237, 336, 336, 237));
    let bytes = std::fs::read(fixture.path("shapes.pdf")).unwrap();
    let flags = ["ask", "--max-new-tokens", "4", "--num-crops", "1"];
    let piped = fixture.run_with_input(&[&flags[..], &["-", "What?"]].concat(), &bytes);
    assert_eq!(piped.answer(), ask(&fixture, &["shapes.pdf", "What?"]).answer());
}

#[test]
fn pages_of_a_tiff_are_chosen_and_its_first_is_the_picture() {
    let fixture = fixture();
    assert_eq!(looked_at(&fixture, &["pages.tif", "What?"]), [("pages.tif".to_owned(), 40, 30)]);
    let page = |page: usize, width, height| (format!("pages.tif#page={page}"), width, height);
    let chosen = looked_at(&fixture, &["pages.tif", "--pages", "2-", "What?"]);
    assert_eq!(chosen, [page(2, 30, 40), page(3, 20, 20)]);
    // pages that nobody chose count for nothing
    let first = ["pages.tif", "--pages", "1-2", "--max-frames", "2", "What?"];
    assert_eq!(looked_at(&fixture, &first).len(), 2);
    for pages in ["3", "1-", "2-3", "7"] {
        let refused =
            ask(&fixture, &["pages.tif", "--pages", pages, "--max-frames", "2", "What?"]).refusal(3);
        let expected = "pages.tif: the TIFF picture has more than 2 pages, the limit\nhint: \
                        choose among its first 2 pages, or raise the limit with --max-frames if you trust the file";
        assert!(refused.contains(expected), "{pages}: {refused}");
    }
    let refused = ask(&fixture, &["pages.tif", "--pages", "4", "What?"]).refusal(3);
    assert!(refused.contains("pages.tif: there is no page 4, the document has 3"), "{refused}");
}

#[test]
fn what_cannot_be_drawn_says_so() {
    let fixture = fixture();
    let refusal = |args: &[&str], code| ask(&fixture, args).refusal(code);
    let locked = refusal(&["password.pdf", "What?"], 3);
    assert!(locked.contains("password.pdf: the PDF needs a password\nhint: save it without"), "{locked}");
    let beyond = refusal(&["shapes.pdf", "--pages", "7", "What?"], 3);
    assert!(beyond.contains("shapes.pdf: there is no page 7, the document has 3"), "{beyond}");
    std::fs::write(fixture.path("broken.pdf"), b"%PDF-1.7\nnothing").unwrap();
    let broken = refusal(&["broken.pdf", "What?"], 3);
    assert!(broken.contains("broken.pdf: the PDF is damaged"), "{broken}");
    std::fs::write(fixture.path("long.pdf"), blank_pages(120)).unwrap();
    let long = refusal(&["long.pdf", "What?"], 3);
    assert!(
        long.contains("the document has 120 pages, and 16 at most") && long.contains("--pages 1-16"),
        "{long}"
    );
    let wrong = refusal(&["shapes.pdf", "--pages", "3-1", "What?"], 2);
    assert!(wrong.contains("1-3,7,10-"), "{wrong}");
}

#[test]
fn a_batch_has_a_row_for_each_page() {
    let fixture = fixture();
    std::fs::create_dir(fixture.path("scans")).unwrap();
    for name in ["shapes.pdf", "password.pdf", "pages.tif", "small.png"] {
        std::fs::copy(fixture.path(name), fixture.path("scans").join(name)).unwrap();
    }
    let job = ["batch", "scans", "--prompt", "What?", "--max-new-tokens", "2", "--num-crops", "1"];
    let rows = |out: &str, more: &[&str]| {
        let run = fixture.run(&[&job[..], &["--out", out], more].concat());
        assert_eq!(run.code, Some(6), "{}", run.stderr);
        let text = std::fs::read_to_string(fixture.path(out)).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut rows: Vec<(String, bool)> = rows
            .filter_map(|row| Some((row["custom_id"].as_str()?.to_owned(), row["error"].is_null())))
            .collect();
        rows.sort();
        rows
    };
    let page = |name: &str, page: usize| (format!("{name}#page={page}"), true);
    let pdf = [page("shapes.pdf", 1), page("shapes.pdf", 2), page("shapes.pdf", 3)];
    let (locked, small) = (("password.pdf".to_owned(), false), ("small.png".to_owned(), true));
    let first = [&[("pages.tif".to_owned(), true), locked.clone()], &pdf[..], std::slice::from_ref(&small)];
    assert_eq!(rows("all.jsonl", &["--sidecar", "txt"]), first.concat());
    for name in ["shapes.page1.txt", "shapes.page3.txt", "pages.txt", "small.txt"] {
        assert!(fixture.path("scans").join(name).exists(), "{name}");
    }
    let chosen = [
        page("pages.tif", 2),
        page("pages.tif", 3),
        locked,
        page("shapes.pdf", 2),
        page("shapes.pdf", 3),
        small,
    ];
    assert_eq!(rows("some.jsonl", &["--pages", "2-"]), chosen);
    // what could not be opened has pages when it is repaired, and its own row is theirs now
    std::fs::copy(fixture.path("shapes.pdf"), fixture.path("scans/password.pdf")).unwrap();
    let repaired = fixture.run(&[&job[..], &["--out", "all.jsonl", "--retry-errors"]].concat());
    assert_eq!(repaired.code, Some(0), "{}", repaired.stderr);
    let after = super::batch::rows(&fixture.path("all.jsonl"));
    assert!(after.contains_key("password.pdf#page=3") && !after.contains_key("password.pdf"), "{after:?}");
    // also where the pages are not of this run
    let part = [&job[..], &["--out", "some.jsonl", "--pages", "2-", "--limit", "1"]].concat();
    assert_eq!(fixture.run(&part).code, Some(0));
    assert!(!super::batch::rows(&fixture.path("some.jsonl")).contains_key("password.pdf"));
}

#[cfg(target_os = "linux")]
#[test]
fn files_beside_pages_are_called_as_the_document_whatever_its_name() {
    use std::os::unix::ffi::OsStrExt;
    let fixture = fixture();
    let scans = fixture.path("scans");
    std::fs::create_dir(&scans).unwrap();
    let name = |first: u8, rest: &[u8]| scans.join(std::ffi::OsStr::from_bytes(&[&[first], rest].concat()));
    // two names that are no text, in which one letter stands for both
    for first in [0xfe, 0xff] {
        std::fs::copy(document("shapes.pdf"), name(first, b".pdf")).unwrap();
    }
    let job = [
        "batch",
        "-q",
        "scans",
        "--prompt",
        "What?",
        "--max-new-tokens",
        "2",
        "--num-crops",
        "1",
        "--sidecar",
        "txt",
    ];
    fixture.run(&job).answer();
    for first in [0xfe, 0xff] {
        assert!(name(first, b".page3.txt").exists());
    }
}

#[test]
fn of_several_chosen_pages_none_is_taken_for_all() {
    let fixture = fixture();
    let source = fixture.path("shapes.pdf").into_os_string();
    let files = ImageOptions::of_files(ImageMode::AsSeen, ImageParams::default(), ImageLimits::default());
    let files = files.drawn_by(drawer(DrawLimits::default()));
    let read = |pages: &str, page| {
        let options = files.clone().with_pages(Some(pages.parse().unwrap()));
        let of_batch = read_page(&source, page, &options, &OpenFiles::default());
        let of_labels = page.is_none().then(|| read_image(&source, &options));
        let name = |read: Result<NamedImage, NamedImageError>| {
            read.map(|picture| picture.name).map_err(|e| e.to_string())
        };
        let of_batch = name(of_batch);
        assert!(of_labels.is_none_or(|read| name(read) == of_batch));
        of_batch.map_or_else(|told| told, |name| name.rsplit('/').next().unwrap_or_default().to_owned())
    };
    assert!(
        read("1-2", None)
            .ends_with("shapes.pdf: 2 pages of the document were chosen, and one is looked at here")
    );
    assert_eq!(read("2", None), "shapes.pdf#page=2");
    assert_eq!(read("1-2", Some(3)), "shapes.pdf#page=3");
}

#[test]
fn chat_takes_the_pages_of_a_document() {
    let fixture = fixture();
    let args = ["chat", "--max-new-tokens", "4", "--num-crops", "1", "--pages", "1-2"];
    let run = fixture.run_with_input(&args, b"/image shapes.pdf\nWhat?\n");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for page in ["shapes.pdf#page=1 goes with", "shapes.pdf#page=2 goes with"] {
        assert!(run.stderr.contains(page), "{}", run.stderr);
    }
}

/// A video of three colours, two seconds each; whether ffmpeg is there to make it.
fn makes_video(fixture: &Fixture, name: &str) -> bool {
    let color = |color: &str, label: &str| format!("color={color}:s=64x48:r=10:d=2[{label}]");
    let scenes = [color("red", "a"), color("blue", "b"), color("white", "c")].join(";");
    let encoder: &[&str] = if name.ends_with(".mp4") { &["-c:v", "mpeg4"] } else { &[] };
    makes_clip(fixture, name, &format!("{scenes};[a][b][c]concat=n=3"), encoder)
}

/// A video of what this graph of filters draws; whether ffmpeg is there to make it.
fn makes_clip(fixture: &Fixture, name: &str, graph: &str, encoder: &[&str]) -> bool {
    let mut command = std::process::Command::new("ffmpeg");
    command.args(["-v", "error", "-f", "lavfi", "-i", graph]).args(encoder);
    let made = command.arg(fixture.path(name)).status().is_ok_and(|status| status.success());
    if !made {
        phi3v_kernels::testing::skip("frames of a video need ffmpeg", "install ffmpeg");
    }
    made
}

#[test]
fn frames_of_a_video_are_those_at_which_it_changes_or_so_many_a_second() {
    let fixture = fixture();
    if !makes_video(&fixture, "clip.mp4") || !makes_video(&fixture, "clip.gif") {
        return;
    }
    let times = |args: &[&str]| {
        let told = looked_at(&fixture, args).into_iter();
        told.map(|(name, width, height)| {
            assert_eq!((width, height), (64, 48));
            name.split_once("#t=").map_or(String::new(), |(_, time)| time.to_owned())
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(times(&["clip.mp4", "What?"]), ["0", "2", "4"]);
    assert_eq!(times(&["clip.mp4", "--frames", "1", "What?"]), ["0"]);
    assert_eq!(times(&["clip.mp4", "--fps", "0.4", "--frames", "2", "What?"]), ["0", "2.5"]);
    assert_eq!(times(&["clip.gif", "What?"]), [""], "an animation is its first frame");
    assert_eq!(times(&["clip.gif", "--frames", "3", "What?"]), ["0", "2", "4"]);
}

#[test]
fn frames_of_deep_videos_and_of_those_whose_pixels_are_no_squares_are_read_as_they_are_seen() {
    let fixture = fixture();
    let red = "color=red:s=64x48:r=10:d=2";
    let ten_bits = ["-c:v", "ffv1", "-pix_fmt", "yuv420p10le"];
    let clips = [
        ("deep.mkv", red.to_owned(), &ten_bits[..], (64, 48)),
        ("wide.mp4", format!("{red},setsar=2"), &["-c:v", "mpeg4"], (128, 48)),
        ("narrow.mkv", format!("{red},setsar=1/2"), &ten_bits, (32, 48)),
        ("unknown.mkv", format!("{red},setsar=0"), &ten_bits, (64, 48)),
    ];
    for (name, graph, encoder, expected) in clips {
        if !makes_clip(&fixture, name, &graph, encoder) {
            return;
        }
        for choice in [&[][..], &["--fps", "1", "--frames", "1"]] {
            let told = looked_at(&fixture, &[&[name, "What?"], choice].concat());
            let sizes: Vec<_> = told.into_iter().map(|(_, width, height)| (width, height)).collect();
            assert_eq!(sizes, [expected], "{name} {choice:?}");
        }
    }
}

#[test]
fn frames_of_an_animated_webp_need_no_ffmpeg() {
    let fixture = fixture();
    std::fs::copy(document("scenes.webp"), fixture.path("scenes.webp")).unwrap();
    let names = |args: &[&str]| {
        let args = [
            &["ask", "--json", "--max-new-tokens", "2", "--num-crops", "1", "scenes.webp"],
            args,
            &["What?"],
        ];
        let mut command = fixture.command(&args.concat());
        let told = Run::of(command.env("PATH", fixture.path("nothing")).output().unwrap()).json();
        let images = told["images"].as_array().unwrap().iter();
        images.map(|image| image["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["scenes.webp"], "an animation is its first frame");
    // red for 2 s, blue for 2 s, blue with a white half for 2 s
    assert_eq!(names(&["--frames", "8"]), ["scenes.webp#t=0", "scenes.webp#t=2", "scenes.webp#t=4"]);
    assert_eq!(names(&["--frames", "2"]).len(), 2);
    let even = names(&["--fps", "0.4", "--frames", "9"]);
    assert_eq!(even, ["scenes.webp#t=0", "scenes.webp#t=2.5"]);
    assert_eq!(names(&["--fps", "1", "--frames", "9"]).len(), 6);
    let still =
        fixture.command(&["ask", "small.png", "--frames", "3", "--max-new-tokens", "2", "What?"]).output();
    assert_eq!(Run::of(still.unwrap()).code, Some(0), "a still picture is one");
}

#[cfg(unix)]
#[test]
fn the_guide_s_examples_work() {
    let fixture = Fixture::new();
    let example = |from: &str, to: &str| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        std::fs::copy(examples.join(from), fixture.path(to)).unwrap();
    };
    example("cover.png", "before.png");
    example("text.png", "after.png");
    example("text.png", "chart.png");
    std::fs::create_dir(fixture.path("scans")).unwrap();
    std::fs::copy(document("words.pdf"), fixture.path("report.pdf")).unwrap();
    std::fs::copy(document("words.pdf"), fixture.path("scans/letter.pdf")).unwrap();
    std::fs::write(fixture.path("contract.pdf"), blank_pages(8)).unwrap();
    let photograph = |name: &str, to: &str| {
        let photographs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
        std::fs::copy(photographs.join(name), fixture.path(to)).unwrap();
    };
    photograph("heic/turned.heic", "IMG_0001.HEIC");
    photograph("avif/turned.avif", "photo.avif");
    let mut absent = Vec::new();
    let mut needs = |is_there: bool, name: &'static str| {
        if !is_there {
            absent.push(name);
        }
    };
    needs(makes_video(&fixture, "clip.mp4"), "clip.mp4");
    needs(cfg!(feature = "heic"), "IMG_0001.HEIC");
    needs(cfg!(feature = "avif"), "photo.avif");
    let told = fixture.run_guide_but_for("images.md", &absent);
    assert!(told.len() + absent.len() >= 5, "{}", told.len());
    assert!(told.iter().all(|told| !told.is_empty()), "{told:?}");
}

#[test]
fn a_video_without_ffmpeg_names_it() {
    let fixture = fixture();
    std::fs::write(fixture.path("clip.mp4"), b"\0\0\0\x18ftypisom\0\0\0\0isom").unwrap();
    let mut command = fixture.command(&["ask", "clip.mp4", "What?"]);
    let refused = Run::of(command.env("PATH", fixture.path("nothing")).output().unwrap()).refusal(3);
    assert!(
        refused.contains("clip.mp4: videos need the program ffmpeg, which is not installed"),
        "{refused}"
    );
    let wrong = ask(&fixture, &["clip.mp4", "--fps", "0", "What?"]).refusal(2);
    assert!(wrong.contains("it must be a number from 0.001 to 60"), "{wrong}");
}

/// A program `ffmpeg` that is this script for `sh`, and the folders of PATH with it first.
#[cfg(unix)]
fn fake_ffmpeg(fixture: &Fixture, script: &str) -> std::ffi::OsString {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(fixture.path("bin")).unwrap();
    let program = fixture.path("bin/ffmpeg");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::env::join_paths([fixture.path("bin"), "/usr/bin".into(), "/bin".into()]).unwrap()
}

#[cfg(unix)]
#[test]
fn an_ffmpeg_that_fails_is_told_with_its_words_and_not_taken_for_the_video() {
    let fixture = fixture();
    std::fs::write(fixture.path("clip.mp4"), b"\0\0\0\x18ftypisom\0\0\0\0isom").unwrap();
    std::fs::create_dir(fixture.path("temporary")).unwrap();
    let run = |script: &str, more: &[&str]| {
        let path = fake_ffmpeg(&fixture, script);
        let words = ["ask", "clip.mp4", "What?", "--max-new-tokens", "2", "--num-crops", "1", "--json"];
        let mut command = fixture.command(&[&words[..], more].concat());
        command.env("PATH", path).env("TMPDIR", fixture.path("temporary"));
        Run::of(command.output().unwrap())
    };
    let told = |script: &str| run(script, &["--fps", "1", "--frames", "3"]).refusal(3);
    let failed = "error: clip.mp4: ffmpeg cannot read the video: ";
    let unknown = "echo \"Unrecognized option 'vsync'.\" >&2; exit 8";
    for refused in [told(unknown), run(unknown, &[]).refusal(3)] {
        assert!(refused.starts_with(&format!("{failed}Unrecognized option 'vsync'.\n")), "{refused}");
    }
    let silent = told("exit 8");
    assert!(silent.starts_with(&format!("{failed}it ended with exit status: 8\n")), "{silent}");
    let picture = r"printf 'P6\n1 1\n255\nabc'";
    let midway = told(&format!("{picture}; echo crashed >&2; exit 139"));
    assert!(midway.starts_with(&format!("{failed}crashed\n")), "{midway}");
    let nothing = told("exit 0");
    assert!(nothing.contains("ffmpeg finds no picture in the video"), "{nothing}");
    // a frame that is too large is refused by its head, before the rest is waited for
    let large = told(r"printf 'P6\n99999 99999\n255\n'; exec sleep 1000");
    assert!(large.contains("99999x99999") && large.contains("the limit"), "{large}");
    // of a video that is shorter, and of one whose frames go on, those that were chosen; nothing of it lies in a folder
    let none_there = "test -z \"$(ls -A \"$TMPDIR\")\" && test $(wc -c < /dev/stdin) = 20 || exit 9";
    for (script, frames) in
        [(format!("{picture}; {picture}"), 2), (format!("while {picture}; do :; done"), 3)]
    {
        let told = run(&format!("{none_there}; {script}"), &["--fps", "1", "--frames", "3"]).json();
        assert_eq!(told["images"].as_array().unwrap().len(), frames, "{told}");
    }
    std::fs::set_permissions(fixture.path("bin/ffmpeg"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let mut command = fixture.command(&["ask", "clip.mp4", "What?"]);
    let refused = Run::of(command.env("PATH", fixture.path("bin")).output().unwrap()).refusal(3);
    assert!(refused.contains("clip.mp4: ffmpeg does not start: permission denied"), "{refused}");
    assert_eq!(std::fs::read_dir(fixture.path("temporary")).unwrap().count(), 0);
}

/// As an installer replaces a program that runs.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_was_replaced_goes_on_drawing() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let fixture = fixture();
    let (program, new) = (fixture.path("phi3v"), fixture.path("new"));
    let real = env!("CARGO_BIN_EXE_phi3v");
    std::fs::hard_link(real, &program).or_else(|_| std::fs::copy(real, &program).map(drop)).unwrap();
    std::fs::write(&new, "another version").unwrap();
    let mut command = Command::new(&program);
    command.args(["chat", "--max-new-tokens", "2", "--num-crops", "1", "--pages", "1"]);
    let settings = fixture.command(&[""; 0]);
    command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(fixture.path("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::fs::rename(&new, &program).unwrap();
    child.stdin.take().unwrap().write_all(b"/image shapes.pdf\nWhat?\n").unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert!(run.code == Some(0) && run.stderr.contains("shapes.pdf#page=1 goes with"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn another_version_in_the_program_s_place_is_told_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = fixture();
    let program = fixture.path("draws");
    std::fs::write(&program, "#!/bin/sh\necho '{\"Ready\":{\"version\":\"9.9.9\"}}'\nexec cat\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = Drawer::by(&program).open(&blank_pages(1)).err().unwrap();
    assert!(refused.to_string().contains("phi3v was replaced by version 9.9.9 while it runs"), "{refused}");
    assert!(refused.hint().unwrap().contains("start it again"));
}

/// A PDF of these objects, the first of which is its catalogue. Its table is left to the reader to make.
fn pdf(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"%PDF-1.7\n".to_vec();
    for (index, object) in objects.iter().enumerate() {
        file.extend(format!("{} 0 obj\n", index + 1).bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    }
    file.extend(b"trailer\n<< /Root 1 0 R >>\n");
    file
}

fn stream(entries: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("<< {entries} /Length {} >>\nstream\n", content.len());
    [head.as_bytes(), content, b"\nendstream"].concat()
}

fn blank_pages(count: usize) -> Vec<u8> {
    let kids = (0..count).fold(String::new(), |mut kids, page| {
        let _ = write!(kids, "{} 0 R ", page + 3);
        kids
    });
    let mut objects = vec![b"<< /Type /Catalog /Pages 2 0 R >>".to_vec()];
    objects.push(format!("<< /Type /Pages /Count {count} /Kids [{kids}] >>").into_bytes());
    objects.extend(vec![b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>".to_vec(); count]);
    pdf(&objects)
}

/// A page with this content, and objects from 5 on.
fn page(resources: &str, content: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let page = format!(
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << {resources} >> >>"
    );
    let head = [
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>".to_vec(),
        page.into_bytes(),
        stream("", content.as_bytes()),
    ];
    pdf(&[&head[..], more].concat())
}

/// A picture of 60,000 x 60,000 pixels in a few bytes: zeros, packed twice by run lengths.
fn enormous() -> Vec<u8> {
    let image = stream(
        "/Type /XObject /Subtype /Image /Width 60000 /Height 60000 /ColorSpace /DeviceRGB /BitsPerComponent 8 \
         /Filter [/RunLengthDecode /RunLengthDecode /RunLengthDecode]",
        &[0x81, 0x81].repeat(3000),
    );
    page("/XObject << /I 5 0 R >>", "595 0 0 842 0 0 cm /I Do", &[image])
}

/// A page with a red field, and a picture on it that no decoder understands.
fn lacking() -> Vec<u8> {
    let image = stream(
        "/Type /XObject /Subtype /Image /Width 8 /Height 8 /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /JPXDecode",
        b"no picture at all",
    );
    let content = "1 0 0 rg 0 0 600 400 re f q 100 0 0 100 50 600 cm /I Do Q";
    page("/XObject << /I 5 0 R >>", content, &[image])
}

#[test]
fn a_page_that_lacks_something_is_told_of_by_every_command() {
    let fixture = fixture();
    std::fs::create_dir_all(fixture.path("scans/no")).unwrap();
    std::fs::create_dir_all(fixture.path("scans/yes")).unwrap();
    for name in ["lacking.pdf", "scans/no/lacking.pdf"] {
        std::fs::write(fixture.path(name), lacking()).unwrap();
    }
    std::fs::copy(fixture.path("small.png"), fixture.path("scans/yes/small.png")).unwrap();
    let told = "lacking.pdf: a picture or a font on it could not be drawn, and is missing\n";
    for args in [
        &["ask", "lacking.pdf", "What?", "--max-new-tokens", "2"][..],
        &["decide", "lacking.pdf", "What?", "--choices", "a,b"],
        &["calibrate", "scans", "--prompt", "What?", "--num-crops", "1"],
        &["trace", "--prompt", "<|image_1|>", "--image", "lacking.pdf", "--out", "t"],
        &["eval", "--prompt", "What?", "--image", "lacking.pdf", "--max-new-tokens", "2", "--quant", "none"],
        &["batch", "-q", "scans", "--prompt", "What?", "--max-new-tokens", "2"],
    ] {
        let run = fixture.run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(told), "{args:?}: {}", run.stderr);
    }
    let rows = super::batch::rows(&fixture.path("results.jsonl"));
    let warning = rows["no/lacking.pdf"]["warning"].as_str().unwrap();
    assert!(warning.ends_with(told.trim_end()) && rows["yes/small.png"].get("warning").is_none(), "{rows:?}");
    let url = format!("data:application/pdf;base64,{}", base64::prelude::BASE64_STANDARD.encode(lacking()));
    let parts = serde_json::json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]);
    let body = serde_json::json!({"messages": [{"role": "user", "content": parts}], "max_tokens": 2});
    std::fs::write(
        fixture.path("lines.jsonl"),
        serde_json::json!({"custom_id": "one", "body": body}).to_string(),
    )
    .unwrap();
    let run = fixture.run(&["batch", "-q", "lines.jsonl", "--out", "answers.jsonl"]);
    assert!(
        run.code == Some(0) && run.stderr.starts_with("one: a picture or a font on a page"),
        "{}",
        run.stderr
    );
    let rows = super::batch::rows(&fixture.path("answers.jsonl"));
    assert!(rows["one"]["warning"].is_string(), "{rows:?}");
}

fn drawer(limits: DrawLimits) -> Drawer {
    Drawer::by(Path::new(env!("CARGO_BIN_EXE_phi3v"))).with_limits(limits)
}

fn draw(bytes: &[u8], limits: DrawLimits) -> Result<usize, DocumentError> {
    let mut document = drawer(limits).open(bytes)?;
    document.draw(1, 16)?;
    Ok(document.pages())
}

#[test]
fn a_document_that_takes_too_long_is_ended() {
    let limits = DrawLimits { page_time_max: Duration::from_secs(2), ..DrawLimits::default() };
    let begun = Instant::now();
    let refused = draw(&std::fs::read(document("endless.pdf")).unwrap(), limits).unwrap_err();
    assert!(matches!(refused, DocumentError::Time { .. }), "{refused}");
    assert_eq!(refused.to_string(), "the document could not be drawn within 2 s for a page, the limit");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn documents_have_a_time_together() {
    let endless = std::fs::read(document("endless.pdf")).unwrap();
    let drawer = drawer(DrawLimits::default()).together_within(Duration::from_secs(2));
    let mut open = drawer.open(&endless).unwrap();
    let words = "the documents and pictures could not be drawn within 2 s together, the limit";
    assert_eq!(open.draw(1, 16).unwrap_err().to_string(), words);
    assert!(!open.is_open());
    // nothing is begun when the time is over
    for refused in [open.draw(1, 16).err(), drawer.open(&blank_pages(1)).err()] {
        assert!(matches!(refused, Some(DocumentError::TimeTogether { .. })), "{refused:?}");
    }
}

#[test]
fn a_document_that_nobody_asks_for_a_page_is_not_ended() {
    let limits = DrawLimits { page_time_max: Duration::from_secs(3), ..DrawLimits::default() };
    let bytes = std::fs::read(document("shapes.pdf")).unwrap();
    let mut open = [(); 3].map(|()| drawer(limits).open(&bytes).unwrap());
    // one that was only opened, one of which a page was drawn, and one of which none could be
    assert!(open[1].draw(2, 1).is_ok());
    assert!(matches!(open[2].draw(9, 1), Err(DocumentError::Pdf(_))));
    std::thread::sleep(limits.page_time_max + Duration::from_millis(500));
    for open in &mut open {
        assert_eq!(open.draw(1, 1).unwrap().0.width, 237);
    }
}

#[test]
fn a_document_that_takes_too_much_memory_is_ended_or_refused() {
    let limits = DrawLimits { memory_max: 300 << 20, ..DrawLimits::default() };
    // the reader of PDF refuses it today; without that it would be ended
    let refused = draw(&enormous(), limits).unwrap_err();
    assert!(matches!(refused, DocumentError::Memory { .. } | DocumentError::Pdf(_)), "{refused}");
    // what it has, it may use
    assert_eq!(draw(&blank_pages(2), DrawLimits::default()).unwrap(), 2);
    let little = DrawLimits { memory_max: 1, ..DrawLimits::default() };
    let refused = draw(&std::fs::read(document("endless.pdf")).unwrap(), little).unwrap_err();
    assert!(matches!(refused, DocumentError::Memory { limit: 1 }), "{refused}");
}

#[test]
fn of_a_document_of_more_pages_than_are_looked_at_some_can_be_chosen() {
    let fixture = fixture();
    std::fs::write(fixture.path("long.pdf"), blank_pages(10_001)).unwrap();
    let chosen = looked_at(&fixture, &["long.pdf", "--pages", "10001,2", "What?"]);
    let names: Vec<String> = chosen.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["long.pdf#page=10001", "long.pdf#page=2"]);
    let refused = ask(&fixture, &["long.pdf", "--pages", "1-", "What?"]).refusal(3);
    assert!(refused.contains("the document has 10001 pages, and 10000 at most"), "{refused}");
    assert!(refused.contains("--pages 1-10000"), "{refused}");
    let job = ["batch", "-q", "long.pdf", "--prompt", "What?", "--max-new-tokens", "2", "--num-crops", "1"];
    let all = fixture.run(&[&job[..], &["--out", "all.jsonl"]].concat());
    assert!(all.code == Some(6) && all.stderr.contains("the document has 10001 pages"), "{}", all.stderr);
    fixture.run(&[&job[..], &["--out", "some.jsonl", "--pages", "3,10001"]].concat()).answer();
    let rows = std::fs::read_to_string(fixture.path("some.jsonl")).unwrap();
    assert!(rows.contains("\"long.pdf#page=10001\"") && rows.contains("\"long.pdf#page=3\""), "{rows}");
}

#[test]
fn a_program_that_does_not_draw_is_no_file_s_error() {
    let absent = ["/nonexistent/phi3v", env!("CARGO_MANIFEST_DIR")];
    // which end without a word, or say another
    let others: &[&str] = if cfg!(unix) { &["true", "echo"] } else { &[] };
    for program in absent.iter().chain(others) {
        let drawer = Drawer::by(Path::new(program));
        let document = drawer.open(&vec![0; 1 << 20]).err().unwrap();
        assert!(matches!(document, DocumentError::Start(_)), "{program}: {document}");
        let picture =
            drawer.picture("AVIF", &[0; 100], ImageMode::AsSeen, &ImageLimits::default()).unwrap_err();
        assert!(matches!(picture, DocumentError::Start(_)), "{program}: {picture}");
    }
}

/// A program that draws and leaves a line in the file `starts` for every time it was started: the number of its process.
#[cfg(unix)]
fn counted_drawer(fixture: &Fixture) -> (Drawer, impl Fn() -> usize) {
    use std::os::unix::fs::PermissionsExt;
    let (program, log) = (fixture.path("draws"), fixture.path("starts"));
    let (real, noted) = (env!("CARGO_BIN_EXE_phi3v"), log.display());
    std::fs::write(&program, format!("#!/bin/sh\necho $$ >> '{noted}'\nexec '{real}' \"$@\"\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let starts = move || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    (Drawer::by(&program), starts)
}

#[cfg(unix)]
#[test]
fn the_pages_of_a_batch_are_drawn_by_the_process_that_counted_them() {
    let fixture = fixture();
    let (drawer, starts) = counted_drawer(&fixture);
    for name in ["a.pdf", "b.pdf", "c.pdf"] {
        std::fs::write(fixture.path(name), blank_pages(60)).unwrap();
    }
    std::fs::write(fixture.path("one.pdf"), blank_pages(1)).unwrap();
    let params = ImageParams::default().with_num_crops(1);
    let files = ImageOptions::of_files(ImageMode::AsSeen, params, ImageLimits::default());
    let options = files.drawn_by(drawer);
    let names = ["a.pdf", "b.pdf", "c.pdf", "one.pdf"].map(|name| fixture.path(name).into_os_string());
    let (open, no_input) = (OpenFiles::default(), &mut std::io::empty());
    let found = find(&names, no_input).unwrap().with_pages(&options, &open, &mut |_, _| {});
    let Inputs::Pictures { items, .. } = found else { panic!("pictures") };
    assert_eq!((items.len(), starts()), (181, 4));
    for (index, item) in items.iter().enumerate() {
        let picture = read_page(&item.source, item.page, &options, &open).unwrap();
        assert_eq!(
            picture.name.ends_with(&format!("#page={}", index % 60 + 1)),
            index < 180,
            "{}",
            picture.name
        );
    }
    assert_eq!(starts(), 4);
}

#[cfg(unix)]
#[test]
fn a_document_whose_process_has_ended_is_opened_once_more() {
    let fixture = fixture();
    let (drawer, starts) = counted_drawer(&fixture);
    let files = ImageOptions::of_files(ImageMode::AsSeen, ImageParams::default(), ImageLimits::default());
    let (options, open) = (files.drawn_by(drawer), OpenFiles::default());
    let source = fixture.path("shapes.pdf").into_os_string();
    read_page(&source, Some(1), &options, &open).unwrap();
    let process = std::fs::read_to_string(fixture.path("starts")).unwrap();
    let killed = std::process::Command::new("kill").args(["-9", process.trim()]).status().unwrap();
    assert!(killed.success() && starts() == 1);
    let second = read_page(&source, Some(2), &options, &open).unwrap();
    assert!(second.name.ends_with("#page=2") && starts() == 2, "{}", second.name);
}

#[test]
fn the_pages_of_a_batch_are_of_the_file_that_was_read_once() {
    let fixture = fixture();
    let files = ImageOptions::of_files(ImageMode::AsSeen, ImageParams::default(), ImageLimits::default());
    let options = files.with_pages(Some("1-".parse().unwrap()));
    let names = [fixture.path("pages.tif").into_os_string()];
    let (open, no_input) = (OpenFiles::default(), &mut std::io::empty());
    let found = find(&names, no_input).unwrap().with_pages(&options, &open, &mut |_, _| {});
    let Inputs::Pictures { items, .. } = found else { panic!("pictures") };
    assert_eq!(items.len(), 3);
    std::fs::remove_file(fixture.path("pages.tif")).unwrap();
    let widths = items.iter().map(|item| {
        let picture = read_page(&item.source, item.page, &options, &open).unwrap();
        picture.inputs.original_size.width
    });
    assert_eq!(widths.collect::<Vec<_>>()[1..], [30, 20]);
    let unread = read_page(&names[0], Some(1), &options, &OpenFiles::default());
    assert!(unread.is_err(), "it is there no more");
}

/// Ctrl-C in a terminal goes to all of the group of the program that answers, which is to finish its answer.
#[cfg(target_os = "linux")]
#[test]
fn a_process_that_draws_is_not_of_the_group_that_ctrl_c_goes_to() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = fixture();
    let (program, noted, real) = (fixture.path("draws"), fixture.path("group"), env!("CARGO_BIN_EXE_phi3v"));
    let script = format!(
        "#!/bin/sh\nread -r id name state parent group rest < /proc/$$/stat\necho $id $group > '{}'\nexec '{real}' \"$@\"\n",
        noted.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(Drawer::by(&program).open(&blank_pages(1)).unwrap().pages(), 1);
    let noted = std::fs::read_to_string(noted).unwrap();
    let (id, group) = noted.trim().split_once(' ').unwrap();
    assert_eq!(id, group, "it leads a group of its own");
}

#[test]
fn a_process_that_draws_ends_with_its_input_in_the_middle_of_a_page() {
    use phi3v_cli::documents::worker::{Reply, Request, WORD, Work};
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let mut command = Command::new(env!("CARGO_BIN_EXE_phi3v"));
    let mut child = command.arg(WORD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let bytes = std::fs::read(document("endless.pdf")).unwrap();
    let work = serde_json::to_string(&Work::Pdf(bytes.len() as u64)).unwrap();
    writeln!(stdin, "{work}").unwrap();
    stdin.write_all(&bytes).unwrap();
    let mut replies =
        BufReader::new(stdout).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    assert!(matches!(replies.next(), Some(Reply::Ready { .. })));
    if cfg!(target_os = "linux") {
        let first = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", child.id())).unwrap();
        assert_eq!(first.trim(), "1000", "it is ended first where memory runs out");
    }
    assert!(matches!(replies.next(), Some(Reply::Pages(1))));
    // which takes longer than anybody has
    writeln!(stdin, "{}", serde_json::to_string(&Request { page: 1, num_crops: 1 }).unwrap()).unwrap();
    drop(stdin);
    let given_up = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > given_up {
            child.kill().unwrap();
            panic!("it goes on drawing");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(unix)]
#[test]
fn a_process_that_was_ended_is_followed_by_another() {
    let fixture = fixture();
    let (drawer, starts) = counted_drawer(&fixture);
    let drawer =
        drawer.with_limits(DrawLimits { page_time_max: Duration::from_secs(2), ..DrawLimits::default() });
    let path = document("endless.pdf").into_os_string();
    let files = ImageOptions::of_files(ImageMode::AsSeen, ImageParams::default(), ImageLimits::default());
    let (options, open) = (files.drawn_by(drawer), OpenFiles::default());
    for started in 1..=2 {
        let refused = read_page(&path, Some(1), &options, &open).unwrap_err();
        assert!(refused.to_string().contains("within 2 s for a page"), "{refused}");
        assert_eq!((starts(), open.take(&path).is_none()), (started, true));
    }
    let missing = read_page(&path, Some(2), &options, &open).unwrap_err();
    assert!(missing.to_string().contains("there is no page 2"), "{missing}");
}
