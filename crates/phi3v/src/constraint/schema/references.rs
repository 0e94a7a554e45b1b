//! The targets of the references of a schema: places, parts with an `$id`, anchors. No target is outside of the schema.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Refused;
use super::pointer::{self, Pointer};

/// Keywords whose values are not schemas, even if they look like schemas.
const NO_SCHEMAS: [&str; 4] = ["const", "enum", "default", "examples"];

/// Keywords whose members are schemas under arbitrary names chosen by the author.
const NAMED_SCHEMAS: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// The references of a schema.
#[derive(Debug, Default)]
pub(super) struct References {
    /// The targets, by the address in memory of the reference's text.
    targets: HashMap<usize, Result<Pointer, Refused>>,
}

/// A part of the schema that has an address.
struct Resource {
    address: String,
    pointer: Pointer,
    anchors: HashMap<String, Pointer>,
}

/// A place visited on a walk through a schema.
struct Place<'a> {
    value: &'a Value,
    pointer: Pointer,
    /// The resource that contains the place.
    resource: usize,
    /// Whether the members of the value are schemas while the value itself is not.
    is_of_names: bool,
}

impl<'a> Place<'a> {
    /// Returns the place of a part.
    fn below(&self, value: &'a Value, key: &str, resource: usize) -> Self {
        let pointer = [self.pointer.as_slice(), &[key.to_owned()]].concat();
        Self { value, pointer, resource, is_of_names: false }
    }
}

/// What a walk through a schema has found.
struct Walk<'a> {
    resources: Vec<Resource>,
    /// References, each with the resource that contains it.
    references: Vec<(&'a Value, usize)>,
    /// The keyword of addresses, which draft 4 writes without a dollar.
    id: &'static str,
}

impl References {
    /// Finds the references of a schema and resolves each one.
    pub(super) fn of(root: &Value) -> Self {
        let draft = root.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let is_old = ["draft-03", "draft-04"].iter().any(|name| draft.contains(name));
        let mut walk = Walk {
            resources: vec![Resource::new(String::new(), Pointer::new())],
            references: Vec::new(),
            id: if is_old { "id" } else { "$id" },
        };
        let mut open = vec![Place { value: root, pointer: Pointer::new(), resource: 0, is_of_names: false }];
        while let Some(place) = open.pop() {
            match place.value {
                Value::Object(members) if place.is_of_names => {
                    open.extend(members.iter().map(|(name, part)| place.below(part, name, place.resource)));
                }
                Value::Object(members) => {
                    let resource = walk.visit(members, &place.pointer, place.resource);
                    let parts = members.iter().filter(|(name, _)| !NO_SCHEMAS.contains(&name.as_str()));
                    open.extend(parts.map(|(name, part)| Place {
                        is_of_names: NAMED_SCHEMAS.contains(&name.as_str()),
                        ..place.below(part, name, resource)
                    }));
                }
                Value::Array(items) => {
                    let items = items.iter().enumerate();
                    open.extend(items.map(|(i, part)| place.below(part, &i.to_string(), place.resource)));
                }
                _ => {}
            }
        }
        let target = |&(text, resource): &(&Value, usize)| {
            let place = text.as_str().map_or_else(
                || Err(Refused::new("$ref must be a string")),
                |text| walk.target(text, resource),
            );
            (std::ptr::from_ref(text) as usize, place)
        };
        Self { targets: walk.references.iter().map(target).collect() }
    }

    /// Returns the target of a `$ref`, given as the value in the schema itself.
    pub(super) fn target(&self, reference: &Value) -> Result<&Pointer, Refused> {
        match self.targets.get(&(std::ptr::from_ref(reference) as usize)) {
            Some(Ok(pointer)) => Ok(pointer),
            Some(Err(refused)) => Err(refused.clone()),
            None => Err(Refused::new(format!("the reference {reference} stands where no schema is"))),
        }
    }
}

impl Resource {
    fn new(address: String, pointer: Pointer) -> Self {
        Self { address, pointer, anchors: HashMap::new() }
    }
}

impl<'a> Walk<'a> {
    /// Records what an object names and refers to. Returns the resource that contains the object's parts.
    fn visit(&mut self, members: &'a Map<String, Value>, pointer: &Pointer, mut resource: usize) -> usize {
        let word = |keyword: &str| members.get(keyword).and_then(Value::as_str);
        let id = word(self.id);
        if let Some(id) = id.filter(|id| !id.starts_with('#')) {
            let address =
                resolved(&self.resources[resource].address, id.split('#').next().unwrap_or_default());
            self.resources.push(Resource::new(address, pointer.clone()));
            resource = self.resources.len() - 1;
        }
        let anchors = [id.and_then(|id| id.strip_prefix('#')), word("$anchor"), word("$dynamicAnchor")];
        for anchor in anchors.into_iter().flatten() {
            self.resources[resource].anchors.entry(anchor.to_owned()).or_insert_with(|| pointer.clone());
        }
        if let Some(reference) = members.get("$ref") {
            self.references.push((reference, resource));
        }
        resource
    }

    fn target(&self, reference: &str, resource: usize) -> Result<Pointer, Refused> {
        let unusable = |why: &str| Refused::new(format!("the reference {reference:?} {why}"));
        let (address, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let found = if address.is_empty() {
            self.resources.get(resource)
        } else {
            let address = resolved(&self.resources[resource].address, address);
            self.resources.iter().find(|resource| resource.address == address)
        };
        let resource = found.ok_or_else(|| unusable("leads out of the schema, which cannot be followed"))?;
        if fragment.is_empty() || fragment.starts_with('/') || fragment.starts_with('%') {
            let inside = pointer::parse(&format!("#{fragment}"))?;
            return Ok([resource.pointer.as_slice(), &inside].concat());
        }
        resource.anchors.get(fragment).cloned().ok_or_else(|| unusable("names an anchor that is not there"))
    }
}

/// Resolves an address against a base (RFC 3986, 5.2), both without their fragments.
fn resolved(base: &str, address: &str) -> String {
    let scheme = |text: &str| {
        let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && !"+.-".contains(letter));
        end.filter(|&end| end > 0 && text[end..].starts_with(':'))
    };
    let Some(end) = scheme(base).filter(|_| scheme(address).is_none()) else {
        return if scheme(address).is_some() { address.to_owned() } else { in_folder("", base, address) };
    };
    let (scheme, rest) = base.split_at(end + 1);
    if address.starts_with("//") {
        return [scheme, address].concat();
    }
    match rest.strip_prefix("//") {
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            in_folder(&[scheme, "//", host].concat(), if path.is_empty() { "/" } else { path }, address)
        }
        None => address.to_owned(),
    }
}

/// Resolves a path relative to the folder of another, without `.` and `..`.
fn in_folder(before: &str, base: &str, path: &str) -> String {
    let folder = match base.rfind('/').filter(|_| !path.starts_with('/')) {
        Some(end) => &base[..=end],
        None => "",
    };
    let mut parts: Vec<&str> = Vec::new();
    let all = [folder, path].concat();
    for part in all.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop().filter(|part| !part.is_empty());
            }
            part => parts.push(part),
        }
    }
    [before, &parts.join("/")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_resolved() {
        for (base, address, expected) in [
            ("", "a.json", "a.json"),
            ("http://x.org/a/b.json", "c.json", "http://x.org/a/c.json"),
            ("http://x.org/a/b.json", "../c/./d.json", "http://x.org/c/d.json"),
            ("http://x.org/a/b.json", "/c", "http://x.org/c"),
            ("http://x.org", "c", "http://x.org/c"),
            ("http://x.org/a/", "//y.org/c", "http://y.org/c"),
            ("http://x.org/a/", "urn:x:1", "urn:x:1"),
            ("folder/a", "b", "folder/b"),
        ] {
            assert_eq!(resolved(base, address), expected, "{base} {address}");
        }
    }

    /// Returns the target of the reference at a place of a schema, or why it has none.
    fn targets(schema: &Value) -> impl Fn(&str) -> Result<String, String> {
        let references = References::of(schema);
        move |place| {
            let place = references.target(schema.pointer(place).unwrap());
            place.map(|place| place.join(" ")).map_err(|refused| refused.reason)
        }
    }

    #[test]
    fn references_lead_to_places_addresses_and_anchors() {
        let schema = json!({"$id": "http://x.org/root.json", "properties": {
            "a": {"$ref": "#here"}, "b": {"$ref": "part.json"}, "c": {"$ref": "part.json#there"},
            "d": {"$ref": "part.json#/$defs/x"}, "e": {"$ref": "#/$defs/a~1b"}, "f": {"$ref": "http://x.org/root.json"},
            "g": {"$ref": "other.json"}, "h": {"$ref": "#nowhere"},
        }, "$defs": {
            "a/b": {"$anchor": "here"},
            "p": {"$id": "part.json", "$defs": {"x": {"$anchor": "there"}, "y": {"$ref": "#/$defs/x"}}},
        }});
        let target = targets(&schema);
        for (name, expected) in [
            ("a", "$defs a/b"),
            ("b", "$defs p"),
            ("c", "$defs p $defs x"),
            ("d", "$defs p $defs x"),
            ("e", "$defs a/b"),
            ("f", ""),
        ] {
            assert_eq!(target(&format!("/properties/{name}/$ref")).as_deref(), Ok(expected), "{name}");
        }
        assert_eq!(target("/$defs/p/$defs/y/$ref").as_deref(), Ok("$defs p $defs x"));
        assert!(target("/properties/g/$ref").unwrap_err().contains("leads out of the schema"));
        assert!(target("/properties/h/$ref").unwrap_err().contains("anchor that is not there"));
    }

    #[test]
    fn names_of_members_and_definitions_are_no_keywords() {
        let schema = json!({
            "properties": {
                "examples": {"items": {"$ref": "#/$defs/default"}},
                "enum": {"$ref": "#const"},
                "$id": {"$ref": "#/$defs/const"},
                "$ref": {"properties": {"properties": {"$ref": "#/$defs/default"}}},
                "properties": {"default": {"$ref": "#/$defs/default"}},
            },
            "patternProperties": {"const": {"$ref": "#/$defs/const"}},
            "dependentSchemas": {"default": {"$ref": "#/$defs/const"}},
            "$defs": {
                "default": {"properties": {"const": {"$ref": "#/$defs/const"}}},
                "const": {"$anchor": "const", "default": {"$ref": "#", "$anchor": "no anchor"}},
                "$anchor": {"$ref": "#no anchor"},
            },
            "definitions": {"enum": {"$ref": "#/$defs/default"}},
            "dependencies": {"examples": {"$ref": "#/$defs/default"}},
        });
        let target = targets(&schema);
        for (place, expected) in [
            ("/properties/examples/items", "$defs default"),
            ("/properties/enum", "$defs const"),
            ("/properties/$id", "$defs const"),
            ("/properties/$ref/properties/properties", "$defs default"),
            ("/patternProperties/const", "$defs const"),
            ("/dependentSchemas/default", "$defs const"),
            ("/$defs/default/properties/const", "$defs const"),
            ("/definitions/enum", "$defs default"),
            ("/dependencies/examples", "$defs default"),
        ] {
            assert_eq!(target(&format!("{place}/$ref")).as_deref(), Ok(expected), "{place}");
        }
        // what stands below the keyword `default` is a value, even if the keyword is one of a member named `properties`
        for place in ["/$defs/const/default", "/properties/properties/default"] {
            assert!(
                target(&format!("{place}/$ref")).unwrap_err().contains("stands where no schema is"),
                "{place}"
            );
        }
        assert!(target("/$defs/$anchor/$ref").unwrap_err().contains("anchor that is not there"));
    }
}
