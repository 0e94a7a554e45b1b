//! An answer as written: numbers to the digit, members in their order, including repeated names.

use super::super::decimal::Decimal;
use super::Unmet;

/// Maximum nesting of arrays and objects. The stack holds several times as many.
pub(super) const LEVELS_MAX: usize = 10_000;

/// A JSON value of an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Instance<'a> {
    /// The value `null`, which has no parts.
    Null,
    /// One of the values `true` and `false`.
    Boolean(bool),
    /// A number, with its text in the answer.
    Number(Decimal, &'a str),
    /// A string with its escapes resolved.
    Text(String),
    /// An array of its items in order.
    Array(Vec<Self>),
    /// An object of its members in order.
    Object(Vec<(String, Self)>),
}

impl Instance<'_> {
    /// Writes a text that equal values have in common: 1 and 1.0 are equal, and the order of members is ignored.
    pub(super) fn canonical(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(value, _) => out.push_str(&format!("{value:?}")),
            Self::Text(text) => out.push_str(&format!("{text:?}")),
            Self::Array(items) => {
                out.push('[');
                for item in items {
                    item.canonical(out);
                    out.push(',');
                }
                out.push(']');
            }
            Self::Object(members) => {
                let members: std::collections::BTreeMap<_, _> =
                    members.iter().map(|(name, member)| (name, member)).collect();
                out.push('{');
                for (name, member) in members {
                    out.push_str(&format!("{name:?}:"));
                    member.canonical(out);
                    out.push(',');
                }
                out.push('}');
            }
        }
    }
}

/// Reads an answer.
pub(super) fn read(answer: &str) -> Result<Instance<'_>, Unmet> {
    let mut reader = Reader { text: answer, at: 0, level: 0 };
    let value = reader.value()?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.wrong("goes on after its value")),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// Number of bytes read so far.
    at: usize,
    level: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, how: &str) -> Unmet {
        Unmet::violated(format!("it is no JSON: it {how} (byte {})", self.at))
    }

    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.text.as_bytes().get(self.at).copied()
    }

    fn next_if(&mut self, sign: u8) -> bool {
        let found = self.peek() == Some(sign);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Result<Instance<'a>, Unmet> {
        match self.peek() {
            Some(b'"') => self.string().map(Instance::Text),
            Some(b'[') => self.array(),
            Some(b'{') => self.object(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [
                    ("null", Instance::Null),
                    ("true", Instance::Boolean(true)),
                    ("false", Instance::Boolean(false)),
                ];
                for (word, value) in words {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.wrong("lacks a value"))
            }
        }
    }

    fn string(&mut self) -> Result<String, Unmet> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let length = end.ok_or_else(|| self.wrong("has a string without an end"))? + 2;
        let text = serde_json::from_str(&rest[..length]).map_err(|_| self.wrong("has a wrong string"))?;
        self.at += length;
        Ok(text)
    }

    fn number(&mut self) -> Result<Instance<'a>, Unmet> {
        let rest = &self.text[self.at..];
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && !"+-.eE".contains(letter));
        let text = &rest[..end.unwrap_or(rest.len())];
        if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
            return Err(self.wrong("has a wrong number"));
        }
        let value = Decimal::parse(text).ok_or_else(|| self.wrong("has a number that is too long"))?;
        self.at += text.len();
        Ok(Instance::Number(value, text))
    }

    fn enter(&mut self) -> Result<(), Unmet> {
        self.at += 1;
        self.level += 1;
        if self.level > LEVELS_MAX {
            return Err(Unmet::undecided(format!("the answer has more than {LEVELS_MAX} levels")));
        }
        Ok(())
    }

    fn array(&mut self) -> Result<Instance<'a>, Unmet> {
        self.enter()?;
        let mut items = Vec::new();
        while !self.next_if(b']') {
            if !items.is_empty() && !self.next_if(b',') {
                return Err(self.wrong("lacks a comma"));
            }
            items.push(self.value()?);
        }
        self.level -= 1;
        Ok(Instance::Array(items))
    }

    fn object(&mut self) -> Result<Instance<'a>, Unmet> {
        self.enter()?;
        let mut members = Vec::new();
        while !self.next_if(b'}') {
            if !members.is_empty() && !self.next_if(b',') {
                return Err(self.wrong("lacks a comma"));
            }
            if self.peek() != Some(b'"') {
                return Err(self.wrong("lacks a name"));
            }
            let name = self.string()?;
            if !self.next_if(b':') {
                return Err(self.wrong("lacks a colon"));
            }
            members.push((name, self.value()?));
        }
        self.level -= 1;
        Ok(Instance::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_json_reader_reads_and_nothing_else() {
        let texts = [
            "null",
            " true ",
            "false",
            "0",
            "-0.5e+3",
            "\"a\\\"\\u00e9\\\\\"",
            "[]",
            "[ ]",
            "[1, [2], {}]",
            "{\"a\": {\"b\": []}, \"c\": null}",
            "{ }",
            "\t[\n1\r,2 ]\n",
            "\"\\\\\"",
            "",
            "nul",
            "truex",
            "01",
            "1.",
            "+1",
            ".5",
            "1e",
            "-",
            "--1",
            "1-1",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\n\"",
            "\"\\ud800\"",
            "[",
            "[1",
            "[1 2]",
            "[1,]",
            "[,1]",
            "]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:2}",
            "{\"a\" 1}",
            "1 2",
            "[] []",
            "\u{a0}1",
            "NaN",
        ];
        for text in texts {
            let expected = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(read(text).is_ok(), expected, "{text:?}: {:?}", read(text));
        }
        let Ok(Instance::Object(members)) = read("{\"a\":1.50,\"a\":9007199254740993}") else { panic!() };
        assert_eq!(members.len(), 2);
        assert_eq!(
            members[1].1,
            Instance::Number(Decimal::parse("9007199254740993").unwrap(), "9007199254740993")
        );
    }

    #[test]
    fn levels_are_counted() {
        let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        assert!(read(&nested(100)).is_ok());
        let deep = nested(LEVELS_MAX + 1);
        let thread = std::thread::Builder::new().stack_size(64 << 20);
        let words = thread.spawn(move || format!("{:?}", read(&deep).err())).unwrap().join().unwrap();
        assert!(words.contains("more than 10000 levels"), "{words}");
    }
}
