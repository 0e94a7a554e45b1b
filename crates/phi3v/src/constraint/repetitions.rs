//! Bounds on the repetitions of patterns, before the engine reads them.
//!
//! The engine's work grows with the square of the parts of a pattern that may be left out or repeated. Signs count
//! wherever they stand: one that is escaped or in a class costs nothing, but few patterns have hundreds of those.

/// Signs of repetitions (`*`, `+`, `?`, `{`) of a pattern or of a grammar. As many take the engine some 300 ms.
const REPETITIONS_MAX: usize = 1_000;

/// Groups of a pattern or of a grammar, since `(a|)` is `a?`, but takes a quarter of the time.
const GROUPS_MAX: usize = 2_000;

/// Classes of Unicode (`\p`) of a pattern or of a grammar: each is gone through, with `(?i)` letter by letter.
const CLASSES_MAX: usize = 2_000;

/// All of these, of all patterns of a schema together, where they are written and where they are met with one another.
pub(super) const OF_SCHEMA_MAX: usize = 2_000;

/// Repetitions, groups and classes of Unicode of a pattern.
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
