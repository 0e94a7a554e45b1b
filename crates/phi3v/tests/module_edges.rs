//! The dependency direction inside the library and between the crates, as a test.
//!
//! Each module may name only the modules listed for it (and itself). The list is the architecture: a new edge is a
//! decision to be made here first.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use phi3v_kernels::testing::sources::{code, files, paths_from, rust_files};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Module, and the modules of this crate that it may name. `error` gathers the errors of all areas, so it may name
/// every one of them; everybody may name `error`, `Error` and `Result`.
const EDGES: &[(&str, &[&str])] = &[
    ("config", &["image"]),
    ("threads", &[]),
    ("image", &["threads"]),
    ("document", &["image"]),
    ("tokenizer", &[]),
    ("files", &[]),
    ("demo", &["files"]),
    ("device", &[]),
    ("sampler", &[]),
    ("stop", &["sampler"]),
    ("presets", &[]),
    ("constraint", &["presets", "tokenizer"]),
    ("chat_template", &[]),
    ("weights", &["config", "files", "threads"]),
    ("processor", &["tokenizer", "chat_template"]),
    ("checkpoint", &["config", "files", "weights", "tokenizer", "image"]),
    ("memory", &["config", "device", "model"]),
    ("model", &["config", "weights", "image"]),
    ("engine", &["model", "image", "tokenizer", "sampler", "stop", "constraint"]),
    ("eval", &["model", "image"]),
    ("decide", &["chat_template", "engine", "image", "processor", "tokenizer"]),
    (
        "conversation",
        &["chat_template", "decide", "engine", "image", "processor", "sampler", "stop", "tokenizer"],
    ),
    ("batch", &["engine"]),
    ("placing", &["engine"]),
    ("words", &["engine", "placing"]),
    ("fields", &["constraint", "engine", "placing"]),
    (
        "session",
        &[
            "batch",
            "checkpoint",
            "conversation",
            "decide",
            "demo",
            "device",
            "engine",
            "files",
            "image",
            "memory",
            "model",
            "tokenizer",
        ],
    ),
    ("trace", &["engine", "model", "image", "tokenizer", "processor"]),
];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)
}

/// Modules of this crate that the code names.
fn named_modules(code: &str) -> BTreeSet<String> {
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    // types and functions of the root are those of modules, or `Error` and `Result`
    let is_module = |name: &String| name.starts_with(|c: char| c.is_ascii_lowercase());
    paths_from(code, "crate::").iter().map(first).filter(is_module).collect()
}

#[test]
fn modules_name_only_what_they_may() {
    let mut listed = BTreeSet::from(["error".to_owned(), "lib".to_owned()]);
    for (module, allowed) in EDGES {
        let mut files = Vec::new();
        for candidate in [format!("{module}.rs"), (*module).to_owned()] {
            if source(&candidate).exists() {
                files.extend(rust_files(&source(&candidate)));
            }
        }
        assert!(!files.is_empty(), "module {module} has no source");
        listed.insert((*module).to_owned());
        for file in files {
            for name in named_modules(&code(&file)) {
                let fine = name == *module || name == "error" || allowed.contains(&name.as_str());
                assert!(fine, "{} names crate::{name}, which {module} may not know", file.display());
            }
        }
    }
    for entry in std::fs::read_dir(source("")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(listed.contains(&name), "module {name} is not in the table of edges");
    }
}

#[test]
fn crates_depend_in_one_direction() {
    let manifest = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("Cargo.toml");
        std::fs::read_to_string(path).unwrap()
    };
    assert!(!manifest("kernels").contains("\nphi3v"), "kernels knows no Phi-3");
    for name in manifest("gpu").lines().filter(|line| line.starts_with("phi3v")) {
        assert_eq!(name, "phi3v-kernels.workspace = true", "gpu knows no Phi-3");
    }
    let library = manifest("phi3v");
    for forbidden in ["tokio", "clap", "axum", "hyper", "ureq", "phi3v-cli"] {
        assert!(!library.contains(&format!("\n{forbidden}")), "the library depends on {forbidden}");
    }
}

#[test]
fn unsafe_code_lives_in_kernels_and_the_seam_to_c_only() {
    // of `gpu` six functions say why they are excepted; what PyO3 makes of Python's functions is excepted by itself
    for (name, level, exceptions) in [
        ("phi3v", "forbid", 0),
        ("cli", "forbid", 0),
        ("../tools", "forbid", 0),
        ("python", "deny", 0),
        ("gpu", "deny", 6),
    ] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains(&format!("unsafe_code = \"{level}\"")),
            "{name} does not {level} unsafe code"
        );
        let texts =
            rust_files(&root.join("src")).into_iter().map(|file| std::fs::read_to_string(file).unwrap());
        let excepted: usize = texts.map(|text| text.matches("(unsafe_code").count()).sum();
        assert_eq!(excepted, exceptions, "exceptions of {name}");
    }
}

/// The text up to the first `separator` that is in no brackets, and what follows it.
fn split_outside(text: &str, separator: char) -> (&str, &str) {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        if c == '>' && text[..at].ends_with('-') {
            continue;
        }
        if depth == 0 && c == separator {
            return (&text[..at], &text[at + 1..]);
        }
        depth += i32::from("([{<".contains(c)) - i32::from(")]}>".contains(c));
    }
    (text, "")
}

/// The parameters of a function, from the text after its name on.
fn parameters(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('<').map_or(text, |generics| split_outside(generics, '>').1);
    Some(split_outside(rest.strip_prefix('(')?, ')').0)
}

/// Whether a type is a tuple, or a reference to one.
fn is_tuple(mut kind: &str) -> bool {
    while let Some(referred) = kind.trim_start().strip_prefix('&') {
        let lifetime = referred.starts_with('\'').then(|| referred.split_once(' ')).flatten();
        let referred = lifetime.map_or(referred, |(_, rest)| rest);
        kind = referred.strip_prefix("mut ").unwrap_or(referred);
    }
    let inside = kind.trim_start().strip_prefix('(').map(|rest| split_outside(rest, ')').0);
    inside.is_some_and(|inside| split_outside(inside, ',').0 != inside)
}

/// The functions of a text that take a tuple, by name.
fn takes_tuples(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, word) in text.match_indices("fn ") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name = &text[at + word.len()..];
        let name = &name[..name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len())];
        let mut rest = parameters(&text[at + word.len() + name.len()..]).unwrap_or_default();
        while !rest.is_empty() {
            let (parameter, others) = split_outside(rest, ',');
            if is_tuple(split_outside(parameter, ':').1) {
                found.push(name);
            }
            rest = others;
        }
    }
    found
}

#[test]
fn no_function_takes_a_tuple() {
    let text = "fn a<F: Fn((u8, u8)) -> u8>(x: &[(u8, u8)], f: F) fn b((x, y): (u8, u8)) fn c(&self, x: &'a mut (u8, &str))
        fn d(x: &(dyn Any + Send), y: fn((u8, u8)) -> u8) fn e<T>(x: T, (y,): (u8,))";
    assert_eq!(takes_tuples(text), ["b", "c", "e"]);
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap() {
        for file in rust_files(&entry.unwrap().path().join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let found = takes_tuples(&code.join("\n")).join(", ");
            assert!(
                found.is_empty(),
                "{}: a struct has names for the parts that {found} takes",
                file.display()
            );
        }
    }
}

#[test]
fn no_file_is_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let of_python = ["crates/python/python", "crates/python/tests", "examples/python", "scripts/reference"]
        .map(|folder| root.join(folder));
    let packages = std::fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let of_rust = packages.chain([root.join("tools"), root.join("fuzz")]).flat_map(|package| {
        ["src", "tests", "benches", "examples", "fuzz_targets"].map(|folder| package.join(folder))
    });
    let of_rust = of_rust.filter(|folder| folder.is_dir() && !of_python.contains(folder));
    let rust = of_rust.flat_map(|folder| rust_files(&folder));
    for file in rust.chain(of_python.iter().flat_map(|folder| files(folder, "py"))) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 800, "{} has {lines} lines, the limit is 800", file.display());
    }
}
