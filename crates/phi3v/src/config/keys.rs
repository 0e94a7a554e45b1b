//! Reads a JSON object key by key, so that every error can name the file, the key, the value and what was expected.

use super::ConfigError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Longest configuration file read: those on the hub are under 4 KiB.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Longest value repeated in an error.
const VALUE_CHARS_MAX: usize = 60;

/// Parses a whole file.
pub(super) fn parse(file: &'static str, bytes: &[u8]) -> Result<Value, ConfigError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { file, bytes: bytes.len(), limit: FILE_BYTES_MAX });
    }
    serde_json::from_slice(bytes).map_err(|source| ConfigError::Json { file, source })
}

/// A JSON object and the path that leads to it.
pub(super) struct Keys<'a> {
    file: &'static str,
    /// `""` for the file's own object, `"rope_scaling."` for the object at that key.
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub(super) fn root(file: &'static str, value: &'a Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(map) => Ok(Self { file, path: String::new(), map }),
            _ => Err(ConfigError::NotAnObject { file }),
        }
    }

    /// Returns the value of `key`; JSON's `null` counts as absent, as it does in the reference.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing { file: self.file, key: format!("{}{key}", self.path) }
    }

    pub(super) fn invalid(&self, key: &str, expected: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            file: self.file,
            key: format!("{}{key}", self.path),
            value: self.shown(key),
            expected: expected.into(),
        }
    }

    pub(super) fn unsupported(&self, key: &str, supported: impl Into<String>) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file,
            key: format!("{}{key}", self.path),
            value: self.shown(key),
            supported: supported.into(),
        }
    }

    /// Formats the value of `key` for an error, cut to a readable length.
    fn shown(&self, key: &str) -> String {
        let Some(value) = self.map.get(key) else { return "absent".to_owned() };
        let text = value.to_string();
        match text.char_indices().nth(VALUE_CHARS_MAX) {
            Some((cut, _)) => format!("{}...", &text[..cut]),
            None => text,
        }
    }

    /// Returns the object at `key`.
    pub(super) fn object(&self, key: &str) -> Result<Option<Self>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Self { file: self.file, path: format!("{}{key}.", self.path), map }))
            }
            Some(_) => Err(self.invalid(key, "an object")),
        }
    }

    /// Returns a whole number within `range`, or `default` if the key is absent.
    pub(super) fn integer(
        &self,
        key: &str,
        default: Option<usize>,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ConfigError> {
        let Some(value) = self.get(key) else { return default.ok_or_else(|| self.missing(key)) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.invalid(key, format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// Returns a number within `range`, or `default` if the key is absent.
    pub(super) fn number(
        &self,
        key: &str,
        default: Option<f64>,
        range: RangeInclusive<f64>,
    ) -> Result<f64, ConfigError> {
        let Some(value) = self.get(key) else { return default.ok_or_else(|| self.missing(key)) };
        value.as_f64().filter(|number| range.contains(number)).ok_or_else(|| {
            self.invalid(key, format!("a number from {:e} to {:e}", range.start(), range.end()))
        })
    }

    /// Returns a list of `len` numbers within `range`, or `None` if the key is absent.
    pub(super) fn numbers(
        &self,
        key: &str,
        len: usize,
        range: RangeInclusive<f64>,
    ) -> Result<Option<Vec<f64>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() == len);
        let number = |value: &Value| value.as_f64().filter(|number| range.contains(number));
        let numbers = list.and_then(|list| list.iter().map(number).collect());
        numbers.map(Some).ok_or_else(|| {
            let (low, high) = range.clone().into_inner();
            let found = value.as_array().map_or_else(String::new, |list| format!(" (found {})", list.len()));
            self.invalid(key, format!("a list of {len} numbers from {low:e} to {high:e}{found}"))
        })
    }

    /// Returns one token id or a list of them; empty if the key is absent.
    pub(super) fn token_ids(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(one) => id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.invalid(key, "a token id or a list of token ids"))
    }

    /// Refuses any value of `key` except `supported`. An absent key means `default`, the reference's own default.
    pub(super) fn must_be(&self, key: &str, supported: &Value, default: &Value) -> Result<(), ConfigError> {
        let value = self.get(key).unwrap_or(default);
        let same = match (value.as_f64(), supported.as_f64()) {
            (Some(value), Some(supported)) => value == supported,
            _ => value == supported,
        };
        if same { Ok(()) } else { Err(self.unsupported(key, supported.to_string())) }
    }
}
