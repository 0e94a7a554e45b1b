//! The grammar of the JSON texts of a set of values.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use llguidance::api::GrammarInit;
use llguidance::derivre::RegexAst;
use serde_json::Value;

use super::super::repetitions::OF_SCHEMA_MAX;
use super::number::NumberShape;
use super::productions::{Productions, Symbol};
use super::shape::{ArrayShape, ObjectShape, Shape, same};
use super::{Refused, read, text};

/// Returns the grammar of a space followed by an answer that the schema validates.
pub(in super::super) fn grammar(schema: &Value) -> Result<GrammarInit, Refused> {
    let schema = read(schema)?;
    let mut writer = Writer { shapes: schema.definitions.clone(), ..Writer::default() };
    for _ in &schema.definitions {
        let symbol = writer.productions.symbol()?;
        writer.definitions.push(symbol);
    }
    let start = writer.shape(&schema.shape)?;
    for (index, shape) in schema.definitions.iter().enumerate() {
        let symbol = writer.shape(shape)?;
        writer.productions.alternative(writer.definitions[index], vec![symbol])?;
    }
    let nothing = writer.left_out.take();
    let grammar = writer.productions.after_a_space(start);
    let grammar = grammar.map_err(|error| Refused::new(super::super::grammar::one_line(&error)))?;
    grammar.ok_or_else(|| {
        nothing.unwrap_or_else(|| Refused::new("no JSON value satisfies it, or none that comes to an end"))
    })
}

/// Returns the grammar of a space followed by one of some texts, which are not JSON.
pub(in super::super) fn choices(texts: &[String]) -> Result<GrammarInit, Refused> {
    let mut productions = Productions::default();
    let texts = texts.iter().cloned().map(RegexAst::Literal).collect();
    let start = productions.text(RegexAst::Or(texts))?;
    let grammar = productions.after_a_space(start);
    let grammar = grammar.map_err(|error| Refused::new(super::super::grammar::one_line(&error)))?;
    grammar.ok_or_else(|| Refused::new("there is none"))
}

/// Maximum states of the engine for all numbers with `multipleOf`: sixteen of the largest.
const STATES_MAX: u64 = 1 << 16;

/// Maximum patterns and values that all strings of a grammar together must match or must not match.
const HELD_MAX: usize = 100_000;

/// Maximum number of values that are enumerated.
const DIFFERENT_MAX: usize = 200;

/// Maximum number of values for which an array without equal items may have any order. The grammar has a symbol for each
/// subset of them.
const ANY_ORDER_MAX: usize = 6;

/// Maximum nesting of references that lead to such values.
const LEVELS_OF_VALUES_MAX: usize = 8;

/// The state of writing a grammar.
#[derive(Default)]
struct Writer {
    productions: Productions,
    definitions: Vec<Symbol>,
    /// The shapes of the definitions.
    shapes: Vec<Rc<Shape>>,
    any: Option<Symbol>,
    any_text: Option<Symbol>,
    /// States for the divisors of numbers.
    states: u64,
    /// Repetitions and groups of the patterns.
    repetitions: usize,
    /// Patterns and values that strings must match or must not match.
    held: usize,
    /// What was left out of the grammar, which may therefore allow nothing.
    left_out: Option<Refused>,
}

impl Writer {
    fn shape(&mut self, shape: &Shape) -> Result<Symbol, Refused> {
        if let Some(texts) = self.scalar(shape)? {
            return self.productions.text(texts);
        }
        match shape {
            Shape::Any => self.any(),
            Shape::Values(values) => self.values(values),
            Shape::Array(shape) => self.array(shape),
            Shape::Object(shape) => self.object(shape),
            Shape::Either(shapes) => self.either(shapes),
            Shape::Definition(definition) => Ok(self.definitions[*definition]),
            // scalar shapes that allow no text
            _ => self.productions.symbol(),
        }
    }

    fn any(&mut self) -> Result<Symbol, Refused> {
        if let Some(symbol) = self.any {
            return Ok(symbol);
        }
        let symbol = self.productions.symbol()?;
        self.any = Some(symbol);
        let number = Shape::Number(NumberShape::default());
        let shapes = [Shape::Null, Shape::Boolean, number].map(Rc::new);
        let scalars = self.either(&shapes)?;
        let text = self.any_text()?;
        let array = self.array(&ArrayShape::default())?;
        let object = self.object(&ObjectShape::default())?;
        for alternative in [scalars, text, array, object] {
            self.productions.alternative(symbol, vec![alternative])?;
        }
        Ok(symbol)
    }

    fn any_text(&mut self) -> Result<Symbol, Refused> {
        if let Some(symbol) = self.any_text {
            return Ok(symbol);
        }
        let symbol = self.productions.text(text::any())?;
        self.any_text = Some(symbol);
        Ok(symbol)
    }

    /// Merges the scalars among the shapes into one text, so that the lexer sees one kind of word.
    fn either(&mut self, shapes: &[Rc<Shape>]) -> Result<Symbol, Refused> {
        let symbol = self.productions.symbol()?;
        let mut texts = Vec::new();
        for shape in shapes {
            if let Some(scalar) = self.scalar(shape)? {
                texts.push(scalar);
            } else if let Shape::Values(values) = &**shape {
                texts.extend(values.iter().filter_map(literal));
                for value in values.iter().filter(|value| literal(value).is_none()) {
                    let value = self.value(value)?;
                    self.productions.alternative(symbol, vec![value])?;
                }
            } else {
                let shape = self.shape(shape)?;
                self.productions.alternative(symbol, vec![shape])?;
            }
        }
        if !texts.is_empty() {
            let texts = self.productions.text(RegexAst::Or(texts))?;
            self.productions.alternative(symbol, vec![texts])?;
        }
        Ok(symbol)
    }

    /// Returns the texts of a shape of scalar values, within the bounds on all of them together.
    fn scalar(&mut self, shape: &Shape) -> Result<Option<RegexAst>, Refused> {
        match shape {
            Shape::Number(shape) => self.states = self.states.saturating_add(shape.states()),
            Shape::Text(shape) => {
                self.repetitions += shape.repetitions();
                self.held += shape.held();
            }
            _ => {}
        }
        if self.held > HELD_MAX {
            return Err(Refused::new(format!(
                "its strings are to be kept apart from more than {HELD_MAX} patterns and values together"
            )));
        }
        if self.states > STATES_MAX {
            return Err(Refused::new(format!(
                "all its multipleOf come to more than {STATES_MAX} together, without zeros at the end"
            )));
        }
        self.check_repetitions()?;
        scalar(shape)
    }

    fn check_repetitions(&self) -> Result<(), Refused> {
        if self.repetitions > OF_SCHEMA_MAX {
            return Err(Refused::new(format!(
                "its patterns come to more than {OF_SCHEMA_MAX} repetitions and groups together"
            )));
        }
        Ok(())
    }

    fn values(&mut self, values: &[Value]) -> Result<Symbol, Refused> {
        self.either(&[Rc::new(Shape::Values(values.to_vec()))])
    }

    /// Returns the symbol of one value.
    fn value(&mut self, value: &Value) -> Result<Symbol, Refused> {
        let mut sequence = Vec::new();
        match value {
            Value::Array(items) => {
                sequence.push(self.productions.literal("[")?);
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        sequence.push(self.productions.literal(",")?);
                    }
                    sequence.push(self.value(item)?);
                }
                sequence.push(self.productions.literal("]")?);
            }
            Value::Object(members) => {
                sequence.push(self.productions.literal("{")?);
                for (index, (name, member)) in members.iter().enumerate() {
                    if index > 0 {
                        sequence.push(self.productions.literal(",")?);
                    }
                    let name = self.productions.text(quoted_name(name))?;
                    sequence.extend([name, self.productions.literal(":")?, self.value(member)?]);
                }
                sequence.push(self.productions.literal("}")?);
            }
            scalar => return self.productions.text(literal(scalar).unwrap_or(RegexAst::NoMatch)),
        }
        self.productions.choice(vec![sequence])
    }

    fn array(&mut self, shape: &ArrayShape) -> Result<Symbol, Refused> {
        if shape.unique
            && shape.first.is_empty()
            && let Some(values) = self.all_values(&shape.others, LEVELS_OF_VALUES_MAX)
        {
            return self.array_of_different(shape, &values);
        }
        let comma = self.productions.literal(",")?;
        let first = shape.first.iter().map(|item| self.shape(item)).collect::<Result<Vec<_>, _>>()?;
        let others = self.shape(&shape.others)?;
        let count = first.len() as u64;
        let more = self.productions.choice(vec![vec![comma, others]])?;
        let (min, max) = (shape.min.saturating_sub(count), shape.max.map(|max| max.saturating_sub(count)));
        let mut rest = if count > 0 {
            self.productions.between(more, min, max)?
        } else {
            let after = self.productions.between(
                more,
                min.saturating_sub(1),
                max.map(|max| max.saturating_sub(1)),
            )?;
            let mut sequences = Vec::new();
            sequences.extend((min == 0).then(Vec::new));
            sequences.extend((max != Some(0)).then(|| vec![others, after]));
            self.productions.choice(sequences)?
        };
        for (index, item) in first.into_iter().enumerate().rev() {
            let before = index as u64;
            let mut sequences = Vec::new();
            sequences.extend((before >= shape.min).then(Vec::new));
            if shape.max.is_none_or(|max| before < max) {
                sequences.push(if before > 0 { vec![comma, item, rest] } else { vec![item, rest] });
            }
            rest = self.productions.choice(sequences)?;
        }
        let (open, close) = (self.productions.literal("[")?, self.productions.literal("]")?);
        self.productions.choice(vec![vec![open, rest, close]])
    }

    /// Returns all values of a shape, if they can be enumerated.
    fn all_values(&self, shape: &Shape, levels: usize) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        match shape {
            Shape::Null => values.push(Value::Null),
            Shape::Boolean => values.extend([true, false].map(Value::Bool)),
            Shape::Values(some) => values.extend(some.iter().cloned()),
            Shape::Never => {}
            Shape::Either(shapes) => {
                for shape in shapes {
                    values.extend(self.all_values(shape, levels)?);
                }
            }
            Shape::Definition(definition) => {
                values = self.all_values(self.shapes.get(*definition)?, levels.checked_sub(1)?)?;
            }
            _ => return None,
        }
        let mut different: Vec<Value> = Vec::new();
        for value in values {
            if !different.iter().any(|other| same(other, &value)) {
                different.push(value);
            }
            if different.len() > DIFFERENT_MAX {
                return None;
            }
        }
        Some(different)
    }

    /// Returns an array of some values, none of them twice: in any order if they are few, otherwise in the schema's order.
    fn array_of_different(&mut self, shape: &ArrayShape, values: &[Value]) -> Result<Symbol, Refused> {
        let items = values.iter().map(|value| self.value(value)).collect::<Result<Vec<_>, _>>()?;
        let inside = if items.len() <= ANY_ORDER_MAX {
            self.any_order(shape, &items)?
        } else {
            let members: Vec<(Symbol, bool)> = items.into_iter().map(|item| (item, false)).collect();
            self.sequence(&Sequence { members: &members, others: None, min: shape.min, max: shape.max })?
        };
        let (open, close) = (self.productions.literal("[")?, self.productions.literal("]")?);
        self.productions.choice(vec![vec![open, inside, close]])
    }

    /// Returns what may stand between the brackets, built backwards from the set of all items.
    fn any_order(&mut self, shape: &ArrayShape, items: &[Symbol]) -> Result<Symbol, Refused> {
        let comma = self.productions.literal(",")?;
        let mut after = HashMap::new();
        for taken in (0_usize..1 << items.len()).rev() {
            let count = u64::from(taken.count_ones());
            let mut sequences = Vec::new();
            sequences.extend((count >= shape.min).then(Vec::new));
            for (index, item) in items.iter().enumerate().filter(|(index, _)| taken >> index & 1 == 0) {
                if shape.max.is_none_or(|max| count < max) {
                    let mut sequence = if count > 0 { vec![comma] } else { Vec::new() };
                    sequence.extend([*item, after[&(taken | 1 << index)]]);
                    sequences.push(sequence);
                }
            }
            after.insert(taken, self.productions.choice(sequences)?);
        }
        Ok(after[&0])
    }

    fn object(&mut self, shape: &ObjectShape) -> Result<Symbol, Refused> {
        let (open, colon) = (self.productions.literal("{")?, self.productions.literal(":")?);
        let mut members = Vec::new();
        let named: HashSet<&String> = shape.members.iter().map(|(name, _)| name).collect();
        let required: HashSet<&String> = shape.required.iter().collect();
        let beside = shape.required.iter().filter(|name| !named.contains(name));
        let beside =
            beside.map(|name| Ok((name.clone(), shape.unnamed(name)?))).collect::<Result<Vec<_>, _>>()?;
        for (name, part) in shape.members.iter().chain(&beside) {
            let name_text = self.productions.text(quoted_name(name))?;
            let part = self.shape(part)?;
            let member = self.productions.choice(vec![vec![name_text, colon, part]])?;
            members.push((member, required.contains(name)));
        }
        let names: Vec<&String> = shape.members.iter().chain(&beside).map(|(name, _)| name).collect();
        let others = self.other_members(shape, &names)?;
        let inside = Sequence { members: &members, others, min: shape.min, max: shape.max };
        let inside = self.sequence(&inside)?;
        let close = self.productions.literal("}")?;
        self.productions.choice(vec![vec![open, inside, close]])
    }

    /// Returns a member whose name is none of `names`.
    fn other_members(&mut self, shape: &ObjectShape, names: &[&String]) -> Result<Option<Symbol>, Refused> {
        // each pattern is kept distinct from the others
        let repetitions: usize = shape.patterns.iter().map(|(pattern, _)| pattern.repetitions()).sum();
        self.repetitions = self.repetitions.saturating_add(repetitions);
        self.check_repetitions()?;
        let patterns: Vec<RegexAst> =
            shape.patterns.iter().map(|(pattern, _)| text::quoted(pattern.regex())).collect();
        let names: Vec<RegexAst> = names.iter().map(|name| quoted_name(name)).collect();
        // what other patterns match is known only for names without U+0000
        let leaves_nul_out = shape.patterns.iter().any(|(pattern, _)| pattern.leaves_nul_out());
        let all_names = if leaves_nul_out { text::quoted(text::without_nul()) } else { text::any() };
        let mut sequences = Vec::new();
        let colon = self.productions.literal(":")?;
        for (index, (_, part)) in shape.patterns.iter().enumerate() {
            let mut taken = names.clone();
            taken.extend(
                patterns.iter().enumerate().filter(|&(other, _)| other != index).map(|(_, rx)| rx.clone()),
            );
            let mut name = text::without(patterns[index].clone(), taken);
            if leaves_nul_out {
                name = RegexAst::And(vec![name, all_names.clone()]);
            }
            if !text::is_empty(&name)? {
                sequences.push(vec![self.productions.text(name)?, colon, self.shape(part)?]);
            }
        }
        if *shape.others != Shape::Never {
            let name = match [names, patterns].concat() {
                taken if taken.is_empty() => self.any_text()?,
                taken => self.productions.text(text::without(all_names, taken))?,
            };
            sequences.push(vec![name, colon, self.shape(&shape.others)?]);
        }
        Ok(if sequences.is_empty() { None } else { Some(self.productions.choice(sequences)?) })
    }

    /// Returns what stands between the braces of an object: the members in their order, then others. The members so far are
    /// counted only as far as the bounds require.
    fn sequence(&mut self, sequence: &Sequence) -> Result<Symbol, Refused> {
        let comma = self.productions.literal(",")?;
        let bound = sequence.min.max(sequence.max.unwrap_or(0)).max(1);
        let counted = bound.min(sequence.members.len() as u64 + 1);
        let mut after = HashMap::new();
        for count in 0..=counted {
            after.insert(count, self.others(sequence, count)?);
        }
        for (member, required) in sequence.members.iter().rev() {
            let mut here = HashMap::new();
            for count in 0..=counted {
                let mut sequences = Vec::new();
                if sequence.max.is_none_or(|max| count < max) {
                    let mut taken = if count > 0 { vec![comma] } else { Vec::new() };
                    taken.extend([*member, after[&(count + 1).min(counted)]]);
                    sequences.push(taken);
                }
                sequences.extend((!required).then(|| vec![after[&count]]));
                here.insert(count, self.productions.choice(sequences)?);
            }
            after = here;
        }
        Ok(after[&0])
    }

    /// Returns members with other names, after `count` members.
    fn others(&mut self, sequence: &Sequence, count: u64) -> Result<Symbol, Refused> {
        let comma = self.productions.literal(",")?;
        let missing = sequence.min.saturating_sub(count);
        let budget = sequence.max.map(|max| max.saturating_sub(count));
        let mut sequences = Vec::new();
        sequences.extend((missing == 0).then(Vec::new));
        if let Some(other) = sequence.others.filter(|_| budget != Some(0)) {
            // a grammar cannot keep the names of several members distinct, so they might be the same member
            if missing > 1 {
                self.left_out = Some(Refused::new(format!(
                    "minProperties is {}, it can be followed only up to one above the named properties",
                    sequence.min
                )));
            } else {
                let more = self.productions.choice(vec![vec![comma, other]])?;
                let more = self.productions.between(more, 0, budget.map(|budget| budget - 1))?;
                sequences.push(if count > 0 { vec![comma, other, more] } else { vec![other, more] });
            }
        }
        self.productions.choice(sequences)
    }
}

/// The members of an object.
struct Sequence<'a> {
    /// The named members, and whether each is required.
    members: &'a [(Symbol, bool)],
    /// A member with any other name.
    others: Option<Symbol>,
    min: u64,
    max: Option<u64>,
}

fn quoted_name(name: &str) -> RegexAst {
    text::quoted(RegexAst::Literal(name.to_owned()))
}

/// Returns the text of a scalar value.
fn literal(value: &Value) -> Option<RegexAst> {
    match value {
        Value::String(text) => Some(quoted_name(text)),
        Value::Array(_) | Value::Object(_) => None,
        value => Some(RegexAst::Literal(value.to_string())),
    }
}

/// Returns the texts of a shape of scalar values; `None` if it has none, or is not such a shape.
fn scalar(shape: &Shape) -> Result<Option<RegexAst>, Refused> {
    let texts = match shape {
        Shape::Null => Some(RegexAst::Literal("null".to_owned())),
        Shape::Boolean => Some(RegexAst::Regex("true|false".to_owned())),
        Shape::Number(shape) => {
            let texts = shape.texts()?;
            let bounded = *shape != NumberShape { whole: shape.whole, ..NumberShape::default() };
            let texts = match texts {
                Some(texts) if bounded && text::is_empty(&texts)? => None,
                texts => texts,
            };
            if texts.is_none() {
                shape.check_rounded_bounds()?;
            }
            texts
        }
        Shape::Text(shape) => shape.texts()?,
        _ => None,
    };
    Ok(texts)
}
