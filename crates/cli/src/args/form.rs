//! The flags that give answers a form, for all commands that answer.

use crate::bounded::{self, TEXT_BYTES_MAX};
use crate::error::CliError;
use clap::Args;
use phi3v::constraint::{ConstraintError, ConstraintFactory, Grammar, GrammarConstraint, GrammarLimits};
use phi3v::presets::Preset;
use phi3v::tokenizer::Tokenizer;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The form of answers.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Form of the answer")]
#[group(multiple = false)]
pub struct FormArgs {
    /// JSON by a schema: a file with one, or a preset (@receipt, @invoice, @table, @card, @alt), which brings its own
    /// question where none is given; phi3v schemas shows them
    #[arg(long, value_name = "FILE|@NAME")]
    pub schema: Option<PathBuf>,
    /// Text that this regular expression matches as a whole
    #[arg(long, value_name = "PATTERN")]
    pub regex: Option<String>,
    /// One of these texts, separated by commas
    #[arg(long, value_name = "A,B,...", value_delimiter = ',')]
    pub choices: Vec<String>,
}

/// What the flags ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerForm {
    /// What answers are held to.
    pub grammar: Grammar,
    /// The question of a preset, for where none is given.
    pub question: Option<&'static str>,
}

impl FormArgs {
    /// The form that the flags ask for, if they ask for one.
    ///
    /// # Errors
    /// A file that cannot be read or is no JSON, or a preset that there is not.
    pub fn form(&self) -> Result<Option<AnswerForm>, CliError> {
        let plain = |grammar| Ok(Some(AnswerForm { grammar, question: None }));
        if let Some(name) = &self.schema {
            return AnswerForm::of_schema(name).map(Some);
        }
        if let Some(pattern) = &self.regex {
            return plain(Grammar::Regex(pattern.clone()));
        }
        if !self.choices.is_empty() {
            let choices = self.choices.iter().map(|choice| choice.trim().to_owned());
            return plain(Grammar::Choices(choices.collect()));
        }
        Ok(None)
    }
}

impl AnswerForm {
    fn of_schema(name: &Path) -> Result<Self, CliError> {
        let Some(named) = name.to_str().filter(|name| name.starts_with("@")) else {
            return Ok(Self { grammar: Grammar::JsonSchema(read_schema(name)?), question: None });
        };
        let preset = Preset::named(named).ok_or_else(|| CliError::NoPreset { name: named.to_owned() })?;
        Ok(Self { grammar: Grammar::JsonSchema(preset.schema()), question: Some(preset.question()) })
    }

    /// What holds an answer to the form.
    ///
    /// # Errors
    /// The form cannot be followed.
    pub fn constraint(&self, tokenizer: &Tokenizer) -> Result<GrammarConstraint, CliError> {
        let refused = |error: ConstraintError| CliError::from(phi3v::Error::from(error));
        let factory = ConstraintFactory::new(tokenizer, GrammarLimits::default()).map_err(refused)?;
        factory.constraint(&self.grammar).map_err(refused)
    }

    /// The schema, if the form is one.
    #[must_use]
    pub fn schema(&self) -> Option<&Value> {
        match &self.grammar {
            Grammar::JsonSchema(schema) => Some(schema),
            _ => None,
        }
    }
}

fn read_schema(path: &Path) -> Result<Value, CliError> {
    let shown = || path.display().to_string();
    let text = bounded::read_text(path, TEXT_BYTES_MAX).map_err(|error| {
        let hint = (error.kind() == ErrorKind::NotFound).then(|| no_schema(path));
        CliError::Unreadable { path: shown(), error, hint }
    })?;
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str(text).map_err(|error| CliError::Schema { path: shown(), reason: error.to_string() })
}

/// What the user can do where there is no file with a schema: a preset may be meant.
fn no_schema(path: &Path) -> String {
    let name = format!("@{}", path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase());
    match Preset::named(&name) {
        Some(preset) => format!("for the preset write --schema {}", preset.name),
        None => format!("check the path, or take a preset: {}", Preset::names()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(args: FormArgs) -> Result<Option<AnswerForm>, String> {
        args.form().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_ask_for_one_form() {
        assert_eq!(form(FormArgs::default()), Ok(None));
        let choices = vec!["yes".to_owned(), " not sure ".to_owned()];
        let grammar = Grammar::Choices(vec!["yes".to_owned(), "not sure".to_owned()]);
        let asked = form(FormArgs { choices, ..FormArgs::default() });
        assert_eq!(asked, Ok(Some(AnswerForm { grammar, question: None })));
        let receipt = FormArgs { schema: Some("@receipt".into()), ..FormArgs::default() };
        let receipt = form(receipt).unwrap().unwrap();
        assert!(receipt.question.unwrap().starts_with("Read this receipt"));
        assert_eq!(receipt.schema().unwrap()["type"], "object");
        let other = form(FormArgs { schema: Some("@letter".into()), ..FormArgs::default() });
        assert_eq!(other, Err("there is no preset @letter".to_owned()));
    }
}
