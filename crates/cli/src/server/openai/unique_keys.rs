//! Refuses JSON objects in which a key occurs twice. Parsers differ in which value they take, so a proxy before the
//! server may have checked another value than the one used here.

use crate::server::error::{ApiError, Code};
use crate::server::hints;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// Maximum characters of a key that an error repeats.
const KEY_MAX: usize = 64;

/// Checks a body, which must be UTF-8.
///
/// # Errors
/// The body is not JSON, or an object in it has a key twice.
pub(super) fn check(body: &[u8]) -> Result<(), ApiError> {
    let twice = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(body);
    let Err(error) = Unique(&twice).deserialize(&mut json).and_then(|()| json.end()) else { return Ok(()) };
    match twice.take() {
        Some(key) => {
            let (line, column) = (error.line(), error.column());
            let message =
                format!("the key {key:?} stands twice in one object: see line {line}, column {column}");
            Err(ApiError::new(Code::InvalidJson, message).hint(hints::body::ONE_OF_KEYS))
        }
        None => Err(ApiError::not_json(&error)),
    }
}

/// Reads any value and keeps only the first key that occurs twice.
#[derive(Clone, Copy)]
struct Unique<'a>(&'a RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
            if keys.contains(&key) {
                *self.0.borrow_mut() = Some(key.chars().take(KEY_MAX).collect());
                return Err(A::Error::custom("a key stands twice"));
            }
            keys.insert(key);
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}

struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_stand_once_in_each_object() {
        for body in [
            r#"{}"#,
            r#"[{"a": 1}, {"a": [{"a": -1.5e3}]}]"#,
            r#"{"a": {"a": {"b": null}}, "b": "a", "A": true, "": 18446744073709551616}"#,
        ] {
            assert!(check(body.as_bytes()).is_ok(), "{body}");
        }
        for (body, told) in [
            (r#"{"a": 1, "a": 1}"#, "\"a\" stands twice"),
            (r#"{"x": [{"messages": 1, "b": {}, "messages": 2}]}"#, "\"messages\" stands twice"),
            (r#"{"a": 1, "\u0061": 1}"#, "\"a\" stands twice"),
            (r#"{"a": 1, "b": 2"#, "not valid JSON"),
            (r#"{"a": 1} {"a": 1}"#, "not valid JSON"),
        ] {
            let error = check(body.as_bytes()).unwrap_err();
            assert_eq!(error.code, Code::InvalidJson);
            assert!(error.message.contains(told), "{body}: {}", error.message);
        }
    }
}
