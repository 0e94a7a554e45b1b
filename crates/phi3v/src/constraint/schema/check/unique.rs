//! Items of an answer that is not whole yet which must not come twice: no grammar can know what came before.
//!
//! An array has different items here where any part of the schema that may be about it says `uniqueItems`, whether or
//! not that part is the one that counts.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::super::pointer;
use super::super::references::References;
use super::instance;

/// Parts of a schema that are thought of for one value. There are never many more than the schema nests.
const PARTS_MAX: usize = 1_000;

/// An array that is not closed yet.
struct Open {
    /// The texts of its whole items.
    seen: HashSet<String>,
    /// Where the item begins that is not whole yet.
    item: usize,
}

/// The arrays of different items that an answer is within.
pub(in super::super::super) struct OpenArrays<'a> {
    text: &'a [u8],
    arrays: Vec<Open>,
}

/// Whether some array must have different items.
pub(super) fn is_asked_for(schema: &Value) -> bool {
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) if says_unique(members) => return true,
            Value::Object(members) => open.extend(members.values()),
            _ => {}
        }
    }
    false
}

fn says_unique(schema: &Map<String, Value>) -> bool {
    schema.get("uniqueItems") == Some(&Value::Bool(true))
}

impl<'a> OpenArrays<'a> {
    /// Those at the end of a text.
    pub(super) fn of(schema: &Value, references: &References, text: &'a [u8]) -> Self {
        let mut reader = Reader { root: schema, references, text, at: 0, arrays: Vec::new() };
        reader.value(&reader.parts(vec![schema]));
        Self { text, arrays: reader.arrays }
    }

    /// Whether there is none.
    pub(in super::super::super) fn is_empty(&self) -> bool {
        self.arrays.is_empty()
    }

    /// Whether an item would be ended that has come before.
    pub(in super::super::super) fn would_repeat(&self, bytes: &[u8]) -> bool {
        if !bytes.iter().any(|byte| b"\",]} \t\r\n".contains(byte)) {
            return false;
        }
        self.arrays.iter().any(|array| {
            let item = [&self.text[array.item..], bytes].concat();
            whole_value(&item)
                .and_then(|end| canonical(&item[..end]))
                .is_some_and(|item| array.seen.contains(&item))
        })
    }
}

fn canonical(item: &[u8]) -> Option<String> {
    let mut text = String::new();
    instance::read(std::str::from_utf8(item).ok()?).ok()?.canonical(&mut text);
    Some(text)
}

/// Where a value that begins a text ends, if what follows says so or it ends by itself.
fn whole_value(text: &[u8]) -> Option<usize> {
    let references = References::default();
    let mut reader = Reader { root: &Value::Null, references: &references, text, at: 0, arrays: Vec::new() };
    reader.value(&[]).then_some(reader.at)
}

struct Reader<'a> {
    root: &'a Value,
    references: &'a References,
    text: &'a [u8],
    at: usize,
    arrays: Vec<Open>,
}

impl<'a> Reader<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Goes past a value that parts of the schema may be about; false if the text ends before it does.
    fn value(&mut self, parts: &[&'a Value]) -> bool {
        match self.peek() {
            None => false,
            Some(b'"') => self.string().is_some(),
            Some(b'[') => self.array(parts),
            Some(b'{') => self.object(parts),
            Some(_) => {
                let rest = &self.text[self.at..];
                let length = rest.iter().position(|byte| b",]} \t\r\n".contains(byte));
                self.at += length.unwrap_or(rest.len());
                length.is_some()
            }
        }
    }

    /// Goes past a string.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += 1;
            match self.text.get(self.at)? {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => break,
                _ => {}
            }
        }
        self.at += 1;
        Some(&self.text[start..self.at])
    }

    fn array(&mut self, parts: &[&'a Value]) -> bool {
        let unique = parts.iter().filter_map(|part| part.as_object()).any(says_unique);
        self.at += 1;
        let place = self.arrays.len();
        if unique {
            self.arrays.push(Open { seen: HashSet::new(), item: self.at });
        }
        let mut index = 0;
        loop {
            match self.peek() {
                None => return false,
                Some(b']') => break,
                Some(b',') => self.at += 1,
                _ => {}
            }
            self.peek();
            let start = self.at;
            if let Some(array) = self.arrays.get_mut(place).filter(|_| unique) {
                array.item = start;
            }
            if !self.value(&self.parts(items(parts, index))) {
                return false;
            }
            let item = canonical(&self.text[start..self.at]);
            if let Some(array) = self.arrays.get_mut(place).filter(|_| unique) {
                array.seen.extend(item);
                array.item = self.at;
            }
            index += 1;
        }
        self.at += 1;
        self.arrays.truncate(place);
        true
    }

    fn object(&mut self, parts: &[&'a Value]) -> bool {
        self.at += 1;
        loop {
            match self.peek() {
                None => return false,
                Some(b'}') => break,
                Some(b'"') => {}
                Some(_) => {
                    self.at += 1;
                    continue;
                }
            }
            let Some(name) = self.string() else { return false };
            let name: String = serde_json::from_slice(name).unwrap_or_default();
            if self.peek() == Some(b':') {
                self.at += 1;
            }
            if !self.value(&self.parts(members(parts, &name))) {
                return false;
            }
        }
        self.at += 1;
        true
    }

    /// Parts of the schema with all that they are made of.
    fn parts(&self, mut found: Vec<&'a Value>) -> Vec<&'a Value> {
        let mut index = 0;
        while let Some(&part) = found.get(index).filter(|_| found.len() < PARTS_MAX) {
            index += 1;
            let Value::Object(part) = part else { continue };
            let mut more: Vec<&'a Value> = Vec::new();
            for keyword in ["allOf", "anyOf", "oneOf"] {
                more.extend(part.get(keyword).and_then(Value::as_array).into_iter().flatten());
            }
            more.extend(["if", "then", "else"].iter().filter_map(|keyword| part.get(*keyword)));
            for keyword in ["dependentSchemas", "dependencies"] {
                more.extend(part.get(keyword).and_then(Value::as_object).into_iter().flat_map(Map::values));
            }
            let place = part.get("$ref").and_then(|reference| self.references.target(reference).ok());
            more.extend(place.and_then(|place| pointer::find(self.root, place)));
            for part in more {
                if !found.iter().any(|known| std::ptr::eq(*known, part)) {
                    found.push(part);
                }
            }
        }
        found
    }
}

/// Parts about the item at a place of an array.
fn items<'a>(parts: &[&'a Value], index: usize) -> Vec<&'a Value> {
    let mut found = Vec::new();
    for part in parts.iter().filter_map(|part| part.as_object()) {
        for keyword in ["prefixItems", "items", "additionalItems"] {
            match part.get(keyword) {
                Some(Value::Array(first)) => found.extend(first.get(index)),
                other => found.extend(other),
            }
        }
    }
    found
}

/// Parts about a member of an object.
fn members<'a>(parts: &[&'a Value], name: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    for part in parts.iter().filter_map(|part| part.as_object()) {
        found.extend(part.get("properties").and_then(|members| members.get(name)));
        found.extend(part.get("additionalProperties"));
        found.extend(
            part.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values),
        );
    }
    found
}
