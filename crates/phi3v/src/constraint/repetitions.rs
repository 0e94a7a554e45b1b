//! Bounds on the repetitions of patterns, checked before the engine reads them.
//!
//! The engine's work grows with the square of the optional or repeated parts of a pattern. Repetition signs count
//! anywhere: an escaped sign or one in a class costs nothing, but few patterns have hundreds of those.

/// Maximum number of repetition signs (`*`, `+`, `?`, `{`) in a pattern or grammar. That many take the engine about
/// 300 ms.
const REPETITIONS_MAX: usize = 1_000;

/// Maximum number of groups in a pattern or grammar. `(a|)` means `a?`, but takes a quarter of the time.
const GROUPS_MAX: usize = 2_000;

/// Maximum number of Unicode classes (`\p`) in a pattern or grammar. The engine walks each class; with `(?i)`, letter by
/// letter.
const CLASSES_MAX: usize = 2_000;

/// Maximum number of all of these in all patterns of a schema together, both as written and as intersected.
pub(super) const OF_SCHEMA_MAX: usize = 2_000;

/// Counts the repetitions, groups and Unicode classes of a pattern.
pub(super) fn count(pattern: &str) -> usize {
    repetitions(pattern) + groups(pattern) + classes(pattern)
}

fn repetitions(pattern: &str) -> usize {
    pattern.bytes().filter(|byte| b"*+?{".contains(byte)).count()
}

fn groups(pattern: &str) -> usize {
    pattern.bytes().filter(|&byte| byte == b'(').count()
}

fn classes(pattern: &str) -> usize {
    pattern.matches(r"\p").count() + pattern.matches(r"\P").count()
}

/// Refuses a pattern or a grammar that might take the engine too long.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let bounds = [
        (repetitions(pattern), "repetitions", REPETITIONS_MAX),
        (groups(pattern), "opening brackets", GROUPS_MAX),
        (classes(pattern), "classes of Unicode", CLASSES_MAX),
    ];
    for (count, of, limit) in bounds {
        if count > limit {
            return Err(format!("it has {count} {of}, the limit is {limit}"));
        }
    }
    Ok(())
}
