//! The forms an answer can be constrained to, validated and passed to the grammar engine.

use llguidance::api::{GrammarInit, GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};

use super::{ConstraintError, lark, repetitions, schema};
use crate::presets::Preset;
use std::borrow::Cow;
use std::collections::HashSet;

/// A form that an answer can be constrained to: JSON, a schema, a regular expression or a grammar.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object, with any members.
    JsonObject,
    /// JSON that the schema validates. An unsupported keyword is an error and never ignored. Numbers of the schema are what
    /// the JSON reader has made of them: integers of 64 bits, or doubles. A string such as `"@receipt"` stands for the
    /// schema of that [`Preset`].
    JsonSchema(Value),
    /// Exactly one of these texts.
    Choices(Vec<String>),
    /// Text that the regular expression matches as a whole (the syntax of the regex crate).
    Regex(String),
    /// Text of a context-free grammar in llguidance's variant of Lark, starting from the rule `start`.
    Lark(String),
}

/// How large a grammar may be before it is refused without being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrammarLimits {
    /// Maximum bytes of the schema (as compact JSON), regex or grammar, or of all choices together.
    pub bytes_max: usize,
    /// Maximum nesting of arrays and objects in a schema.
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
            Self::Choices(_) => CHOICES,
            Self::Regex(_) => "regex",
            Self::Lark(_) => "grammar",
        }
    }

    /// Returns whether answers of this form are JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        matches!(self, Self::JsonObject | Self::JsonSchema(_))
    }

    /// Returns the same form with the name of a preset replaced by the preset's schema.
    ///
    /// # Errors
    /// If there is no such preset.
    pub(super) fn resolved(&self) -> Result<Cow<'_, Self>, ConstraintError> {
        match self {
            Self::JsonSchema(Value::String(name)) => match Preset::named(name) {
                Some(preset) => Ok(Cow::Owned(Self::JsonSchema(preset.schema()))),
                None => {
                    let reason = format!("there is no preset {name:?}, there are {}", Preset::names());
                    Err(self.invalid(reason))
                }
            },
            _ => Ok(Cow::Borrowed(self)),
        }
    }

    fn check_choices(&self, choices: &[String], limits: &GrammarLimits) -> Result<(), ConstraintError> {
        self.check_size("texts", choices.len(), CHOICES_MAX)?;
        self.check_size("bytes", choices.iter().map(String::len).sum(), limits.bytes_max)?;
        if choices.is_empty() {
            return Err(self.invalid("there is none".to_owned()));
        }
        let mut known = HashSet::new();
        for choice in choices {
            if choice.is_empty() {
                return Err(self.invalid("one of them is empty".to_owned()));
            }
            if !known.insert(choice) {
                return Err(self.invalid(format!("{choice:?} stands there twice")));
            }
        }
        Ok(())
    }

    /// Returns the check of finished answers, if the form is JSON.
    pub(super) fn check(&self) -> Option<schema::Check> {
        match self {
            Self::JsonObject => Some(schema::Check::new(any_object())),
            Self::JsonSchema(schema) => Some(schema::Check::new(schema.clone())),
            Self::Choices(_) | Self::Regex(_) | Self::Lark(_) => None,
        }
    }

    /// Returns the grammar of a space followed by a text of this form. The form must be [`resolved`](Self::resolved).
    pub(super) fn after_a_space(&self, limits: &GrammarLimits) -> Result<GrammarInit, ConstraintError> {
        let inner = match self {
            Self::JsonObject => return self.of_schema(&any_object()),
            Self::JsonSchema(value) => {
                self.check_size("levels", depth(value), limits.depth_max)?;
                self.check_size("bytes", value.to_string().len(), limits.bytes_max)?;
                return self.of_schema(value);
            }
            Self::Choices(choices) => {
                self.check_choices(choices, limits)?;
                return schema::choices(choices).map_err(|refused| self.invalid(refused.reason));
            }
            Self::Regex(regex) => {
                self.check_size("bytes", regex.len(), limits.bytes_max)?;
                repetitions::check(regex).map_err(|reason| self.invalid(reason))?;
                // the engine would drop a trailing backslash
                if !(regex.len() - regex.trim_end_matches('\\').len()).is_multiple_of(2) {
                    return Err(self.invalid("it ends with a backslash".to_owned()));
                }
                GrammarWithLexer::from_regex(regex)
            }
            Self::Lark(grammar) => {
                self.check_size("bytes", grammar.len(), limits.bytes_max)?;
                lark::check(grammar).map_err(|reason| self.invalid(reason))?;
                GrammarWithLexer::from_lark(grammar.clone())
            }
        };
        let inner = GrammarWithLexer { name: Some("answer".to_owned()), ..inner };
        let outer = GrammarWithLexer::from_lark("start: \" \" @answer".to_owned());
        Ok(GrammarInit::Serialized(TopLevelGrammar { grammars: vec![outer, inner], max_tokens: None }))
    }

    fn of_schema(&self, value: &Value) -> Result<GrammarInit, ConstraintError> {
        let reason = match value {
            Value::Object(schema) if schema.contains_key("x-guidance") => {
                "the key \"x-guidance\" is reserved"
            }
            Value::Object(_) | Value::Bool(true) => {
                return schema::grammar(value).map_err(|refused| self.invalid(refused.reason));
            }
            Value::Bool(false) => "it forbids every answer",
            _ => "it is neither an object nor true",
        };
        Err(self.invalid(reason.to_owned()))
    }

    fn invalid(&self, reason: String) -> ConstraintError {
        ConstraintError::Invalid { kind: self.kind(), reason: told(&reason) }
    }

    fn check_size(&self, unit: &'static str, value: usize, limit: usize) -> Result<(), ConstraintError> {
        if value > limit {
            return Err(ConstraintError::TooLarge { kind: self.kind(), value, unit, limit });
        }
        Ok(())
    }
}

/// The name of a list of choices in errors.
pub(super) const CHOICES: &str = "list of choices";

/// Maximum number of choices in a list.
const CHOICES_MAX: usize = 1_000;

/// Returns the schema of any object.
fn any_object() -> Value {
    json!({"type": "object"})
}

/// Formats a reason for an error message, on one line: names repeated in it may contain line breaks.
pub(super) fn told(reason: &str) -> String {
    shortened(reason.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Counts the levels of nested arrays and objects, without recursion.
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

/// Converts an error of the engine about a grammar, on one line.
pub(super) fn invalid(kind: &'static str, error: &anyhow::Error) -> ConstraintError {
    match one_line(error) {
        reason if reason == TOO_MUCH_WORK => ConstraintError::TooComplex { reason },
        reason => ConstraintError::Invalid { kind, reason },
    }
}

/// Converts an error of the engine that occurs while it follows a text.
pub(super) fn too_complex(error: &anyhow::Error) -> ConstraintError {
    ConstraintError::TooComplex { reason: one_line(error) }
}

/// Formats an error of the engine on one line and without its internal names.
pub(super) fn one_line(error: &anyhow::Error) -> String {
    let words = error.to_string();
    let line =
        words.split_whitespace().filter(|word| !word.contains("verbose")).collect::<Vec<_>>().join(" ");
    let inner = |word: &str| line.contains(word);
    let limits =
        ["fuel", "(limit ", "oo many expressions", "oo many states", "oo many items", "Current row has"];
    if limits.into_iter().any(inner) {
        return TOO_MUCH_WORK.to_owned();
    }
    if ["NoExtension", "panicked", "assertion", "rollback not"].into_iter().any(inner) {
        return "the engine cannot follow it".to_owned();
    }
    shortened(line)
}

fn shortened(mut line: String) -> String {
    if let Some((end, _)) = line.char_indices().nth(REASON_CHARS_MAX) {
        line.truncate(end);
        line.push_str("..");
    }
    line
}

/// Replaces the engine's various messages about its limits.
const TOO_MUCH_WORK: &str = "it takes more work than is allowed";

/// Longer reasons are truncated.
const REASON_CHARS_MAX: usize = 300;
