//! Members that distinguish the choices of a `oneOf`, such as `kind`. They are found in the schema as written, so a choice
//! that leads back to the place being read need not be read for this.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::shape::Definitions;
use super::{Reader, Refused, pointer};

/// Maximum number of references that are followed to a choice, or to a member of it.
const REFERENCES_MAX: usize = 32;

impl<'a> Reader<'a> {
    /// Returns whether a required member has different values in the two choices, where each value is one of several strings.
    /// One of the two choices must allow only objects. `false` means that nothing is known.
    pub(super) fn have_other_tags(&mut self, a: &'a Value, b: &'a Value) -> Result<bool, Refused> {
        self.spend(1)?;
        let (Some(a), Some(b)) = (self.followed(a), self.followed(b)) else { return Ok(false) };
        let is_object = |choice: &Map<String, Value>| choice.get("type").is_some_and(|it| it == "object");
        for (choice, other) in [(a, b), (b, a)] {
            let required = choice.get("required").and_then(Value::as_array);
            for name in required.into_iter().flatten().filter_map(Value::as_str) {
                self.spend(1)?;
                if (is_object(choice) || is_object(other))
                    && let (Some(tags), Some(others)) = (self.tags(choice, name)?, self.tags(other, name)?)
                    && tags.is_disjoint(&others)
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Returns an object of the schema, or the object it refers to.
    fn followed(&self, mut part: &'a Value) -> Option<&'a Map<String, Value>> {
        for _ in 0..REFERENCES_MAX {
            let members = part.as_object()?;
            let Some(reference) = members.get("$ref") else { return Some(members) };
            part = pointer::find(self.root, self.references.target(reference).ok()?)?;
        }
        None
    }

    /// Returns the possible strings of a member; `None` if it may be something else.
    fn tags(
        &mut self,
        choice: &'a Map<String, Value>,
        name: &str,
    ) -> Result<Option<HashSet<&'a str>>, Refused> {
        let member = choice.get("properties").and_then(|members| members.get(name));
        let Some(member) = member.and_then(|member| self.followed(member)) else { return Ok(None) };
        let values = match (member.get("const"), member.get("enum")) {
            (Some(value), _) => std::slice::from_ref(value),
            (None, Some(Value::Array(values))) => values,
            _ => return Ok(None),
        };
        self.spend(values.len())?;
        Ok(values.iter().map(Value::as_str).collect())
    }
}
