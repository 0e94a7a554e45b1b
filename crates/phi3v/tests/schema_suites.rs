//! The forms that people and the standard's authors write: how many schemas are refused, and that no answer is wrong.
//!
//! `scripts/schema-suites` runs it on checkouts of two public suites, which are not part of this repository.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use common::forms::Forms;
use common::say;
use phi3v::constraint::Grammar;
use phi3v_kernels::testing::skip;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Schemas drawn from the first suite, of some 10,000.
const DRAWN: usize = 719;

/// Answers drawn for each schema.
const ANSWERS: u64 = 3;

/// Tokens of an answer, at most.
const TOKENS_MAX: usize = 500;

/// A schema and what its suite says of some values.
struct Case {
    name: String,
    schema: Value,
    /// Values, with whether the schema validates them.
    values: Vec<(Value, bool)>,
}

/// Reads the cases of a suite from its folder.
type Cases = fn(&Path) -> Vec<Case>;

/// What became of the schemas of a suite.
#[derive(Default)]
struct Outcome {
    schemas: usize,
    /// Names of schemas by the reason of their refusal.
    refused: BTreeMap<String, Vec<String>>,
    answers: usize,
    /// Answers that were not finished in time.
    unfinished: usize,
    /// Answers that came to an end that no token leads out of, by the words of the error.
    failed: BTreeMap<String, Vec<String>>,
    /// Schemas that the validator does not take.
    unjudged: usize,
    /// Values that the schema validates and that the form does not let through.
    narrower: usize,
    values: usize,
    wrong: Vec<String>,
}

impl Forms {
    fn run(&self, case: &Case, outcome: &mut Outcome) {
        outcome.schemas += 1;
        let constraint = match self.factory.constraint(&Grammar::JsonSchema(case.schema.clone())) {
            Ok(constraint) => constraint,
            Err(error) => {
                outcome.refused.entry(error.to_string()).or_default().push(case.name.clone());
                return;
            }
        };
        for (value, valid) in &case.values {
            outcome.values += 1;
            match (self.takes(&mut constraint.clone(), &value.to_string()), valid) {
                (true, false) => outcome.wrong.push(format!("{}: takes {value}", case.name)),
                (false, true) => outcome.narrower += 1,
                _ => {}
            }
        }
        let validator = jsonschema::options().should_validate_formats(true).build(&case.schema).ok();
        outcome.unjudged += usize::from(validator.is_none());
        for seed in 0..ANSWERS {
            match self.answer(&mut constraint.clone(), &mut Pcg64::seed_from_u64(seed), TOKENS_MAX) {
                Ok(None) => outcome.unfinished += 1,
                Err(error) => outcome.failed.entry(error).or_default().push(case.name.clone()),
                Ok(Some(answer)) => {
                    outcome.answers += 1;
                    let value = serde_json::from_str(&answer).ok();
                    let right = value.as_ref().is_some_and(|value| {
                        validator.as_ref().is_none_or(|validator| validator.is_valid(value))
                    });
                    if !right {
                        outcome.wrong.push(format!("{}: gives {answer}", case.name));
                    }
                }
            }
        }
    }
}

/// All files below a folder that end with `.json`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "json") {
            found.push(path);
        }
    }
    found
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).ok()
}

/// The schemas of the first suite whose names have the smallest digests.
fn real_world(folder: &Path) -> Vec<Case> {
    let mut named: Vec<(Vec<u8>, String)> = files(&folder.join("data"))
        .iter()
        .map(|path| path.strip_prefix(folder).unwrap().display().to_string())
        .map(|name| (Sha256::digest(&name).to_vec(), name))
        .collect();
    named.sort();
    let cases = named.into_iter().filter_map(|(_, name)| {
        let schema = json(&folder.join(&name)).filter(Value::is_object)?;
        Some(Case { name, schema, values: Vec::new() })
    });
    cases.take(DRAWN).collect()
}

/// The required part of the standard's suite, draft 2020-12.
fn official(folder: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for path in files(&folder.join("tests/draft2020-12")) {
        if path.components().any(|part| part.as_os_str() == "optional") {
            continue;
        }
        for group in json(&path).unwrap().as_array().unwrap() {
            let values = group["tests"].as_array().unwrap().iter();
            cases.push(Case {
                name: format!("{}: {}", path.file_stem().unwrap().display(), group["description"]),
                schema: group["schema"].clone(),
                values: values.map(|test| (test["data"].clone(), test["valid"].as_bool().unwrap())).collect(),
            });
        }
    }
    cases
}

fn report(suite: &str, outcome: &Outcome) {
    let refused: usize = outcome.refused.values().map(Vec::len).sum();
    let failed: usize = outcome.failed.values().map(Vec::len).sum();
    let mut reasons: Vec<_> = outcome.refused.iter().chain(&outcome.failed).collect();
    reasons.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    for (reason, names) in reasons {
        say(&format!("{:5} {reason} ({})", names.len(), names[0]));
    }
    for wrong in &outcome.wrong {
        say(&format!("WRONG {wrong}"));
    }
    say(&format!(
        "{suite}: {} schemas, {refused} refused ({:.1} %), {} without a judge; {} answers, {} of them wrong, {failed} failed, {} cut off; {} valid values of {} not let through",
        outcome.schemas,
        100.0 * refused as f64 / outcome.schemas.max(1) as f64,
        outcome.unjudged,
        outcome.answers,
        outcome.wrong.len(),
        outcome.unfinished,
        outcome.narrower,
        outcome.values,
    ));
}

#[test]
fn public_suites_are_followed() {
    let forms = Forms::new();
    let suites: [(&str, &str, Cases); 2] = [
        ("PHI3V_JSONSCHEMABENCH", "jsonschemabench", real_world),
        ("PHI3V_JSON_SCHEMA_SUITE", "official", official),
    ];
    for (variable, suite, cases) in suites {
        let Some(folder) = std::env::var_os(variable) else {
            skip(
                &format!("{variable} is not set"),
                "run scripts/schema-suites with checkouts of both suites",
            );
            continue;
        };
        let cases = cases(Path::new(&folder));
        assert!(!cases.is_empty(), "{variable} names a folder without schemas");
        let mut outcome = Outcome::default();
        for case in &cases {
            forms.run(case, &mut outcome);
        }
        report(suite, &outcome);
        assert!(outcome.wrong.is_empty(), "{} answers are wrong", outcome.wrong.len());
    }
}
