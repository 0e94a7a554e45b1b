//! The questions asked about every picture: one, or several from a file.

use phi3v::constraint::Grammar;
use phi3v::presets::Preset;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashSet;

/// Most questions in a file.
pub const QUESTIONS_MAX: usize = 1024;
/// Most bytes of a question's name.
const NAME_BYTES_MAX: usize = 128;

/// A question asked about every picture.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The suffix of its rows' names after the picture's name; `None` if there is only one question.
    pub name: Option<String>,
    /// The text that the model is asked.
    #[serde(default)]
    pub prompt: String,
    /// The JSON schema that its answer follows; a preset's name is already replaced by its schema.
    pub schema: Option<Value>,
    /// The regular expression that must match its whole answer.
    pub regex: Option<String>,
    /// The texts from which its answer is chosen.
    pub choices: Option<Vec<String>>,
}

impl Question {
    /// The only question of a job, which needs no name.
    #[must_use]
    pub fn alone(prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), ..Self::default() }
    }

    /// The form of its answers, if any.
    #[must_use]
    pub fn form(&self) -> Option<Grammar> {
        let Self { schema, regex, choices, .. } = self;
        let schema = schema.clone().map(Grammar::JsonSchema);
        let regex = regex.clone().map(Grammar::Regex);
        schema.or(regex).or_else(|| choices.clone().map(Grammar::Choices))
    }

    /// Sets the form of its answers to `form`, if they have none.
    pub fn set_form(&mut self, form: &Grammar) {
        if self.form().is_some() {
            return;
        }
        match form.clone() {
            Grammar::JsonSchema(schema) => self.schema = Some(schema),
            Grammar::Regex(pattern) => self.regex = Some(pattern),
            Grammar::Choices(choices) => self.choices = Some(choices),
            // cannot be requested here
            Grammar::JsonObject | Grammar::Lark(_) => {}
        }
    }

    /// Replaces a preset's name by its schema, and uses the preset's question if there is none.
    fn resolve(&mut self) -> Result<(), String> {
        let Some(Value::String(name)) = &self.schema else { return Ok(()) };
        let preset = Preset::named(name)
            .ok_or_else(|| format!("there is no preset {name:?}, there are {}", Preset::names()))?;
        if self.prompt.trim().is_empty() {
            preset.question().clone_into(&mut self.prompt);
        }
        self.schema = Some(preset.schema());
        Ok(())
    }

    /// The name of the row for the picture `picture`.
    #[must_use]
    pub fn row_id(&self, picture: &str) -> String {
        match &self.name {
            Some(name) => format!("{picture}#{name}"),
            None => picture.to_owned(),
        }
    }
}

/// Reads a file of questions: one per line, or, if it begins with a brace or a bracket, JSON objects on lines or in a list.
/// Questions without a name are named by their number, from 1.
///
/// # Errors
/// What is wrong with the file, worded to follow its name.
pub fn parse(text: &str) -> Result<Vec<Question>, String> {
    check(read_list(text, Question::alone, plain)?)
}

/// The parser's message without the names of Rust types.
fn plain(error: &serde_json::Error) -> String {
    error.to_string().replace("struct Question", "an object with a prompt")
}

/// Reads a list of one to [`QUESTIONS_MAX`] questions: `of_line` converts a line, objects are deserialized directly, and
/// `plain` rewords the parser's messages.
///
/// # Errors
/// As for [`parse`].
pub fn read_list<Q: DeserializeOwned>(
    text: &str,
    of_line: impl Fn(&str) -> Q,
    plain: impl Fn(&serde_json::Error) -> String,
) -> Result<Vec<Q>, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let questions: Vec<Q> = match text.chars().next() {
        None => Vec::new(),
        Some('[') => serde_json::from_str(text).map_err(|error| plain(&error))?,
        Some('{') => {
            let objects = serde_json::Deserializer::from_str(text).into_iter();
            objects.collect::<Result<_, _>>().map_err(|error| plain(&error))?
        }
        Some(_) => text.lines().map(str::trim).filter(|line| !line.is_empty()).map(of_line).collect(),
    };
    match questions.len() {
        0 => Err("there is none".to_owned()),
        1..=QUESTIONS_MAX => Ok(questions),
        many => Err(format!("there are {many}, the limit is {QUESTIONS_MAX}")),
    }
}

fn check(mut questions: Vec<Question>) -> Result<Vec<Question>, String> {
    let mut names = HashSet::new();
    for (index, question) in questions.iter_mut().enumerate() {
        let number = index + 1;
        question.resolve()?;
        let forms = [question.schema.is_some(), question.regex.is_some(), question.choices.is_some()];
        if forms.into_iter().filter(|&given| given).count() > 1 {
            return Err(format!("question {number} has more than one of schema, regex and choices"));
        }
        let name = question.name.get_or_insert_with(|| number.to_string());
        if question.prompt.trim().is_empty() {
            return Err(format!("question {number} is empty"));
        }
        let is_plain = |letter: char| !letter.is_control() && letter != '#';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
            return Err(format!(
                "the name of question {number} must have 1 to {NAME_BYTES_MAX} bytes on one line, without #"
            ));
        }
        if !names.insert(name.clone()) {
            return Err(format!("{name} is the name of two questions"));
        }
    }
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_and_prompts(text: &str) -> Vec<(String, String)> {
        let named = |question: Question| (question.name.unwrap(), question.prompt);
        parse(text).unwrap().into_iter().map(named).collect()
    }

    #[test]
    fn questions_come_as_lines_or_as_objects() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, prompt)| ((*name).to_owned(), (*prompt).to_owned())).collect()
        };
        let plain = pairs(&[("1", "What is it?"), ("2", "Who made it?")]);
        assert_eq!(names_and_prompts("\u{feff}What is it?\r\n\r\n  Who made it?\n"), plain);
        assert_eq!(names_and_prompts(r#"[{"prompt": "What is it?"}, {"prompt": "Who made it?"}]"#), plain);
        let lines = "{\"name\": \"a\", \"prompt\": \"x\"}\n{\"prompt\": \"y\",\n \"schema\": {\"type\": \"object\"}}\n";
        assert_eq!(names_and_prompts(lines), pairs(&[("a", "x"), ("2", "y")]));
        assert!(parse(lines).unwrap()[1].schema.is_some());
        let forms = r#"{"schema": "@alt"}{"schema": "@alt", "prompt": "z"}{"prompt": "y", "choices": ["a", "b"]}{"prompt": "y", "regex": "a"}"#;
        let [own, other, choices, regex] = &parse(forms).unwrap()[..] else { panic!("four") };
        let alt = Preset::named("@alt").unwrap();
        assert_eq!((own.prompt.as_str(), other.prompt.as_str()), (alt.question(), "z"));
        assert_eq!((&own.schema, own.form()), (&Some(alt.schema()), Some(Grammar::JsonSchema(alt.schema()))));
        assert_eq!(choices.form(), Some(Grammar::Choices(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(regex.form(), Some(Grammar::Regex("a".to_owned())));
        assert_eq!(parse("x").unwrap()[0].row_id("a/b.png"), "a/b.png#1");
        assert_eq!(Question::alone("x").row_id("a/b.png"), "a/b.png");
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
            ("[1]", "expected an object with a prompt"),
            ("{\"schema\": \"@letter\"}", "there is no preset \"@letter\", there are @receipt, "),
            ("{\"schema\": {}}", "question 1 is empty"),
            ("{\"prompt\": \"x\", \"regex\": \"a\", \"choices\": [\"b\"]}", "question 1 has more than one"),
            ("{\"prompt\": \" \"}", "question 1 is empty"),
            ("{\"prompt\": \"x\", \"name\": \"\"}", "the name of question 1"),
            ("{\"prompt\": \"x\", \"name\": \"a\\nb\"}", "the name of question 1"),
            ("{\"prompt\": \"x\", \"name\": \"a#b\"}", "without #"),
            ("{\"prompt\": \"x\", \"name\": \"2\"}{\"prompt\": \"y\"}", "2 is the name of two"),
            (&many, "there are 1025, the limit is 1024"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(told), "{text:.40}: {refused}");
        }
    }
}
