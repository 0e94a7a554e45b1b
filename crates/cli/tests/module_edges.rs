//! Which modules of the command may name which, and what ARCHITECTURE says is absent, as tests.
//!
//! The table is the architecture: a new edge is a decision to be made here first.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use clap::CommandFactory;
use phi3v_cli::args::Cli;
use phi3v_kernels::testing::sources::{self, code, paths_from};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Module, and the modules that it may name. Each names only those above it, so that there is no circle.
const EDGES: &[(&str, &[&str])] = &[
    ("bench", &[]),
    ("disk", &[]),
    ("fields", &[]),
    ("origin", &[]),
    ("sys", &[]),
    ("tables", &[]),
    ("variables", &[]),
    ("version", &[]),
    ("trust", &["variables"]),
    ("terminal", &["variables"]),
    ("paths", &["sys", "variables"]),
    ("identity", &["paths", "sys"]),
    ("bounded", &["paths"]),
    ("progress", &["terminal"]),
    ("documents", &["paths", "sys", "version"]),
    ("sources", &["documents", "paths", "sys", "terminal", "trust", "variables"]),
    ("hub", &["disk", "identity", "paths", "sys", "terminal", "trust", "variables"]),
    ("server", &["bounded", "documents", "fields", "origin", "sources", "version"]),
    ("batch", &["bounded", "disk", "documents", "paths", "server", "sources", "sys", "tables", "terminal"]),
    ("decide", &["batch", "bounded", "paths", "sources"]),
    ("error", &["batch", "decide", "disk", "hub", "paths", "sources"]),
    ("hints", &["documents", "error", "hub", "paths", "sources", "terminal", "trust"]),
    ("interrupt", &["error", "sys", "terminal"]),
    (
        "args",
        &[
            "batch",
            "bounded",
            "decide",
            "documents",
            "error",
            "origin",
            "paths",
            "sources",
            "variables",
            "version",
        ],
    ),
    ("output", &["error", "hub", "paths"]),
    (
        "quantized",
        &["disk", "error", "hub", "identity", "interrupt", "paths", "progress", "terminal", "variables"],
    ),
    ("runtime", &["args", "error", "hub", "progress", "quantized", "terminal"]),
    ("conversation", &["args", "error", "runtime", "sources"]),
    ("answer", &["error", "interrupt", "progress", "sources", "terminal"]),
    ("report", &["args", "decide", "fields", "runtime", "sources", "terminal"]),
    (
        "commands",
        &[
            "answer",
            "args",
            "batch",
            "bench",
            "bounded",
            "conversation",
            "decide",
            "documents",
            "error",
            "hub",
            "interrupt",
            "output",
            "paths",
            "progress",
            "quantized",
            "report",
            "runtime",
            "server",
            "sources",
            "sys",
            "tables",
            "terminal",
            "trust",
            "variables",
            "version",
        ],
    ),
    ("entry", &["args", "commands", "documents", "error", "sys", "terminal"]),
];

/// Macros of the crate, and the module that each belongs to.
const MACROS: &[(&str, &str)] = &[("note", "terminal"), ("tell", "terminal")];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Rust files at a path below the repository's root.
fn rust_files(path: &str) -> Vec<PathBuf> {
    sources::rust_files(&repository().join(path))
}

/// Modules that the code names from `root` on, as `crate::`.
fn named(code: &str, root: &str) -> BTreeSet<String> {
    let module = |path: &String| {
        let first = path.split('/').next().unwrap_or_default();
        MACROS.iter().find(|(of, _)| *of == first).map_or(first, |(_, module)| module).to_owned()
    };
    // types of the root are those of modules
    let is_module = |name: &String| name.starts_with(|c: char| c.is_ascii_lowercase());
    paths_from(code, root).iter().map(module).filter(is_module).collect()
}

/// The folder or file, or both, of a module of the command.
fn files_of(module: &str) -> Vec<PathBuf> {
    let paths = [format!("crates/cli/src/{module}.rs"), format!("crates/cli/src/{module}")];
    paths.iter().filter(|path| repository().join(path).exists()).flat_map(|path| rust_files(path)).collect()
}

#[test]
fn modules_name_only_what_they_may() {
    let mut above = BTreeSet::new();
    for (module, allowed) in EDGES {
        assert!(allowed.iter().all(|name| above.contains(name)), "{module} names what is not above it");
        above.insert(*module);
        let files = files_of(module);
        assert!(!files.is_empty(), "module {module} has no source");
        let mut used = BTreeSet::new();
        for file in files {
            for name in named(&code(&file), "crate::") {
                let fine = name == *module || allowed.contains(&name.as_str());
                assert!(fine, "{} names crate::{name}, which {module} may not know", file.display());
                used.insert(name);
            }
        }
        let unused = allowed.iter().find(|name| !used.contains(**name));
        assert_eq!(unused, None, "{module} has an edge that it does not use");
    }
    for entry in std::fs::read_dir(repository().join("crates/cli/src")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        let listed = above.contains(name.as_str()) || ["lib", "main"].contains(&name.as_str());
        assert!(listed, "module {name} is not in the table of edges");
    }
}

#[test]
fn of_the_server_only_the_router_knows_openai() {
    for file in rust_files("crates/cli/src/server") {
        let below = file.strip_prefix(repository().join("crates/cli/src/server")).unwrap().to_owned();
        let code = code(&file);
        let names = named(&code, "super::").contains("openai") || code.contains("server::openai");
        let may = below.starts_with("openai") || below == Path::new("router.rs");
        assert!(may || !names, "{} names openai", file.display());
    }
}

#[test]
fn the_server_s_hints_are_made_in_one_place() {
    for file in rust_files("crates/cli/src/server") {
        let code = code(&file);
        let beside = [".hint(\"", ".hint(format!"].iter().any(|text| code.contains(text));
        assert!(!beside, "{} has a hint of its own, which belongs into server/hints.rs", file.display());
    }
}

/// Fails where the code of one of these files or folders has one of the words.
fn absent(paths: &[&str], words: &[&str]) {
    for file in paths.iter().flat_map(|path| rust_files(path)) {
        let code = code(&file);
        let word = words.iter().find(|word| code.contains(**word));
        assert_eq!(word, None, "{}", file.display());
    }
}

#[test]
fn kernels_know_no_tensor_name_no_token_and_no_picture() {
    let tensors = ["_proj", "lm_head", "embed_tokens", "vision", "layernorm", "model.layers"];
    absent(&["crates/kernels/src"], &[&tensors[..], &["<|", "okenizer", "Rgb", "JPEG"]].concat());
}

#[test]
fn the_model_knows_no_files_requests_or_schedules_and_no_device() {
    let model = ["crates/phi3v/src/model"];
    absent(&model, &["std::fs", "std::path", "std::io", "std::net", "serde", "Request", "Scheduler", "Cpu"]);
}

#[test]
fn the_engine_knows_no_formats_of_pictures_json_connections_or_device() {
    let engine = ["crates/phi3v/src/engine"];
    absent(&engine, &["image::decode", "RgbImage", "serde", "json", "std::net", "std::fs", "Cpu"]);
    // the time of work is that of the device, which `Stopwatch` waits for
    absent(&["crates/phi3v/src/engine/step.rs", "crates/phi3v/src/engine/pictures.rs"], &["Instant"]);
}

#[test]
fn what_stands_above_the_engine_chooses_its_device_by_name() {
    absent(&["crates/cli/src", "crates/phi3v/src/session.rs"], &["<Cpu>", "Cpu::new", "CpuOptions", "SIZES"]);
}

#[test]
fn no_instruction_set_is_chosen_when_compiling() {
    for folder in ["crates/kernels/src", "crates/phi3v/src", "crates/cli/src"] {
        absent(&[folder], &["cfg(target_feature", "cfg!(target_feature", "(target_feature ="]);
    }
    for config in [".cargo/config.toml", ".cargo/config"] {
        assert!(!repository().join(config).exists(), "{config} could set target-cpu");
    }
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("rustflags") && !manifest.contains("target-cpu"));
}

/// What tells systems apart: `sys` of the command and of the library's files, the cores and memory that each system
/// tells of in its own way, and files of one line or two where a call differs.
const SYSTEMS: &[&str] = &[
    "crates/cli/src/documents/process.rs",
    "crates/cli/src/sys",
    "crates/cli/src/trust.rs",
    "crates/gpu/src/adapter.rs",
    "crates/gpu/src/device.rs",
    "crates/gpu/src/error.rs",
    "crates/gpu/src/memory.rs",
    "crates/kernels/src/bytes.rs",
    "crates/kernels/src/cores",
    "crates/kernels/src/cpu/arch/scalar/packed.rs",
    "crates/kernels/src/cpu/features.rs",
    "crates/kernels/src/cpu/ops/tensor.rs",
    "crates/kernels/src/testing",
    "crates/phi3v/src/device/gpu.rs",
    "crates/phi3v/src/files/regular.rs",
    "crates/phi3v/src/files/sys",
    "crates/phi3v/src/memory.rs",
];

#[test]
fn few_files_tell_systems_apart() {
    let told = ["target_os", "target_vendor", "(unix", "(windows", " unix)", " windows)"];
    let crates = ["kernels", "gpu", "phi3v", "cli", "jpeg", "python"];
    let mut telling: Vec<String> = Vec::new();
    for file in crates.iter().flat_map(|name| rust_files(&format!("crates/{name}/src"))) {
        let tells = |line: &str| line.contains("cfg") && told.iter().any(|word| line.contains(word));
        if code(&file).lines().any(tells) {
            telling.push(file.strip_prefix(repository()).unwrap().to_str().unwrap().replace('\\', "/"));
        }
    }
    // a file, or a folder and the file of its name
    let is_of = |name: &str, path: &str| {
        name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    };
    for name in &telling {
        assert!(SYSTEMS.iter().any(|path| is_of(name, path)), "{name}");
    }
    for path in SYSTEMS {
        assert!(telling.iter().any(|name| is_of(name, path)), "{path} tells none apart");
    }
}

/// Statics of the library and the kernels that are made or changed while the program runs: whether the system allows AMX
/// to this process, patterns and tables of them that are constants, the built-in model unpacked, and the turn of tests at telling what they skip.
const STATICS: &[&str] = &["ALLOWED", "DIGIT", "FORMATS", "TAG", "TURN", "WEIGHTS"];

/// Registers of tiles in plain Rust, which belong to a thread as those of a processor do; only tests compute with them.
const THREAD_LOCAL: &str = "crates/kernels/src/cpu/arch/x86_64/amx/tiles/plain.rs";

#[test]
fn nothing_that_changes_is_global() {
    let changing = ["Atomic", "Mutex", "RwLock", "Once", "Lazy", "Cell", "mut "];
    for file in ["crates/kernels/src", "crates/phi3v/src"].iter().flat_map(|path| rust_files(path)) {
        let code = code(&file);
        if file.ends_with(THREAD_LOCAL) {
            continue;
        }
        assert!(!code.contains("thread_local!"), "{}", file.display());
        for line in code.lines().map(str::trim_start) {
            let line = line
                .split_once("static ")
                .filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
            let Some((_, item)) = line else { continue };
            let known = STATICS.iter().any(|name| item.starts_with(&format!("{name}:")));
            let changes = changing.iter().any(|word| item.contains(word));
            assert!(known || !changes, "{}: static {item}", file.display());
        }
    }
}

/// Commands of other programs that hints may name, with their flags.
const OTHER_PROGRAMS: &[&str] = &["dcmj2pnm --write-png", "qpdf --decrypt"];

#[test]
fn the_library_and_the_kernels_name_no_flag_and_no_command() {
    let commands: Vec<String> =
        Cli::command().get_subcommands().map(|command| format!("phi3v {}", command.get_name())).collect();
    assert!(commands.contains(&"phi3v batch".to_owned()), "{commands:?}");
    for name in ["phi3v", "kernels", "gpu"] {
        let files = rust_files(&format!("crates/{name}/src"));
        assert!(files.len() > 10, "{name} has no source");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let other = OTHER_PROGRAMS.iter().any(|program| line.contains(program));
                assert!(other || !names_flag(line), "{} names a flag: {line}", file.display());
                let command = commands.iter().find(|command| line.contains(*command));
                assert_eq!(command, None, "{}: {line}", file.display());
            }
        }
    }
}

/// Whether `--word` stands in the line where a word begins.
fn names_flag(line: &str) -> bool {
    line.match_indices("--").any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + 2..].chars().next();
        after.is_some_and(|c| c.is_ascii_lowercase())
            && !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-')
    })
}

/// What wgpu and the Vulkan driver ask for.
const FOREIGN: [&str; 3] =
    ["crates/gpu/src/device.rs", "crates/gpu/src/memory.rs", "crates/gpu/src/pipelines.rs"];

#[test]
fn unsafe_code_is_denied_outside_kernels_and_the_seam_to_c() {
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() >= 5, "{members:?}");
    for member in members.iter().filter(|member| !["crates/kernels", "crates/jpeg"].contains(member)) {
        let manifest = std::fs::read_to_string(repository().join(member).join("Cargo.toml")).unwrap();
        let denied =
            ["deny", "forbid"].iter().any(|level| manifest.contains(&format!("unsafe_code = \"{level}\"")));
        assert!(denied, "{member} does not deny unsafe code");
        let files = rust_files(&format!("{member}/src"));
        for file in files.iter().filter(|file| !FOREIGN.iter().any(|foreign| file.ends_with(foreign))) {
            let (code, words) = (code(file), ["unsafe {", "unsafe fn", "unsafe impl", "(unsafe_code"]);
            assert_eq!(words.iter().find(|word| code.contains(**word)), None, "{}", file.display());
        }
    }
}
