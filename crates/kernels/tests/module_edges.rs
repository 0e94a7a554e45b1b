//! Tests which parts of this crate may name which, and that no files name each other in a cycle.
//!
//! Kernels (`cpu/arch`) know the types that operations call them by (`cpu/table`), operations (`cpu/ops`) know the
//! same types, and neither knows the other. An instruction set can therefore be added without regard to how work is
//! cut, and work is cut the same way for all of them. A new edge is a decision to be made here first.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use phi3v_kernels::testing::sources::{code, paths_from, rust_files};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A part, and the parts that it may name besides itself. The longest part that is a prefix of a path counts.
const EDGES: &[(&str, &[&str])] = &[
    ("lib", &["backend", "bytes", "cpu", "format"]),
    ("backend", &["bytes", "format"]),
    ("bytes", &[]),
    ("format", &[]),
    ("quant", &["format"]),
    ("cores", &[]),
    ("threads", &[]),
    ("testing", &["backend", "bytes", "cpu", "format", "quant"]),
    ("cpu", &["backend", "cores", "cpu/dispatch", "cpu/features", "cpu/level", "cpu/ops"]),
    (
        "cpu/dispatch",
        &[
            "cpu/arch/scalar",
            "cpu/arch/aarch64/neon",
            "cpu/arch/aarch64/dotprod",
            "cpu/arch/aarch64/i8mm",
            "cpu/arch/x86_64/avx2",
            "cpu/arch/x86_64/avxvnni",
            "cpu/arch/x86_64/avx512",
            "cpu/arch/x86_64/amx",
            "cpu/features",
            "cpu/level",
            "cpu/table",
        ],
    ),
    ("cpu/arch", &[]),
    ("cpu/features", &[]),
    ("cpu/level", &["cpu/features"]),
    ("cpu/prefetch", &[]),
    ("cpu/table", &["backend", "format", "quant", "cpu/prefetch"]),
    ("cpu/ops", &["backend", "bytes", "format", "quant", "threads", "cpu/prefetch", "cpu/table"]),
    ("cpu/arch/scalar", &["backend", "format", "quant", "cpu/table"]),
    ("cpu/arch/aarch64", &[]),
    (
        "cpu/arch/aarch64/neon",
        &["backend", "format", "quant", "cpu/prefetch", "cpu/table", "cpu/arch/scalar"],
    ),
    ("cpu/arch/aarch64/dotprod", &["quant", "cpu/table", "cpu/arch/aarch64/neon"]),
    (
        "cpu/arch/aarch64/i8mm",
        &["backend", "format", "quant", "cpu/table", "cpu/arch/aarch64/neon", "cpu/arch/aarch64/dotprod"],
    ),
    ("cpu/arch/x86_64", &[]),
    ("cpu/arch/x86_64/avx2", &["backend", "format", "quant", "cpu/prefetch", "cpu/table", "cpu/arch/scalar"]),
    ("cpu/arch/x86_64/avxvnni", &["quant", "cpu/table", "cpu/arch/x86_64/avx2"]),
    (
        "cpu/arch/x86_64/avx512",
        &["backend", "format", "quant", "cpu/prefetch", "cpu/table", "cpu/arch/scalar"],
    ),
    ("cpu/arch/x86_64/amx", &["backend", "quant", "cpu/prefetch", "cpu/table", "cpu/arch/x86_64/avx512"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns all source files by their paths below `src` without extension; the `mod.rs` of a folder has the folder's
/// name.
fn files() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for path in rust_files(&root()) {
        let below = path.strip_prefix(root()).unwrap().with_extension("");
        let name = below.to_str().unwrap().replace('\\', "/");
        if !name.ends_with("/tests") {
            found.insert(name.strip_suffix("/mod").unwrap_or(&name).to_owned(), path);
        }
    }
    found
}

/// Returns the paths that the code names from `crate` or `super` on, as paths below `src`. `names` has the items of
/// the crate's root.
fn named(file: &str, path: &Path, names: &BTreeMap<String, String>) -> BTreeSet<String> {
    let parent = file.rsplit_once('/').map_or("", |(parent, _)| parent);
    let code = code(path);
    let mut found = Vec::new();
    for (root, base) in [("crate::", ""), ("super::", parent)] {
        found.extend(paths_from(&code, root).iter().map(|path| resolve(base, path, names)));
    }
    found.into_iter().collect()
}

/// Resolves `path`, seen from the module `base`, to a path below `src`.
fn resolve(base: &str, path: &str, names: &BTreeMap<String, String>) -> String {
    let (mut base, mut path) = (base.to_owned(), path);
    while let Some(rest) = path.strip_prefix("super/") {
        base = base.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
        path = rest;
    }
    if !base.is_empty() {
        return format!("{base}/{path}");
    }
    let first = path.split('/').next().unwrap();
    match names.get(first) {
        Some(module) => format!("{module}/{path}"),
        None => path.to_owned(),
    }
}

/// Returns the names that `lib.rs` exports, and the modules they come from.
fn root_names() -> BTreeMap<String, String> {
    let text = code(&root().join("lib.rs"));
    let mut names = BTreeMap::new();
    for path in paths_from(&text, "use ") {
        let (module, name) = path.rsplit_once('/').unwrap();
        names.insert(name.to_owned(), module.to_owned());
    }
    names
}

/// Returns the longest of `names` that contains `path`.
fn within<'a>(path: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .filter(|name| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        .max_by_key(|name| name.len())
}

#[test]
fn parts_name_only_what_they_may() {
    let all = files();
    let names = root_names();
    let parts = || EDGES.iter().map(|(part, _)| *part);
    for part in parts() {
        assert!(all.keys().any(|file| within(file, [part].into_iter()).is_some()), "{part} has no source");
    }
    for (file, path) in &all {
        let part = within(file, parts()).unwrap_or_else(|| panic!("{file} is in no part"));
        let allowed = EDGES.iter().find(|(name, _)| *name == part).unwrap().1;
        for target in named(file, path, &names) {
            let Some(other) = within(&target, parts()) else { panic!("{file} names {target}") };
            assert!(
                other == part || allowed.contains(&other),
                "{file} names {target}: {part} may not know {other}"
            );
        }
    }
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let all = files();
    let names = root_names();
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, path) in &all {
        let targets = named(file, path, &names);
        let targets = targets.iter().filter_map(|target| within(target, all.keys().map(String::as_str)));
        edges.insert(file, targets.filter(|target| target != file).collect());
    }
    // a file that names no remaining file is in no cycle
    while let Some(file) = edges.iter().find(|(_, targets)| targets.is_empty()).map(|(file, _)| *file) {
        edges.remove(file);
        edges.values_mut().for_each(|targets| _ = targets.remove(file));
    }
    assert!(edges.is_empty(), "circles among {edges:?}");
}

#[test]
fn operations_know_no_instruction_set() {
    let all = files();
    for (file, path) in all.iter().filter(|(file, _)| file.starts_with("cpu/ops")) {
        assert!(!code(path).contains("target_arch"), "{file} asks for an architecture");
    }
}
