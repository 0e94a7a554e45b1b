//! OpenAI's API: wire types, validation, and answers in their shape.

pub mod chat;
mod chat_stream;
pub mod content;
pub mod decisions;
mod extras;
pub mod fields;
mod logprobs;
pub mod models;
pub mod offline;
pub mod openapi;
pub mod parse;
pub mod responses;
pub mod session;
mod stream;
mod text_or_list;
mod text_or_object;
pub mod tokenize;
pub mod types;
mod unique_keys;
