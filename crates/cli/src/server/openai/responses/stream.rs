//! A streamed response: named events with sequence numbers, as the official clients expect them.

use super::types::{OutputMessage, OutputText, ResponseObject};
use super::{TextAnswer, complete};
use crate::server::error::ApiError;
use crate::server::openai::stream::{Queue, Render};
use crate::server::openai::types::UsageFields;
use crate::server::state::fresh_id;
use phi3v::engine::{Finished, Token};
use serde_json::{Value, json};

/// Renders the events of a response.
pub(super) struct ResponseStream {
    response: ResponseObject,
    message_id: String,
    answer: TextAnswer,
    sequence_number: usize,
}

impl ResponseStream {
    /// Creates the renderer for a response without its answer.
    pub(super) fn new(response: ResponseObject, answer: TextAnswer) -> Self {
        Self { response, message_id: fresh_id("msg_"), answer, sequence_number: 0 }
    }

    /// Queues the event `name` with `fields`.
    fn push(&mut self, name: &str, mut fields: Value, queue: &mut Queue) {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(self.sequence_number);
        self.sequence_number += 1;
        queue.push(name, &fields);
    }

    /// Queues an event about the single text of the single message.
    fn push_part(&mut self, name: &str, mut fields: Value, queue: &mut Queue) {
        fields["item_id"] = json!(self.message_id);
        fields["output_index"] = json!(0);
        fields["content_index"] = json!(0);
        self.push(name, fields, queue);
    }

    fn delta(&mut self, text: &str, queue: &mut Queue) {
        if !text.is_empty() {
            self.push_part("response.output_text.delta", json!({"delta": text, "logprobs": []}), queue);
        }
    }
}

impl Render for ResponseStream {
    fn begin(&mut self, queue: &mut Queue) {
        for name in ["response.created", "response.in_progress"] {
            self.push(name, json!({"response": self.response}), queue);
        }
        let (id, status) = (self.message_id.clone(), "in_progress");
        let item = OutputMessage { r#type: "message", id, status, role: "assistant", content: Vec::new() };
        self.push("response.output_item.added", json!({"output_index": 0, "item": item}), queue);
        let part = OutputText::new(String::new());
        self.push_part("response.content_part.added", json!({"part": part}), queue);
    }

    fn token(&mut self, _index: usize, token: &Token, queue: &mut Queue) {
        self.answer.token(token);
        self.delta(&token.text, queue);
    }

    fn finished(
        &mut self,
        _index: usize,
        _last: bool,
        finished: Finished,
        queue: &mut Queue,
    ) -> Result<(), ApiError> {
        self.delta(&finished.text, queue);
        let mut usage = UsageFields::default();
        usage.add(0, &finished.usage);
        let (id, part) = (self.message_id.clone(), self.answer.finish(&finished.text));
        let response = complete(self.response.clone(), id, part.clone(), finished.reason, usage)?;
        self.push_part("response.output_text.done", json!({"text": part.text, "logprobs": []}), queue);
        self.push_part("response.content_part.done", json!({"part": part}), queue);
        let item = json!({"output_index": 0, "item": response.output[0]});
        self.push("response.output_item.done", item, queue);
        let name = format!("response.{}", response.status);
        self.push(&name, json!({"response": response}), queue);
        Ok(())
    }

    fn failed(&mut self, error: &ApiError, queue: &mut Queue) {
        let fields = json!({"code": error.code.name(), "message": error.message, "param": error.param});
        self.push("error", fields, queue);
    }
}
