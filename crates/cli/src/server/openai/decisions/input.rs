//! The input of questions: messages, and calls of functions and tools with their outputs, which the model reads as
//! text. An output must follow its call, as in OpenAI's API.

use super::types::{Input, InputItem, ItemType};
use crate::server::ask::{Turn, TurnPart};
use crate::server::error::ApiError;
use crate::server::hints::question as hint;
use crate::server::limits::Limits;
use crate::server::openai::content::{Content, parts};
use phi3v::chat_template::Role;
use std::collections::HashMap;

/// Returns the input as turns of a conversation.
///
/// # Errors
/// The first invalid field.
pub(super) fn turns(input: Input, limits: &Limits) -> Result<Vec<Turn>, ApiError> {
    let items = match input {
        Input::Text(text) => return Ok(vec![Turn { role: Role::User, parts: vec![TurnPart::Text(text)] }]),
        Input::Items(items) => items,
    };
    if items.is_empty() {
        let message = "there is no message, at least 1 is needed";
        return Err(ApiError::invalid_value("input", message).hint(hint::NO_MESSAGE));
    }
    if items.len() > limits.messages_max {
        let message = format!("there are {} messages, the limit is {}", items.len(), limits.messages_max);
        return Err(ApiError::invalid_value("input", message).hint(hint::MESSAGES));
    }
    let mut calls = Calls::default();
    let turn = |(index, item)| calls.turn(item, &format!("input[{index}]"));
    items.into_iter().enumerate().map(turn).collect()
}

/// The names of the functions and tools called so far, by the kind and id of each call.
#[derive(Default)]
struct Calls(HashMap<(ItemType, String), String>);

impl Calls {
    /// Returns the turn for the item in the field `place`.
    fn turn(&mut self, item: InputItem, place: &str) -> Result<Turn, ApiError> {
        check_fields(&item, place)?;
        let InputItem { r#type: kind, role, content, call_id, name, arguments, input, output, .. } = item;
        match kind {
            ItemType::Message => {
                let role = Role::from(needed(role, place, "role")?);
                let content = needed(content, place, "content")?;
                Ok(Turn { role, parts: parts(role, content, &format!("{place}.content"))? })
            }
            ItemType::FunctionCall | ItemType::CustomToolCall => {
                let (call_id, name) = (needed(call_id, place, "call_id")?, needed(name, place, "name")?);
                let given = match kind {
                    ItemType::FunctionCall => needed(arguments, place, "arguments")?,
                    _ => needed(input, place, "input")?,
                };
                let text = format!("Call of {name}: {given}");
                self.0.insert((kind, call_id), name);
                Ok(Turn { role: Role::Assistant, parts: vec![TurnPart::Text(text)] })
            }
            ItemType::FunctionCallOutput => self.output(ItemType::FunctionCall, call_id, output, place),
            ItemType::CustomToolCallOutput => self.output(ItemType::CustomToolCall, call_id, output, place),
        }
    }

    /// Returns the turn for the output of a call of kind `of`.
    fn output(
        &self,
        of: ItemType,
        call_id: Option<String>,
        output: Option<Content>,
        place: &str,
    ) -> Result<Turn, ApiError> {
        let key = (of, needed(call_id, place, "call_id")?);
        let Some(name) = self.0.get(&key) else {
            let param = format!("{place}.call_id");
            let message = format!("{param} is {:?}, and no call before it has that id", key.1);
            return Err(ApiError::invalid_value(param, message).hint(hint::CALL_OF_OUTPUT));
        };
        let mut told = vec![TurnPart::Text(format!("Output of {name}:"))];
        told.extend(parts(Role::User, needed(output, place, "output")?, &format!("{place}.output"))?);
        Ok(Turn { role: Role::User, parts: told })
    }
}

fn needed<T>(value: Option<T>, place: &str, field: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::invalid_value(place, format!("{place}: missing field `{field}`")))
}

/// Refuses fields that belong to other kinds of items.
fn check_fields(item: &InputItem, place: &str) -> Result<(), ApiError> {
    let own: &[&str] = match item.r#type {
        ItemType::Message => &["role", "content", "phase"],
        ItemType::FunctionCall => &["call_id", "name", "arguments", "namespace", "id", "status"],
        ItemType::CustomToolCall => &["call_id", "name", "input", "namespace", "id", "status"],
        ItemType::FunctionCallOutput | ItemType::CustomToolCallOutput => {
            &["call_id", "output", "id", "status"]
        }
    };
    let given = [
        ("role", item.role.is_some()),
        ("content", item.content.is_some()),
        ("phase", item.phase.is_some()),
        ("call_id", item.call_id.is_some()),
        ("name", item.name.is_some()),
        ("arguments", item.arguments.is_some()),
        ("input", item.input.is_some()),
        ("output", item.output.is_some()),
        ("namespace", item.namespace.is_some()),
        ("id", item.id.is_some()),
        ("status", item.status.is_some()),
    ];
    match given.iter().find(|(field, given)| *given && !own.contains(field)) {
        Some((field, _)) => {
            let message = format!("{place}: unknown field `{field}`, expected one of {}", own.join(", "));
            Err(ApiError::invalid_value(place, message))
        }
        None => Ok(()),
    }
}
