//! What documentation a stranger finds, in all crates: long enough to say what an item is, in which shape and unit.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use phi3v_kernels::testing::sources::rust_files;
use std::path::{Path, PathBuf};

/// A documented item, field or variant.
struct Documented {
    place: String,
    code: String,
    words: usize,
}

impl Documented {
    /// Whether it is a public item of its own, rather than a part of one.
    fn is_item(&self) -> bool {
        let kinds = ["const", "enum", "fn", "mod", "static", "struct", "trait", "type", "use"];
        let kind = self.code.strip_prefix("pub ").and_then(|rest| rest.split(' ').next());
        kind.is_some_and(|kind| kinds.contains(&kind))
    }

    /// Whether it is a public field or a variant.
    fn is_part(&self) -> bool {
        let code = self.code.strip_prefix("pub ").unwrap_or(&self.code);
        let rest = code.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        let follows = |sign: &str| rest.trim_start().starts_with(sign);
        !self.is_item() && !code.starts_with("pub(") && [":", ",", "(", "{"].into_iter().any(follows)
    }
}

/// What a crate's files document, tests left out, and the command line's flags: their texts are its help.
fn documented(name: &str) -> Vec<Documented> {
    let mut files = rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src"));
    let is_help = |file: &PathBuf| {
        let file = file.to_string_lossy();
        file.contains("cli/src/args.rs") || file.contains("cli/src/args/")
    };
    // what tests share is documented for its readers alone
    files.retain(|file| !is_help(file) && !file.components().any(|part| part.as_os_str() == "testing"));
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let mut words = 0;
        for (index, line) in code.lines().map(str::trim).enumerate() {
            if let Some(doc) = line.strip_prefix("///") {
                words += doc.split_whitespace().count();
            } else if !line.starts_with("#[") {
                if words > 0 {
                    let place = format!("{}:{}", file.display(), index + 1);
                    found.push(Documented { place, code: line.to_owned(), words });
                }
                words = 0;
            }
        }
    }
    found
}

#[test]
fn documentation_is_no_heading() {
    for (name, items_min) in [("kernels", 60), ("jpeg", 6), ("phi3v", 200), ("cli", 200)] {
        let (items, others): (Vec<_>, Vec<_>) = documented(name).into_iter().partition(Documented::is_item);
        let parts = others.iter().filter(|other| other.is_part());
        // a part has its item's text, too
        let least = items.iter().map(|item| (item, 4)).chain(parts.map(|part| (part, 2)));
        for (Documented { place, code, words }, least) in least {
            assert!(*words >= least, "{place}: {words} words say too little of `{code}`");
        }
        let mut words: Vec<usize> = items.iter().map(|item| item.words).collect();
        words.sort_unstable();
        assert!(words.len() > items_min, "only {} items of {name} were found", words.len());
        let median = words[words.len() / 2];
        assert!(median >= 12, "the median of {name} is {median} words");
    }
}

#[test]
fn examples_are_short() {
    for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines < 30, "{} has {lines} lines", file.display());
    }
}
