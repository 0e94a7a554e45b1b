//! Patterns that begin with lookahead, such as pydantic's patterns of decimal numbers (without `max_digits`) and patterns
//! of passwords. `^(?!A)B` matches what `^B` matches and `^(?:A)` does not. The engine has no lookahead, but it can hold
//! several patterns at once.

use super::Refused;
use super::text::{Pattern, Use};

/// A pattern of a schema: several that must match together, and some that must not match.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    pub held: Vec<Pattern>,
    pub never: Vec<Pattern>,
}

impl Expression {
    pub(super) fn new(pattern: &str, used: Use) -> Result<Self, Refused> {
        let Some(parts) = looking_ahead(pattern) else {
            return Ok(Self { held: vec![Pattern::new(pattern, used)?], never: Vec::new() });
        };
        Ok(Self {
            held: parts.held.iter().map(|part| Pattern::new(part, used)).collect::<Result<_, _>>()?,
            never: parts.never.iter().map(|part| Pattern::never(part, used)).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the expression as a single pattern.
    pub(super) fn alone(&self) -> Result<Pattern, Refused> {
        match (self.held.as_slice(), self.never.as_slice()) {
            ([pattern], []) => Ok(pattern.clone()),
            _ => Err(Refused::new("a pattern of names looks ahead, which cannot be followed")),
        }
    }

    /// Returns whether the expression matches a string, and deducts the work it takes from `work`.
    pub(super) fn matches_within(&self, text: &str, work: &mut u64) -> Result<bool, Refused> {
        for pattern in &self.held {
            if !pattern.matches_within(text, work)? {
                return Ok(false);
            }
        }
        for pattern in &self.never {
            if pattern.matches_within(text, work)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The parts of a pattern with lookahead.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    held: Vec<String>,
    never: Vec<String>,
}

/// Splits a pattern that begins with lookahead; returns `None` if it does not, or if it is more complex than that.
fn looking_ahead(pattern: &str) -> Option<Parts> {
    let mut parts = Parts::default();
    let mut rest = pattern.strip_prefix('^')?;
    while let Some(group) = rest.strip_prefix("(?").filter(|group| group.starts_with(['!', '='])) {
        let end = find_outside(group, ')')?;
        let part = format!("^(?:{})", &group[1..end]);
        if group.starts_with('!') { &mut parts.never } else { &mut parts.held }.push(part);
        rest = &group[end + 1..];
    }
    let looks = parts != Parts::default();
    // a repeated lookahead, or one inside one of several alternatives, has a different meaning
    if !looks || rest.starts_with(['*', '+', '?', '{']) || find_outside(rest, '|').is_some() {
        return None;
    }
    parts.held.push(format!("^{rest}"));
    Some(parts)
}

/// Finds the first occurrence of a sign in a pattern outside of escapes, classes and groups.
fn find_outside(pattern: &str, sign: char) -> Option<usize> {
    let (mut escaped, mut in_class, mut open) = (false, false, 0_usize);
    for (index, letter) in pattern.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            _ if letter == sign && open == 0 => return Some(index),
            '[' => in_class = true,
            '(' => open += 1,
            ')' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_looks_ahead_is_several() {
        for (pattern, held, never) in [
            ("^(?!^[-+.]*$)a$", vec!["^a$"], vec!["^(?:^[-+.]*$)"]),
            (
                "^(?=.*[a-z)])(?=.*\\))(?!b|(c))x(d|e)",
                vec!["^(?:.*[a-z)])", "^(?:.*\\))", "^x(d|e)"],
                vec!["^(?:b|(c))"],
            ),
            ("^(?!a)", vec!["^"], vec!["^(?:a)"]),
        ] {
            let texts = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
            assert_eq!(
                looking_ahead(pattern),
                Some(Parts { held: texts(held), never: texts(never) }),
                "{pattern}"
            );
        }
        for pattern in
            ["a", "^a", "(?!a)b", "^(?:a)", "^(?!a", "^(?!a)*b", "^(?!a)b|c", "^(?<!a)b", "^\\(?!a)"]
        {
            assert_eq!(looking_ahead(pattern), None, "{pattern}");
        }
    }
}
