//! Questions for decisions: one with its choices, or several from a file.

use crate::batch::questions::read_list;
use phi3v::decide::check_choices;
use serde::Deserialize;
use std::collections::HashSet;

/// A question and the answers to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The name of its decision in reports; `None` if it needs no name.
    pub name: Option<String>,
    /// The text that the model is asked.
    pub prompt: String,
    /// The answers to choose from.
    #[serde(default)]
    pub choices: Vec<String>,
}

impl Asked {
    /// A question without a name.
    #[must_use]
    pub fn new(prompt: &str, choices: &[String]) -> Self {
        Self { name: None, prompt: prompt.to_owned(), choices: choices.to_vec() }
    }
}

/// Reads a file of questions: one per line, or, if it begins with a brace or a bracket, JSON objects on lines or in a list.
/// Questions without choices get `choices`.
///
/// # Errors
/// What is wrong with the file, worded to follow its name.
pub fn parse(text: &str, choices: &[String]) -> Result<Vec<Asked>, String> {
    let mut questions = read_list(text, |line| Asked::new(line, &[]), plain)?;
    for (index, question) in questions.iter_mut().enumerate() {
        let number = index + 1;
        if question.prompt.trim().is_empty() {
            return Err(format!("question {number} is empty"));
        }
        if question.choices.is_empty() {
            question.choices = choices.to_vec();
        } else {
            check_choices(&question.choices).map_err(|reason| format!("question {number}: {reason}"))?;
        }
    }
    let mut names = HashSet::new();
    match questions.iter().filter_map(|question| question.name.as_ref()).find(|name| !names.insert(*name)) {
        Some(name) => Err(format!("{name} is the name of two questions")),
        None => Ok(questions),
    }
}

/// The parser's message without the names of Rust types.
fn plain(error: &serde_json::Error) -> String {
    error.to_string().replace("struct Asked", "an object with prompt and choices")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::questions::QUESTIONS_MAX;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn questions_come_as_lines_or_as_objects() {
        let common = words(&["yes", "no"]);
        let lines = parse("\u{feff}Is it red?\r\n\n  Is it round?\n", &common).unwrap();
        assert_eq!(lines, [Asked::new("Is it red?", &common), Asked::new("Is it round?", &common)]);
        let objects = r#"{"prompt": "Is it red?"}
            {"name": "kind", "prompt": "What is it?", "choices": ["a cat", "a dog"]}"#;
        let own =
            Asked { name: Some("kind".to_owned()), ..Asked::new("What is it?", &words(&["a cat", "a dog"])) };
        assert_eq!(parse(objects, &common).unwrap(), [Asked::new("Is it red?", &common), own]);
        assert_eq!(parse(r#"[{"prompt": "x"}]"#, &[]).unwrap(), [Asked::new("x", &[])]);
    }

    #[test]
    fn what_is_no_list_of_questions_is_refused() {
        let many = "x\n".repeat(QUESTIONS_MAX + 1);
        for (text, told) in [
            ("", "there is none"),
            (" \n\n", "there is none"),
            ("[]", "there is none"),
            ("{\"prompt\": \"x\"", "EOF"),
            ("{\"question\": \"x\"}", "unknown field `question`"),
            ("[1]", "expected an object with prompt and choices"),
            ("{\"prompt\": \" \"}", "question 1 is empty"),
            ("{\"prompt\": \"x\", \"choices\": \"yes\"}", "expected a sequence"),
            (
                r#"{"prompt": "x", "choices": ["a", "b"]}{"prompt": "x", "choices": ["a"]}"#,
                "question 2: a question has 1 choice, it must have 2 to 255",
            ),
            (r#"{"prompt": "x", "choices": ["a", " "]}"#, "question 1: choice 2 is empty"),
            (
                r#"{"prompt": "x", "choices": ["a", "b", "a "]}"#,
                "question 1: the choices \"a\" and \"a \" are the same answer",
            ),
            (r#"{"prompt": "x", "name": "n"}{"prompt": "y", "name": "n"}"#, "n is the name of two questions"),
            (&many, "there are 1025, the limit is 1024"),
        ] {
            let refused = parse(text, &[]).unwrap_err();
            assert!(refused.contains(told), "{text:.40}: {refused}");
        }
    }
}
