//! Messages to a prompt, by the checkpoint's chat template: `<|role|>\n` content `<|end|>\n` for every message, then
//! `<|assistant|>\n` unless the assistant spoke last.
//!
//! [`render`] gives the text for people and for comparison with the reference. The ids of a conversation come from
//! [`crate::processor::chat_prompt`], which never reads special tokens out of what a user typed.

/// Who speaks in a message; the template has a special token for each.
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
    /// The role's name in the template, such as `"user"` in `<|user|>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A part of a message: a stretch of text, or an image by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text, taken as it stands.
    Text(String),
    /// An image by its number, counted from 1 over the whole conversation.
    Image(usize),
}

/// What one side said in one turn: its role, and text and images in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who said the message.
    pub role: Role,
    /// Text and images in order.
    pub content: Vec<Part>,
}

impl Message {
    /// A message of text only, which is taken as it stands.
    #[must_use]
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Part::Text(text.into())] }
    }

    /// A user's message from parts in any order, every image on a line of its own as in the model cards:
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

/// The prompt as text, ready for the assistant to speak, for people and for comparison with the reference.
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

/// The messages as text in the chat template, without an invitation to the assistant to go on.
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

/// Whether the template ends with `<|assistant|>\n`.
pub(crate) fn assistant_is_next(messages: &[Message]) -> bool {
    messages.last().is_some_and(|message| message.role != Role::Assistant)
}
