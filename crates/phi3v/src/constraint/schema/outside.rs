//! The values that a schema does not allow, for keywords that need them: `not`, `oneOf`, `if`, dependencies.
//!
//! A grammar has no complement, but a set of values by type does, up to a rest that is left out. So the result contains
//! only values outside of the shape, but possibly not all of them. A shape to be complemented must therefore contain all
//! that its schema allows: it is read in wide mode, which leaves out whatever would make the shape smaller than the
//! schema means.

use std::rc::Rc;

use serde_json::Value;

use super::Refused;
use super::number::NumberShape;
use super::shape::{ArrayShape, Definitions, ObjectShape, Shape, both, either};
use super::text::{Pattern, TextShape};

/// Maximum nesting of members, items and references that are complemented. Deeper ones are left out.
const LEVELS_MAX: usize = 6;

/// The number of value types, as far as values are distinguished here.
const TYPES: usize = 6;

/// Returns values that are not in a shape.
pub(super) fn outside(definitions: &mut dyn Definitions, shape: &Rc<Shape>) -> Result<Rc<Shape>, Refused> {
    below(definitions, shape, LEVELS_MAX)
}

fn below(definitions: &mut dyn Definitions, shape: &Rc<Shape>, levels: usize) -> Result<Rc<Shape>, Refused> {
    if levels == 0 {
        return Ok(Rc::new(Shape::Never));
    }
    definitions.enter()?;
    definitions.spend(match &**shape {
        Shape::Values(values) => values.len(),
        Shape::Text(shape) => shape.held(),
        _ => 0,
    })?;
    let (kind, parts) = match &**shape {
        Shape::Any => (None, Vec::new()),
        Shape::Never => (None, vec![Rc::new(Shape::Any)]),
        Shape::Null => (Some(0), Vec::new()),
        Shape::Boolean => (Some(1), Vec::new()),
        Shape::Values(values) => (None, other_values(values)),
        Shape::Number(shape) => (Some(2), numbers(shape)),
        Shape::Text(shape) => (Some(3), texts(shape)),
        Shape::Array(shape) => (Some(4), arrays(definitions, shape, levels)?),
        Shape::Object(shape) => (Some(5), objects(definitions, shape, levels)?),
        Shape::Either(shapes) => {
            let mut rest = Rc::new(Shape::Any);
            for shape in shapes {
                let part = below(definitions, shape, levels)?;
                rest = both(definitions, &rest, &part)?;
            }
            (None, vec![rest])
        }
        Shape::Definition(definition) => {
            let part = match definitions.known_shape(*definition)? {
                Some(shape) => below(definitions, &shape, levels - 1)?,
                None => Rc::new(Shape::Never),
            };
            (None, vec![part])
        }
    };
    definitions.leave();
    let others = (0..TYPES).filter(|&other| kind.is_some_and(|kind| kind != other)).map(all_of_type);
    Ok(either(others.chain(parts).collect()))
}

fn all_of_type(kind: usize) -> Rc<Shape> {
    Rc::new(match kind {
        0 => Shape::Null,
        1 => Shape::Boolean,
        2 => Shape::Number(NumberShape::default()),
        3 => Shape::Text(TextShape::default()),
        4 => Shape::Array(ArrayShape::default()),
        _ => Shape::Object(ObjectShape::default()),
    })
}

/// Returns all values except the given ones. If an array is among them, the result has no arrays; likewise for objects.
fn other_values(values: &[Value]) -> Vec<Rc<Shape>> {
    let mut shapes = Vec::new();
    if !values.contains(&Value::Null) {
        shapes.push(Shape::Null);
    }
    let booleans: Vec<Value> =
        [true, false].map(Value::Bool).into_iter().filter(|it| !values.contains(it)).collect();
    if !booleans.is_empty() {
        shapes.push(Shape::Values(booleans));
    }
    let numbers: Vec<_> = values.iter().filter_map(Value::as_number).collect();
    shapes.extend(NumberShape::without(&numbers).into_iter().flatten().map(Shape::Number));
    let never = values.iter().filter_map(Value::as_str).map(Pattern::literal).collect();
    shapes.push(Shape::Text(TextShape { never, ..TextShape::default() }));
    if !values.iter().any(Value::is_array) {
        shapes.push(Shape::Array(ArrayShape::default()));
    }
    if !values.iter().any(Value::is_object) {
        shapes.push(Shape::Object(ObjectShape::default()));
    }
    shapes.into_iter().map(Rc::new).collect()
}

fn numbers(shape: &NumberShape) -> Vec<Rc<Shape>> {
    let mut shapes = shape.outside_bounds();
    if shape.whole {
        shapes.push(NumberShape { fractional: true, ..NumberShape::default() });
    }
    if shape.fractional {
        shapes.push(NumberShape { whole: true, ..NumberShape::default() });
    }
    shapes.into_iter().map(|shape| Rc::new(Shape::Number(shape))).collect()
}

fn texts(shape: &TextShape) -> Vec<Rc<Shape>> {
    let mut shapes = Vec::new();
    if let Some(max) = shape.min.checked_sub(1) {
        shapes.push(TextShape { max: Some(max), ..TextShape::default() });
    }
    if let Some(max) = shape.max {
        shapes.push(TextShape { min: max.saturating_add(1), ..TextShape::default() });
    }
    for pattern in shape.patterns.iter().filter(|pattern| pattern.is_exact()) {
        shapes.push(TextShape { never: vec![pattern.clone()], ..TextShape::default() });
    }
    for pattern in &shape.never {
        shapes.push(TextShape { patterns: vec![pattern.clone()], ..TextShape::default() });
    }
    shapes.into_iter().map(|shape| Rc::new(Shape::Text(shape))).collect()
}

/// Returns arrays with too few or too many items, or with an item that is not allowed.
fn arrays(
    definitions: &mut dyn Definitions,
    shape: &ArrayShape,
    levels: usize,
) -> Result<Vec<Rc<Shape>>, Refused> {
    let mut shapes = Vec::new();
    if let Some(max) = shape.min.checked_sub(1) {
        shapes.push(ArrayShape { max: Some(max), ..ArrayShape::default() });
    }
    if let Some(max) = shape.max {
        shapes.push(ArrayShape { min: max.saturating_add(1), ..ArrayShape::default() });
    }
    for index in 0..=shape.first.len() {
        let wrong = below(definitions, shape.item(index), levels - 1)?;
        if *wrong != Shape::Never {
            let any = Rc::new(Shape::Any);
            let mut first = vec![any; index];
            first.push(wrong);
            shapes.push(ArrayShape { min: index as u64 + 1, first, ..ArrayShape::default() });
        }
    }
    Ok(shapes.into_iter().map(|shape| Rc::new(Shape::Array(shape))).collect())
}

/// Returns objects with too few or too many members, and those that lack a member or have one that is not allowed.
fn objects(
    definitions: &mut dyn Definitions,
    shape: &ObjectShape,
    levels: usize,
) -> Result<Vec<Rc<Shape>>, Refused> {
    let mut shapes = Vec::new();
    if let Some(max) = shape.min.checked_sub(1) {
        shapes.push(ObjectShape { max: Some(max), ..ObjectShape::default() });
    }
    if let Some(max) = shape.max {
        shapes.push(ObjectShape { min: max.saturating_add(1), ..ObjectShape::default() });
    }
    definitions.spend(shape.required.len())?;
    for name in &shape.required {
        let members = vec![(name.clone(), Rc::new(Shape::Never))];
        shapes.push(ObjectShape { members, ..ObjectShape::default() });
    }
    for (name, part) in &shape.members {
        let wrong = below(definitions, part, levels - 1)?;
        if *wrong != Shape::Never {
            let members = vec![(name.clone(), wrong)];
            shapes.push(ObjectShape { members, required: vec![name.clone()], ..ObjectShape::default() });
        }
    }
    Ok(shapes.into_iter().map(|shape| Rc::new(Shape::Object(shape))).collect())
}
