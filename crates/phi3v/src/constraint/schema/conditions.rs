//! Conditional keywords: `if`, and members that require others.

use std::collections::HashSet;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::shape::{Definitions, ObjectShape, Shape, either};
use super::{Reader, Refused, outside};

impl<'a> Reader<'a> {
    /// Applies `if`, `then` and `else` to a shape.
    pub(super) fn conditional(
        &mut self,
        shape: &Rc<Shape>,
        condition: &'a Value,
        [then, otherwise]: [Option<&'a Value>; 2],
    ) -> Result<Rc<Shape>, Refused> {
        if then.is_none() && otherwise.is_none() {
            return Ok(Rc::clone(shape));
        }
        if let Some(denied) = condition.as_object().filter(|condition| condition.len() == 1)
            && let Some(denied) = denied.get("not")
        {
            return self.conditional(shape, denied, [otherwise, then]);
        }
        let wide = self.below("if", |reader| reader.widely(|reader| reader.read(condition)))?;
        let outside = outside::outside(self, &wide)?;
        let condition = self.below("if", |reader| reader.read(condition))?;
        let mut met = self.meet(shape, condition)?;
        let mut unmet = self.meet(shape, outside)?;
        if let Some(part) = then {
            let part = self.below("then", |reader| reader.read(part))?;
            met = self.meet(&met, part)?;
        }
        if let Some(part) = otherwise {
            let part = self.below("else", |reader| reader.read(part))?;
            unmet = self.meet(&unmet, part)?;
        }
        let both = either(vec![met, unmet]);
        self.meet_or_refuse(shape, both, "if")
    }

    /// Applies the keywords for members that require others to a shape.
    pub(super) fn dependencies(
        &mut self,
        mut shape: Rc<Shape>,
        schema: &'a Map<String, Value>,
    ) -> Result<Rc<Shape>, Refused> {
        for keyword in ["dependentRequired", "dependentSchemas", "dependencies"] {
            let Some(members) = schema.get(keyword) else { continue };
            let members =
                members.as_object().ok_or_else(|| Refused::new(format!("{keyword} must be an object")))?;
            for (name, needed) in members {
                let needed = match needed {
                    Value::Array(names) => {
                        let names = names.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
                        let names =
                            names.ok_or_else(|| Refused::new(format!("{keyword} must be lists of names")))?;
                        self.spend(names.len())?;
                        requiring(std::iter::once(name.as_str()).chain(names))
                    }
                    // draft 3 allows a single name without a list
                    Value::String(needed) => requiring([name.as_str(), needed.as_str()].into_iter()),
                    part => {
                        let part =
                            self.below(keyword, |reader| reader.below(name, |reader| reader.read(part)))?;
                        self.meet(&part, requiring(std::iter::once(name.as_str())))?
                    }
                };
                let absent = outside::outside(self, &requiring(std::iter::once(name.as_str())))?;
                shape = self.meet(&shape, either(vec![absent, needed]))?;
            }
        }
        Ok(shape)
    }
}

/// Returns objects that have the given members.
fn requiring<'a>(names: impl Iterator<Item = &'a str>) -> Rc<Shape> {
    let mut known = HashSet::new();
    let required = names.filter(|name| known.insert(*name)).map(str::to_owned).collect();
    Rc::new(Shape::Object(ObjectShape { required, ..ObjectShape::default() }))
}
