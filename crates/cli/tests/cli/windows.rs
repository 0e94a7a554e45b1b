//! What Windows alone has: paths beyond 260 letters, names that are no Unicode, folders of its own.
#![cfg(windows)]

use super::quantized::cached_in;
use super::{Fixture, Run, tiny};
use std::ffi::{OsStr, OsString};
use std::os::windows::ffi::OsStringExt;

/// What a long path makes harder than a short one: every file that is read or written.
#[test]
fn a_path_of_more_than_260_letters_is_one_like_any_other() {
    let fixture = Fixture::new();
    let folder =
        fixture.dir.path().join(["long"; 25].concat()).join(["path"; 25].concat()).join("x".repeat(100));
    assert!(folder.as_os_str().len() > 300);
    std::fs::create_dir_all(folder.join("tiny")).unwrap();
    for file in std::fs::read_dir(tiny()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join("tiny").join(file.file_name())).unwrap();
    }
    let at = |name: &str| folder.join(name).into_os_string().into_string().unwrap();
    std::fs::copy(fixture.path("small.png"), at("small.png")).unwrap();
    let ask = |picture: &str, model: &str| {
        fixture.run(&["ask", "--model", model, picture, "What?", "--max-new-tokens", "4"]).answer()
    };
    let short = ask("small.png", tiny().to_str().unwrap());
    assert_eq!(ask(&at("small.png"), &at("tiny")), short);
    // one that is long from the folder on that the program runs in
    let relative = folder.strip_prefix(fixture.dir.path()).unwrap().join("small.png");
    assert!(relative.as_os_str().len() > 260);
    assert_eq!(ask(relative.to_str().unwrap(), &at("tiny")), short);
    assert_eq!(fixture.run(&["quantize", &at("tiny"), "--out", &at("q8.safetensors")]).code, Some(0));
    ask(&at("small.png"), &at("q8.safetensors"));
    let results = at("results.jsonl");
    for _ in 0..2 {
        let batch =
            ["batch", "-q", &at("small.png"), "--prompt", "What?", "--max-new-tokens", "2", "-o", &results];
        fixture.run(&batch).answer();
    }
    assert_eq!(std::fs::read_to_string(&results).unwrap().lines().count(), 2);
    assert_eq!(fixture.run(&["trace", "--prompt", "x", "--out", &at("trace.safetensors")]).code, Some(0));
    let mut command = fixture.command(&["ask", "--quant", "q4", "--max-new-tokens", "1", "Who?"]);
    assert_eq!(Run::of(command.env("PHI3V_CACHE", at("cache")).output().unwrap()).code, Some(0));
    assert_eq!(cached_in(&folder.join("cache")).len(), 1);
}

#[test]
fn a_name_that_is_no_unicode_is_a_name() {
    let fixture = Fixture::new();
    let mut name = OsString::from_wide(&[0xD800]);
    name.push(".png");
    let ask = |picture: &OsStr| {
        let words = ["What?", "--max-new-tokens", "4"].map(OsStr::new);
        fixture.run(&[&[OsStr::new("ask"), picture], &words[..]].concat())
    };
    let told = ask(&name).refusal(3);
    assert!(told.starts_with("error: cannot read \u{fffd}.png: "), "{told}");
    // what is to be text is refused where it is none
    let told = fixture.run(&[OsStr::new("ask"), OsStr::new("small.png"), &name]).refusal(2);
    assert!(told.starts_with("error: "), "{told}");
    if std::fs::copy(fixture.path("small.png"), fixture.dir.path().join(&name)).is_err() {
        phi3v_kernels::testing::skip("a file whose name is no Unicode", "use NTFS, and not Wine");
        return;
    }
    assert_eq!(ask(&name).answer(), ask(OsStr::new("small.png")).answer());
}

#[test]
fn what_is_made_again_is_kept_in_the_users_local_folder() {
    let fixture = Fixture::new();
    let mut command = fixture.command(&["ask", "--quant", "q8", "--max-new-tokens", "1", "Who?"]);
    command.env_remove("PHI3V_CACHE").env_remove("XDG_CACHE_HOME").env("LOCALAPPDATA", fixture.path("local"));
    assert_eq!(Run::of(command.output().unwrap()).code, Some(0));
    assert_eq!(cached_in(&fixture.path("local/phi3v")).len(), 1);
}
