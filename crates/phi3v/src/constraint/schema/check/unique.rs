//! Items of an unfinished answer that must not be repeated: a grammar cannot know what came before.
//!
//! Here an array counts as one of different items if any part of the schema that may apply to it has `uniqueItems`,
//! whether or not that part is the one that decides.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_json::{Map, Value};

use super::super::pointer;
use super::super::references::References;
use super::super::{Refused, asks_unique};
use super::instance::{self, LEVELS_MAX};
use super::outline::Outline;

/// Maximum number of schema parts considered for one value. There are rarely many more than the schema's nesting levels.
const PARTS_MAX: usize = 1_000;

/// An array that is not closed yet.
struct Open {
    /// The ranges of its complete items in the text.
    whole: Vec<Range<usize>>,
    /// The canonical forms of those items, computed on first use.
    seen: Option<HashSet<String>>,
    /// Where the incomplete item begins.
    item: usize,
}

/// The complete items of an array that its incomplete item may still become.
struct Alike {
    array: usize,
    /// The index of the array among the containers.
    container: usize,
    /// The existing part of the incomplete item.
    begun: Outline,
    /// The remainders of the outlines of the complete items, in order.
    rests: Vec<Vec<u8>>,
    /// The length of the longest remainder.
    longest: usize,
}

/// The effect of a token on the items of the arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super::super) enum Outlook {
    /// No incomplete item is limited to continuations that make it equal to an earlier item.
    Free,
    /// An unfinished item may become one of the earlier items; whether it must is for the grammar to say.
    InDoubt,
    /// An item has ended that its array already has.
    Repeats,
}

/// The position in a value at which a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// In no value: between two values, or where a value must begin.
    Between,
    /// In a number or a word, which ends with what follows it.
    Scalar,
    /// In a string, possibly after a backslash that the next byte belongs to.
    String { escaped: bool },
}

/// The arrays of different items that are open at the end of an answer.
pub(in super::super::super) struct OpenArrays<'a> {
    text: &'a [u8],
    arrays: Vec<Open>,
    /// The arrays and objects that the text has opened, the outermost first: the index in `arrays` of each, if it has one.
    containers: Vec<Option<usize>>,
    ending: Ending,
    /// The arrays whose items may become equal to earlier ones, computed on first use.
    alike: Option<Vec<Alike>>,
    /// For an array and the rest of its item: whether the item is a repetition. Most tokens that end an item end it in the
    /// same way, and reading an item takes time proportional to its length.
    verdicts: HashMap<EndedItem, bool>,
}

/// An item that a token ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EndedItem {
    /// The index of its array among the open arrays.
    array: usize,
    /// What the token adds to the item.
    rest: Vec<u8>,
}

/// Returns whether some array must have different items.
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
    // a value that is neither true nor false has been refused elsewhere if it matters
    asks_unique(schema).unwrap_or(false)
}

impl<'a> OpenArrays<'a> {
    /// Finds the arrays open at the end of a text.
    ///
    /// # Errors
    /// If the text has too many levels, each of which takes stack.
    pub(super) fn of(schema: &Value, references: &References, text: &'a [u8]) -> Result<Self, Refused> {
        let mut reader = Reader {
            root: schema,
            references,
            text,
            at: 0,
            arrays: Vec::new(),
            containers: Vec::new(),
            ending: Ending::Between,
            is_too_deep: false,
        };
        reader.value(&reader.parts(vec![schema]));
        let Reader { arrays, containers, ending, is_too_deep, .. } = reader;
        if is_too_deep {
            return Err(Refused::new(format!("the answer has more than {LEVELS_MAX} levels")));
        }
        Ok(Self { text, arrays, containers, ending, alike: None, verdicts: HashMap::new() })
    }

    /// Returns whether no array has an item that could be repeated.
    pub(in super::super::super) fn is_empty(&self) -> bool {
        self.arrays.iter().all(|array| array.whole.is_empty())
    }

    /// Returns whether the text ends within a string.
    pub(in super::super::super) fn ends_in_a_string(&self) -> bool {
        matches!(self.ending, Ending::String { .. })
    }

    /// Returns the effect of a token on the items.
    pub(in super::super::super) fn outlook(&mut self, token: &[u8]) -> Outlook {
        let Walk { open, ended, begins_item, .. } = self.walk(token);
        if ended.iter().any(|item| self.has_come(item.clone())) {
            return Outlook::Repeats;
        }
        if self.alike.is_none() {
            self.alike = Some(self.alike());
        }
        let goes_on =
            |alike: &&Alike| alike.container < open && !ended.iter().any(|item| item.array == alike.array);
        let mut alike = self.alike.iter().flatten().filter(goes_on);
        if begins_item || alike.any(|alike| self.may_become_one_of(alike, token)) {
            return Outlook::InDoubt;
        }
        Outlook::Free
    }

    /// Follows a token through the arrays and objects.
    fn walk(&self, token: &[u8]) -> Walk<'_> {
        let open = self.containers.len();
        let mut walk = Walk { arrays: self, open, new: 0, ended: Vec::new(), begins_item: false };
        let mut ending = self.ending;
        for (at, byte) in token.iter().enumerate() {
            ending = match (ending, byte) {
                (Ending::String { escaped: true }, _) => Ending::String { escaped: false },
                (Ending::String { .. }, b'\\') => Ending::String { escaped: true },
                (Ending::String { .. }, b'"') => {
                    walk.value_ends(&token[..=at]);
                    Ending::Between
                }
                (Ending::String { .. }, _) => ending,
                (_, b'"') => Ending::String { escaped: false },
                (_, b'[' | b'{') => {
                    walk.new += 1;
                    Ending::Between
                }
                (_, b',' | b':' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n') => {
                    if ending == Ending::Scalar {
                        walk.value_ends(&token[..at]);
                    }
                    match byte {
                        b']' | b'}' => walk.container_ends(&token[..=at]),
                        b',' => walk.begins_item |= walk.array().is_some(),
                        _ => {}
                    }
                    Ending::Between
                }
                _ => Ending::Scalar,
            };
        }
        walk
    }

    /// Returns the arrays whose items may become equal to earlier ones.
    fn alike(&self) -> Vec<Alike> {
        let arrays = self.containers.iter().enumerate();
        let arrays = arrays.filter_map(|(container, array)| array.map(|array| (container, array)));
        arrays.filter_map(|(container, array)| self.alike_in(container, array)).collect()
    }

    fn alike_in(&self, container: usize, array: usize) -> Option<Alike> {
        let Open { whole, item, .. } = &self.arrays[array];
        let whole = whole.iter().map(|item| Outline::of(&self.text[item.clone()], true, usize::MAX).bytes);
        let whole: Vec<Vec<u8>> = whole.collect();
        let longest = whole.iter().map(Vec::len).max()?;
        let begun = Outline::of(without_comma(&self.text[*item..]), false, longest);
        let rests = whole.iter().filter_map(|outline| outline.strip_prefix(begun.bytes.as_slice()));
        let mut rests: Vec<Vec<u8>> = rests.map(<[u8]>::to_vec).collect();
        rests.sort_unstable();
        let longest = rests.iter().map(Vec::len).max()?;
        Some(Alike { array, container, begun, rests, longest })
    }

    /// Returns whether the item that a token continues may be one of those it has matched so far.
    fn may_become_one_of(&self, alike: &Alike, token: &[u8]) -> bool {
        let Alike { array, begun, rests, longest, .. } = alike;
        let begins_one = |added: &[u8]| {
            let place = rests.partition_point(|rest| rest.as_slice() < added);
            rests.get(place).is_some_and(|rest| rest.starts_with(added))
        };
        let in_string = self.ending == Ending::String { escaped: false } && !begun.is_cut;
        if in_string && !token.iter().any(|byte| b"\"\\".contains(byte)) {
            return begins_one(token);
        }
        let item = without_comma(&self.text[self.arrays[*array].item..]);
        let outline = Outline::of(&[item, token].concat(), false, begun.bytes.len() + longest);
        outline.bytes.strip_prefix(begun.bytes.as_slice()).is_some_and(begins_one)
    }

    /// Returns whether an item, with what a token adds to it, equals an earlier one.
    fn has_come(&mut self, item: EndedItem) -> bool {
        if let Some(&verdict) = self.verdicts.get(&item) {
            return verdict;
        }
        let (text, array) = (self.text, &mut self.arrays[item.array]);
        let seen = array.seen.get_or_insert_with(|| {
            array.whole.iter().filter_map(|item| canonical(&text[item.clone()])).collect()
        });
        let whole = [&text[array.item..], &item.rest].concat();
        let verdict = canonical(without_comma(&whole)).is_some_and(|whole| seen.contains(&whole));
        self.verdicts.insert(item, verdict);
        verdict
    }
}

/// Returns an item without the comma before it, which may be part of the same token.
fn without_comma(item: &[u8]) -> &[u8] {
    let item = item.trim_ascii_start();
    item.strip_prefix(b",").unwrap_or(item)
}

/// The effect of a token on the arrays and objects that a text has opened.
struct Walk<'a> {
    arrays: &'a OpenArrays<'a>,
    /// How many of the text's containers are still open.
    open: usize,
    /// How many containers the token itself has opened inside them.
    new: usize,
    /// The items that the token ends in arrays with complete items; only the first of each array.
    ended: Vec<EndedItem>,
    /// Whether a further item of an array must follow.
    begins_item: bool,
}

impl Walk<'_> {
    /// Returns the array of different items at the current position, if no other array or object is in between.
    fn array(&self) -> Option<usize> {
        let container = self.open.checked_sub(1).filter(|_| self.new == 0)?;
        self.arrays.containers[container]
    }

    /// Records that a value ends with `rest` of the token.
    fn value_ends(&mut self, rest: &[u8]) {
        let Some(array) = self.array() else { return };
        let is_first = self.ended.last().is_none_or(|last| last.array != array);
        if is_first && !self.arrays.arrays[array].whole.is_empty() {
            self.ended.push(EndedItem { array, rest: rest.to_vec() });
        }
    }

    /// Records that the innermost array or object ends with `rest` of the token.
    fn container_ends(&mut self, rest: &[u8]) {
        match self.new {
            0 => self.open = self.open.saturating_sub(1),
            _ => self.new -= 1,
        }
        self.value_ends(rest);
    }
}

fn canonical(item: &[u8]) -> Option<String> {
    let mut text = String::new();
    instance::read(std::str::from_utf8(item).ok()?).ok()?.canonical(&mut text);
    Some(text)
}

struct Reader<'a> {
    root: &'a Value,
    references: &'a References,
    text: &'a [u8],
    at: usize,
    arrays: Vec<Open>,
    containers: Vec<Option<usize>>,
    ending: Ending,
    /// Whether the reader has stopped because arrays and objects are nested too deeply.
    is_too_deep: bool,
}

impl<'a> Reader<'a> {
    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Skips a value that parts of the schema may apply to; returns false if the text ends before the value does.
    fn value(&mut self, parts: &[&'a Value]) -> bool {
        match self.peek() {
            None => false,
            Some(b'[' | b'{') if self.containers.len() >= LEVELS_MAX => {
                self.is_too_deep = true;
                false
            }
            Some(b'"') => self.string().is_some(),
            Some(b'[') => self.array(parts),
            Some(b'{') => self.object(parts),
            Some(_) => {
                let rest = &self.text[self.at..];
                let length = rest.iter().position(|byte| b",]} \t\r\n".contains(byte));
                self.at += length.unwrap_or(rest.len());
                if length.is_none() {
                    self.ending = Ending::Scalar;
                }
                length.is_some()
            }
        }
    }

    /// Skips a string.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += 1;
            match self.text.get(self.at) {
                None => {
                    self.ending = Ending::String { escaped };
                    return None;
                }
                Some(_) if escaped => escaped = false,
                Some(b'\\') => escaped = true,
                Some(b'"') => break,
                Some(_) => {}
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
            self.arrays.push(Open { whole: Vec::new(), seen: None, item: self.at });
        }
        self.containers.push(unique.then_some(place));
        // the parts for all items after those that have parts of their own
        let (singled_out, mut behind) = (singled_out(parts), None);
        for index in 0.. {
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
            let is_whole = if index < singled_out {
                self.value(&self.parts(items(parts, index)))
            } else {
                self.value(behind.get_or_insert_with(|| self.parts(items(parts, index))))
            };
            if !is_whole {
                return false;
            }
            if let Some(array) = self.arrays.get_mut(place).filter(|_| unique) {
                array.whole.push(start..self.at);
                array.item = self.at;
            }
        }
        self.at += 1;
        self.arrays.truncate(place);
        self.containers.pop();
        true
    }

    fn object(&mut self, parts: &[&'a Value]) -> bool {
        self.at += 1;
        self.containers.push(None);
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
        self.containers.pop();
        true
    }

    /// Returns parts of the schema together with all parts they consist of.
    fn parts(&self, mut found: Vec<&'a Value>) -> Vec<&'a Value> {
        let mut known: HashSet<*const Value> = found.iter().map(|part| std::ptr::from_ref(*part)).collect();
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
            found.extend(more.into_iter().filter(|part| known.insert(std::ptr::from_ref(*part))));
        }
        found
    }
}

/// Returns how many items of an array, counted from the first, have parts of their own.
fn singled_out(parts: &[&Value]) -> usize {
    let lists = parts.iter().filter_map(|part| part.as_object());
    let lists = lists.flat_map(|part| ["prefixItems", "items"].map(|keyword| part.get(keyword)));
    lists.filter_map(|list| list.and_then(Value::as_array)).map(Vec::len).max().unwrap_or(0)
}

/// Returns the parts that apply to the item at an index of an array.
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

/// Returns the parts that apply to a member of an object.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn open_arrays<'a>(schema: &Value, text: &'a str) -> OpenArrays<'a> {
        OpenArrays::of(schema, &References::of(schema), text.as_bytes()).unwrap()
    }

    /// Nested arrays whose items must differ; the items of the innermost are strings.
    fn nested(levels: usize) -> Value {
        (0..levels).fold(
            json!({"type": "string"}),
            |items, _| json!({"type": "array", "minItems": 1, "uniqueItems": true, "items": items}),
        )
    }

    #[test]
    fn levels_are_bounded() {
        let schema =
            json!({"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}, "uniqueItems": true});
        let references = References::of(&schema);
        let ends = |text: String| {
            let of = || Ok(OpenArrays::of(&schema, &references, text.as_bytes()).err());
            crate::constraint::on_large_stack(of).unwrap()
        };
        for open in ["[1,", "{\"a\":"] {
            assert_eq!(ends(open.repeat(LEVELS_MAX)), None);
            let refused = ends(open.repeat(LEVELS_MAX + 1)).unwrap();
            assert_eq!(refused.reason, "the answer has more than 10000 levels");
        }
    }

    /// The items that a token ends, each as its array and what the token adds to it.
    fn ended<'a>(arrays: &OpenArrays, token: &'a str) -> Vec<(usize, &'a str)> {
        let rest = |item: EndedItem| (item.array, token.get(..item.rest.len()).unwrap());
        arrays.walk(token.as_bytes()).ended.into_iter().map(rest).collect()
    }

    #[test]
    fn only_tokens_that_end_an_item_have_it_read() {
        let text = format!("{}[\"a\"],[\"{}", "[".repeat(19), "long ".repeat(2_000));
        let schema = nested(20);
        let mut arrays = open_arrays(&schema, &text);
        assert_eq!((arrays.containers.len(), arrays.ending), (20, Ending::String { escaped: false }));
        for token in [" ", "  ", " a", ", b] c}", "\n", "]]", "\\\"", " \\\" ", "\\\\"] {
            assert_eq!(arrays.outlook(token.as_bytes()), Outlook::Free);
            assert_eq!(ended(&arrays, token), [], "{token}");
        }
        // the innermost array has no complete item, and the next outer one has one
        assert_eq!(ended(&arrays, "\""), []);
        assert_eq!(ended(&arrays, "\"]"), [(18, "\"]")]);
        assert!(arrays.verdicts.is_empty(), "no item was read");
        for token in ["\"]", "\"] ", "\"],", "\"],[", "\"]]", "\"]]]"] {
            assert_ne!(arrays.outlook(token.as_bytes()), Outlook::Repeats, "{token}");
        }
        assert_eq!(arrays.verdicts.len(), 1, "tokens that end an item alike have it read once");
    }

    #[test]
    fn arrays_without_a_whole_item_ask_nothing() {
        let schema = nested(20);
        assert!(open_arrays(&schema, &format!("{}\"a", "[".repeat(20))).is_empty());
        assert!(!open_arrays(&schema, &format!("{}\"a\"", "[".repeat(20))).is_empty());
    }

    #[test]
    fn an_item_ends_where_its_own_text_says() {
        let schema = json!({"type": "array", "uniqueItems": true});
        for (text, token, repeats) in [
            ("[1,1", ",", true),
            ("[1,1", " ", true),
            ("[1,1", "]", true),
            ("[1,1", "2,", false),
            ("[1,1", ".0,", true),
            ("[12,1", "2\n", true),
            ("[true,tru", "e]", true),
            ("[\"a,b\",\"a", ",b", false),
            ("[\"a,b\",\"a", ",b\"", true),
            ("[\"a,b\"", ", \"a,b\"", true),
            ("[\"a\\\"\",\"a", "\\\"", false),
            ("[\"a\\\"\",\"a\\", "\"\"", true),
            ("[{\"a\":[1],\"b\":2},{\"b\":2,\"a\":[1", "]", false),
            ("[{\"a\":[1],\"b\":2},{\"b\":2,\"a\":[1", "]}", true),
            ("[[1,2],[1", ",2]", true),
            ("[[1,2],[1", ",[2]]", false),
            ("[[],", "[]", true),
            ("{\"a\":[1,1", "]}", false),
            ("[[[1]],[[1", "]]]", true),
        ] {
            let outlook = open_arrays(&schema, text).outlook(token.as_bytes());
            assert_eq!(outlook == Outlook::Repeats, repeats, "{text} {token}");
        }
    }

    #[test]
    fn an_item_is_in_doubt_while_it_may_be_one_of_those_before_it() {
        let schema = json!({"type": "array", "uniqueItems": true});
        for (text, token, in_doubt) in [
            ("[12,", "1", true),
            ("[12,", "2", false),
            ("[12,1", "3", false),
            // another spelling of the same number
            ("[12,1", ".", true),
            ("[12,12", ".0", true),
            ("[12", ",", true),
            ("[12", ",3", true),
            ("[\"ab\",", "\"", true),
            ("[\"ab\",\"", "a", true),
            ("[\"ab\",\"", "ac", false),
            // the escape's character is not known yet
            ("[\"ab\",\"", "\\", true),
            ("[\"ab\",\"c", "\\", false),
            ("[\"a\\nb\",\"a", "\\u000", true),
            ("[\"a\\nb\",\"a\\u000", "a", true),
            ("[\"a\\nb\",\"a\\u000", "b", false),
            ("[\"ab\",\"c", "d", false),
            ("[\"ab\",\"c", "\"", false),
            // a further item must follow, which may be limited to earlier ones
            ("[\"ab\",\"c", "\",", true),
            ("[\"ab\",\"c", "\"]", false),
            ("[{\"a\":1,\"b\":2},{\"a\":1.0,\"b", "\":", true),
            ("[{\"a\":1,\"b\":2},{\"a\":2,\"b", "\":", false),
            // nested arrays, one of which may continue with other items
            ("[[1,2],[1", ",", true),
            ("[[1,2],[3,4", "5", false),
            ("[[1,2],[3,2", "]", false),
        ] {
            let outlook = open_arrays(&schema, text).outlook(token.as_bytes());
            assert_eq!(outlook == Outlook::InDoubt, in_doubt, "{text} {token}: {outlook:?}");
        }
    }

    #[test]
    fn items_have_their_own_parts_and_those_behind_them_the_others() {
        let schema =
            json!({"prefixItems": [true, {"uniqueItems": true}], "items": {"items": {"uniqueItems": true}}});
        for (text, repeats) in [
            ("[[1,1", false),
            ("[0,[1,1", true),
            ("[0,0,[1,1", false),
            ("[0,0,[[1,1", true),
            ("[0,0,[[1],[1,1", true),
        ] {
            assert_eq!(open_arrays(&schema, text).outlook(b"]") == Outlook::Repeats, repeats, "{text}");
        }
    }
}
