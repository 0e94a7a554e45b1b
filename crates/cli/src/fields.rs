//! The values of an answer that has a form, as they are told: by their paths, with their probabilities.

use phi3v::fields::Field;
use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// Values by JSON Pointers, in the order of the answer.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(with = "BTreeMap<String, FieldValue>")]
pub struct FieldMap(Vec<(String, FieldValue)>);

/// A value of an answer, and how sure the model was of it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FieldValue {
    /// The value itself, as the answer has it.
    pub value: Value,
    /// The least probability of its tokens.
    #[serde(serialize_with = "short")]
    #[schemars(with = "f32")]
    pub p: f32,
}

/// Writes a number with the digits that it takes, wherever it goes: what passes through a JSON value would have those of
/// twice its size.
///
/// # Errors
/// The serializer's.
pub fn short<S: Serializer>(number: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    // the shortest digits that give it back
    serializer.serialize_f64(number.to_string().parse().unwrap_or_else(|_| f64::from(*number)))
}

/// As [`short`], for a number that may be missing.
///
/// # Errors
/// The serializer's.
pub fn short_or_null<S: Serializer>(number: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => short(number, serializer),
        None => serializer.serialize_none(),
    }
}

impl From<Vec<Field>> for FieldMap {
    /// Of members that have the same name, which readers of JSON may take the last of, the last is kept.
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
