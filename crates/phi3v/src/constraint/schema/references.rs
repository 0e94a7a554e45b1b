//! Where the references of a schema lead: to places, to parts with an `$id`, to anchors. None leads out of the schema.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Refused;
use super::pointer::{self, Pointer};

/// Keywords whose values are no schemas, whatever they look like.
const NO_SCHEMAS: [&str; 4] = ["const", "enum", "default", "examples"];

/// The references of a schema.
#[derive(Debug, Default)]
pub(super) struct References {
    /// By the place of their text in memory.
    targets: HashMap<usize, Result<Pointer, Refused>>,
}

/// A part that an address names.
struct Resource {
    address: String,
    pointer: Pointer,
    anchors: HashMap<String, Pointer>,
}

/// What is found on a way through a schema.
struct Walk<'a> {
    resources: Vec<Resource>,
    /// References with the resource that they stand in.
    references: Vec<(&'a Value, usize)>,
    /// The keyword of addresses, which draft 4 writes without a dollar.
    id: &'static str,
}

impl References {
    /// Those of a schema, and where each leads.
    pub(super) fn of(root: &Value) -> Self {
        let draft = root.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let is_old = ["draft-03", "draft-04"].iter().any(|name| draft.contains(name));
        let mut walk = Walk {
            resources: vec![Resource::new(String::new(), Pointer::new())],
            references: Vec::new(),
            id: if is_old { "id" } else { "$id" },
        };
        let mut open = vec![(root, Pointer::new(), 0)];
        while let Some((value, pointer, resource)) = open.pop() {
            match value {
                Value::Object(members) => {
                    let resource = walk.visit(members, &pointer, resource);
                    for (name, part) in members {
                        if !NO_SCHEMAS.contains(&name.as_str()) && (part.is_object() || part.is_array()) {
                            open.push((
                                part,
                                [pointer.as_slice(), std::slice::from_ref(name)].concat(),
                                resource,
                            ));
                        }
                    }
                }
                Value::Array(items) => {
                    for (index, part) in items.iter().enumerate() {
                        open.push((part, [pointer.as_slice(), &[index.to_string()]].concat(), resource));
                    }
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

    /// Where a `$ref`, as it stands in the schema, leads.
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
    /// Notes what an object names and refers to; says which resource its parts are in.
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
        if let Some(reference) = members.get("$ref").filter(|reference| !reference.is_object()) {
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

/// An address within another (RFC 3986, 5.2), both without their fragments.
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

/// A path in the folder of another, without `.` and `..`.
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
        let references = References::of(&schema);
        let target = |place: &str| {
            let place = references.target(schema.pointer(place).unwrap());
            place.map(|place| place.join(" ")).map_err(|refused| refused.reason)
        };
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
}
