//! A JSON schema as the set of values it allows, and that set as a grammar.
//!
//! A schema is read once, with a bound on the work and on the levels, references included; a keyword that cannot be
//! followed exactly is refused by name. What the grammar allows is never more than what the schema allows; it is less in
//! places where a smaller set serves as well: numbers have at most so many digits, names that the schema leaves open
//! stay apart from those it names.

mod check;
mod decimal;
mod emit;
mod number;
mod pointer;
mod productions;
mod shape;
mod text;

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::repetitions;
use number::{Bound, Multiple, NumberShape};
use pointer::Pointer;
use shape::{ArrayShape, Definitions, ObjectShape, Shape, are_apart, both, either};
use text::{Pattern, TextShape};

pub(super) use check::Check;
pub(super) use emit::grammar;

/// Why a schema cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// What is wrong with it.
    pub reason: String,
}

impl Refused {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Levels of a schema, references counted where they are looked into. The stack of [`super::STACK_BYTES`] holds
/// several times as many.
const LEVELS_MAX: usize = 200;

/// Steps of reading a schema and of meeting its parts with one another. The largest schemas in use take some thousand.
const STEPS_MAX: usize = 100_000;

/// Patterns of names in one object: each is kept apart from every other.
const NAME_PATTERNS_MAX: usize = 50;

/// Keywords that restrict what is valid and cannot be followed.
const NOT_FOLLOWED: [&str; 17] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$recursiveRef",
    "$dynamicRef",
    "extends",
    "disallow",
];

/// A definition that a reference has named.
struct Definition {
    pointer: Pointer,
    state: State,
}

#[derive(Clone)]
enum State {
    Named,
    InWork,
    Read(Rc<Shape>),
}

/// A schema as it is read.
struct Reader<'a> {
    root: &'a Value,
    definitions: Vec<Definition>,
    by_pointer: HashMap<Pointer, usize>,
    /// Keys on the way to the place that is read.
    path: Pointer,
    level: usize,
    steps: usize,
}

/// A schema that has been read.
struct Schema {
    shape: Rc<Shape>,
    definitions: Vec<Rc<Shape>>,
}

impl Definitions for Reader<'_> {
    fn shape(&mut self, definition: usize) -> Result<Rc<Shape>, Refused> {
        let reference = || {
            format!(
                "#{}",
                self.definitions[definition].pointer.iter().map(|key| format!("/{key}")).collect::<String>()
            )
        };
        match &self.definitions[definition].state {
            State::Read(shape) => return Ok(Rc::clone(shape)),
            State::InWork => {
                return Err(Refused::new(format!(
                    "the reference {:?} leads back to itself beside other keywords",
                    reference()
                )));
            }
            State::Named => {}
        }
        let pointer = self.definitions[definition].pointer.clone();
        let Some(value) = pointer::find(self.root, &pointer) else {
            return Err(Refused::new(format!(
                "the reference {:?} names a place that is not there",
                reference()
            )));
        };
        self.definitions[definition].state = State::InWork;
        let path = std::mem::replace(&mut self.path, pointer);
        let shape = self.read(value)?;
        self.path = path;
        self.definitions[definition].state = State::Read(Rc::clone(&shape));
        Ok(shape)
    }

    fn enter(&mut self) -> Result<(), Refused> {
        self.level += 1;
        self.steps += 1;
        if self.level > LEVELS_MAX {
            return Err(Refused::new(format!(
                "its parts lie within one another more than {LEVELS_MAX} deep"
            )));
        }
        if self.steps > STEPS_MAX {
            return Err(Refused::new(format!(
                "its parts take more than {STEPS_MAX} steps to be brought together"
            )));
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.level -= 1;
    }
}

/// Reads a schema and all definitions it names.
fn read(root: &Value) -> Result<Schema, Refused> {
    check_patterns(root)?;
    let mut reader = Reader {
        root,
        definitions: Vec::new(),
        by_pointer: HashMap::new(),
        path: Pointer::new(),
        level: 0,
        steps: 0,
    };
    let result = reader.read_all();
    let place: String = reader.path.iter().map(|key| format!("/{key}")).collect();
    result.map_err(|refused| {
        if place.is_empty() { refused } else { Refused::new(format!("{} (at #{place})", refused.reason)) }
    })
}

/// Refuses patterns that might take the engine too long together.
fn check_patterns(root: &Value) -> Result<(), Refused> {
    let mut count = 0;
    let mut open = vec![root];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                let pattern = members.get("pattern").and_then(Value::as_str);
                let names = members.get("patternProperties").and_then(Value::as_object);
                let names = names.into_iter().flat_map(|names| names.keys().map(String::as_str));
                count += pattern.into_iter().chain(names).map(repetitions::count).sum::<usize>();
                open.extend(members.values());
            }
            _ => {}
        }
    }
    if count > repetitions::OF_SCHEMA_MAX {
        return Err(Refused::new(format!(
            "its patterns have {count} repetitions and groups together, the limit is {}",
            repetitions::OF_SCHEMA_MAX
        )));
    }
    Ok(())
}

impl<'a> Reader<'a> {
    fn read_all(&mut self) -> Result<Schema, Refused> {
        let shape = self.read(self.root)?;
        // reading one may name others
        let mut shapes = Vec::new();
        while shapes.len() < self.definitions.len() {
            shapes.push(self.shape(shapes.len())?);
        }
        Ok(Schema { shape, definitions: shapes })
    }

    fn below<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.path.push(key.to_owned());
        let found = read(self)?;
        self.path.pop();
        Ok(found)
    }

    fn read(&mut self, schema: &'a Value) -> Result<Rc<Shape>, Refused> {
        self.enter()?;
        let shape = match schema {
            Value::Bool(true) => Rc::new(Shape::Any),
            Value::Bool(false) => Rc::new(Shape::Never),
            Value::Object(schema) => self.object(schema)?,
            _ => return Err(Refused::new("a schema is neither an object nor true or false")),
        };
        self.leave();
        Ok(shape)
    }

    fn object(&mut self, schema: &'a Map<String, Value>) -> Result<Rc<Shape>, Refused> {
        self.check_keywords(schema)?;
        let mut shape = self.of_types(schema)?;
        if let Some(value) = schema.get("const") {
            shape = self.meet(&shape, Rc::new(Shape::Values(exact_values(std::slice::from_ref(value))?)))?;
        }
        if let Some(values) = schema.get("enum") {
            shape = self.meet(&shape, Rc::new(Shape::Values(exact_values(list("enum", values)?)?)))?;
        }
        for part in schema.get("allOf").map_or(Ok(&[][..]), |parts| list("allOf", parts))?.iter().enumerate()
        {
            let part = self
                .below("allOf", |reader| reader.below(&part.0.to_string(), |reader| reader.read(part.1)))?;
            shape = self.meet(&shape, part)?;
        }
        if let Some(choices) = schema.get("anyOf") {
            let choices = self.choices("anyOf", choices)?;
            shape = self.meet(&shape, either(choices))?;
        }
        if let Some(choices) = schema.get("oneOf") {
            let choices = self.choices("oneOf", choices)?;
            let met = choices.iter().map(|choice| self.meet(&shape, Rc::clone(choice)));
            let met = met.collect::<Result<Vec<_>, _>>()?;
            self.check_apart(&met)?;
            shape = either(met);
        }
        if let Some(reference) = schema.get("$ref") {
            let reference = reference.as_str().ok_or_else(|| Refused::new("$ref must be a string"))?;
            let definition = self.definition(reference)?;
            shape = self.meet(&shape, Rc::new(Shape::Definition(definition)))?;
        }
        Ok(shape)
    }

    fn meet(&mut self, a: &Rc<Shape>, b: Rc<Shape>) -> Result<Rc<Shape>, Refused> {
        both(self, a, &b)
    }

    fn choices(&mut self, keyword: &str, choices: &'a Value) -> Result<Vec<Rc<Shape>>, Refused> {
        let choices = list(keyword, choices)?;
        self.below(keyword, |reader| {
            let choice = |(index, choice): (usize, &'a Value)| {
                reader.below(&index.to_string(), |reader| reader.read(choice))
            };
            choices.iter().enumerate().map(choice).collect()
        })
    }

    fn check_apart(&mut self, choices: &[Rc<Shape>]) -> Result<(), Refused> {
        for (index, choice) in choices.iter().enumerate() {
            for (other_index, other) in choices.iter().enumerate().skip(index + 1) {
                if !are_apart(self, choice, other)? {
                    return Err(Refused::new(format!(
                        "oneOf has choices {index} and {other_index}, which one value may satisfy both of; use anyOf"
                    )));
                }
            }
        }
        Ok(())
    }

    fn definition(&mut self, reference: &str) -> Result<usize, Refused> {
        let pointer = pointer::parse(reference)?;
        if let Some(&definition) = self.by_pointer.get(&pointer) {
            return Ok(definition);
        }
        if pointer::find(self.root, &pointer).is_none() {
            return Err(Refused::new(format!("the reference {reference:?} names a place that is not there")));
        }
        let definition = self.definitions.len();
        self.by_pointer.insert(pointer.clone(), definition);
        self.definitions.push(Definition { pointer, state: State::Named });
        Ok(definition)
    }

    fn check_keywords(&self, schema: &Map<String, Value>) -> Result<(), Refused> {
        if let Some(keyword) = NOT_FOLLOWED.iter().find(|&&keyword| schema.contains_key(keyword)) {
            return Err(Refused::new(format!("the keyword {keyword:?} cannot be followed")));
        }
        if schema.get("uniqueItems").is_some_and(|unique| *unique != Value::Bool(false))
            && count(schema, "maxItems")?.is_none_or(|max| max > 1)
        {
            return Err(Refused::new("the keyword \"uniqueItems\" cannot be followed"));
        }
        let embedded = schema.get("$id").and_then(Value::as_str).is_some_and(|id| !id.starts_with('#'));
        if embedded && !self.path.is_empty() && has_reference(schema) {
            return Err(Refused::new(
                "references within a part that has an $id of its own cannot be followed",
            ));
        }
        Ok(())
    }

    /// What `type` and the keywords of the types allow.
    fn of_types(&mut self, schema: &'a Map<String, Value>) -> Result<Rc<Shape>, Refused> {
        let number = numbers(schema)?;
        let text = texts(schema)?;
        let array = self.arrays(schema)?;
        let object = self.objects(schema)?;
        let all = ["null", "boolean", "number", "string", "array", "object"];
        let names = match schema.get("type") {
            None if number.is_none() && text.is_none() && array.is_none() && object.is_none() => {
                return Ok(Rc::new(Shape::Any));
            }
            None => all.to_vec(),
            Some(Value::String(name)) => vec![name.as_str()],
            Some(names) => {
                let names = list("type", names)?.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
                names.ok_or_else(|| Refused::new("type must be the name of a type, or a list of them"))?
            }
        };
        let shape = |name: &&str| {
            Ok(Rc::new(match *name {
                "null" => Shape::Null,
                "boolean" => Shape::Boolean,
                "number" => Shape::Number(number.clone().unwrap_or_default()),
                "integer" => Shape::Number(NumberShape { whole: true, ..number.clone().unwrap_or_default() }),
                "string" => Shape::Text(text.clone().unwrap_or_default()),
                "array" => Shape::Array(array.clone().unwrap_or_default()),
                "object" => Shape::Object(object.clone().unwrap_or_default()),
                name => return Err(Refused::new(format!("there is no type {name:?}"))),
            }))
        };
        Ok(either(names.iter().map(shape).collect::<Result<_, _>>()?))
    }

    fn arrays(&mut self, schema: &'a Map<String, Value>) -> Result<Option<ArrayShape>, Refused> {
        let keywords = ["items", "prefixItems", "additionalItems", "minItems", "maxItems"];
        if !keywords.iter().any(|&keyword| schema.contains_key(keyword)) {
            return Ok(None);
        }
        // before draft 2020-12 a list of first items was called items, and what follows additionalItems
        let (first, others) = match schema.get("items") {
            Some(Value::Array(_)) => ("items", "additionalItems"),
            _ => ("prefixItems", "items"),
        };
        let mut shape = ArrayShape { min: count(schema, "minItems")?.unwrap_or(0), ..ArrayShape::default() };
        shape.max = count(schema, "maxItems")?;
        if let Some(items) = schema.get(first) {
            shape.first = self.choices(first, items)?;
        }
        if let Some(items) = schema.get(others) {
            shape.others = self.below(others, |reader| reader.read(items))?;
        }
        Ok(Some(shape))
    }

    fn objects(&mut self, schema: &'a Map<String, Value>) -> Result<Option<ObjectShape>, Refused> {
        let keywords = [
            "properties",
            "patternProperties",
            "additionalProperties",
            "required",
            "minProperties",
            "maxProperties",
        ];
        if !keywords.iter().any(|&keyword| schema.contains_key(keyword)) {
            return Ok(None);
        }
        let mut shape =
            ObjectShape { min: count(schema, "minProperties")?.unwrap_or(0), ..ObjectShape::default() };
        shape.max = count(schema, "maxProperties")?;
        for (pattern, part) in self.members("patternProperties", schema)? {
            shape.patterns.push((Pattern::new(&pattern)?, part));
        }
        if shape.patterns.len() > NAME_PATTERNS_MAX {
            let count = shape.patterns.len();
            return Err(Refused::new(format!(
                "patternProperties has {count} patterns, the limit is {NAME_PATTERNS_MAX}"
            )));
        }
        for (name, mut part) in self.members("properties", schema)? {
            for (pattern, by_pattern) in &shape.patterns {
                if pattern.matches(&name)? {
                    part = self.meet(&part, Rc::clone(by_pattern))?;
                }
            }
            shape.members.push((name, part));
        }
        if let Some(others) = schema.get("additionalProperties") {
            shape.others = self.below("additionalProperties", |reader| reader.read(others))?;
        }
        if let Some(names) = schema.get("required").filter(|names| !names.is_boolean()) {
            let names =
                names.as_array().map(|names| names.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
            let names = names.flatten().ok_or_else(|| Refused::new("required must be a list of names"))?;
            for name in names {
                if !shape.required.iter().any(|other| other == name) {
                    shape.required.push(name.to_owned());
                }
            }
        }
        Ok(Some(shape))
    }

    fn members(
        &mut self,
        keyword: &str,
        schema: &'a Map<String, Value>,
    ) -> Result<Vec<(String, Rc<Shape>)>, Refused> {
        let Some(members) = schema.get(keyword) else { return Ok(Vec::new()) };
        let members =
            members.as_object().ok_or_else(|| Refused::new(format!("{keyword} must be an object")))?;
        self.below(keyword, |reader| {
            let member = |(name, part): (&String, &'a Value)| {
                Ok((name.clone(), reader.below(name, |reader| reader.read(part))?))
            };
            members.iter().map(member).collect()
        })
    }
}

fn list<'a>(keyword: &str, value: &'a Value) -> Result<&'a [Value], Refused> {
    match value.as_array() {
        Some(items) if !items.is_empty() || keyword == "prefixItems" || keyword == "items" => Ok(items),
        _ => Err(Refused::new(format!("{keyword} must be a list that is not empty"))),
    }
}

/// A keyword that counts something.
fn count(schema: &Map<String, Value>, keyword: &str) -> Result<Option<u64>, Refused> {
    let Some(value) = schema.get(keyword) else { return Ok(None) };
    let whole = |value: f64| value >= 0.0 && value.fract() == 0.0 && value <= 9e15;
    let count =
        value.as_u64().or_else(|| value.as_f64().filter(|&value| whole(value)).map(|value| value as u64));
    let refused = || Refused::new(format!("{keyword} is {value}, it must be a whole number from 0 on"));
    count.map(Some).ok_or_else(refused)
}

/// Values that the answer must hold to the digit.
fn exact_values(values: &[Value]) -> Result<Vec<Value>, Refused> {
    let mut open: Vec<&Value> = values.iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Number(number) if number::may_be_rounded(number) => {
                return Err(Refused::new(format!(
                    "a value is the number {number}, whole numbers are kept exactly up to 64 bits"
                )));
            }
            Value::Array(items) => open.extend(items),
            Value::Object(members) => open.extend(members.values()),
            _ => {}
        }
    }
    Ok(values.to_vec())
}

fn has_reference(schema: &Map<String, Value>) -> bool {
    let mut open: Vec<&Value> = schema.values().collect();
    let mut found = schema.contains_key("$ref");
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                found |= members.contains_key("$ref");
                open.extend(members.values());
            }
            _ => {}
        }
    }
    found
}

/// What the keywords of numbers allow; None without any of them.
fn numbers(schema: &Map<String, Value>) -> Result<Option<NumberShape>, Refused> {
    let number = |keyword: &'static str| match schema.get(keyword) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number)),
        Some(_) => Err(Refused::new(format!("{keyword} must be a number"))),
    };
    // in draft 4 these say true beside the other bound
    let excludes = |keyword: &'static str| match schema.get(keyword) {
        Some(Value::Bool(excluded)) => Ok((None, *excluded)),
        _ => number(keyword).map(|number| (number, false)),
    };
    let (above, low_excluded) = excludes("exclusiveMinimum")?;
    let (below, high_excluded) = excludes("exclusiveMaximum")?;
    let mut shapes = Vec::new();
    for (low, excluded) in [(number("minimum")?, low_excluded), (above, true)] {
        if let Some(low) = low {
            shapes.push(NumberShape { low: Some(Bound::low(low, excluded)?), ..NumberShape::default() });
        }
    }
    for (high, excluded) in [(number("maximum")?, high_excluded), (below, true)] {
        if let Some(high) = high {
            shapes.push(NumberShape { high: Some(Bound::high(high, excluded)?), ..NumberShape::default() });
        }
    }
    if let Some(multiple) = number("multipleOf")? {
        shapes.push(NumberShape { multiple: Some(Multiple::of(multiple)?), ..NumberShape::default() });
    }
    shapes.into_iter().map(Ok).reduce(|a, b| a?.and(b?)).transpose()
}

/// What the keywords of strings allow; None without any of them.
fn texts(schema: &Map<String, Value>) -> Result<Option<TextShape>, Refused> {
    let keywords = ["minLength", "maxLength", "pattern", "format"];
    if !keywords.iter().any(|&keyword| schema.contains_key(keyword)) {
        return Ok(None);
    }
    let length = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let word = |keyword: &str| match schema.get(keyword) {
        None => Ok(None),
        Some(Value::String(word)) => Ok(Some(word)),
        Some(_) => Err(Refused::new(format!("{keyword} must be a string"))),
    };
    let mut shape = TextShape {
        min: count(schema, "minLength")?.map_or(0, length),
        max: count(schema, "maxLength")?.map(length),
        patterns: Vec::new(),
    };
    if let Some(pattern) = word("pattern")? {
        shape.patterns.push(Pattern::new(pattern)?);
    }
    if let Some(name) = word("format")? {
        let format = text::format(name);
        shape
            .patterns
            .push(format.ok_or_else(|| Refused::new(format!("the format {name:?} cannot be followed")))?);
    }
    Ok(Some(shape))
}
