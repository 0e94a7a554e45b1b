//! References from one place of a schema to another.

use serde_json::Value;

use super::Refused;

/// A place in a schema: the keys on the path to it, unescaped.
pub(super) type Pointer = Vec<String>;

/// Parses the part of a `$ref` from its `#` on. An empty reference names the whole schema, as `#` does.
pub(super) fn parse(reference: &str) -> Result<Pointer, Refused> {
    let unusable = |why: &str| Refused::new(format!("the reference {reference:?} {why}"));
    let outside = || unusable("does not begin with #");
    if reference.is_empty() {
        return Ok(Pointer::new());
    }
    let path = unescaped_percent(reference.strip_prefix('#').ok_or_else(outside)?)
        .ok_or_else(|| unusable("has a % that two hexadecimal digits do not follow"))?;
    let path = String::from_utf8(path).map_err(|_| unusable("is not UTF-8 where it has %"))?;
    if path.is_empty() {
        return Ok(Pointer::new());
    }
    let path = path.strip_prefix('/').ok_or_else(|| unusable("has a place that does not begin with /"))?;
    path.split('/')
        .map(|key| unescaped_tilde(key).ok_or_else(|| unusable("has a ~ that neither 0 nor 1 follows")))
        .collect()
}

fn unescaped_percent(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

fn unescaped_tilde(key: &str) -> Option<String> {
    let mut parts = key.split('~');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (letter, rest) = part.split_at_checked(1)?;
        out.push_str(match letter {
            "0" => "~",
            "1" => "/",
            _ => return None,
        });
        out.push_str(rest);
    }
    Some(out)
}

/// Returns the value at a place.
pub(super) fn find<'a>(schema: &'a Value, pointer: &Pointer) -> Option<&'a Value> {
    pointer.iter().try_fold(schema, |value, key| match value {
        Value::Object(members) => members.get(key),
        Value::Array(items) => {
            items.get(key.parse::<usize>().ok().filter(|index| index.to_string() == *key)?)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn escapes_are_resolved() {
        let schema = json!({"$defs": {"a/b": 1, "m~n": 2, "c d": 3, "e%f": 4, "~1": 5, "": 6, "\u{e9}": 7, "x": [8, {"y": 9}]}});
        for (reference, value) in [
            ("#/$defs/a~1b", 1),
            ("#/$defs/m~0n", 2),
            ("#/$defs/c%20d", 3),
            ("#/$defs/e%25f", 4),
            ("#/%24defs/~01", 5),
            ("#/$defs/", 6),
            ("#/$defs/%C3%A9", 7),
            ("#/$defs/x/0", 8),
            ("#/$defs/x/1/y", 9),
        ] {
            let found = parse(reference).ok().and_then(|pointer| find(&schema, &pointer).cloned());
            assert_eq!(found, Some(json!(value)), "{reference}");
        }
        assert_eq!(parse("").ok(), Some(Pointer::new()));
        assert!(parse("#/%FF").is_err_and(|refused| refused.reason.contains("is not UTF-8")));
        for reference in ["a", "#a", "#/%2", "#/%zz", "#/~2", "#/a~", "http://example.com/#/a", "#/%FF"] {
            assert!(parse(reference).is_err(), "{reference}");
        }
        let missing = parse("#/$defs/x/01").ok().and_then(|pointer| find(&schema, &pointer).cloned());
        assert_eq!(missing, None);
    }
}
