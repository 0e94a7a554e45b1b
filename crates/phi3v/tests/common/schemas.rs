//! Random schemas with most keywords there are.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use serde_json::{Map, Value, json};

/// Writes random schemas.
struct Schemas<'a> {
    random: &'a mut Pcg64,
    definitions: usize,
}

impl Schemas<'_> {
    fn below(&mut self, limit: u32) -> u32 {
        self.random.next_u32() % limit
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(u32::try_from(all.len()).unwrap()) as usize].clone()
    }

    fn whole(&mut self) -> Value {
        let choices =
            [0, 1, -1, 2, 3, 7, 10, -10, 99, 100, 4096, 9_007_199_254_740_993, i64::MAX, i64::MIN, -12_345];
        json!(self.one_of(&choices))
    }

    fn number(&mut self) -> Value {
        let text = [
            "0.5", "-0.5", "1.5", "-1.5", "0.25", "99.5", "1e-7", "1e3", "0.1", "-0.001", "2.25", "1e20",
            "-1e20",
        ];
        if self.below(2) == 0 { self.whole() } else { serde_json::from_str(self.one_of(&text)).unwrap() }
    }

    fn scalar(&mut self) -> Value {
        match self.below(5) {
            0 => json!(null),
            1 => json!(self.below(2) == 0),
            2 => self.number(),
            _ => json!(self.one_of(&["", "a", "b\nc", "\"", "\u{e9}", "tab\t\\"])),
        }
    }

    fn schema(&mut self, depth: usize) -> Value {
        let leaf = depth == 0;
        match self.below(if leaf { 7 } else { 15 }) {
            0 => self.numbers("number"),
            1 => self.numbers("integer"),
            2 => self.strings(),
            3 => json!({"enum": [self.scalar(), self.scalar(), self.scalar()]}),
            4 => json!({"const": self.scalar()}),
            5 => json!({"type": self.one_of(&["null", "boolean", "string", "integer"])}),
            6 if self.definitions > 0 => {
                let definitions = u32::try_from(self.definitions).unwrap();
                json!({"$ref": format!("#/$defs/d~1{}", self.below(definitions))})
            }
            6 => json!(true),
            7 | 8 => self.arrays(depth - 1),
            9 | 10 => self.objects(depth - 1),
            11 => {
                let keyword = self.one_of(&["anyOf", "allOf", "oneOf"]);
                json!({keyword: [self.schema(depth - 1), self.schema(depth - 1)]})
            }
            12 => self.conditions(depth - 1),
            13 => json!({"not": self.schema(depth - 1)}),
            _ => {
                let mut schema = self.schema(depth - 1);
                if let Some(members) = schema.as_object_mut() {
                    members
                        .insert("anyOf".to_owned(), json!([self.schema(depth - 1), self.schema(depth - 1)]));
                }
                schema
            }
        }
    }

    fn conditions(&mut self, depth: usize) -> Value {
        let mut schema = json!({"if": self.schema(depth)});
        for keyword in ["then", "else"] {
            if self.below(3) > 0 {
                schema[keyword] = self.schema(depth);
            }
        }
        schema
    }

    fn numbers(&mut self, kind: &str) -> Value {
        let mut schema = Map::from_iter([("type".to_owned(), json!(kind))]);
        for keyword in ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"] {
            if self.below(3) == 0 {
                schema.insert(keyword.to_owned(), self.number());
            }
        }
        if self.below(4) == 0 {
            let multiple =
                self.one_of(&["1", "2", "3", "7", "10", "0.5", "0.25", "1000", "360", "997", "4096"]);
            schema.insert("multipleOf".to_owned(), serde_json::from_str(multiple).unwrap());
            if multiple.contains('.') {
                // the validator takes no number below zero for a multiple of a fraction
                schema.insert("minimum".to_owned(), json!(0));
            }
        }
        Value::Object(schema)
    }

    fn strings(&mut self) -> Value {
        let mut schema = Map::from_iter([("type".to_owned(), json!("string"))]);
        for keyword in ["minLength", "maxLength"] {
            if self.below(3) == 0 {
                schema.insert(keyword.to_owned(), json!(self.below(8)));
            }
        }
        match self.below(4) {
            0 => {
                let patterns = [
                    "^[a-z]+$",
                    "a|b",
                    "^x",
                    "\\d{2,3}$",
                    "^.{2}$",
                    "^(ab|c)*$",
                    "[^a]",
                    "^\\S\\s\\w$",
                    "^a|b$",
                ];
                schema.insert("pattern".to_owned(), json!(self.one_of(&patterns)));
            }
            1 => {
                let formats = [
                    "date",
                    "time",
                    "date-time",
                    "duration",
                    "email",
                    "hostname",
                    "ipv4",
                    "ipv6",
                    "uuid",
                    "uri",
                ];
                schema.insert("format".to_owned(), json!(self.one_of(&formats)));
            }
            _ => {}
        }
        Value::Object(schema)
    }

    fn arrays(&mut self, depth: usize) -> Value {
        let mut schema = Map::from_iter([("type".to_owned(), json!("array"))]);
        if self.below(3) > 0 {
            schema.insert("items".to_owned(), self.schema(depth));
        }
        if self.below(3) == 0 {
            schema.insert("prefixItems".to_owned(), json!([self.schema(depth), self.schema(depth)]));
        }
        for (keyword, limit) in [("minItems", 3), ("maxItems", 5)] {
            if self.below(2) == 0 {
                schema.insert(keyword.to_owned(), json!(self.below(limit)));
            }
        }
        if self.below(3) == 0 {
            schema.insert("uniqueItems".to_owned(), json!(true));
        }
        if self.below(5) == 0 {
            schema.insert("contains".to_owned(), self.schema(depth));
            for keyword in ["minContains", "maxContains"] {
                if self.below(3) == 0 {
                    schema.insert(keyword.to_owned(), json!(self.below(3)));
                }
            }
        }
        Value::Object(schema)
    }

    fn objects(&mut self, depth: usize) -> Value {
        let mut schema = Map::from_iter([("type".to_owned(), json!("object"))]);
        let names = ["a", "b", "n\n", "\"q\"", "x1"];
        let count = self.below(4) as usize;
        let properties: Map<String, Value> =
            names[..count].iter().map(|name| ((*name).to_owned(), self.schema(depth))).collect();
        schema.insert("properties".to_owned(), Value::Object(properties));
        let required: Vec<&str> = names.iter().filter(|_| self.below(3) == 0).copied().collect();
        schema.insert("required".to_owned(), json!(required));
        match self.below(4) {
            0 => schema.insert("additionalProperties".to_owned(), self.schema(depth)),
            1 | 2 => schema.insert("additionalProperties".to_owned(), json!(false)),
            _ => schema.insert("patternProperties".to_owned(), json!({"^x": self.schema(depth), "z$": true})),
        };
        for (keyword, limit) in [("minProperties", 3), ("maxProperties", 5)] {
            if self.below(4) == 0 {
                schema.insert(keyword.to_owned(), json!(self.below(limit)));
            }
        }
        if self.below(4) == 0 {
            let needed = self.one_of(&names);
            let name = self.one_of(&names);
            schema.insert("dependentRequired".to_owned(), json!({name: [needed]}));
        }
        if self.below(6) == 0 {
            let names =
                [json!({"pattern": "^[a-n]"}), json!({"enum": ["a", "b", "c"]}), json!({"maxLength": 1})];
            schema.insert("propertyNames".to_owned(), self.one_of(&names));
        }
        Value::Object(schema)
    }
}

/// A schema of up to three levels, with parts that it refers to.
pub fn random_schema(random: &mut Pcg64) -> Value {
    let definitions = (random.next_u32() % 3) as usize;
    let mut schemas = Schemas { random, definitions };
    let mut schema = schemas.schema(2);
    let parts: Map<String, Value> =
        (0..definitions).map(|index| (format!("d/{index}"), schemas.schema(1))).collect();
    if let Some(members) = schema.as_object_mut().filter(|_| definitions > 0) {
        members.insert("$defs".to_owned(), Value::Object(parts));
    }
    schema
}
