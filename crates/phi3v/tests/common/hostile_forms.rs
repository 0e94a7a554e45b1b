//! Forms that try to cost much: references, large numbers, repetitions within repetitions. Written from bytes, for the
//! fuzz target `form_work` and for the test `constraint_work`.

use phi3v::constraint::Grammar;
use serde_json::{Map, Value, json};

/// The form that some bytes describe.
pub(crate) fn form(bytes: &[u8]) -> Grammar {
    let mut source = Source { bytes, at: 0 };
    match source.below(4) {
        0 => Grammar::Regex(source.regex(6)),
        1 => Grammar::Lark(source.lark()),
        _ => {
            let links = [0, 3, 300][source.below(3)];
            let mut schema = source.schema(3);
            let parts: Map<String, Value> =
                (0..=links).map(|index| (format!("d{index}"), source.link(index))).collect();
            if let Some(members) = schema.as_object_mut() {
                members.insert("$defs".to_owned(), Value::Object(parts));
            }
            Grammar::JsonSchema(schema)
        }
    }
}

/// Schemas with long lists that are met with one another again and again.
#[allow(dead_code, reason = "the fuzz target makes its own")]
pub(crate) fn long_lists() -> [Value; 4] {
    let names = |count: usize| -> Vec<String> { (0..count).map(|index| format!("{index:x}")).collect() };
    let list = json!({"$ref": "#/$defs/a"});
    let others = json!({"not": list});
    let members: Map<_, _> = names(4_000).into_iter().map(|name| (name, json!({}))).collect();
    let word = json!({"$ref": "#/$defs/a", "minLength": 1});
    let words: Map<_, _> = names(400).into_iter().map(|name| (name, word.clone())).collect();
    [
        json!({"properties": words, "$defs": {"a": {"type": "string", "not": {"enum": names(4_000)}}}}),
        json!({"type": "object", "allOf": vec![&list; 1_117], "$defs": {"a": {"type": "object", "required": names(5_500)}}}),
        json!({"allOf": vec![&others; 900], "$defs": {"a": {"enum": names(5_000)}}}),
        json!({"type": "object", "allOf": vec![&list; 500], "$defs": {"a": {"type": "object", "properties": members}}}),
    ]
}

/// Forms just within the bounds on their input.
#[allow(dead_code, reason = "the fuzz target makes its own")]
pub(crate) fn known() -> Vec<Grammar> {
    // alternatives that begin alike and go on differently
    let alternatives = |bytes: usize, kind: usize| {
        let letters = (b'c'..=b'z').cycle().zip(0..bytes / 7);
        let alternative = |(letter, index)| format!("[a-{}]{}", char::from(letter), (index + kind) % 10);
        letters.map(alternative).collect::<Vec<_>>().join("|")
    };
    let lark = |bytes: usize, names: &str, sign: &str| {
        let share = bytes / names.len() - 20;
        let terminals = names.chars().enumerate();
        let terminals: String =
            terminals.map(|(kind, name)| format!("\n{name}: /({})*/", alternatives(share, kind))).collect();
        let names: Vec<String> = names.chars().map(String::from).collect();
        Grammar::Lark(format!("start: T\nT: {sign}{}{terminals}", names.join(" & ")))
    };
    let schema = Grammar::JsonSchema;
    let pattern = |bytes: usize| json!({"type": "string", "pattern": format!("^({})*$", alternatives(bytes, bytes % 10))});
    let pattern_of = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let multiples: Map<_, _> = (0..16)
        .map(|index| (format!("p{index}"), json!({"type": "integer", "multipleOf": 4_095 - 2 * index})))
        .collect();
    let wide =
        |count: usize| (0..count).map(|index| (format!("p{index}"), json!(true))).collect::<Map<_, _>>();
    let long = long_lists().map(schema);
    let mut forms = vec![
        lark(4_000, "AB", ""),
        lark(490, "ABC", ""),
        lark(180, "ABCD", ""),
        lark(4_000, "A", "~"),
        schema(json!({"allOf": [pattern(1_000), pattern(900)]})),
        schema(json!({"allOf": [pattern(90), pattern(91), pattern(92)]})),
        schema(json!({"properties": wide(500)})),
        schema(json!({"type": "object", "required": wide(1_500).keys().collect::<Vec<_>>()})),
        schema(json!({"enum": (0..5_000).map(|index| format!("{:x}", index * 7_919)).collect::<Vec<_>>()})),
        schema(
            json!({"patternProperties": (0..30).map(|index| (format!("^[a-z]*{index}x"), json!(true))).collect::<Map<_, _>>()}),
        ),
        schema(
            json!({"properties": wide(3_000), "patternProperties": (0..40).map(|index| (format!("^p{index}"), json!(true))).collect::<Map<_, _>>()}),
        ),
        schema(
            json!({"enum": (0..4_000).map(|index| f64::from(index) + 0.5).collect::<Vec<_>>(), "allOf": [{"enum": (0..4_000).collect::<Vec<_>>()}]}),
        ),
        schema(json!({"enum": ["ab".repeat(5_000)], "pattern": "^(a|b)*a(a|b){500}$"})),
        Grammar::Regex(".?".repeat(1_000)),
        Grammar::Regex(".*".repeat(1_000)),
        Grammar::Regex("(a|)".repeat(2_000)),
        Grammar::Regex(format!("(?i){}", "\\pL".repeat(2_000))),
        Grammar::Regex("\\w".repeat(32_000)),
        Grammar::Lark(format!("start: T\nT: {}", "\"a\"? ".repeat(1_000))),
        Grammar::Lark(format!("start: /{}/", ".?".repeat(1_000))),
        Grammar::Lark("start: e{200,800}\ne: e e | \"a\" | \"aa\" | e e e".to_owned()),
        Grammar::Lark("start: f{500}\nf: e{1,499}\ne: e e | \"a\" | \"aa\" | e e e".to_owned()),
        schema(
            json!({"anyOf": (0..4).map(|index| pattern_of(&format!("{}{index}", ".?".repeat(499)))).collect::<Vec<_>>()}),
        ),
        schema(json!({"properties": multiples.clone(), "required": multiples.keys().collect::<Vec<_>>()})),
        Grammar::Regex(alternatives(60_000, 0)),
        Grammar::Regex(format!("({})*a.{{1000}}", alternatives(2_000, 0))),
    ];
    forms.extend(long);
    forms
}

/// Decisions; after the last byte they are all the first choice.
struct Source<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Source<'_> {
    fn below(&mut self, limit: usize) -> usize {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(byte) % limit
    }

    fn number(&mut self) -> u64 {
        let choices =
            [0, 1, 2, 3, 7, 360, 997, 4_096, 65_536, 999_999, 4_194_304, 2_147_483_647, 1 << 40, u64::MAX];
        choices[self.below(choices.len())]
    }

    /// A definition that leads on to the next.
    fn link(&mut self, index: usize) -> Value {
        let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
        match self.below(7) {
            0 => json!({"type": "integer", "multipleOf": self.number().max(1)}),
            1 => next,
            2 => json!({"items": next, "minItems": self.number()}),
            3 => json!({"anyOf": [next, {"$ref": "#/$defs/d0"}]}),
            4 => json!({"allOf": [next, {"properties": {"a": {"$ref": "#"}}}]}),
            5 => json!({"properties": {"a": next}, "required": ["a"]}),
            _ => json!({"oneOf": [next, {"type": "string"}]}),
        }
    }

    fn schema(&mut self, depth: usize) -> Value {
        if depth == 0 {
            return json!({"$ref": format!("#/$defs/d{}", self.below(3))});
        }
        match self.below(12) {
            0 => json!({"type": "integer", "multipleOf": self.number().max(1), "minimum": self.number()}),
            1 => json!({"type": "string", "pattern": self.regex(3), "maxLength": self.number()}),
            2 => {
                json!({"type": "string", "allOf": [{"pattern": self.regex(2)}, {"pattern": self.regex(2)}, {"format": "email"}]})
            }
            3 => {
                json!({"items": self.schema(depth - 1), "minItems": self.number(), "maxItems": self.number()})
            }
            4 => {
                let names = (0..[1, 20, 200][self.below(3)]).map(|index| (format!("p{index}"), json!(true)));
                json!({"properties": names.collect::<Map<_, _>>(), "maxProperties": self.number(),
                    "patternProperties": {self.regex(2): self.schema(depth - 1), self.regex(2): true}})
            }
            5 => json!({"allOf": [self.schema(depth - 1), self.schema(depth - 1), self.schema(depth - 1)]}),
            6 => json!({"anyOf": vec![self.schema(depth - 1); 1 + self.below(40)]}),
            7 => json!({"oneOf": [self.schema(depth - 1), self.schema(depth - 1)]}),
            8 => {
                json!({"if": self.schema(depth - 1), "then": self.schema(depth - 1), "not": self.schema(depth - 1)})
            }
            9 => {
                json!({"items": self.schema(depth - 1), "uniqueItems": true, "contains": self.schema(depth - 1),
                    "maxContains": self.below(9), "dependentSchemas": {"a": self.schema(depth - 1)}})
            }
            10 => {
                json!({"oneOf": (0..2 + self.below(6)).map(|_| self.schema(depth - 1)).collect::<Vec<_>>()})
            }
            _ => {
                json!({"enum": (0..self.below(200)).map(|index| json!([index, "x".repeat(index)])).collect::<Vec<_>>()})
            }
        }
    }

    fn regex(&mut self, depth: usize) -> String {
        if depth == 0 {
            return ["a", "[a-z]", ".", "\\w", "\\pL", "(?:ab|a)", "[^a]"][self.below(7)].to_owned();
        }
        let inner = self.regex(depth - 1);
        match self.below(7) {
            0 => inner,
            1 => format!("({inner}){{{},{}}}", self.below(3), 3 + self.number() % 1_000),
            2 => format!("({inner}|{})*", self.regex(depth - 1)),
            3 => format!("(({inner})?)+"),
            4 => format!("{inner}{}", self.regex(depth - 1)),
            5 => format!("({inner})*a({inner}){{100}}"),
            _ => format!("{}{inner}{}", "(".repeat(200), ")".repeat(200)),
        }
    }

    fn lark(&mut self) -> String {
        let mut rules = vec!["start: r0".to_owned()];
        let count = [1, 5, 900][self.below(3)];
        for index in 0..count {
            let next = format!("r{}", index + 1);
            let other = format!("r{}", self.below(index + 2));
            rules.push(format!(
                "r{index}: {}",
                match self.below(7) {
                    0 => next,
                    1 => format!("{next} | \"{index}\" {other}"),
                    2 => format!(
                        "({next} {other}?){{{},{}}}",
                        self.below(3),
                        3 + self.number() % 2_000_000_000
                    ),
                    3 => format!("[[{next}]] /{}/", self.regex(2)),
                    4 => format!("{next}* {other}*"),
                    5 => format!("{other} {next} | T{}", self.below(3)),
                    _ => format!("(({next}~1..4)~1..4)~1..4"),
                }
            ));
        }
        rules.push(format!("r{count}: \"z\" | T0"));
        rules.push(format!("T0: /{}/ & /{}/\nT1: ~T0\nT2: (T0 T1){{1,500}}", self.regex(2), self.regex(2)));
        rules.join("\n")
    }
}
