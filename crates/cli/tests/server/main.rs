//! The server on the tiny checkpoint, over real sockets on 127.0.0.1.
#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![allow(unreachable_pub, reason = "what a test binary shares is for itself")]

mod access;
mod api;
mod bounds;
mod characters;
mod connections;
mod conversation;
mod decisions;
mod demo;
mod docs;
mod documents;
mod forms;
mod harness;
mod load;
mod page;
mod photographs;
mod process;
mod records;
mod safety;
mod sampling;
#[path = "../common/signals.rs"]
mod signals;
mod tls;
mod wire;
