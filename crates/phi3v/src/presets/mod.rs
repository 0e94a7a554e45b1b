//! Commonly needed answer forms: each has a JSON schema and the question that goes with it. Wherever a schema is expected,
//! a string such as `"@receipt"` stands for one of them.

use serde_json::Value;

/// A named form of answers, with the question that asks for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// The name, with the sign that distinguishes it from a file: `@receipt`.
    pub name: &'static str,
    /// The purpose, in a few words.
    pub about: &'static str,
    question: &'static str,
    schema: &'static str,
}

/// Makes a preset from the names of its files.
macro_rules! preset {
    ($name:literal, $about:literal) => {
        Preset {
            name: concat!("@", $name),
            about: $about,
            question: include_str!(concat!($name, ".txt")),
            schema: include_str!(concat!($name, ".json")),
        }
    };
}

/// All presets, in the order in which they are listed.
pub static PRESETS: [Preset; 5] = [
    preset!("receipt", "merchant, date, items and total of a receipt"),
    preset!("invoice", "parties, dates, items and sums of an invoice"),
    preset!("table", "columns and rows of a table"),
    preset!("card", "name, company and addresses of a business card"),
    preset!("alt", "one sentence for people who cannot see the picture"),
];

impl Preset {
    /// Returns the preset called `name`, which begins with `@`.
    ///
    /// ```
    /// use phi3v::presets::Preset;
    ///
    /// let receipt = Preset::named("@receipt").expect("it is one of them");
    /// assert!(receipt.schema()["properties"]["total"].is_object());
    /// assert_eq!(Preset::named("receipt"), None);
    /// ```
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Returns all names, for an error about an unknown one: `@receipt, @invoice, ...`.
    #[must_use]
    pub fn names() -> String {
        PRESETS.each_ref().map(|preset| preset.name).join(", ")
    }

    /// Returns the question that is asked by default.
    #[must_use]
    pub fn question(&self) -> &'static str {
        self.question.trim_end()
    }

    /// Returns the JSON schema that answers follow.
    #[must_use]
    pub fn schema(&self) -> Value {
        serde_json::from_str(self.schema).expect("the files of presets are JSON, which a test reads")
    }

    /// Returns the JSON schema as it is in its file, with line breaks, for people.
    #[must_use]
    pub fn schema_text(&self) -> &'static str {
        self.schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_a_question_and_a_closed_object() {
        for preset in &PRESETS {
            let schema = preset.schema();
            assert_eq!(schema["additionalProperties"], false, "{}", preset.name);
            assert!(preset.question().ends_with('.') && !preset.question().contains('\n'));
            assert_eq!(Preset::named(preset.name), Some(preset));
        }
        assert_eq!(Preset::names(), "@receipt, @invoice, @table, @card, @alt");
    }
}
