//! What a schema allows can be answered: values drawn for random schemas, which an independent validator accepts, are let
//! through by the grammar, in one order of their members at least.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::forms::Forms;
use common::schemas::random_schema;
use phi3v::constraint::{Constraint, Grammar, GrammarConstraint};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

/// Draws values that a schema may allow: its own constants, near its bounds, with its names.
struct Instances<'a> {
    root: &'a Value,
    random: &'a mut Pcg64,
}

/// Texts for the patterns, formats and lengths of random schemas.
const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "c",
    "x",
    "xy",
    "ab",
    "abab",
    "cab",
    "12",
    "345",
    "x 1",
    "ab!",
    "b\nc",
    "\"",
    "\u{e9}",
    "tab\t\\",
    "zzzzzz",
    "2024-02-29",
    "12:30:00Z",
    "2024-02-29T12:30:00Z",
    "P1D",
    "a@example.org",
    "example.org",
    "127.0.0.1",
    "::1",
    "123e4567-e89b-12d3-a456-426614174000",
    "https://example.org/a",
];

impl Instances<'_> {
    fn below(&mut self, limit: usize) -> usize {
        self.random.next_u32() as usize % limit
    }

    fn one_of<'v>(&mut self, all: &'v [Value]) -> &'v Value {
        &all[self.below(all.len())]
    }

    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        let Some(keywords) = schema.as_object().filter(|keywords| !keywords.is_empty()) else {
            return self.any(depth);
        };
        if let Some(constant) = keywords.get("const") {
            return constant.clone();
        }
        if let Some(values) = keywords.get("enum").and_then(Value::as_array) {
            return self.one_of(values).clone();
        }
        if let Some(reference) = keywords.get("$ref").and_then(Value::as_str) {
            let part = self.root.pointer(reference.trim_start_matches('#')).unwrap().clone();
            return if depth == 0 { Value::Null } else { self.value(&part, depth - 1) };
        }
        let branches: Vec<&Value> = ["anyOf", "oneOf", "allOf"]
            .iter()
            .filter_map(|keyword| keywords.get(*keyword)?.as_array())
            .flatten()
            .chain(["then", "else"].iter().filter_map(|keyword| keywords.get(*keyword)))
            .collect();
        let typed = keywords.get("type").and_then(Value::as_str);
        if !branches.is_empty() && (typed.is_none() || self.below(2) == 0) {
            let branch = branches[self.below(branches.len())].clone();
            return self.value(&branch, depth);
        }
        match typed {
            Some("null") => Value::Null,
            Some("boolean") => json!(self.below(2) == 0),
            Some("integer" | "number") => self.number(keywords),
            Some("string") => self.text(),
            Some("array") => self.array(keywords, depth),
            Some("object") => self.object(keywords, depth),
            _ => self.any(depth),
        }
    }

    fn any(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => self.number(&Map::new()),
            3 | 4 => self.text(),
            5 => self.array(&Map::new(), depth),
            _ => self.object(&Map::new(), depth),
        }
    }

    fn text(&mut self) -> Value {
        json!(TEXTS[self.below(TEXTS.len())])
    }

    /// A bound, a step beside one, a small number, or a multiple.
    fn number(&mut self, keywords: &Map<String, Value>) -> Value {
        let bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"];
        let bounds: Vec<f64> = bounds.iter().filter_map(|keyword| keywords.get(*keyword)?.as_f64()).collect();
        let near = if bounds.is_empty() { 0.0 } else { bounds[self.below(bounds.len())] };
        let multiple = keywords.get("multipleOf").and_then(Value::as_f64).unwrap_or(1.0);
        let number = match self.below(6) {
            0 => near,
            1 => near + [1.0, -1.0, 0.5, -0.5][self.below(4)],
            2 => near + multiple * (self.below(9) as f64 - 4.0),
            3 => multiple * (self.below(41) as f64 - 20.0),
            4 => [0.25, -0.5, 2.75, 1e3, -7.0][self.below(5)],
            _ => self.below(200) as f64 - 100.0,
        };
        // what grammars leave out, see docs/internals/forms.md: many digits, and tiny numbers
        if number.fract() == 0.0 && number.abs() < 1e15 {
            #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
            return json!(number as i64);
        }
        let written = number.abs() < 1e15 && (number * 1e6).fract() == 0.0;
        if written { json!(number) } else { json!(0) }
    }

    fn array(&mut self, keywords: &Map<String, Value>, depth: usize) -> Value {
        let depth = depth.saturating_sub(1);
        let prefix: &[Value] =
            keywords.get("prefixItems").and_then(Value::as_array).map_or(&[], Vec::as_slice);
        let items = keywords.get("items").cloned().unwrap_or(json!(true));
        let contains = keywords.get("contains").cloned();
        let item = |index: usize, this: &mut Self| {
            let schema = prefix.get(index).unwrap_or(&items);
            let schema = contains.as_ref().filter(|_| this.below(2) == 0).unwrap_or(schema);
            this.value(schema, depth)
        };
        (0..self.below(4)).map(|index| item(index, self)).collect::<Vec<_>>().into()
    }

    fn object(&mut self, keywords: &Map<String, Value>, depth: usize) -> Value {
        let depth = depth.saturating_sub(1);
        let part = |keyword: &str, name: &str| keywords.get(keyword)?.get(name).cloned();
        let required = keywords.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut members = Map::new();
        for name in ["a", "b", "n\n", "\"q\"", "x1", "c", "x2"] {
            if !required.contains(&json!(name)) && self.below(3) > 0 {
                continue;
            }
            let of_pattern = || part("patternProperties", "^x").filter(|_| name.starts_with('x'));
            let schema = part("properties", name).or_else(of_pattern);
            let schema =
                schema.or_else(|| keywords.get("additionalProperties").cloned()).unwrap_or(json!(true));
            members.insert(name.to_owned(), self.value(&schema, depth));
        }
        members.into()
    }
}

/// What is left to say when a value was said as compact JSON, its members in the first order that can be; None where none can.
fn after(forms: &Forms, constraint: &GrammarConstraint, value: &Value) -> Option<GrammarConstraint> {
    match value {
        Value::Array(items) => {
            let mut state = said(forms, constraint, "[")?;
            for (index, item) in items.iter().enumerate() {
                let before = said(forms, &state, if index > 0 { "," } else { "" })?;
                state = after(forms, &before, item)?;
            }
            said(forms, &state, "]")
        }
        Value::Object(members) => {
            let members: Vec<(&String, &Value)> = members.iter().collect();
            after_members(forms, &said(forms, constraint, "{")?, &members, true)
        }
        other => said(forms, constraint, &other.to_string()),
    }
}

/// The same of what is left of an object, whose `first` member is the next.
fn after_members(
    forms: &Forms,
    constraint: &GrammarConstraint,
    members: &[(&String, &Value)],
    first: bool,
) -> Option<GrammarConstraint> {
    if members.is_empty() {
        return said(forms, constraint, "}");
    }
    (0..members.len()).find_map(|index| {
        let (name, value) = members[index];
        let comma = if first { "" } else { "," };
        let before = said(forms, constraint, &format!("{comma}{}:", json!(name)))?;
        let state = after(forms, &before, value)?;
        let others = [&members[..index], &members[index + 1..]].concat();
        after_members(forms, &state, &others, false)
    })
}

fn said(forms: &Forms, constraint: &GrammarConstraint, text: &str) -> Option<GrammarConstraint> {
    let mut state = constraint.clone();
    text.bytes().all(|byte| state.accept(forms.tokenizer.byte_id(byte)).is_ok()).then_some(state)
}

/// Whether a reference leads back to itself for one and the same value: the validator would go round without end.
fn goes_round(root: &Value, schema: &Value, seen: &mut Vec<String>) -> bool {
    let Some(keywords) = schema.as_object() else { return false };
    if let Some(reference) = keywords.get("$ref").and_then(Value::as_str) {
        if seen.iter().any(|earlier| earlier == reference) {
            return true;
        }
        seen.push(reference.to_owned());
        let part = root.pointer(reference.trim_start_matches('#')).unwrap();
        if goes_round(root, part, seen) {
            return true;
        }
        seen.pop();
    }
    let lists = ["anyOf", "oneOf", "allOf"].iter().filter_map(|keyword| keywords.get(*keyword)?.as_array());
    let single = ["not", "if", "then", "else"].iter().filter_map(|keyword| keywords.get(*keyword));
    lists.flatten().chain(single).any(|part| goes_round(root, part, seen))
}

/// The same of any part of a schema.
fn goes_round_somewhere(root: &Value, part: &Value) -> bool {
    let below = match part {
        Value::Array(items) => items.iter().any(|part| goes_round_somewhere(root, part)),
        Value::Object(members) => members.values().any(|part| goes_round_somewhere(root, part)),
        _ => false,
    };
    below || goes_round(root, part, &mut Vec::new())
}

/// Whether docs/internals/forms.md says that the grammar may take less than the schema: what is left when values are taken
/// away is found in part only, formats have those of their texts that validators agree on, and ends that doubles round are moved inwards.
fn may_take_less(part: &Value) -> bool {
    const IN_PART: [&str; 8] =
        ["not", "oneOf", "if", "contains", "dependentRequired", "propertyNames", "uniqueItems", "format"];
    match part {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() >= 1e15),
        Value::Array(items) => items.iter().any(may_take_less),
        Value::Object(members) => {
            members.iter().any(|(name, part)| IN_PART.contains(&name.as_str()) || may_take_less(part))
        }
        _ => false,
    }
}

#[test]
fn what_random_schemas_allow_can_be_answered() {
    let counts = common::halves(|half| of_random_schemas(77 + half as u64));
    let [taken, exact, missed] = [0, 1, 2].map(|count| counts.iter().map(|half| half[count]).sum::<usize>());
    println!(
        "{taken} values were taken, {exact} of them of schemas that are followed in whole, and {missed} were not"
    );
    assert!(exact > 2_000 && taken > 5_000 && missed * 50 < taken, "{taken} {exact} {missed}");
}

/// Of 750 random schemas the values that were taken, those of schemas that are followed in whole, and those that were not.
fn of_random_schemas(seed: u64) -> [usize; 3] {
    let forms = Forms::new();
    let mut random = Pcg64::seed_from_u64(seed);
    let (mut taken, mut exact, mut missed) = (0, 0, 0);
    for _ in 0..750 {
        let schema = random_schema(&mut random);
        if goes_round_somewhere(&schema, &schema) {
            continue;
        }
        let Ok(validator) = jsonschema::options().should_validate_formats(true).build(&schema) else {
            continue;
        };
        let Ok(constraint) = forms.factory.constraint(&Grammar::JsonSchema(schema.clone())) else { continue };
        let mut instances = Instances { root: &schema, random: &mut random };
        let drawn: Vec<Value> = (0..12).map(|_| instances.value(&schema, 3)).collect();
        for value in drawn.iter().filter(|value| validator.is_valid(value)) {
            let is_taken = after(&forms, &constraint, value).is_some_and(|state| state.may_end());
            let less = may_take_less(&schema);
            assert!(is_taken || less, "{schema}\nallows {value}");
            taken += usize::from(is_taken);
            exact += usize::from(!less);
            missed += usize::from(!is_taken);
        }
    }
    [taken, exact, missed]
}
