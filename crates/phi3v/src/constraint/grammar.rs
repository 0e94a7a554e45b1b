//! The forms an answer can be held to, checked and handed to the grammar engine.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Map, Value, json};

use super::ConstraintError;

/// A form for an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that the schema validates. A keyword that cannot be followed is an error and never ignored.
    JsonSchema(Value),
    /// Text that the regular expression matches as a whole (the syntax of the regex crate).
    Regex(String),
    /// Text of a context-free grammar in llguidance's variant of Lark, from the rule `start`.
    Lark(String),
}

/// How large a grammar may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrammarLimits {
    /// Bytes of the schema (as compact JSON), regex or grammar.
    pub bytes_max: usize,
    /// Nested arrays and objects of a schema.
    pub depth_max: usize,
}

impl Default for GrammarLimits {
    /// 64 KiB and 32 levels: several times the largest schemas in use.
    fn default() -> Self {
        Self { bytes_max: 64 << 10, depth_max: 32 }
    }
}

impl Grammar {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::JsonObject | Self::JsonSchema(_) => "JSON schema",
            Self::Regex(_) => "regex",
            Self::Lark(_) => "grammar",
        }
    }

    /// The grammar of a space followed by a text of this form.
    pub(super) fn after_a_space(&self, limits: &GrammarLimits) -> Result<TopLevelGrammar, ConstraintError> {
        let mut inner = match self {
            Self::JsonObject => GrammarWithLexer::from_json_schema(with_options(Map::from_iter([(
                "type".to_owned(),
                json!("object"),
            )]))),
            Self::JsonSchema(schema) => {
                self.check("levels", depth(schema), limits.depth_max)?;
                self.check("bytes", schema.to_string().len(), limits.bytes_max)?;
                GrammarWithLexer::from_json_schema(self.schema(schema)?)
            }
            Self::Regex(regex) => {
                self.check("bytes", regex.len(), limits.bytes_max)?;
                GrammarWithLexer::from_regex(regex)
            }
            Self::Lark(grammar) => {
                self.check("bytes", grammar.len(), limits.bytes_max)?;
                GrammarWithLexer::from_lark(grammar.clone())
            }
        };
        inner.name = Some("answer".to_owned());
        let outer = GrammarWithLexer::from_lark("start: \" \" @answer".to_owned());
        Ok(TopLevelGrammar { grammars: vec![outer, inner], max_tokens: None })
    }

    fn check(&self, unit: &'static str, value: usize, limit: usize) -> Result<(), ConstraintError> {
        if value > limit {
            return Err(ConstraintError::TooLarge { kind: self.kind(), value, unit, limit });
        }
        Ok(())
    }

    /// The schema as the engine takes it.
    fn schema(&self, schema: &Value) -> Result<Value, ConstraintError> {
        let reason = match schema {
            Value::Object(schema) if schema.contains_key(OPTIONS) => {
                format!("the key {OPTIONS:?} is reserved")
            }
            Value::Object(schema) => return Ok(with_options(schema.clone())),
            Value::Bool(true) => return Ok(with_options(Map::new())),
            Value::Bool(false) => "it forbids every answer".to_owned(),
            _ => "it is neither an object nor true".to_owned(),
        };
        Err(ConstraintError::Invalid { kind: self.kind(), reason })
    }
}

/// The key under which a schema carries the engine's options.
const OPTIONS: &str = "x-guidance";

/// A schema whose white space is bounded: a small model must not be able to go on with blanks for ever. 24 characters
/// are a line break and an indent of 11 levels by two.
fn with_options(mut schema: Map<String, Value>) -> Value {
    schema.insert(OPTIONS.to_owned(), json!({"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,24}"}));
    Value::Object(schema)
}

/// Nested arrays and objects, without recursion.
fn depth(value: &Value) -> usize {
    let mut deepest = 0;
    let mut open = vec![(value, 1)];
    while let Some((value, level)) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values.iter().map(|value| (value, level + 1))),
            Value::Object(members) => open.extend(members.values().map(|value| (value, level + 1))),
            _ => continue,
        }
        deepest = deepest.max(level);
    }
    deepest
}

/// An error of the engine about a grammar, on one line.
pub(super) fn invalid(kind: &'static str, error: &anyhow::Error) -> ConstraintError {
    ConstraintError::Invalid { kind, reason: one_line(error) }
}

/// An error of the engine while it follows a text.
pub(super) fn too_complex(error: &anyhow::Error) -> ConstraintError {
    ConstraintError::TooComplex { reason: one_line(error) }
}

fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(REASON_CHARS_MAX) {
        line.truncate(end);
        line.push_str("..");
    }
    line
}

/// Reasons longer than this are cut.
const REASON_CHARS_MAX: usize = 300;
