//! Rust sources as text, for the tests of which module may name which.

use std::path::{Path, PathBuf};

/// Returns the Rust files at or under `path`, like [`files`].
///
/// # Panics
/// If there are none.
#[must_use]
pub fn rust_files(path: &Path) -> Vec<PathBuf> {
    files(path, "rs")
}

/// Returns the files with the extension `ending`, such as `rs`: the one at `path`, or all in that folder.
///
/// # Panics
/// If there are none: a test that checks nothing cannot fail.
#[must_use]
pub fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![path.to_owned()], Vec::new());
    while let Some(path) = open.pop() {
        if let Ok(folder) = std::fs::read_dir(&path) {
            open.extend(folder.map(|entry| entry.expect("the folder can be read").path()));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "no file of {} ends in .{ending}", path.display());
    found
}

/// Returns the code of a file, without its comments and its test module: a test may use more than the code it tests.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    without_tests(&text)
}

fn without_tests(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the paths that the code names from `root` on, such as `crate::`, with slashes as separators. Each path of
/// a `use` group is separate.
#[must_use]
pub fn paths_from(code: &str, root: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (start, _) in code.match_indices(root) {
        let before = &code[..start];
        if before.ends_with("super::") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[start + root.len()..];
        let mut depth = 0;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth < 0 || depth == 0 && !(c.is_alphanumeric() || "_:}".contains(c))
        });
        expand(rest[..end.unwrap_or(rest.len())].trim_end_matches(':'), "", &mut paths);
    }
    paths
}

/// Adds every path that a `use` tree stands for, prefixed with `prefix`.
fn expand(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let mut depth = 0;
    let parts = tree.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let group = part.strip_suffix('}').and_then(|rest| rest.split_once('{'));
        if let Some((head, inner)) = group {
            expand(inner, &format!("{prefix}{}", head.replace("::", "/")), paths);
        } else {
            let path =
                format!("{prefix}{}", part.split(" as ").next().unwrap_or_default().replace("::", "/"));
            paths.push(path.trim_end_matches("/self").to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_a_group_is_named() {
        let code =
            "use crate::{a::{X, b::Y as Z}, c};\nlet x = crate::d::E { f: crate::g::<u8>() }; my_crate::h();";
        assert_eq!(paths_from(code, "crate::"), ["a/X", "a/b/Y", "c", "d/E", "g"]);
        let code = "use super::i::{self, j};\nsuper::super::k(); fn l() -> u8 {super::m}";
        assert_eq!(paths_from(code, "super::"), ["i", "i/j", "super/k", "m"]);
    }

    #[test]
    fn of_a_file_the_tests_and_comments_alone_are_left_out() {
        let text =
            "// a\n#[cfg(test)]\nmod pack;\nmod unpack; // b\n\n#[cfg(test)]\nmod tests {\n    c();\n}\n";
        assert_eq!(without_tests(text), "#[cfg(test)]\nmod pack;\nmod unpack; // b\n");
    }
}
