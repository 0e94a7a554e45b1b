//! The engine on the tiny random checkpoint of `testdata/`: sequences must not notice each other. All cases run on the
//! device as it is, and on one that runs nothing before it must.
#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![allow(clippy::duplicate_mod, reason = "the cases run on two backends")]

#[path = "../common/mod.rs"]
mod common;
mod deferred;
mod direct;
