//! From messages to a prompt, by the checkpoint's chat template: `<|role|>\n` content `<|end|>\n` for every message, then
//! `<|assistant|>\n` unless the last message is the assistant's.
//!
//! [`render`] returns the text, for people and for comparison with the reference. The ids of a conversation come from
//! [`crate::processor::chat_prompt`], which never parses special tokens in text that a user typed.

/// The author of a message; the template has a special token for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person who asks.
    User,
    /// The model, whose answers are messages too.
    Assistant,
}

impl Role {
    /// Returns the role's name in the template, such as `"user"` in `<|user|>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A part of a message: a piece of text, or an image by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text, used unchanged.
    Text(String),
    /// An image by its number, counted from 1 over the whole conversation.
    Image(usize),
}

/// One turn of a conversation: its role, and its text and images in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The author of the message.
    pub role: Role,
    /// Text and images in order.
    pub content: Vec<Part>,
}

impl Message {
    /// Returns a message with only text, which is used unchanged.
    #[must_use]
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Part::Text(text.into())] }
    }

    /// Returns a user's message from parts in any order, with every image on a separate line as in the model cards:
    /// `<|image_1|>\n<|image_2|>\nquestion`.
    #[must_use]
    pub fn user(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut content = Vec::new();
        for part in parts {
            let image = matches!(part, Part::Image(_));
            content.push(part);
            if image {
                content.push(Part::Text("\n".to_owned()));
            }
        }
        Self { role: Role::User, content }
    }
}

/// Returns the prompt as text, up to the assistant's turn, for people and for comparison with the reference.
///
/// ```
/// use phi3v::chat_template::{Message, Part, render};
///
/// let message = Message::user([Part::Image(1), Part::Text("What is it?".to_owned())]);
/// assert_eq!(render(&[message]), "<|user|>\n<|image_1|>\nWhat is it?<|end|>\n<|assistant|>\n");
/// ```
#[must_use]
pub fn render(messages: &[Message]) -> String {
    let mut prompt = render_turns(messages);
    if assistant_is_next(messages) {
        prompt.push_str("<|assistant|>\n");
    }
    prompt
}

/// Returns the messages as text in the chat template, without the beginning of the assistant's next turn.
#[must_use]
pub fn render_turns(messages: &[Message]) -> String {
    let mut prompt = String::new();
    for Message { role, content } in messages {
        prompt.extend(["<|", role.name(), "|>\n"]);
        for part in content {
            match part {
                Part::Text(text) => prompt.push_str(text),
                Part::Image(number) => prompt.push_str(&format!("<|image_{number}|>")),
            }
        }
        prompt.push_str("<|end|>\n");
    }
    prompt
}

/// Returns whether the prompt ends with `<|assistant|>\n`.
pub(crate) fn assistant_is_next(messages: &[Message]) -> bool {
    messages.last().is_some_and(|message| message.role != Role::Assistant)
}
