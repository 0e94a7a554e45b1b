//! Fields that take a text or an object. Unlike those of an untagged enum, their errors name the invalid part.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::marker::PhantomData;

/// Deserializes a text or an object into an enum of the two; `expected` describes it in error messages.
pub(super) fn deserialize<'de, D, T, E>(
    deserializer: D,
    expected: &'static str,
    text: fn(String) -> E,
    object: fn(T) -> E,
) -> Result<E, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Either { expected, text, object, types: PhantomData })
}

struct Either<T, E> {
    expected: &'static str,
    text: fn(String) -> E,
    object: fn(T) -> E,
    types: PhantomData<(T, E)>,
}

impl<'de, T: Deserialize<'de>, E> Visitor<'de> for Either<T, E> {
    type Value = E;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<F: Error>(self, text: &str) -> Result<E, F> {
        Ok((self.text)(text.to_owned()))
    }

    fn visit_string<F: Error>(self, text: String) -> Result<E, F> {
        Ok((self.text)(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<E, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(self.object)
    }
}
