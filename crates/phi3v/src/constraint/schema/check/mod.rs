//! The final check of a finished answer: evaluates the schema as written, keyword by keyword, on the answer as written.
//!
//! The check shares with the grammar only how numbers, patterns and references are read. It uses neither the sets of
//! values into which the schema's parts were combined, nor their texts. So a bug in those ends an answer with an error,
//! and is never reported as an answer that validates. A keyword that a grammar cannot enforce needs an arm in
//! [`keywords`] to be decided here.

mod instance;
mod keywords;
mod outline;
mod unique;

use serde_json::Value;

use super::super::ConstraintError;
use super::Refused;
use super::references::References;
use keywords::Checker;
use unique::OpenArrays;
pub(in super::super) use unique::Outlook;

/// Why an answer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unmet {
    /// The schema does not validate the answer.
    Violated {
        /// Names and indices on the path to the wrong part, each after a slash.
        place: String,
        /// What the schema does not allow about that part.
        reason: String,
    },
    /// Deciding would take too much work.
    Undecided(Refused),
}

impl Unmet {
    fn violated(reason: impl Into<String>) -> Self {
        Self::Violated { place: String::new(), reason: reason.into() }
    }

    fn undecided(reason: impl Into<String>) -> Self {
        Self::Undecided(Refused::new(reason))
    }

    /// Returns the error with a member or an item prepended to its place.
    fn within(self, key: impl std::fmt::Display) -> Self {
        match self {
            Self::Violated { place, reason } => Self::Violated { place: format!("/{key}{place}"), reason },
            undecided @ Self::Undecided(_) => undecided,
        }
    }
}

impl From<Refused> for Unmet {
    fn from(refused: Refused) -> Self {
        Self::Undecided(refused)
    }
}

/// A schema that answers are checked against.
#[derive(Debug)]
pub(in super::super) struct Check {
    schema: Value,
    references: References,
    /// Whether some array must have different items.
    unique: bool,
}

impl Check {
    /// Returns the check of a schema for which there is a grammar.
    pub(in super::super) fn new(schema: Value) -> Self {
        Self { unique: unique::is_asked_for(&schema), references: References::of(&schema), schema }
    }

    /// Returns whether some array must have different items.
    pub(in super::super) fn asks_for_unique_items(&self) -> bool {
        self.unique
    }

    /// Returns the arrays of different items that are still open at the end of an answer; `None` if none of them has an item
    /// that could be repeated.
    ///
    /// # Errors
    /// [`ConstraintError::TooComplex`] if the answer has too many levels.
    pub(in super::super) fn open_arrays<'a>(
        &self,
        answer: &'a [u8],
    ) -> Result<Option<OpenArrays<'a>>, ConstraintError> {
        let arrays = OpenArrays::of(&self.schema, &self.references, answer);
        let arrays = arrays.map_err(|refused| ConstraintError::TooComplex { reason: refused.reason })?;
        Ok(Some(arrays).filter(|arrays| !arrays.is_empty()))
    }

    /// Checks that the schema validates the answer. Takes much stack if schema and answer are deep.
    ///
    /// # Errors
    /// [`ConstraintError::NotValid`], or [`ConstraintError::TooComplex`] if the result cannot be decided within the limits.
    pub(in super::super) fn run(&self, answer: &[u8]) -> Result<(), ConstraintError> {
        self.decide(answer).map_err(|unmet| match unmet {
            Unmet::Violated { place, reason } => {
                let at = if place.is_empty() { String::new() } else { format!(" (at {place})") };
                ConstraintError::NotValid { reason: super::super::grammar::told(&format!("{reason}{at}")) }
            }
            Unmet::Undecided(refused) => ConstraintError::TooComplex { reason: refused.reason },
        })
    }

    fn decide(&self, answer: &[u8]) -> Result<(), Unmet> {
        let answer = std::str::from_utf8(answer).map_err(|_| Unmet::violated("it is no UTF-8"))?;
        let answer = instance::read(answer)?;
        Checker::new(&self.schema, &self.references).satisfies(&self.schema, &answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(schema: &Value, answer: &str) -> Result<(), String> {
        Check::new(schema.clone()).run(answer.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_kind_of_violation_is_told_with_its_place() {
        let long: Value = serde_json::from_str("9007199254740993").unwrap();
        let members = json!({"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
        for (schema, right, wrong, words) in [
            (json!({"type": "integer"}), "1.0e1", "1.5", "1.5 is not of type integer"),
            (json!({"type": ["null", "string"]}), "null", "1", "1 is of none of its types"),
            (json!({"const": long}), "9007199254740993", "9007199254740992", "is not the value of const"),
            (
                json!({"enum": [1, "a", {"b": [2]}]}),
                "{\"b\":[2.0]}",
                "{\"b\":[2,2]}",
                "is none of the values of enum",
            ),
            (json!({"enum": [{"b": 2}]}), "{\"b\":2}", "{\"b\":2,\"b\":2}", "is none of the values of enum"),
            (json!({"minimum": 3}), "3", "2.9999999999999999999", "outside of minimum 3"),
            (
                json!({"exclusiveMinimum": 3}),
                "3.0000000000000000001",
                "3",
                "exclusiveMinimum 3, which is excluded",
            ),
            (json!({"minimum": 3, "exclusiveMinimum": true}), "4", "3.0", "minimum 3, which is excluded"),
            (json!({"maximum": -1}), "-1", "-0.5", "outside of maximum -1"),
            (json!({"exclusiveMaximum": long}), "9007199254740992", "9007199254740993", "which is excluded"),
            (json!({"multipleOf": 0.01}), "0.07", "0.075", "no multiple of 0.01"),
            (json!({"minLength": 2}), "\"\u{e9}\u{e9}\"", "\"\u{e9}\"", "has 1 character, minLength is 2"),
            (json!({"maxLength": 1}), "\"\\n\"", "\"ab\"", "maxLength is 1"),
            (json!({"pattern": "^a+$"}), "\"aa\"", "\"ab\"", "does not match the pattern"),
            (json!({"format": "date"}), "\"2024-02-28\"", "\"2024-02-30\"", "is not of the format \"date\""),
            (json!({"minItems": 1}), "[1]", "[]", "an array has 0 items, minItems is 1"),
            (json!({"maxItems": 1}), "[1]", "[1,2]", "an array has 2 items, maxItems is 1"),
            (
                json!({"items": {"type": "null"}}),
                "[null]",
                "[null,[]]",
                "an array is not of type null (at /1)",
            ),
            (json!({"prefixItems": [true, {"const": 1}], "items": false}), "[0,1]", "[0,1,2]", "(at /2)"),
            (json!({"items": [{"const": 1}], "additionalItems": {"const": 2}}), "[1,2]", "[2]", "(at /0)"),
            (members.clone(), "{\"a\":1}", "{}", "lacks the required member \"a\""),
            (members.clone(), "{\"a\":1}", "{\"a\":1,\"a\":null}", "null is not of type integer (at /a)"),
            (members, "{\"a\":1}", "{\"a\":1,\"b\":2}", "2 stands where nothing may (at /b)"),
            (
                json!({"patternProperties": {"^x": {"const": 1}}}),
                "{\"x1\":1,\"y\":2}",
                "{\"x1\":2}",
                "(at /x1)",
            ),
            (json!({"minProperties": 2}), "{\"a\":1,\"b\":1}", "{\"a\":1,\"a\":2}", "minProperties is 2"),
            (json!({"maxProperties": 0}), "{}", "{\"a\":1}", "maxProperties is 0"),
            (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), "2", "3", "outside of maximum 2"),
            (json!({"anyOf": [{"const": 1}, {"const": 2}]}), "2", "3", "none of the choices of anyOf"),
            (json!({"oneOf": [{"const": 1}, {"const": 2}]}), "1", "3", "none of the choices of oneOf"),
            (json!({"oneOf": [{"minimum": 1}, {"maximum": 2}]}), "3", "2", "several choices of oneOf"),
            (
                json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}}),
                "1",
                "2",
                "is not the value of const",
            ),
            (json!(true), "[{}]", "[{]", "it is no JSON"),
        ] {
            assert_eq!(verdict(&schema, right), Ok(()), "{schema}");
            let told = verdict(&schema, wrong).unwrap_err();
            assert!(told.starts_with("the answer does not satisfy its JSON schema: "), "{told}");
            assert!(told.contains(words), "{schema}: {told}");
        }
        assert!(Check::new(json!(true)).run(b"\"\xff\"").unwrap_err().to_string().contains("no UTF-8"));
    }

    /// Every value against every schema, compared with an independent validator.
    #[test]
    fn agrees_with_an_independent_validator() {
        let values = [
            "null",
            "true",
            "0",
            "-1",
            "1",
            "1.0",
            "2.5",
            "10",
            "1e2",
            "\"\"",
            "\"a\"",
            "\"ab\"",
            "\"\u{1f600}\"",
            "\"2024-02-28\"",
            "\"10.0.0.1\"",
            "[]",
            "[1]",
            "[1,\"a\"]",
            "[[],[1]]",
            "[1,2,3]",
            "{}",
            "{\"a\":1}",
            "{\"a\":\"a\",\"b\":[]}",
            "{\"x\":1,\"y\":{\"a\":1}}",
            "{\"a\":{\"a\":{\"a\":1}}}",
        ];
        let tree =
            json!({"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "number"}]}}});
        let schemas = [
            json!(true),
            json!({"type": "number"}),
            json!({"type": "integer"}),
            json!({"type": ["string", "array"]}),
            json!({"enum": [1, [1], {"a": 1}, null]}),
            json!({"const": {"a": {"a": {"a": 1}}}}),
            json!({"minimum": 0, "exclusiveMaximum": 10}),
            json!({"multipleOf": 2.5, "minimum": 0}),
            json!({"minLength": 1, "maxLength": 1}),
            json!({"pattern": "a"}),
            json!({"pattern": "^[^a]*$"}),
            json!({"format": "date"}),
            json!({"format": "ipv4", "type": "string"}),
            json!({"items": {"type": "integer"}}),
            json!({"prefixItems": [{"const": 1}], "items": {"type": "string"}}),
            json!({"minItems": 1, "maxItems": 2}),
            json!({"items": {"items": {"const": 1}}}),
            json!({"required": ["a"]}),
            json!({"properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "array"}}),
            json!({"patternProperties": {"[xy]": {"type": "number"}}, "additionalProperties": {"type": "integer"}}),
            json!({"minProperties": 1, "maxProperties": 1}),
            json!({"oneOf": [{"type": "integer"}, {"minimum": 2}]}),
            json!({"allOf": [{"required": ["a"]}, {"anyOf": [{"maxProperties": 1}, {"type": "null"}]}]}),
            tree,
        ];
        for schema in schemas {
            let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
            for text in values {
                let value: Value = serde_json::from_str(text).unwrap();
                assert_eq!(verdict(&schema, text).is_ok(), validator.is_valid(&value), "{schema} {text}");
            }
        }
    }

    /// A reference assumed unmet while a cycle is followed proves nothing for other references.
    #[test]
    fn references_that_lead_back_are_followed_to_the_end() {
        let schema = json!({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {
            "a": {"anyOf": [{"$ref": "#/$defs/b"}, {"type": "string"}]},
            "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "number"}]},
        }});
        assert_eq!(verdict(&schema, "\"s\""), Ok(()));
        assert_eq!(verdict(&schema, "1"), Ok(()));
        assert!(verdict(&schema, "null").is_err());
        let endless = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]});
        assert!(verdict(&endless, "1").is_err());
    }

    /// Work and stack are bounded for any schema and answer.
    #[test]
    fn hostile_checks_end() {
        let wide: Vec<String> = (0..500)
            .map(|i| {
                format!(
                    "\"d{i}\":{{\"anyOf\":[{{\"$ref\":\"#/$defs/d{0}\"}},{{\"$ref\":\"#/$defs/d{0}\"}}]}}",
                    i + 1
                )
            })
            .collect();
        let wide =
            format!("{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{},\"d500\":{{\"const\":1}}}}}}", wide.join(","));
        let wide: Value = serde_json::from_str(&wide).unwrap();
        assert!(verdict(&wide, "2").unwrap_err().contains("none of the choices"));
        let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        let on_stack = |schema: Value, answer: String| {
            super::super::super::on_large_stack(|| Check::new(schema).run(answer.as_bytes()))
        };
        assert!(on_stack(json!({"items": {"$ref": "#"}}), nested(4_900)).is_ok());
        let deep = on_stack(json!({"items": {"$ref": "#"}}), nested(6_000)).unwrap_err().to_string();
        assert!(deep.contains("more than 10000 levels"), "{deep}");
        let items = format!("[{}1]", "1,".repeat(110_000));
        let many = on_stack(json!({"items": {"allOf": [true, true]}}), items).unwrap_err().to_string();
        assert!(many.contains("more than 200000 steps"), "{many}");
        // every letter leads to another state of the pattern
        let long = format!("\"{}\"", "a\u{e9}".repeat(10_000));
        assert!(on_stack(json!({"pattern": "^.{1,20000}$", "maxLength": 20_000}), long).is_ok());
    }
}
