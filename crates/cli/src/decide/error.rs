//! Why questions or labels cannot be used.

/// Why there is nothing to decide, or nothing to learn from.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Pictures without a question.
    #[error("no question was given")]
    NoQuestion,
    /// A question on the command line in addition to a file of questions.
    #[error("a question was given beside --questions")]
    TwoQuestions,
    /// A question without choices.
    #[error("no choices were given for {question:?}")]
    NoChoices {
        /// The question without choices.
        question: String,
    },
    /// A file of questions that cannot be used.
    #[error("the questions in {path} cannot be used: {reason}")]
    Questions {
        /// The file's path, as the user gave it.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Labelled pictures that cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file's or folder's path, as the user gave it.
        path: String,
        /// Why the system refuses to read it.
        reason: String,
    },
    /// Labelled pictures that cannot be used.
    #[error("the labels in {path} cannot be used: {reason}")]
    Labels {
        /// The file's or folder's path, as the user gave it.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder of labelled pictures without a question.
    #[error("nothing is asked about the pictures in {path}")]
    NoPrompt {
        /// The folder's path, as the user gave it.
        path: String,
    },
    /// A question given with a file that contains its own.
    #[error("--prompt says nothing about labels that come as JSON lines")]
    UselessPrompt,
}

impl InputError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoQuestion => "put it last, in quotes (\"Is the door open?\"), or several into a file: --questions FILE",
            Self::Unreadable { .. } => "check the path",
            Self::TwoQuestions => "leave one of them out",
            Self::NoChoices { .. } => "add --choices yes,no",
            Self::Questions { .. } => {
                r#"write one question a line, or {"prompt": "What is it?", "choices": ["invoice", "letter"]} on each"#
            }
            Self::Labels { .. } => {
                r#"give a folder with a subfolder for each choice, or lines as {"image": "a.jpg", "prompt": "Is it open?", "answer": "yes"}"#
            }
            Self::NoPrompt { .. } => "add --prompt \"Is the door open?\"",
            Self::UselessPrompt => "leave it out: each line has its own",
        }
        .to_owned()
    }
}
