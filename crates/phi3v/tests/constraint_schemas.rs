//! Answers held to a schema satisfy it: a few thousand random schemas, random logits, and an independent validator.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;
mod formats;

use common::forms::Forms;
use common::schemas::random_schema;
use formats::FORMATS;
use phi3v::constraint::{Constraint, ConstraintError, Grammar, GrammarConstraint, GrammarLimits};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;
use serde_json::{Map, Value, json};

/// Tokens of an answer, at most; most are far shorter.
const TOKENS_MAX: usize = 160;

impl Forms {
    /// Checks some answers of a schema; says how many were finished, and None if the schema is refused.
    fn check(&self, schema: &Value, (answers, seed): (usize, u64)) -> Option<usize> {
        let constraint = match self.factory.constraint(&Grammar::JsonSchema(schema.clone())) {
            Ok(constraint) => constraint,
            Err(error) => {
                check_words(&error);
                return None;
            }
        };
        let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
        let mut random = Pcg64::seed_from_u64(seed);
        let mut finished = 0;
        for _ in 0..answers {
            let answer = match self.answer(&mut constraint.clone(), &mut random, TOKENS_MAX) {
                Ok(Some(answer)) => answer,
                Ok(None) => continue,
                Err(error) if error.contains("without an item that it already has") => continue,
                Err(error) => panic!("{schema}: {error}"),
            };
            finished += 1;
            let value: Value =
                serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{schema}: {answer}: {error}"));
            let wrong: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(wrong.is_empty(), "{wrong:?}\n{schema}\ngives {answer}\n{wrong:?}");
        }
        Some(finished)
    }

    /// Whether a text may be the answer to a schema.
    fn takes_for(&self, schema: &Value, answer: &str) -> bool {
        let mut constraint = self.factory.constraint(&Grammar::JsonSchema(schema.clone())).unwrap();
        self.takes(&mut constraint, answer)
    }

    /// Checks answers of a schema, of which one is given, and one that is none.
    fn check_between(&self, schema: &Value, right: &str, wrong: &str) {
        assert!(self.takes_for(schema, right), "{schema}: {right}");
        assert!(!self.takes_for(schema, wrong), "{schema}: {wrong}");
        assert!(self.check(schema, (20, 3)).is_some_and(|finished| finished > 0), "{schema}");
    }

    fn refusal(&self, grammar: Grammar) -> String {
        let error = self.factory.constraint(&grammar).unwrap_err();
        check_words(&error);
        error.to_string()
    }
}

/// Errors are in our words, on one line.
fn check_words(error: &ConstraintError) {
    let text = error.to_string();
    for inner in ["NoExtension", "coerce", "fuel", "non-verbose", "derivre", "ParserLimits", "panicked", "\n"]
    {
        assert!(!text.contains(inner), "{text}");
    }
}

#[test]
fn answers_to_random_schemas_satisfy_them() {
    let mut random = Pcg64::seed_from_u64(12);
    let schemas: Vec<Value> = (0..3_000).map(|_| random_schema(&mut random)).collect();
    let counts = common::halves(|half| {
        let forms = Forms::new();
        let (mut followed, mut finished) = (0, 0);
        for (index, schema) in (0..).zip(&schemas).skip(half).step_by(2) {
            // what the validator does not take for a schema is none; a reference to itself alone has no meaning for it
            if jsonschema::validator_for(schema).is_err() {
                continue;
            }
            if let Some(answers) = forms.check(schema, (2, index)) {
                followed += 1;
                finished += answers;
            }
        }
        [followed, finished]
    });
    let [followed, finished] = [0, 1].map(|count| counts.iter().map(|half| half[count]).sum::<usize>());
    assert!(
        followed > 1_500 && finished > 2_000,
        "{followed} schemas were followed, {finished} answers finished"
    );
}

/// What no grammar says of itself: choices that exclude one another, conditions, items that come once.
#[test]
fn keywords_beyond_a_grammar() {
    let forms = Forms::new();
    let kinds = json!({"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind"]},
        {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind", "y"]},
    ]});
    let either = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    let condition = json!({"properties": {"kind": {"enum": ["a", "b"]}}, "required": ["kind"],
        "if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["x"]}, "else": {"required": ["y"]}});
    let named = json!({"$id": "http://example.com/root", "type": "array", "items": {"$ref": "part"}, "$defs": {
        "p": {"$id": "part", "anyOf": [{"$ref": "#word"}, {"type": "null"}], "$defs": {"w": {"$anchor": "word", "const": "x"}}}}});
    for (schema, right, wrong) in [
        (kinds, "{\"kind\":\"a\"}", "{\"kind\":\"b\"}"),
        (either, "{\"b\":1}", "{\"a\":1,\"b\":1}"),
        (json!({"oneOf": [{"minimum": 1, "type": "number"}, {"maximum": 2, "type": "number"}]}), "3", "1.5"),
        (json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}), "1.5", "2"),
        (
            json!({"oneOf": [{"maxLength": 2, "type": "string"}, {"pattern": "^a", "type": "string"}]}),
            "\"abc\"",
            "\"a\"",
        ),
        (condition.clone(), "{\"kind\":\"a\",\"x\":1}", "{\"kind\":\"a\",\"y\":1}"),
        (condition, "{\"kind\":\"b\",\"y\":1}", "{\"kind\":\"b\",\"x\":1}"),
        (json!({"type": "integer", "not": {"enum": [1, 2]}}), "3", "2"),
        (json!({"type": "string", "not": {"pattern": "x"}}), "\"abc\"", "\"axc\""),
        (json!({"not": {"type": ["string", "object"]}}), "[1]", "\"a\""),
        (json!({"items": {"type": "integer"}, "uniqueItems": true, "type": "array"}), "[1,11,2]", "[1,2,1]"),
        (
            json!({"items": {"enum": ["a", "b", "c"]}, "uniqueItems": true, "type": "array"}),
            "[\"c\",\"a\"]",
            "[\"a\",\"a\"]",
        ),
        (
            json!({"properties": {"a": {"items": true, "uniqueItems": true}}}),
            "{\"a\":[[1],{\"x\":1}]}",
            "{\"a\":[{\"x\":1},{\"x\":1.0}]}",
        ),
        (json!({"type": "object", "dependentRequired": {"a": ["b"]}}), "{\"b\":1}", "{\"a\":1}"),
        (
            json!({"type": "object", "dependencies": {"a": ["b"], "c": {"maxProperties": 1}}}),
            "{\"a\":1,\"b\":1}",
            "{\"c\":1,\"b\":1}",
        ),
        (json!({"type": "object", "propertyNames": {"maxLength": 2}}), "{\"ab\":1}", "{\"abc\":1}"),
        (json!({"type": "array", "contains": {"const": 7}}), "[1,7]", "[1,1]"),
        (json!({"type": "array", "contains": {"const": 7}, "maxContains": 1}), "[7,1]", "[7,1,7]"),
        (named, "[\"x\",null]", "[\"y\"]"),
        (
            json!({"type": "object", "properties": {"examples": {"items": {"$ref": "#/$defs/default"}}},
                "required": ["examples"], "$defs": {"default": {"enum": [1, null]}}}),
            "{\"examples\":[1,null]}",
            "{\"examples\":[2]}",
        ),
        (
            json!({"type": "integer", "minimum": 2.0, "maximum": 4.0, "multipleOf": 2.0, "format": "int32"}),
            "4",
            "3",
        ),
        (json!({"type": "string", "format": "currency", "minLength": 1.0}), "\"x\"", "\"\""),
    ] {
        forms.check_between(&schema, right, wrong);
    }
}

/// Patterns that look ahead, and choices that lead back to themselves.
#[test]
fn what_pydantic_writes() {
    let forms = Forms::new();
    // as pydantic writes a decimal number and a tree of expressions
    let decimal = json!({"anyOf": [{"type": "number"}, {"type": "string", "maxLength": 12,
        "pattern": "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"}]});
    let operand = json!({"discriminator": {"propertyName": "kind"}, "oneOf": [{"$ref": "#/$defs/Add"}, {"$ref": "#/$defs/Num"}]});
    let sums = json!({"$ref": "#/$defs/Add", "$defs": {
        "Add": {"type": "object", "properties": {"kind": {"const": "add"}, "left": operand}, "required": ["kind"], "additionalProperties": false},
        "Num": {"type": "object", "properties": {"kind": {"$ref": "#/$defs/Kind"}}, "required": ["kind"], "additionalProperties": false},
        "Kind": {"enum": ["num", "zero"]},
    }});
    for (schema, right, wrong) in [
        (decimal.clone(), "\"-1.50\"", "\"-\""),
        (decimal, "0.1", "\"\""),
        (json!({"type": "string", "pattern": "^(?=.*[a-z])(?=.*\\d)[a-z\\d]{4,8}$"}), "\"ab12\"", "\"abcd\""),
        (json!({"type": "string", "pattern": "^(?!\\s*$).+"}), "\" a\"", "\"  \""),
        (json!({"type": "string", "not": {"pattern": "^(?!a)b"}, "maxLength": 9}), "\"ab\"", "\"bc\""),
        (
            sums,
            "{\"kind\":\"add\",\"left\":{\"kind\":\"add\"}}",
            "{\"kind\":\"add\",\"left\":{\"kind\":\"sub\"}}",
        ),
    ] {
        forms.check_between(&schema, right, wrong);
    }
    // as of a decimal number with max_digits, and of longer rules for passwords
    let digits = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)";
    let letters = |kinds: &[&str]| {
        let rules: String = kinds.iter().map(|kind| format!("(?=.*[{kind}])")).collect();
        format!("^{rules}[a-zA-Z0-9]{{8,}}$")
    };
    for (pattern, is_followed) in [
        (digits.to_owned(), false),
        (letters(&["a-z", "A-Z", "0-9"]), true),
        (letters(&["a-z", "A-Z", "0-9", "0-5"]), false),
    ] {
        let form = Grammar::JsonSchema(json!({"type": "string", "pattern": pattern}));
        assert_eq!(forms.factory.constraint(&form).is_ok(), is_followed, "{pattern}");
    }
}

/// A form of which what it forces is taken without asking which tokens it allows.
struct Foreseen(GrammarConstraint);

impl Constraint for Foreseen {
    fn allowed(&mut self, logits: &mut [f32]) -> phi3v::Result<()> {
        let Some(forced) = self.0.forced()? else { return self.0.allowed(logits) };
        for (id, logit) in (0..).zip(logits) {
            *logit = if id == forced { *logit } else { f32::NEG_INFINITY };
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> phi3v::Result<()> {
        self.0.accept(token)
    }

    fn is_complete(&self) -> bool {
        self.0.is_complete()
    }
}

/// No order in which items are drawn leads to where none is left, so long as there are enough.
#[test]
fn arrays_of_different_items_come_to_their_end() {
    let forms = Forms::new();
    let array = |items: Value, least: u32, most: u32| json!({"type": "array", "items": items, "minItems": least, "maxItems": most, "uniqueItems": true});
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let number = |maximum: u32| json!({"type": "integer", "minimum": 1, "maximum": maximum});
    let flags = json!({"type": "object", "properties": {"k": text("^[A-D]$"), "v": {"type": "boolean"}},
        "required": ["k", "v"], "additionalProperties": false});
    let pairs = array(number(3), 2, 2);
    // much is forced behind what is chosen
    let goods = json!({"type": "object", "properties": {"n": number(9), "kind": {"const": "consumer electronics"}},
        "required": ["n", "kind"], "additionalProperties": false});
    for schema in [
        array(number(12), 3, 5),
        array(number(12), 12, 12),
        array(number(50), 20, 30),
        array(text("^[A-Z]{2}$"), 10, 20),
        array(text("^[A-C]{2}$"), 9, 9),
        array(text("^[AB]{1,2}$"), 6, 8),
        array(flags, 6, 8),
        array(pairs, 6, 6),
        array(json!({"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25}), 5, 5),
        array(goods, 8, 9),
        json!({"type": "object", "properties": {"a": array(number(9), 9, 9)}, "required": ["a"]}),
    ] {
        let constraint = forms.factory.constraint(&Grammar::JsonSchema(schema.clone())).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        for seed in 1..=8 {
            let answer = |constraint: &mut dyn Constraint| {
                let answer = forms.answer(constraint, &mut Pcg64::seed_from_u64(seed), 2_000);
                let answer = answer.unwrap_or_else(|error| panic!("{schema} {seed}: {error}"));
                answer.unwrap_or_else(|| panic!("{schema} {seed}: the answer does not end"))
            };
            let foreseen = answer(&mut Foreseen(constraint.clone()));
            let answer = answer(&mut constraint.clone());
            assert_eq!(answer, foreseen, "{schema} {seed}");
            assert!(validator.is_valid(&serde_json::from_str(&answer).unwrap()), "{schema}: {answer}");
        }
    }
}

/// What stands on paper can be answered, and whoever asks for it in `const` or `enum` gets it.
#[test]
fn formats_take_what_is_in_use() {
    let forms = Forms::new();
    for (format, right, wrong) in FORMATS {
        let schema = json!({"type": "string", "format": format});
        let taken = |text: &&str| forms.takes_for(&schema, &json!(text).to_string());
        assert_eq!(right.iter().find(|text| !taken(text)), None, "{format}");
        assert_eq!(wrong.iter().find(|text| taken(text)), None, "{format}");
        assert!(forms.check(&schema, (40, 5)).is_some_and(|finished| finished > 0), "{format}");
        for text in *right {
            assert!(forms.takes_for(&json!({"const": text, "format": format}), &json!(text).to_string()));
        }
        let listed = json!({"enum": right, "format": format});
        assert!(right.iter().all(|text| forms.takes_for(&listed, &json!(text).to_string())), "{format}");
    }
}

/// Formats of which validators differ: what the schema's author wrote is kept where some of them would.
#[test]
fn what_an_author_wrote_is_judged_kindly() {
    let forms = Forms::new();
    for (format, text) in [
        ("date-time", "2024-05-01T08:15:30"),
        ("time", "23:59:60Z"),
        ("duration", "PT1.5S"),
        ("email", "\"two words\"@example.com"),
        ("email", "root@localhost"),
        ("hostname", "_dmarc.example.com"),
        ("uri", "https://example.com/\u{e9}?a=b|c"),
        ("uri", "about:"),
        ("idn-hostname", "xn--mnchen-3ya.de"),
        ("regex", "[a-z]+(?=b)"),
        ("int32", "anything"),
    ] {
        for schema in [
            json!({"const": text, "format": format}),
            json!({"enum": ["x y", text], "format": format}),
            json!({"allOf": [{"enum": [text]}, {"format": format}]}),
        ] {
            assert!(forms.takes_for(&schema, &json!(text).to_string()), "{schema}");
        }
    }
    for (format, text) in
        [("date", "2024-02-30"), ("ipv4", "256.1.1.1"), ("email", "a"), ("uri", "example.com")]
    {
        let refusal = forms.refusal(Grammar::JsonSchema(json!({"const": text, "format": format})));
        assert!(refusal.contains("no JSON value satisfies it"), "{refusal}");
    }
    // a pattern in the place of a text is no pattern of ours
    assert!(forms.takes_for(&json!({"type": "string", "format": "regex"}), "\"[a-z]+\""));
}

/// Keywords of the wrong type, or of an earlier draft, are refused by name or say nothing: never one thing here and another there.
#[test]
fn keywords_of_other_types() {
    let forms = Forms::new();
    let digits = |unique: Value| {
        json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9},
        "minItems": 3, "maxItems": 3, "uniqueItems": unique})
    };
    for (unique, repeats) in [(json!(null), true), (json!(false), true), (json!(true), false)] {
        assert_eq!(forms.takes_for(&digits(unique.clone()), "[1,1,2]"), repeats, "{unique}");
        // the validator takes no schema with null there
        let drawn = || forms.check(&digits(unique.clone()), (20, 3)).is_some_and(|finished| finished > 10);
        assert!(unique.is_null() || drawn(), "{unique}");
    }
    let member = |required: bool| json!({"properties": {"a": {"type": "string", "required": required}}});
    assert!(forms.takes_for(&member(false), "{}"));
    for (schema, words) in [
        (digits(json!(1)), "uniqueItems is 1, it must be true or false"),
        (digits(json!("yes")), "uniqueItems is \"yes\""),
        (json!({"items": {"anyOf": [{"type": "null"}, digits(json!([]))]}}), "uniqueItems is []"),
        (json!({"allOf": [{"not": digits(json!(0))}]}), "uniqueItems is 0"),
        (member(true), "required must be a list of names, beside properties (at #/properties/a)"),
        (json!({"required": "a"}), "required must be a list of names"),
        (json!({"type": "number", "divisibleBy": 2}), "\"divisibleBy\" cannot be followed"),
        (json!({"prefixItems": [true], "items": [true]}), "items must be a schema beside prefixItems"),
    ] {
        let refusal = forms.refusal(Grammar::JsonSchema(schema));
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn answers_are_compact() {
    let forms = Forms::new();
    let schema = json!({"required": ["a"], "properties": {"a": {"items": {"type": "integer"}, "type": "array"}},
        "additionalProperties": {"type": "string"}, "type": "object"});
    assert!(forms.takes_for(&schema, "{\"a\":[1,2],\"b c\":\" d \"}"));
    for spaced in ["{\"a\": [1]}", "{ \"a\":[1]}", "{\"a\":[1, 2]}", "{\"a\":[1]\n}", "{\"a\":[1]} "] {
        assert!(!forms.takes_for(&schema, spaced), "{spaced}");
    }
}

#[test]
fn all_pairs_of_bounds() {
    let forms = Forms::new();
    let pairs = [
        ("0", "0.5"),
        ("0", "1"),
        ("0", "0.9"),
        ("1", "1.5"),
        ("0.5", "1"),
        ("1.5", "2"),
        ("-0.5", "0"),
        ("-1.5", "-1"),
        ("-1", "-0.5"),
        ("-1", "0"),
        ("2", "2.25"),
        ("0", "10"),
        ("9.5", "10"),
        ("99.5", "100"),
        ("100", "100.5"),
        ("1", "2"),
        ("-3", "-1"),
        ("0", "3"),
        ("1e-9", "2e-9"),
        ("1e20", "2e20"),
        ("-1e300", "1e300"),
        ("0", "5e-324"),
        ("9007199254740992", "9007199254740994"),
        ("18446744073709551614", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775806"),
        ("0.1", "0.2"),
        ("1e15", "1000000000000002"),
        ("3", "3"),
    ];
    let mut finished = 0;
    for (low, high) in pairs {
        let [low, high] = [low, high].map(|text| serde_json::from_str::<Value>(text).unwrap());
        for (a, b) in [
            ("minimum", "maximum"),
            ("minimum", "exclusiveMaximum"),
            ("exclusiveMinimum", "maximum"),
            ("exclusiveMinimum", "exclusiveMaximum"),
        ] {
            for kind in ["number", "integer"] {
                finished += forms.check(&json!({"type": kind, a: low, b: high}), (6, 1)).unwrap_or(0);
            }
        }
    }
    assert!(finished > 800, "{finished} answers");
}

#[test]
fn whole_numbers_are_kept_to_the_digit() {
    let forms = Forms::new();
    for text in ["9007199254740993", "1234567890123456789", "18446744073709551615", "-9223372036854775808"] {
        let value: Value = serde_json::from_str(text).unwrap();
        for schema in [
            json!({"const": value}),
            json!({"enum": [value]}),
            json!({"type": "integer", "minimum": value, "maximum": value}),
            json!({"type": "object", "properties": {"a": {"const": value}}, "required": ["a"], "additionalProperties": false}),
        ] {
            let mut constraint = forms.factory.constraint(&Grammar::JsonSchema(schema.clone())).unwrap();
            let answer =
                forms.answer(&mut constraint, &mut Pcg64::seed_from_u64(1), TOKENS_MAX).unwrap().unwrap();
            assert!(answer.contains(text), "{schema}: {answer}");
        }
    }
    let long: Value = serde_json::from_str("12345678901234567890123").unwrap();
    let refusal = forms.refusal(Grammar::JsonSchema(json!({"const": long})));
    assert!(refusal.contains("kept exactly up to 64 bits"), "{refusal}");
}

#[test]
fn references_with_escapes_and_to_themselves() {
    let forms = Forms::new();
    let definitions =
        json!({"a/b": {"const": 1}, "m~n": {"const": 2}, "c d": {"const": 3}, "e%f": {"const": 4}});
    for reference in ["#/$defs/a~1b", "#/$defs/m~0n", "#/$defs/c%20d", "#/$defs/e%25f", "#/%24defs/a~1b"] {
        assert!(
            forms.check(&json!({"$ref": reference, "$defs": definitions}), (2, 1)).is_some(),
            "{reference}"
        );
    }
    let tree = json!({"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": false});
    assert!(forms.check(&tree, (10, 1)).is_some());
    let whole =
        json!({"type": "object", "properties": {"left": {"$ref": ""}}, "additionalProperties": false});
    assert!(forms.factory.constraint(&Grammar::JsonSchema(whole)).is_ok());
    let lists = json!({"$ref": "#/$defs/a", "$defs": {
        "a": {"type": "array", "items": {"$ref": "#/$defs/b"}, "maxItems": 2},
        "b": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]},
    }});
    assert!(forms.check(&lists, (10, 1)).is_some());
    for endless in [
        json!({"$ref": "#"}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
    ] {
        let refusal = forms.refusal(Grammar::JsonSchema(endless));
        assert!(refusal.ends_with("no JSON value satisfies it, or none that comes to an end"), "{refusal}");
    }
    // choices that one value may satisfy both of are not told apart by their tags
    let tagged = |kind: Value, required: Value, of: &str| {
        json!({"$ref": "#/$defs/a", "$defs": {
            "a": {"type": of, "properties": {"kind": {"const": "a"}, "left": {"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}}, "required": required},
            "b": {"properties": {"kind": kind}},
        }})
    };
    assert!(
        forms
            .factory
            .constraint(&Grammar::JsonSchema(tagged(json!({"const": "b"}), json!(["kind"]), "object")))
            .is_ok()
    );
    for (kind, required, of) in [
        (json!({"enum": ["a", "b"]}), json!(["kind"]), "object"),
        (json!({"const": 1}), json!(["kind"]), "object"),
        (json!({"const": "b"}), json!(["left"]), "object"),
    ] {
        let refusal = forms.refusal(Grammar::JsonSchema(tagged(kind, required, of)));
        assert!(refusal.contains("leads back to itself"), "{refusal}");
    }
    let beside = json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "$ref": "#/$defs/a"}}});
    assert!(forms.refusal(Grammar::JsonSchema(beside)).contains("leads back to itself"));
}

/// A schema of chained references, as large as is permitted.
fn chain(part: impl Fn(Value) -> Value) -> Value {
    let link = |index: usize| json!({"$ref": format!("#/$defs/d{index}")});
    let mut count = 0;
    let mut schema = json!({});
    for links in (50..).step_by(50) {
        let mut parts: Map<String, Value> =
            (0..links).map(|i| (format!("d{i}"), part(link(i + 1)))).collect();
        parts.insert(format!("d{links}"), json!({"type": "integer"}));
        let longer = json!({"$ref": "#/$defs/d0", "$defs": parts});
        if longer.to_string().len() > GrammarLimits::default().bytes_max {
            break;
        }
        (schema, count) = (longer, links);
    }
    assert!(count > 500);
    schema
}

#[test]
fn chains_and_nests_end_no_process() {
    let forms = Forms::new();
    for schema in [
        chain(|next| next),
        chain(|next| json!({"type": "array", "items": next})),
        chain(|next| json!({"type": "object", "properties": {"a": next}})),
    ] {
        assert!(forms.factory.constraint(&Grammar::JsonSchema(schema)).is_ok());
    }
    // all of them could be next
    let choices =
        forms.refusal(Grammar::JsonSchema(chain(|next| json!({"anyOf": [next, {"type": "string"}]}))));
    assert!(choices.contains("it takes more work than is allowed"), "{choices}");
    // these are met with one another, which goes through the references
    for schema in [
        chain(|next| json!({"allOf": [next, {"minimum": 1}]})),
        chain(|next| json!({"oneOf": [next, {"type": "string"}]})),
        chain(|next| json!({"$ref": next["$ref"], "type": "array", "items": next})),
    ] {
        let refusal = forms.refusal(Grammar::JsonSchema(schema));
        assert!(refusal.contains("deep") || refusal.contains("steps"), "{refusal}");
    }
}

#[test]
fn grammars_and_patterns_end_no_process() {
    let forms = Forms::new();
    let rules = |count: usize, rule: &dyn Fn(usize) -> String| {
        let rules: Vec<String> = (0..count).map(rule).collect();
        format!("start: r0\n{}\nr{count}: \"z\"\n", rules.join("\n"))
    };
    let chain = |count| rules(count, &|index| format!("r{index}: r{}", index + 1));
    let nested = |count| {
        rules(count, &|index| format!("r{index}: {}r{}{}", "(".repeat(20), index + 1, ")".repeat(20)))
    };
    // as many as are permitted, and one more
    assert!(forms.factory.constraint(&Grammar::Lark(chain(1_990))).is_ok());
    assert!(forms.factory.constraint(&Grammar::Lark(nested(94))).is_ok());
    for grammar in [chain(2_010), nested(100)] {
        assert!(
            forms.refusal(Grammar::Lark(grammar)).contains("colons and opening brackets, the limit is 2000")
        );
    }
    let terminals = rules(1_900, &|index| format!("R{index}: R{} \"a\"", index + 1));
    let terminals = terminals.replace("start: r0", "start: R0").replace("\nr1900", "\nR1900");
    assert!(forms.factory.constraint(&Grammar::Lark(terminals)).is_ok());
    let both = format!("start: T\nT: {}", ["/a*/"; 100].join(" & "));
    assert!(forms.refusal(Grammar::Lark(both)).contains("& 99 times, the limit is then 0 bytes"));
    for unfollowed in
        ["start: %json {\"type\": \"integer\"}", "start: %lark { start: \"a\" }", "start: @answer"]
    {
        assert!(
            forms.refusal(Grammar::Lark(unfollowed.to_owned())).contains("cannot be followed"),
            "{unfollowed}"
        );
    }
    // marks within texts and regular expressions are no such things
    let harmless = "start: \"%json & @ ~\" /[%&~\"]/ \"//\" // %json\n";
    assert!(forms.factory.constraint(&Grammar::Lark(harmless.to_owned())).is_ok());
    for pattern in [
        format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("{}b{}", "(a|".repeat(20_000), ")".repeat(20_000)),
        "((a{1,1000}){1,1000}){1,1000}".to_owned(),
        "(((x)?)+){500,500}".to_owned(),
        "(a|b)*a(a|b){500}".to_owned(),
        "\\pL{1000}".repeat(1_000),
    ] {
        if let Err(error) = forms.factory.constraint(&Grammar::Regex(pattern)) {
            check_words(&error);
        }
    }
}

#[test]
fn numbers_that_cost_too_much_are_refused_by_name() {
    let forms = Forms::new();
    let integer = |multiple: u64| json!({"type": "integer", "multipleOf": multiple});
    let both = |a, b| json!({"allOf": [integer(a), integer(b)]});
    for schema in
        [integer(4_194_304), integer(2_147_483_648), integer(999_983), both(5, 999_999), both(7, 86_400)]
    {
        let refusal = forms.refusal(Grammar::JsonSchema(schema));
        assert!(
            refusal.contains("multipleOf comes to") && refusal.contains("the limit is 4096"),
            "{refusal}"
        );
    }
    for schema in [both(7, 3_600), integer(1_000_000_000), integer(4_096), integer(3_989)] {
        assert!(forms.check(&schema, (4, 1)).is_some(), "{schema}");
    }
    for (schema, part) in [
        (
            json!({"type": "array", "items": {"type": "array", "minItems": 1_000_000}, "minItems": 1_000_000}),
            None,
        ),
        (json!({"type": "array", "maxItems": u64::MAX}), None),
        (json!({"type": "string", "maxLength": 1_000_000_000}), None),
        (
            json!({"type": "string", "minLength": 1_000_000_000}),
            Some("minLength is 1000000000, the limit is 20000"),
        ),
        (json!({"type": "object", "minProperties": 1_000_000}), Some("minProperties is 1000000")),
        (json!({"type": "array", "contains": {"const": 1}, "minContains": 101}), Some("minContains is 101")),
        (json!({"allOf": vec![json!({"anyOf": vec![json!({"minLength": 1}); 40]}); 12]}), Some("steps")),
    ] {
        match (forms.factory.constraint(&Grammar::JsonSchema(schema.clone())), part) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (result, _) => panic!("{schema}: {result:?}"),
        }
    }
}

/// What would take the engine seconds to minutes is refused before it reads it.
#[test]
fn repetitions_that_cost_too_much_are_refused_by_name() {
    let forms = Forms::new();
    let pattern = |pattern: String| json!({"type": "string", "pattern": pattern});
    let multiples: Map<String, Value> = (0..300)
        .map(|index| (format!("p{index}"), json!({"type": "integer", "multipleOf": 4_096 - index})))
        .collect();
    let names: Map<String, Value> =
        (0..50).map(|index| (format!("^{}{index}$", "a?".repeat(50)), json!(true))).collect();
    let ambiguous = "\ne: e e | \"a\" | \"aa\" | e e e";
    for (grammar, words) in [
        (Grammar::Regex(".?".repeat(32_000)), "it has 32000 repetitions, the limit is 1000"),
        (Grammar::Regex("\\(?".repeat(9_000)), "it has 9000 repetitions, the limit is 1000"),
        (Grammar::Regex("(a|)".repeat(9_000)), "it has 9000 opening brackets, the limit is 2000"),
        (
            Grammar::Regex(format!("(?i){}", "\\pL".repeat(20_000))),
            "it has 20000 classes of Unicode, the limit is 2000",
        ),
        (Grammar::Lark(format!("start: /{}/", ".*".repeat(9_000))), "it has 9000 repetitions"),
        (Grammar::Lark(format!("start: T\nT: {}", "\"a\"? ".repeat(12_000))), "it has 12000 repetitions"),
        (Grammar::Lark(format!("start: e{{2000,9000}}{ambiguous}")), "come to 11000, the limit is 1000"),
        (Grammar::Lark(format!("start: e~2000 .. 9000{ambiguous}")), "come to 11000, the limit is 1000"),
        (Grammar::JsonSchema(pattern(".?".repeat(1_001))), "it has 1001 repetitions, the limit is 1000"),
        (
            Grammar::JsonSchema(json!({"anyOf": vec![pattern(".?".repeat(501)); 4]})),
            "have 2004 repetitions and groups together, the limit is 2000",
        ),
        (Grammar::JsonSchema(json!({"patternProperties": names})), "repetitions and groups together"),
        (
            Grammar::JsonSchema(
                json!({"required": multiples.keys().collect::<Vec<_>>(), "properties": multiples}),
            ),
            "all its multipleOf come to more than 65536 together",
        ),
    ] {
        let refusal = forms.refusal(grammar);
        assert!(refusal.contains(words), "{refusal}");
    }
    // points and classes are no repetitions, however the engine writes them
    let points = pattern(format!("^{}$", ".\\S".repeat(1_500)));
    assert!(forms.factory.constraint(&Grammar::JsonSchema(points)).is_ok());
    let harmless = "start: \"5000\" /[0-9]{1,2000}/";
    assert!(forms.factory.constraint(&Grammar::Lark(harmless.to_owned())).is_ok());
}

/// Hyphens and other signs in classes mean what they do in JavaScript.
#[test]
fn classes_of_patterns() {
    let forms = Forms::new();
    let allowed = |pattern: &str, text: &str| {
        let schema = json!({"type": "string", "pattern": pattern, "enum": [text]});
        forms.factory.constraint(&Grammar::JsonSchema(schema)).is_ok()
    };
    for (pattern, inside, outside) in [
        ("^[^+--/]$", "a0*", "+,-/"),
        ("^[+--/]$", "+,-/", ".0"),
        ("^[^a-z--x]$", "!", "ab-0Ax"),
        ("^[a&&b]$", "a&b", "c"),
        ("^[a~~b]$", "a~b", "c"),
        ("^[\\w-~]$", "a_-~", "}|."),
        ("^[~-\\d]$", "~-5", "}a"),
        ("^[a-]$", "a-", "b"),
        ("^[-a]$", "a-", "b"),
        ("^[\\s]$", " \t\n", "a\u{85}\u{1c}\u{feff}"),
        ("^[^\\s]$", "a", " \t\u{85}\u{1c}\u{feff}\u{a0}"),
        ("^[\\S]$", "a", " \t\u{85}\u{1c}\u{feff}"),
        ("^[\\d\\W]$", "5-", "a_"),
        ("^[^\\D]$", "5", "a-"),
        ("^[\\b]$", "\u{8}", "b"),
        ("^[[a]$", "[a", "b"),
        ("^[\\]\\-\\^]$", "]-^", "\\a"),
        ("^[\\x41-\\u0043]$", "ABC", "D"),
        ("^[a^]$", "a^", "b"),
        ("^[<>]\\<$", "", "<>"),
    ] {
        for letter in inside.chars() {
            assert!(allowed(pattern, &letter.to_string()), "{pattern} {letter:?}");
        }
        for letter in outside.chars() {
            assert!(!allowed(pattern, &letter.to_string()), "{pattern} {letter:?}");
        }
    }
    assert!(allowed("^[<>]\\<$", "<<"));
    for (pattern, words) in [
        ("[]a]", "an empty class"),
        ("[^]", "an empty class"),
        ("[a", "unclosed character class"),
        ("[a-", "unclosed character class"),
        ("[\\B]", "\\B, which cannot be followed"),
        ("\\A", "\\A, which cannot be followed"),
        ("[\\x4]", "2 hexadecimal digits"),
        ("a\\", "ends with a backslash"),
    ] {
        let refusal = forms.refusal(Grammar::JsonSchema(json!({"pattern": pattern})));
        assert!(refusal.contains(words), "{pattern}: {refusal}");
    }
}

/// What a pattern forbids is let through in no spelling, and what it allows in those of JSON: classes that hold all control
/// characters and not both of `"` and `\`.
#[test]
fn quotes_and_backslashes_that_patterns_forbid() {
    let forms = Forms::new();
    // a text whose every byte the grammar takes must be an answer, or nothing is left to choose at its end
    let taken = |schema: &Value, answer: &str| {
        let mut constraint = forms.factory.constraint(&Grammar::JsonSchema(schema.clone())).unwrap();
        let takes = |byte| constraint.accept(forms.tokenizer.byte_id(byte)).is_ok();
        let all = answer.bytes().all(takes);
        assert_eq!(all, constraint.may_end(), "{schema} {answer}");
        all
    };
    for (pattern, quote, backslash, newline) in [
        ("^[^\"]*$", false, true, true),
        ("^[^<>\"'&]*$", false, true, true),
        ("^[^,\"]+$", false, true, true),
        ("^[^\\\\/:*?\"<>|]+$", false, false, true),
        ("^[^\\\\]+$", true, false, true),
        ("^a[^\\x20-\\x7e]b$", false, false, true),
        ("^a\\p{Cc}b$", false, false, true),
        ("^a[\\p{Cc}]b$", false, false, true),
        ("^a[^\\n\"]b$", false, true, false),
        ("^a(?:(\\x00)|([^\\x00\"]))b$", false, true, true),
        ("^a(?:(\\u0000)|([^\\u{0}\\\\]))b$", true, false, true),
        ("^a(?:(\0)|([^\0\"]))b$", false, true, true),
        ("a[^\"]b", false, true, true),
        ("^[^\\d]*$", true, true, true),
        ("^\\D*$", true, true, true),
    ] {
        for (text, allowed) in [("a\"b", quote), ("a\\b", backslash), ("a\nb", newline)] {
            let schema = json!({"type": "string", "pattern": pattern});
            let answer = json!(text).to_string();
            assert_eq!(taken(&schema, &answer), allowed, "{schema} {answer}");
            let never = json!({"type": "string", "not": {"pattern": pattern}});
            assert_eq!(taken(&never, &answer), !allowed, "{never} {answer}");
            let named = json!({"type": "object", "patternProperties": {pattern: {"type": "null"}}, "additionalProperties": false});
            assert_eq!(taken(&named, &format!("{{{answer}:null}}")), allowed, "{named} {answer}");
            let others =
                json!({"type": "object", "patternProperties": {pattern: {"type": "null"}, "^z": true}});
            assert_eq!(taken(&others, &format!("{{{answer}:1}}")), !allowed, "{others} {answer}");
            // what is there already is judged by the pattern as it stands
            let written = json!({"pattern": pattern, "enum": [text, "a\0b", 1]});
            assert_eq!(taken(&written, &answer), allowed, "{written}");
        }
    }
    assert!(taken(&json!({"pattern": "^[^\"]$", "enum": ["\0", ""]}), "\"\\u0000\""));
}

#[test]
fn bounds_beyond_64_bits_are_refused_in_their_own_words() {
    let forms = Forms::new();
    for (low, high) in [
        ("18446744073709551615", "18446744073709551616"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("-12345678901234567890123", "-12345678901234567890123"),
    ] {
        let [low, high] = [low, high].map(|text| serde_json::from_str::<Value>(text).unwrap());
        let schema = json!({"type": "integer", "minimum": low, "maximum": high});
        let refusal = forms.refusal(Grammar::JsonSchema(schema));
        assert!(refusal.contains("beyond 64-bit integers cannot be followed"), "{refusal}");
    }
    let empty = forms.refusal(Grammar::JsonSchema(json!({"type": "integer", "minimum": 1e20, "maximum": 5})));
    assert!(empty.contains("no JSON value satisfies it"), "{empty}");
}
