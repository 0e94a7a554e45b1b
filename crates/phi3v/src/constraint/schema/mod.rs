//! A JSON schema as the set of values it allows, and that set as a grammar.
//!
//! A schema is read once, with a bound on the work and on the levels, including references. A keyword that cannot be
//! followed exactly is refused by name. The grammar never allows more than the schema. It allows less in places where a
//! smaller set is just as useful. For example, numbers have a limited number of digits, and names that the schema leaves
//! open stay distinct from those it names.

mod check;
mod conditions;
mod decimal;
mod emit;
mod format;
mod lookahead;
mod number;
mod outside;
mod pointer;
mod productions;
mod references;
mod shape;
mod tags;
mod text;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::repetitions;
use lookahead::Expression;
use number::{Bound, Multiple, NumberShape};
use pointer::Pointer;
use references::References;
use shape::{ArrayShape, Definitions, ObjectShape, Shape, are_apart, both, contains, either};
use text::{Pattern, TextShape, Use};

pub(super) use check::{Check, Outlook};
pub(super) use emit::{choices, grammar};

/// Why a schema cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// What is wrong with the schema.
    pub reason: String,
}

impl Refused {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Maximum levels of a schema, including references that are followed. The stack of [`super::STACK_BYTES`] holds several
/// times as many.
const LEVELS_MAX: usize = 200;

/// Maximum steps of reading a schema and of intersecting its parts. The largest schemas in use take a few thousand.
const STEPS_MAX: usize = 100_000;

/// Maximum list entries visited in these steps: names, values of `enum`, patterns that must hold at once.
const ENTRIES_MAX: usize = 2_000_000;

/// Maximum patterns of names in one object: each is kept distinct from every other.
const NAME_PATTERNS_MAX: usize = 50;

/// Maximum value of `minContains`.
const CONTAINED_MAX: u64 = 100;

/// How many more matching items than the minimum there may be, and how many places may come before the first.
const CONTAINED_MORE: u64 = 2;

/// Keywords that restrict what is valid but are not supported.
const NOT_FOLLOWED: [&str; 7] = [
    "unevaluatedItems",
    "unevaluatedProperties",
    "$recursiveRef",
    "$dynamicRef",
    // of draft 3
    "extends",
    "disallow",
    "divisibleBy",
];

/// A definition that a reference has named.
struct Definition {
    pointer: Pointer,
    /// Whether the reference was read in wide mode ([`Reader::widely`]).
    wide: bool,
    state: State,
}

#[derive(Clone)]
enum State {
    Named,
    InWork,
    Read(Rc<Shape>),
}

/// The state of reading a schema.
struct Reader<'a> {
    root: &'a Value,
    references: References,
    definitions: Vec<Definition>,
    by_pointer: HashMap<(Pointer, bool), usize>,
    /// The keys on the path to the current place.
    path: Pointer,
    /// Whether reading may produce more than the schema allows but never less, to find what is outside of it.
    wide: bool,
    level: usize,
    steps: usize,
    entries: usize,
    /// Patterns that have been compiled, by their text in the schema.
    patterns: HashMap<&'a str, Expression>,
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
        let wide = std::mem::replace(&mut self.wide, self.definitions[definition].wide);
        let shape = self.read(value)?;
        self.path = path;
        self.wide = wide;
        self.definitions[definition].state = State::Read(Rc::clone(&shape));
        Ok(shape)
    }

    fn known_shape(&mut self, definition: usize) -> Result<Option<Rc<Shape>>, Refused> {
        match self.definitions[definition].state {
            State::InWork => Ok(None),
            State::Named | State::Read(_) => self.shape(definition).map(Some),
        }
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

    fn spend(&mut self, entries: usize) -> Result<(), Refused> {
        self.entries = self.entries.saturating_add(entries);
        if self.entries > ENTRIES_MAX {
            return Err(Refused::new(format!(
                "its lists have more than {ENTRIES_MAX} entries to be brought together"
            )));
        }
        Ok(())
    }
}

/// Reads a schema and all definitions it names.
fn read(root: &Value) -> Result<Schema, Refused> {
    check_patterns(root)?;
    let mut reader = Reader {
        root,
        references: References::of(root),
        definitions: Vec::new(),
        by_pointer: HashMap::new(),
        path: Pointer::new(),
        wide: false,
        level: 0,
        steps: 0,
        entries: 0,
        patterns: HashMap::new(),
    };
    let result = reader.read_all();
    let place: String = reader.path.iter().map(|key| format!("/{key}")).collect();
    result.map_err(|refused| {
        if place.is_empty() { refused } else { Refused::new(format!("{} (at #{place})", refused.reason)) }
    })
}

/// Refuses patterns that together might take the engine too long.
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
        // reading one definition may name others
        let mut shapes = Vec::new();
        while shapes.len() < self.definitions.len() {
            // definitions read in wide mode are in no grammar
            let wide = self.definitions[shapes.len()].wide;
            shapes.push(if wide { Rc::new(Shape::Never) } else { self.shape(shapes.len())? });
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
        Self::check_keywords(schema)?;
        let mut shape = self.of_types(schema)?;
        if let Some(value) = schema.get("const") {
            shape = self.meet(&shape, Rc::new(Shape::Values(exact_values(std::slice::from_ref(value))?)))?;
        }
        if let Some(values) = schema.get("enum") {
            let values = list("enum", values)?;
            self.spend(values.len())?;
            shape = self.meet(&shape, Rc::new(Shape::Values(exact_values(values)?)))?;
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
            shape = self.one_of(&shape, choices)?;
        }
        if !self.wide {
            shape = self.turned_round(shape, schema)?;
        }
        if let Some(reference) = schema.get("$ref") {
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

    /// Applies the keywords that exclude values (such as `not`) to a shape.
    fn turned_round(
        &mut self,
        mut shape: Rc<Shape>,
        schema: &'a Map<String, Value>,
    ) -> Result<Rc<Shape>, Refused> {
        if let Some(part) = schema.get("not") {
            let part = self.below("not", |reader| reader.widely(|reader| reader.read(part)))?;
            let outside = outside::outside(self, &part)?;
            let nothing = *part == Shape::Any && schema.get("not").is_some_and(is_any);
            shape = if nothing { outside } else { self.meet_or_refuse(&shape, outside, "not")? };
        }
        if let Some(part) = schema.get("contains") {
            let arrays = self.containing(part, schema)?;
            shape = self.meet_or_refuse(&shape, arrays, "contains")?;
        }
        if let Some(part) = schema.get("if") {
            shape = self.conditional(&shape, part, [schema.get("then"), schema.get("else")])?;
        }
        self.dependencies(shape, schema)
    }

    /// Reads so that the result contains all that the schema allows, and possibly more.
    fn widely<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Refused>) -> Result<T, Refused> {
        let wide = std::mem::replace(&mut self.wide, true);
        let found = read(self)?;
        self.wide = wide;
        Ok(found)
    }

    /// Returns what is in a shape and in exactly one of the choices.
    fn one_of(&mut self, shape: &Rc<Shape>, choices: &'a Value) -> Result<Rc<Shape>, Refused> {
        let written = list("oneOf", choices)?;
        let narrow = self.choices("oneOf", choices)?;
        let narrow =
            narrow.into_iter().map(|choice| self.meet(shape, choice)).collect::<Result<Vec<_>, _>>()?;
        if self.wide {
            return Ok(either(narrow));
        }
        let wide = self.widely(|reader| reader.choices("oneOf", choices))?;
        let mut alone = Vec::new();
        let mut overlap = None;
        for (index, choice) in narrow.iter().enumerate() {
            let mut rest = Rc::clone(choice);
            for (other_index, other) in wide.iter().enumerate() {
                if index != other_index
                    && *rest != Shape::Never
                    && !self.have_other_tags(&written[index], &written[other_index])?
                    && !are_apart(self, &rest, other)?
                {
                    overlap = overlap.or(Some((index, other_index)));
                    let outside = outside::outside(self, other)?;
                    rest = self.meet(&rest, outside)?;
                }
            }
            alone.push(rest);
        }
        match overlap {
            Some((index, other)) if alone.iter().all(|shape| **shape == Shape::Never) => {
                Err(Refused::new(format!(
                    "oneOf has choices {index} and {other}, which one value may satisfy both of; use anyOf"
                )))
            }
            _ => Ok(either(alone)),
        }
    }

    /// Returns the intersection of two shapes. The second was made by leaving something out, so an empty intersection proves
    /// nothing and is refused.
    fn meet_or_refuse(&mut self, a: &Rc<Shape>, b: Rc<Shape>, keyword: &str) -> Result<Rc<Shape>, Refused> {
        let shape = self.meet(a, b)?;
        if *shape == Shape::Never && **a != Shape::Never {
            return Err(Refused::new(format!("the keyword {keyword:?} leaves nothing that can be followed")));
        }
        Ok(shape)
    }

    /// Returns arrays with the required number of items of a kind: those items stand first, or, if one is enough, it may
    /// stand at one of the first places.
    fn containing(&mut self, value: &'a Value, schema: &'a Map<String, Value>) -> Result<Rc<Shape>, Refused> {
        let part = self.below("contains", |reader| reader.read(value))?;
        let least = count(schema, "minContains")?.unwrap_or(1);
        let most = count(schema, "maxContains")?;
        if least > CONTAINED_MAX {
            return Err(Refused::new(format!("minContains is {least}, the limit is {CONTAINED_MAX}")));
        }
        let any = Rc::new(Shape::Any);
        let others = match most {
            Some(_) => {
                let wide = self.below("contains", |reader| reader.widely(|reader| reader.read(value)))?;
                outside::outside(self, &wide)?
            }
            None => Rc::clone(&any),
        };
        let mut arrays = Vec::new();
        for contained in least..=most.unwrap_or(least).min(least + CONTAINED_MORE) {
            let first = vec![Rc::clone(&part); usize::try_from(contained).unwrap_or(0)];
            arrays.push(ArrayShape {
                min: contained,
                first,
                others: Rc::clone(&others),
                ..ArrayShape::default()
            });
        }
        if least == 1 && most.is_none() {
            for before in 1..=CONTAINED_MORE {
                let mut first = vec![Rc::clone(&any); usize::try_from(before).unwrap_or(0)];
                first.push(Rc::clone(&part));
                arrays.push(ArrayShape { min: before + 1, first, ..ArrayShape::default() });
            }
        }
        let others = outside::outside(self, &Rc::new(Shape::Array(ArrayShape::default())))?;
        Ok(either(arrays.into_iter().map(|shape| Rc::new(Shape::Array(shape))).chain([others]).collect()))
    }

    fn definition(&mut self, reference: &Value) -> Result<usize, Refused> {
        let pointer = self.references.target(reference)?.clone();
        let key = (pointer, self.wide);
        if let Some(&definition) = self.by_pointer.get(&key) {
            return Ok(definition);
        }
        if pointer::find(self.root, &key.0).is_none() {
            return Err(Refused::new(format!("the reference {reference} names a place that is not there")));
        }
        let definition = self.definitions.len();
        self.definitions.push(Definition { pointer: key.0.clone(), wide: self.wide, state: State::Named });
        self.by_pointer.insert(key, definition);
        Ok(definition)
    }

    fn check_keywords(schema: &Map<String, Value>) -> Result<(), Refused> {
        if let Some(keyword) = NOT_FOLLOWED.iter().find(|&&keyword| schema.contains_key(keyword)) {
            return Err(Refused::new(format!("the keyword {keyword:?} cannot be followed")));
        }
        Ok(())
    }

    /// Returns what `type` and the keywords of the types allow.
    fn of_types(&mut self, schema: &'a Map<String, Value>) -> Result<Rc<Shape>, Refused> {
        let number = numbers(schema)?;
        let text = self.texts(schema)?;
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
        let keywords = ["items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"];
        if !keywords.iter().any(|&keyword| schema.contains_key(keyword)) {
            return Ok(None);
        }
        // before draft 2020-12, `items` was the list of first items, and `additionalItems` described the items after them
        let (first, others) = match schema.get("items") {
            Some(Value::Array(_)) if schema.contains_key("prefixItems") => {
                return Err(Refused::new("items must be a schema beside prefixItems"));
            }
            Some(Value::Array(_)) => ("items", "additionalItems"),
            _ => ("prefixItems", "items"),
        };
        let mut shape = ArrayShape { min: count(schema, "minItems")?.unwrap_or(0), ..ArrayShape::default() };
        shape.max = count(schema, "maxItems")?;
        shape.unique = asks_unique(schema)? && !self.wide;
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
            "propertyNames",
        ];
        if !keywords.iter().any(|&keyword| schema.contains_key(keyword)) {
            return Ok(None);
        }
        let mut shape =
            ObjectShape { min: count(schema, "minProperties")?.unwrap_or(0), ..ObjectShape::default() };
        shape.max = count(schema, "maxProperties")?;
        for (pattern, part) in self.members("patternProperties", schema)? {
            shape.patterns.push((self.pattern(pattern)?.alone()?, part));
        }
        if shape.patterns.len() > NAME_PATTERNS_MAX {
            let count = shape.patterns.len();
            return Err(Refused::new(format!(
                "patternProperties has {count} patterns, the limit is {NAME_PATTERNS_MAX}"
            )));
        }
        for (name, mut part) in self.members("properties", schema)? {
            self.spend(shape.patterns.len())?;
            for (pattern, by_pattern) in &shape.patterns {
                if pattern.matches(name)? {
                    part = self.meet(&part, Rc::clone(by_pattern))?;
                }
            }
            shape.members.push((name.to_owned(), part));
        }
        if let Some(others) = schema.get("additionalProperties") {
            shape.others = self.below("additionalProperties", |reader| reader.read(others))?;
        }
        let mut known = HashSet::new();
        let required = required(schema)?;
        self.spend(required.len())?;
        shape.required = required.into_iter().filter(|name| known.insert(*name)).map(str::to_owned).collect();
        if let Some(names) = schema.get("propertyNames").filter(|_| !self.wide) {
            let names = self.below("propertyNames", |reader| reader.read(names))?;
            self.keep_names(&mut shape, &names)?;
        }
        Ok(Some(shape))
    }

    /// Keeps only members of an object whose names are allowed.
    fn keep_names(&mut self, shape: &mut ObjectShape, names: &Rc<Shape>) -> Result<(), Refused> {
        for (name, part) in &mut shape.members {
            if !contains(self, names, &Value::String(name.clone()))? {
                *part = Rc::new(Shape::Never);
            }
        }
        let names = self.meet(names, Rc::new(Shape::Text(TextShape::default())))?;
        match &*names {
            Shape::Text(text) if *text == TextShape::default() => return Ok(()),
            Shape::Text(text) if shape.patterns.is_empty() && text.never.is_empty() => {
                let mut patterns = text.patterns.clone();
                if text.min > 0 || text.max.is_some() {
                    patterns.push(Pattern::of_length(text.min, text.max));
                }
                if let [pattern] = patterns.as_slice() {
                    shape.patterns.push((pattern.clone(), Rc::clone(&shape.others)));
                    shape.others = Rc::new(Shape::Never);
                    return Ok(());
                }
            }
            Shape::Values(values) => {
                self.spend(values.len().saturating_mul(shape.members.len().max(1)))?;
                for name in values.iter().filter_map(Value::as_str) {
                    if !shape.members.iter().any(|(other, _)| other == name) {
                        shape.members.push((name.to_owned(), shape.member(name)?));
                    }
                }
            }
            Shape::Never => {}
            _ => return Err(Refused::new("the keyword \"propertyNames\" says more than can be followed")),
        }
        if matches!(&*names, Shape::Text(_)) {
            return Err(Refused::new("the keyword \"propertyNames\" says more than can be followed"));
        }
        shape.patterns.clear();
        shape.others = Rc::new(Shape::Never);
        Ok(())
    }

    /// Returns what the keywords of strings allow, or more; `None` without any of them.
    fn texts(&mut self, schema: &'a Map<String, Value>) -> Result<Option<TextShape>, Refused> {
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
            ..TextShape::default()
        };
        if let Some(pattern) = word("pattern")? {
            let Expression { held, never } = self.pattern(pattern)?;
            let kept = |pattern: &Pattern| !self.wide || pattern.is_exact();
            shape.patterns.extend(held.into_iter().filter(kept));
            shape.never.extend(never.into_iter().filter(kept));
        }
        if let Some(name) = word("format")?.filter(|_| !self.wide) {
            shape.patterns.extend(Pattern::format(name));
        }
        Ok(Some(shape))
    }

    /// Returns a pattern of the schema, which is compiled only once however often its part is read.
    fn pattern(&mut self, pattern: &'a str) -> Result<Expression, Refused> {
        if let Some(known) = self.patterns.get(pattern) {
            return Ok(known.clone());
        }
        let new = Expression::new(pattern, Use::Written)?;
        self.patterns.insert(pattern, new.clone());
        Ok(new)
    }

    fn members(
        &mut self,
        keyword: &str,
        schema: &'a Map<String, Value>,
    ) -> Result<Vec<(&'a str, Rc<Shape>)>, Refused> {
        let Some(members) = schema.get(keyword) else { return Ok(Vec::new()) };
        let members =
            members.as_object().ok_or_else(|| Refused::new(format!("{keyword} must be an object")))?;
        self.below(keyword, |reader| {
            let member = |(name, part): (&'a String, &'a Value)| {
                Ok((name.as_str(), reader.below(name, |reader| reader.read(part))?))
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

/// Returns the names of `required`. In draft 3 it was a boolean of the member itself; `false` means the same as no
/// keyword.
fn required(schema: &Map<String, Value>) -> Result<Vec<&str>, Refused> {
    let names = match schema.get("required") {
        None | Some(Value::Bool(false)) => return Ok(Vec::new()),
        Some(names) => names.as_array(),
    };
    let names = names.and_then(|names| names.iter().map(Value::as_str).collect());
    names.ok_or_else(|| Refused::new("required must be a list of names, beside properties"))
}

/// Returns whether `uniqueItems` asks for different items. Some schemas have null for an absent value.
fn asks_unique(schema: &Map<String, Value>) -> Result<bool, Refused> {
    match schema.get("uniqueItems") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(unique)) => Ok(*unique),
        Some(other) => Err(Refused::new(format!("uniqueItems is {other}, it must be true or false"))),
    }
}

/// Reads a keyword whose value is a count.
fn count(schema: &Map<String, Value>, keyword: &str) -> Result<Option<u64>, Refused> {
    let Some(value) = schema.get(keyword) else { return Ok(None) };
    let whole = |value: f64| value >= 0.0 && value.fract() == 0.0 && value <= 9e15;
    let count =
        value.as_u64().or_else(|| value.as_f64().filter(|&value| whole(value)).map(|value| value as u64));
    let refused = || Refused::new(format!("{keyword} is {value}, it must be a whole number from 0 on"));
    count.map(Some).ok_or_else(refused)
}

/// Returns the values, or refuses one that cannot be kept exactly: the answer must match it to the digit.
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

/// Returns whether a schema allows everything.
fn is_any(schema: &Value) -> bool {
    *schema == Value::Bool(true) || schema.as_object().is_some_and(Map::is_empty)
}

/// Returns what the keywords of numbers allow; `None` without any of them.
fn numbers(schema: &Map<String, Value>) -> Result<Option<NumberShape>, Refused> {
    let number = |keyword: &'static str| match schema.get(keyword) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number)),
        Some(_) => Err(Refused::new(format!("{keyword} must be a number"))),
    };
    // in draft 4 these are booleans that modify the other bound
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
