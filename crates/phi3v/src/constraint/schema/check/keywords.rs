//! What each keyword requires of a value.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::error;

use super::super::decimal::Decimal;
use super::super::lookahead::Expression;
use super::super::number::{self, Multiple};
use super::super::references::References;
use super::super::text::{Pattern, Use};
use super::super::{Refused, asks_unique, count, pointer};
use super::Unmet;
use super::instance::{Instance, LEVELS_MAX};

/// Maximum number of schema parts evaluated for one answer: an array of 4,096 items, each against about 50 parts. Each
/// part takes about a microsecond, not counting patterns, and the other requests wait meanwhile.
const STEPS_MAX: usize = 200_000;

/// Maximum work of the engine for all patterns of one answer, in its units of about 100 ns each.
const PATTERN_WORK_MAX: u64 = 2_000_000;

type Outcome = Result<(), Unmet>;

/// A schema with what is known of one answer.
pub(super) struct Checker<'a> {
    root: &'a Value,
    patterns: HashMap<&'a str, Expression>,
    formats: HashMap<&'a str, Option<Pattern>>,
    targets: &'a References,
    /// Results of references, by the address of the target and of the value it is evaluated for.
    references: HashMap<(*const Value, *const ()), Reference>,
    /// Names that were evaluated as values. They are kept so that their addresses stay distinct.
    names: Vec<Rc<Instance<'static>>>,
    /// Number of references being followed.
    open: usize,
    /// The first open reference that was assumed to be unmet, because following it led back to it.
    assumed: Option<usize>,
    level: usize,
    steps: usize,
    pattern_work: u64,
}

/// What is known of a reference for one value.
enum Reference {
    /// The reference is being followed. The number is how many others were open before it.
    Open(usize),
    Known(Outcome),
}

impl<'a> Checker<'a> {
    pub(super) fn new(root: &'a Value, targets: &'a References) -> Self {
        Self {
            root,
            patterns: HashMap::new(),
            formats: HashMap::new(),
            targets,
            references: HashMap::new(),
            names: Vec::new(),
            open: 0,
            assumed: None,
            level: 0,
            steps: 0,
            pattern_work: PATTERN_WORK_MAX,
        }
    }

    /// Returns `Ok` if a part of the schema validates a value.
    pub(super) fn satisfies(&mut self, schema: &'a Value, value: &Instance<'_>) -> Outcome {
        self.level += 1;
        self.steps += 1;
        if self.level > LEVELS_MAX {
            return Err(Unmet::undecided(format!("to check it takes more than {LEVELS_MAX} levels")));
        }
        if self.steps > STEPS_MAX {
            return Err(Unmet::undecided(format!("to check it takes more than {STEPS_MAX} steps")));
        }
        let outcome = match schema {
            Value::Object(schema) => self.keywords(schema, value),
            Value::Bool(false) => Err(violated(value, "stands where nothing may")),
            _ => Ok(()),
        };
        self.level -= 1;
        outcome
    }

    fn keywords(&mut self, schema: &'a Map<String, Value>, value: &Instance<'_>) -> Outcome {
        check_type(schema, value)?;
        check_values(schema, value)?;
        match value {
            Instance::Number(number, _) => {
                check_number(schema, number)?.map_or(Ok(()), |what| Err(violated(value, &what)))?;
            }
            Instance::Text(text) => {
                self.text(schema, text)?.map_or(Ok(()), |what| Err(violated(value, &what)))?;
            }
            Instance::Array(items) => self.array(schema, items)?,
            Instance::Object(members) => self.object(schema, members, value)?,
            Instance::Null | Instance::Boolean(_) => {}
        }
        for part in list(schema, "allOf") {
            self.satisfies(part, value)?;
        }
        if let Some(choices) = schema.get("anyOf").and_then(Value::as_array)
            && self.satisfied(choices, value, 1)? == 0
        {
            return Err(violated(value, "satisfies none of the choices of anyOf"));
        }
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            match self.satisfied(choices, value, 2)? {
                0 => return Err(violated(value, "satisfies none of the choices of oneOf")),
                1 => {}
                _ => return Err(violated(value, "satisfies several choices of oneOf")),
            }
        }
        if let Some(part) = schema.get("not")
            && self.is_satisfied(part, value)?
        {
            return Err(violated(value, "satisfies what not forbids"));
        }
        if let Some(condition) = schema.get("if") {
            let keyword = if self.is_satisfied(condition, value)? { "then" } else { "else" };
            if let Some(part) = schema.get(keyword) {
                self.satisfies(part, value)?;
            }
        }
        match schema.get("$ref") {
            Some(reference) => self.reference(reference, value),
            None => Ok(()),
        }
    }

    /// Returns whether a part validates the value, for uses that may negate the result.
    fn is_satisfied(&mut self, part: &'a Value, value: &Instance<'_>) -> Result<bool, Unmet> {
        match self.satisfies(part, value) {
            Ok(()) => Ok(true),
            Err(Unmet::Violated { .. }) if self.assumed.is_some() => {
                Err(Unmet::undecided("a reference leads back to itself through what is denied"))
            }
            Err(Unmet::Violated { .. }) => Ok(false),
            Err(undecided) => Err(undecided),
        }
    }

    /// Counts the choices that validate the value; stops at `enough`.
    fn satisfied(
        &mut self,
        choices: &'a [Value],
        value: &Instance<'_>,
        enough: usize,
    ) -> Result<usize, Unmet> {
        let mut count = 0;
        for choice in choices {
            match self.satisfies(choice, value) {
                Ok(()) => count += 1,
                Err(Unmet::Violated { .. }) => {}
                Err(undecided) => return Err(undecided),
            }
            if count == enough {
                break;
            }
        }
        Ok(count)
    }

    /// Follows a reference. A reference that leads back to itself for the same value validates nothing this way.
    fn reference(&mut self, reference: &'a Value, value: &Instance<'_>) -> Outcome {
        let missing = || Unmet::undecided(format!("the reference {reference} leads nowhere"));
        let target = pointer::find(self.root, self.targets.target(reference)?).ok_or_else(missing)?;
        let place = (std::ptr::from_ref(target), std::ptr::from_ref(value).cast());
        match self.references.get(&place) {
            Some(Reference::Known(outcome)) => return outcome.clone(),
            Some(&Reference::Open(first)) => {
                self.assumed = Some(self.assumed.map_or(first, |assumed| assumed.min(first)));
                return Err(violated(value, "is asked about by a reference that leads back to itself"));
            }
            None => {}
        }
        let before = self.open;
        self.open += 1;
        self.references.insert(place, Reference::Open(before));
        let outcome = self.satisfies(target, value);
        self.open = before;
        if outcome.is_err() && self.assumed.is_some_and(|assumed| assumed < before) {
            // the reference may be met after all, through one that was assumed to be unmet
            self.references.remove(&place);
        } else {
            self.references.insert(place, Reference::Known(outcome.clone()));
        }
        self.assumed = self.assumed.filter(|&assumed| assumed < before);
        outcome
    }

    /// Returns what is wrong with a string.
    fn text(&mut self, schema: &'a Map<String, Value>, text: &str) -> Result<Option<String>, Unmet> {
        let length = text.chars().count() as u64;
        if let Some(min) = count(schema, "minLength")?.filter(|&min| length < min) {
            return Ok(Some(format!("has {}, minLength is {min}", error::count(length, "character"))));
        }
        if let Some(max) = count(schema, "maxLength")?.filter(|&max| length > max) {
            return Ok(Some(format!("has {}, maxLength is {max}", error::count(length, "character"))));
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && !self.matches(pattern, text)?
        {
            return Ok(Some(format!("does not match the pattern {pattern:?}")));
        }
        if let Some(name) = schema.get("format").and_then(Value::as_str) {
            let format = self.formats.entry(name).or_insert_with(|| Pattern::format(name));
            // a format name that the standard does not know is only informative
            if let Some(format) = format
                && !format.matches_within(text, &mut self.pattern_work)?
            {
                return Ok(Some(format!("is not of the format {name:?}")));
            }
        }
        Ok(None)
    }

    fn matches(&mut self, pattern: &'a str, text: &str) -> Result<bool, Refused> {
        let pattern = match self.patterns.get(pattern) {
            Some(pattern) => pattern,
            None => self.patterns.entry(pattern).or_insert(Expression::new(pattern, Use::Judged)?),
        };
        pattern.matches_within(text, &mut self.pattern_work)
    }

    fn array(&mut self, schema: &'a Map<String, Value>, items: &[Instance<'_>]) -> Outcome {
        let length = items.len() as u64;
        if let Some(min) = count(schema, "minItems")?.filter(|&min| length < min) {
            return Err(Unmet::violated(format!(
                "an array has {}, minItems is {min}",
                error::count(length, "item")
            )));
        }
        if let Some(max) = count(schema, "maxItems")?.filter(|&max| length > max) {
            return Err(Unmet::violated(format!(
                "an array has {}, maxItems is {max}",
                error::count(length, "item")
            )));
        }
        // before draft 2020-12, `items` was the list of first items, and `additionalItems` described the items after them
        let (first, others) = match schema.get("items") {
            Some(Value::Array(_)) => ("items", "additionalItems"),
            _ => ("prefixItems", "items"),
        };
        let (first, others) = (list(schema, first), schema.get(others));
        for (index, item) in items.iter().enumerate() {
            if let Some(part) = first.get(index).or(others) {
                self.satisfies(part, item).map_err(|unmet| unmet.within(index))?;
            }
        }
        if let Some(part) = schema.get("contains") {
            let mut found = 0;
            for item in items {
                found += u64::from(self.is_satisfied(part, item)?);
            }
            let least = count(schema, "minContains")?.unwrap_or(1);
            let most = count(schema, "maxContains")?;
            if found < least || most.is_some_and(|most| found > most) {
                return Err(Unmet::violated(format!(
                    "an array has {} of the kind that contains counts",
                    error::count(found, "item")
                )));
            }
        }
        if asks_unique(schema)?
            && let Some(index) = first_repeated(items)
        {
            return Err(Unmet::violated("an array has an item twice, uniqueItems forbids it").within(index));
        }
        Ok(())
    }

    fn object(
        &mut self,
        schema: &'a Map<String, Value>,
        members: &[(String, Instance<'_>)],
        object: &Instance<'_>,
    ) -> Outcome {
        // of members with the same name, a reader may take any: each one is checked, but they count as one
        let names: HashSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let length = names.len() as u64;
        if let Some(min) = count(schema, "minProperties")?.filter(|&min| length < min) {
            return Err(Unmet::violated(format!(
                "an object has {}, minProperties is {min}",
                error::count(length, "member")
            )));
        }
        if let Some(max) = count(schema, "maxProperties")?.filter(|&max| length > max) {
            return Err(Unmet::violated(format!(
                "an object has {}, maxProperties is {max}",
                error::count(length, "member")
            )));
        }
        for name in list(schema, "required").iter().filter_map(Value::as_str) {
            if !names.contains(name) {
                return Err(Unmet::violated(format!("an object lacks the required member {name:?}")));
            }
        }
        for (name, member) in members {
            self.member(schema, name, member).map_err(|unmet| unmet.within(name))?;
        }
        if let Some(part) = schema.get("propertyNames") {
            for &name in &names {
                let value = Rc::new(Instance::Text(name.to_owned()));
                self.names.push(Rc::clone(&value));
                self.satisfies(part, &value)?;
            }
        }
        self.dependencies(schema, object, &names)
    }

    /// Checks the members that other members require.
    fn dependencies(
        &mut self,
        schema: &'a Map<String, Value>,
        object: &Instance<'_>,
        names: &HashSet<&str>,
    ) -> Outcome {
        for keyword in ["dependentRequired", "dependentSchemas", "dependencies"] {
            let asking = schema.get(keyword).and_then(Value::as_object).into_iter().flatten();
            for (name, needed) in asking.filter(|(name, _)| names.contains(name.as_str())) {
                let lacks = |needed: &&str| !names.contains(needed);
                let missing = match needed {
                    Value::Array(needed) => needed.iter().filter_map(Value::as_str).find(lacks),
                    Value::String(needed) => Some(needed.as_str()).filter(lacks),
                    part => {
                        self.satisfies(part, object)?;
                        None
                    }
                };
                if let Some(missing) = missing {
                    return Err(Unmet::violated(format!("an object has {name:?} and lacks {missing:?}")));
                }
            }
        }
        Ok(())
    }

    fn member(&mut self, schema: &'a Map<String, Value>, name: &str, member: &Instance<'_>) -> Outcome {
        let mut named = false;
        let parts = |keyword| schema.get(keyword).and_then(Value::as_object);
        if let Some(part) = parts("properties").and_then(|parts| parts.get(name)) {
            named = true;
            self.satisfies(part, member)?;
        }
        for (pattern, part) in parts("patternProperties").into_iter().flatten() {
            if self.matches(pattern, name)? {
                named = true;
                self.satisfies(part, member)?;
            }
        }
        match schema.get("additionalProperties") {
            Some(part) if !named => self.satisfies(part, member),
            _ => Ok(()),
        }
    }
}

fn violated(value: &Instance<'_>, what: &str) -> Unmet {
    let value = match value {
        Instance::Null => "null".to_owned(),
        Instance::Boolean(value) => value.to_string(),
        Instance::Number(_, text) => (*text).to_owned(),
        Instance::Text(text) => match text.char_indices().nth(TOLD_CHARS_MAX) {
            Some((end, _)) => format!("{:?}..", &text[..end]),
            None => format!("{text:?}"),
        },
        Instance::Array(_) => "an array".to_owned(),
        Instance::Object(_) => "an object".to_owned(),
    };
    Unmet::violated(format!("{value} {what}"))
}

/// Maximum characters of a string that an error repeats.
const TOLD_CHARS_MAX: usize = 40;

/// Returns the items of a keyword that is a list.
fn list<'a>(schema: &'a Map<String, Value>, keyword: &str) -> &'a [Value] {
    schema.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns the index of the first item that equals an earlier one.
fn first_repeated(items: &[Instance<'_>]) -> Option<usize> {
    let mut seen = HashSet::new();
    items.iter().position(|item| {
        let mut text = String::new();
        item.canonical(&mut text);
        !seen.insert(text)
    })
}

fn check_type(schema: &Map<String, Value>, value: &Instance<'_>) -> Outcome {
    let is = |name: &str| match value {
        Instance::Null => name == "null",
        Instance::Boolean(_) => name == "boolean",
        Instance::Number(number, _) => name == "number" || (name == "integer" && number.fraction.is_empty()),
        Instance::Text(_) => name == "string",
        Instance::Array(_) => name == "array",
        Instance::Object(_) => name == "object",
    };
    match schema.get("type") {
        Some(Value::String(name)) if !is(name) => Err(violated(value, &format!("is not of type {name}"))),
        Some(Value::Array(names)) if !names.iter().filter_map(Value::as_str).any(is) => {
            Err(violated(value, "is of none of its types"))
        }
        _ => Ok(()),
    }
}

fn check_values(schema: &Map<String, Value>, value: &Instance<'_>) -> Outcome {
    if let Some(constant) = schema.get("const")
        && !is_same(value, constant)
    {
        return Err(violated(value, "is not the value of const"));
    }
    match schema.get("enum").and_then(Value::as_array) {
        Some(values) if !values.iter().any(|other| is_same(value, other)) => {
            Err(violated(value, "is none of the values of enum"))
        }
        _ => Ok(()),
    }
}

/// Returns whether a value of the answer equals one of the schema, to the digit.
fn is_same(value: &Instance<'_>, other: &Value) -> bool {
    match (value, other) {
        (Instance::Null, Value::Null) => true,
        (Instance::Boolean(value), Value::Bool(other)) => value == other,
        (Instance::Number(value, _), Value::Number(other)) => {
            number::decimal(other).is_ok_and(|other| *value == other)
        }
        (Instance::Text(value), Value::String(other)) => value == other,
        (Instance::Array(items), Value::Array(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(item, other)| is_same(item, other))
        }
        (Instance::Object(members), Value::Object(others)) => {
            let names: HashSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
            let is_member = |(name, member): &(String, Instance<'_>)| {
                others.get(name).is_some_and(|other| is_same(member, other))
            };
            names.len() == members.len() && members.len() == others.len() && members.iter().all(is_member)
        }
        _ => false,
    }
}

/// Returns what is wrong with a number.
fn check_number(schema: &Map<String, Value>, value: &Decimal) -> Result<Option<String>, Refused> {
    // in draft 4 the exclusive bounds are booleans that modify the other bounds
    let excluded = |keyword| schema.get(keyword) == Some(&Value::Bool(true));
    let bounds = [
        ("minimum", true, excluded("exclusiveMinimum")),
        ("exclusiveMinimum", true, true),
        ("maximum", false, excluded("exclusiveMaximum")),
        ("exclusiveMaximum", false, true),
    ];
    for (keyword, is_low, excluded) in bounds {
        let Some(Value::Number(bound)) = schema.get(keyword) else { continue };
        let stated = number::decimal(bound)?;
        let inside = if is_low { *value > stated } else { *value < stated };
        if !inside && (excluded || *value != stated) {
            let excluded = if excluded { ", which is excluded" } else { "" };
            return Ok(Some(format!("is outside of {keyword} {bound}{excluded}")));
        }
    }
    match schema.get("multipleOf") {
        Some(Value::Number(multiple)) if !Multiple::of(multiple)?.contains(value) => {
            Ok(Some(format!("is no multiple of {multiple}")))
        }
        _ => Ok(None),
    }
}
