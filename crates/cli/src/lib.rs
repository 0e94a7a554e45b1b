//! The phi3v command, as a library so that tests can call it in process.
//!
//! Stdout carries answers, stderr everything else. `commands` depends on everything below it; only `entry`, which runs the
//! commands, depends on `commands`.

// these macros panic if the stream cannot be written to; see `terminal`
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod answer;
pub mod args;
pub mod batch;
pub mod bench;
pub mod bounded;
pub mod commands;
pub mod conversation;
pub mod decide;
pub mod disk;
pub mod documents;
pub mod entry;
pub mod error;
pub mod fields;
mod hints;
pub mod hub;
pub mod identity;
pub mod interrupt;
pub mod origin;
pub mod output;
pub mod paths;
pub mod progress;
pub mod quantized;
pub mod report;
pub mod runtime;
pub mod server;
pub mod sources;
mod sys;
pub mod tables;
pub mod terminal;
pub mod trust;
pub mod variables;
pub mod version;
