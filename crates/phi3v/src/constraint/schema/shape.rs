//! What a schema allows, type by type, and what two schemas allow together.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_json::Value;

use super::Refused;
use super::number::{self, NumberShape};
use super::text::{Pattern, TextShape};

/// A set of JSON values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// All values.
    Any,
    /// No value.
    Never,
    /// Only the value `null`.
    Null,
    /// The values `true` and `false`.
    Boolean,
    /// Only these values, compared exactly.
    Values(Vec<Value>),
    /// A set of numbers.
    Number(NumberShape),
    /// A set of strings.
    Text(TextShape),
    /// A set of arrays.
    Array(ArrayShape),
    /// A set of objects.
    Object(ObjectShape),
    /// The union of the shapes.
    Either(Vec<Rc<Shape>>),
    /// The values of a definition.
    Definition(usize),
}

/// A set of arrays.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ArrayShape {
    /// Shapes of the first items.
    pub first: Vec<Rc<Shape>>,
    /// Shape of all other items.
    pub others: Rc<Shape>,
    /// Minimum number of items.
    pub min: u64,
    /// Maximum number of items.
    pub max: Option<u64>,
    /// Whether no two items are equal.
    pub unique: bool,
}

/// A set of objects.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ObjectShape {
    /// Members by name, in the order of the answer.
    pub members: Vec<(String, Rc<Shape>)>,
    /// Members by a pattern of the name. Shapes in `members` already include the patterns that match their names.
    pub patterns: Vec<(Pattern, Rc<Shape>)>,
    /// Shape of all other members.
    pub others: Rc<Shape>,
    /// Names that must be present.
    pub required: Vec<String>,
    /// Minimum number of members.
    pub min: u64,
    /// Maximum number of members.
    pub max: Option<u64>,
}

impl Default for ArrayShape {
    fn default() -> Self {
        Self { first: Vec::new(), others: Rc::new(Shape::Any), min: 0, max: None, unique: false }
    }
}

impl Default for ObjectShape {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            patterns: Vec::new(),
            others: Rc::new(Shape::Any),
            required: Vec::new(),
            min: 0,
            max: None,
        }
    }
}

impl ObjectShape {
    /// Returns the shape of the member with a name.
    pub(super) fn member(&self, name: &str) -> Result<Rc<Shape>, Refused> {
        match self.members.iter().find(|(other, _)| other == name) {
            Some((_, shape)) => Ok(Rc::clone(shape)),
            None => self.unnamed(name),
        }
    }

    /// Returns the shape of the member with a name that is not in `members`.
    pub(super) fn unnamed(&self, name: &str) -> Result<Rc<Shape>, Refused> {
        let mut matching = Vec::new();
        for (pattern, shape) in &self.patterns {
            if pattern.matches(name)? {
                matching.push(Rc::clone(shape));
            }
        }
        match matching.as_slice() {
            [] => Ok(Rc::clone(&self.others)),
            [shape] => Ok(Rc::clone(shape)),
            _ => Err(Refused::new(format!("several patternProperties match the name {name:?}"))),
        }
    }

    /// Returns the number of names in all lists of the shape.
    fn names(&self) -> usize {
        self.members.len() + self.required.len()
    }

    /// Returns whether the set is obviously empty.
    fn is_never(&self) -> bool {
        let never = self.members.iter().filter(|(_, shape)| **shape == Shape::Never);
        let never: HashSet<&str> = never.map(|(name, _)| name.as_str()).collect();
        self.max.is_some_and(|max| max < self.min || max < self.required.len() as u64)
            || self.required.iter().any(|name| never.contains(name.as_str()))
    }
}

/// The members of an object, indexed by name.
struct Members<'a> {
    object: &'a ObjectShape,
    by_name: HashMap<&'a str, &'a Rc<Shape>>,
}

impl<'a> Members<'a> {
    fn of(object: &'a ObjectShape) -> Self {
        let by_name = object.members.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
        Self { object, by_name }
    }

    fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Returns the shape of the member with a name.
    fn member(&self, name: &str) -> Result<Rc<Shape>, Refused> {
        self.by_name.get(name).map_or_else(|| self.object.unnamed(name), |shape| Ok(Rc::clone(shape)))
    }
}

/// Values indexed for lookup.
struct Among<'a> {
    texts: HashSet<&'a str>,
    others: Vec<&'a Value>,
}

impl<'a> Among<'a> {
    fn of(values: &'a [Value]) -> Self {
        Self {
            texts: values.iter().filter_map(Value::as_str).collect(),
            others: values.iter().filter(|value| !value.is_string()).collect(),
        }
    }

    fn has(&self, definitions: &mut dyn Definitions, value: &Value) -> Result<bool, Refused> {
        if let Value::String(text) = value {
            return Ok(self.texts.contains(text.as_str()));
        }
        definitions.spend(self.others.len())?;
        Ok(self.others.iter().any(|other| same(other, value)))
    }
}

impl ArrayShape {
    /// Returns the shape of the item at an index.
    pub(super) fn item(&self, index: usize) -> &Rc<Shape> {
        self.first.get(index).unwrap_or(&self.others)
    }

    /// Returns whether the set is obviously empty.
    fn is_never(&self) -> bool {
        let needed = usize::try_from(self.min).unwrap_or(usize::MAX).min(self.first.len() + 1);
        self.max.is_some_and(|max| max < self.min)
            || (0..needed).any(|index| **self.item(index) == Shape::Never)
    }
}

/// Returns the union of several shapes, without needless nesting.
pub(super) fn either(shapes: Vec<Rc<Shape>>) -> Rc<Shape> {
    let mut all: Vec<Rc<Shape>> = Vec::new();
    let mut values = Vec::new();
    for shape in shapes {
        match &*shape {
            Shape::Never => {}
            Shape::Any => return shape,
            Shape::Either(inner) => all.extend(inner.iter().cloned()),
            Shape::Values(inner) => values.extend(inner.iter().cloned()),
            _ => all.push(shape),
        }
    }
    if !values.is_empty() {
        all.push(Rc::new(Shape::Values(values)));
    }
    match all.len() {
        0 => Rc::new(Shape::Never),
        1 => all.swap_remove(0),
        _ => Rc::new(Shape::Either(all)),
    }
}

/// Access to the definitions of a schema, and the bounds on the work.
pub(super) trait Definitions {
    /// Returns the shape of a definition.
    ///
    /// # Errors
    /// If the definition leads back to itself.
    fn shape(&mut self, definition: usize) -> Result<Rc<Shape>, Refused>;

    /// Like [`shape`](Self::shape), but returns `None` if the definition is being read and leads back to itself.
    ///
    /// # Errors
    /// If a part of the definition is refused.
    fn known_shape(&mut self, definition: usize) -> Result<Option<Rc<Shape>>, Refused>;

    /// Counts a step of work, one level below the previous one.
    ///
    /// # Errors
    /// If there are too many steps or too many levels.
    fn enter(&mut self) -> Result<(), Refused>;

    /// Ends a step.
    fn leave(&mut self);

    /// Counts list entries that a step visits.
    ///
    /// # Errors
    /// If there are too many entries.
    fn spend(&mut self, entries: usize) -> Result<(), Refused>;
}

/// Returns the intersection of two shapes.
pub(super) fn both(
    definitions: &mut dyn Definitions,
    a: &Rc<Shape>,
    b: &Rc<Shape>,
) -> Result<Rc<Shape>, Refused> {
    definitions.enter()?;
    let found = both_below(definitions, a, b)?;
    definitions.leave();
    Ok(found)
}

fn both_below(definitions: &mut dyn Definitions, a: &Rc<Shape>, b: &Rc<Shape>) -> Result<Rc<Shape>, Refused> {
    if Rc::ptr_eq(a, b) || matches!((&**a, &**b), (Shape::Definition(a), Shape::Definition(b)) if a == b) {
        return Ok(Rc::clone(a));
    }
    Ok(Rc::new(match (&**a, &**b) {
        (Shape::Any, _) => return Ok(Rc::clone(b)),
        (_, Shape::Any) => return Ok(Rc::clone(a)),
        (Shape::Never, _) | (_, Shape::Never) => Shape::Never,
        (Shape::Values(values), _) => return kept(definitions, values, b),
        (_, Shape::Values(values)) => return kept(definitions, values, a),
        (Shape::Definition(definition), _) => {
            let shape = definitions.shape(*definition)?;
            return both(definitions, &shape, b);
        }
        (_, Shape::Definition(definition)) => {
            let shape = definitions.shape(*definition)?;
            return both(definitions, a, &shape);
        }
        (Shape::Either(shapes), _) => return each(definitions, shapes, b),
        (_, Shape::Either(shapes)) => return each(definitions, shapes, a),
        (Shape::Null, Shape::Null) => Shape::Null,
        (Shape::Boolean, Shape::Boolean) => Shape::Boolean,
        (Shape::Number(a), Shape::Number(b)) => {
            let shape = a.clone().and(b.clone())?;
            if shape.is_never() { Shape::Never } else { Shape::Number(shape) }
        }
        (Shape::Text(a), Shape::Text(b)) => {
            definitions.spend(a.held() + b.held())?;
            let shape = a.clone().and(b.clone());
            if shape.is_never() { Shape::Never } else { Shape::Text(shape) }
        }
        (Shape::Array(a), Shape::Array(b)) => {
            let shape = both_arrays(definitions, a, b)?;
            if shape.is_never() { Shape::Never } else { Shape::Array(shape) }
        }
        (Shape::Object(a), Shape::Object(b)) => {
            let shape = both_objects(definitions, a, b)?;
            if shape.is_never() { Shape::Never } else { Shape::Object(shape) }
        }
        _ => Shape::Never,
    }))
}

fn each(
    definitions: &mut dyn Definitions,
    shapes: &[Rc<Shape>],
    other: &Rc<Shape>,
) -> Result<Rc<Shape>, Refused> {
    let shapes: Result<_, _> = shapes.iter().map(|shape| both(definitions, shape, other)).collect();
    Ok(either(shapes?))
}

fn kept(
    definitions: &mut dyn Definitions,
    values: &[Value],
    shape: &Rc<Shape>,
) -> Result<Rc<Shape>, Refused> {
    let among = match &**shape {
        Shape::Values(others) => {
            definitions.spend(others.len())?;
            Some(Among::of(others))
        }
        _ => None,
    };
    definitions.spend(values.len())?;
    let mut kept = Vec::new();
    for value in values {
        let is_in = match &among {
            Some(others) => others.has(definitions, value)?,
            None => contains(definitions, shape, value)?,
        };
        if is_in {
            kept.push(value.clone());
        }
    }
    Ok(if kept.is_empty() { Rc::new(Shape::Never) } else { Rc::new(Shape::Values(kept)) })
}

fn both_arrays(
    definitions: &mut dyn Definitions,
    a: &ArrayShape,
    b: &ArrayShape,
) -> Result<ArrayShape, Refused> {
    let first = (0..a.first.len().max(b.first.len()))
        .map(|index| both(definitions, a.item(index), b.item(index)))
        .collect::<Result<_, _>>()?;
    Ok(ArrayShape {
        first,
        others: both(definitions, &a.others, &b.others)?,
        min: a.min.max(b.min),
        max: [a.max, b.max].into_iter().flatten().min(),
        unique: a.unique || b.unique,
    })
}

fn both_objects(
    definitions: &mut dyn Definitions,
    a: &ObjectShape,
    b: &ObjectShape,
) -> Result<ObjectShape, Refused> {
    definitions.spend(a.names() + b.names())?;
    let (in_a, in_b) = (Members::of(a), Members::of(b));
    let mut members = Vec::new();
    for (name, shape) in &a.members {
        members.push((name.clone(), both(definitions, shape, &in_b.member(name)?)?));
    }
    for (name, shape) in b.members.iter().filter(|(name, _)| !in_a.has(name)) {
        members.push((name.clone(), both(definitions, &in_a.member(name)?, shape)?));
    }
    let patterns = match (a.patterns.is_empty(), b.patterns.is_empty()) {
        (true, true) => Vec::new(),
        (false, true) => with_others(definitions, a, &b.others)?,
        (true, false) => with_others(definitions, b, &a.others)?,
        (false, false) => {
            return Err(Refused::new("patternProperties of several schemas meet in one object"));
        }
    };
    let required_by_a: HashSet<&String> = a.required.iter().collect();
    let mut required = a.required.clone();
    required.extend(b.required.iter().filter(|name| !required_by_a.contains(name)).cloned());
    Ok(ObjectShape {
        members,
        patterns,
        others: both(definitions, &a.others, &b.others)?,
        required,
        min: a.min.max(b.min),
        max: [a.max, b.max].into_iter().flatten().min(),
    })
}

/// Returns the members by pattern of an object that is intersected with an object without patterns.
fn with_others(
    definitions: &mut dyn Definitions,
    object: &ObjectShape,
    others: &Rc<Shape>,
) -> Result<Vec<(Pattern, Rc<Shape>)>, Refused> {
    let met =
        |(pattern, shape): &(Pattern, Rc<Shape>)| Ok((pattern.clone(), both(definitions, shape, others)?));
    object.patterns.iter().map(met).collect()
}

/// Returns whether a value is in a shape.
pub(super) fn contains(
    definitions: &mut dyn Definitions,
    shape: &Rc<Shape>,
    value: &Value,
) -> Result<bool, Refused> {
    definitions.enter()?;
    let found = contains_below(definitions, shape, value)?;
    definitions.leave();
    Ok(found)
}

fn contains_below(
    definitions: &mut dyn Definitions,
    shape: &Rc<Shape>,
    value: &Value,
) -> Result<bool, Refused> {
    Ok(match (&**shape, value) {
        (Shape::Any, _) | (Shape::Null, Value::Null) | (Shape::Boolean, Value::Bool(_)) => true,
        (Shape::Values(values), _) => {
            definitions.spend(values.len())?;
            values.iter().any(|other| same(other, value))
        }
        (Shape::Number(shape), Value::Number(number)) => shape.contains(&number::decimal(number)?),
        (Shape::Text(shape), Value::String(text)) => {
            definitions.spend(shape.held())?;
            shape.contains(text)?
        }
        (Shape::Array(shape), Value::Array(items)) => {
            let count = items.len() as u64;
            if count < shape.min || shape.max.is_some_and(|max| count > max) {
                return Ok(false);
            }
            for (index, item) in items.iter().enumerate() {
                if !contains(definitions, shape.item(index), item)? {
                    return Ok(false);
                }
            }
            if shape.unique {
                definitions.spend(items.len().saturating_mul(items.len()))?;
            }
            let is_first =
                |(index, item): (usize, &Value)| !items[..index].iter().any(|other| same(other, item));
            !shape.unique || items.iter().enumerate().all(is_first)
        }
        (Shape::Object(shape), Value::Object(members)) => {
            let count = members.len() as u64;
            if count < shape.min || shape.max.is_some_and(|max| count > max) {
                return Ok(false);
            }
            definitions.spend(shape.names())?;
            let by_name = Members::of(shape);
            for (name, member) in members {
                if !contains(definitions, &by_name.member(name)?, member)? {
                    return Ok(false);
                }
            }
            shape.required.iter().all(|name| members.contains_key(name))
        }
        (Shape::Either(shapes), _) => {
            for shape in shapes {
                if contains(definitions, shape, value)? {
                    return Ok(true);
                }
            }
            false
        }
        (Shape::Definition(definition), _) => {
            let shape = definitions.shape(*definition)?;
            contains(definitions, &shape, value)?
        }
        _ => false,
    })
}

/// Returns whether two values are equal; 1 and 1.0 are.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() == b.is_f64() => a == b,
        (Value::Number(a), Value::Number(b)) => {
            let exactly =
                || number::decimal(a).ok().zip(number::decimal(b).ok()).is_some_and(|(a, b)| a == b);
            a.as_f64() == b.as_f64() && exactly()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Returns whether it is certain that no value is in both shapes.
pub(super) fn are_apart(
    definitions: &mut dyn Definitions,
    a: &Rc<Shape>,
    b: &Rc<Shape>,
) -> Result<bool, Refused> {
    definitions.enter()?;
    let found = are_apart_below(definitions, a, b)?;
    definitions.leave();
    Ok(found)
}

fn are_apart_below(definitions: &mut dyn Definitions, a: &Rc<Shape>, b: &Rc<Shape>) -> Result<bool, Refused> {
    Ok(match (&**a, &**b) {
        (Shape::Never, _) | (_, Shape::Never) => true,
        (Shape::Values(values), other) | (other, Shape::Values(values)) => {
            *kept(definitions, values, &Rc::new(other.clone()))? == Shape::Never
        }
        (Shape::Any, _) | (_, Shape::Any) => false,
        (Shape::Definition(definition), _) => {
            let shape = definitions.shape(*definition)?;
            are_apart(definitions, &shape, b)?
        }
        (_, Shape::Definition(_)) => are_apart(definitions, b, a)?,
        (Shape::Either(shapes), _) => {
            for shape in shapes {
                if !are_apart(definitions, shape, b)? {
                    return Ok(false);
                }
            }
            true
        }
        (_, Shape::Either(_)) => are_apart(definitions, b, a)?,
        (Shape::Number(a), Shape::Number(b)) => a.is_apart_from(b),
        (Shape::Text(a), Shape::Text(b)) => {
            definitions.spend(a.held() + b.held())?;
            a.clone().and(b.clone()).is_never()
                || a.max.is_some_and(|max| max < b.min)
                || b.max.is_some_and(|max| max < a.min)
        }
        (Shape::Array(a), Shape::Array(b)) => {
            a.max.is_some_and(|max| max < b.min) || b.max.is_some_and(|max| max < a.min)
        }
        (Shape::Object(a), Shape::Object(b)) => objects_are_apart(definitions, a, b)?,
        (a, b) => std::mem::discriminant(a) != std::mem::discriminant(b),
    })
}

/// Objects are disjoint if a member that one of them requires cannot be the same in the other.
fn objects_are_apart(
    definitions: &mut dyn Definitions,
    a: &ObjectShape,
    b: &ObjectShape,
) -> Result<bool, Refused> {
    definitions.spend(a.names() + b.names())?;
    let (in_a, in_b) = (Members::of(a), Members::of(b));
    for name in a.required.iter().chain(&b.required) {
        if are_apart(definitions, &in_a.member(name)?, &in_b.member(name)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}
