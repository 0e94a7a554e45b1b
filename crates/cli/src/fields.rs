//! The values of an answer that has a form, by path, with their probabilities.

use phi3v::fields::Field;
use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// Values by JSON Pointer, in the order of the answer.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(with = "BTreeMap<String, FieldValue>")]
pub struct FieldMap(Vec<(String, FieldValue)>);

/// A value of an answer, with the model's confidence.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FieldValue {
    /// The value as in the answer.
    pub value: Value,
    /// The lowest probability of its tokens.
    #[serde(serialize_with = "short")]
    #[schemars(with = "f32")]
    pub p: f32,
}

/// Serializes a number with its shortest digits, also through a JSON value, which would otherwise show the digits of an `f64`.
///
/// # Errors
/// The serializer's error.
pub fn short<S: Serializer>(number: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    // the shortest digits that parse to the same number
    serializer.serialize_f64(number.to_string().parse().unwrap_or_else(|_| f64::from(*number)))
}

/// Like [`short`], for an optional number.
///
/// # Errors
/// The serializer's error.
pub fn short_or_null<S: Serializer>(number: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => short(number, serializer),
        None => serializer.serialize_none(),
    }
}

impl From<Vec<Field>> for FieldMap {
    /// Of members with the same name, the last is kept, as by many JSON parsers.
    fn from(fields: Vec<Field>) -> Self {
        let mut known = HashSet::new();
        let last_first = fields.into_iter().rev().filter(|field| known.insert(field.path.clone()));
        let told = last_first.map(|Field { path, value, p }| (path, FieldValue { value, p }));
        let mut told: Vec<_> = told.collect();
        told.reverse();
        Self(told)
    }
}

impl Serialize for FieldMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (path, field) in &self.0 {
            map.serialize_entry(path, field)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_told_by_their_paths_in_the_order_of_the_answer() {
        let field = |path: &str, value, p| Field { path: path.to_owned(), value, p };
        let map = FieldMap::from(vec![
            field("/b", json!(1), 0.5),
            field("/a/0", json!("x"), 0.25),
            field("/b", json!(2), 1.0),
        ]);
        let told = r#"{"/a/0":{"value":"x","p":0.25},"/b":{"value":2,"p":1.0}}"#;
        assert_eq!(serde_json::to_string(&map).unwrap(), told);
        let third = FieldMap::from(vec![field("", json!(true), 1.0 / 3.0)]);
        let told = r#"{"":{"value":true,"p":0.33333334}}"#;
        assert_eq!(serde_json::to_string(&third).unwrap(), told);
        assert_eq!(serde_json::to_value(&third).unwrap().to_string(), told);
    }
}
