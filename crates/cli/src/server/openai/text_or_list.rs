//! Fields that take a text or a list. Unlike those of an untagged enum, their errors name the invalid part.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use std::marker::PhantomData;

/// A text, a list, or nothing.
pub(super) enum TextOrList<T> {
    /// A single text.
    Text(String),
    /// A list of parts.
    List(Vec<T>),
    /// `null`, which some clients send.
    Null,
}

/// Deserializes a text or a list; `expected` describes it in error messages.
pub(super) fn deserialize<'de, D, T>(
    deserializer: D,
    expected: &'static str,
) -> Result<TextOrList<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Either(expected, PhantomData))
}

/// Deserializes a text or a list into an enum of the two.
pub(super) fn of_two<'de, D, T, E>(
    deserializer: D,
    expected: &'static str,
    text: fn(String) -> E,
    list: fn(Vec<T>) -> E,
) -> Result<E, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    match deserialize(deserializer, expected)? {
        TextOrList::Text(value) => Ok(text(value)),
        TextOrList::List(values) => Ok(list(values)),
        TextOrList::Null => Err(D::Error::invalid_type(Unexpected::Unit, &expected)),
    }
}

struct Either<T>(&'static str, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
    type Value = TextOrList<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(TextOrList::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(TextOrList::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(TextOrList::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(TextOrList::List(values))
    }
}
