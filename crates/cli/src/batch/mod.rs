//! `phi3v batch` below its flags: what is to be asked ([`inputs`], [`questions`]), the [`journal`] that results go to and
//! that a later run goes on from, requests made ahead on other threads ([`prepare`]), the engine's loop ([`worker`]), and
//! what else is made of the journal's [`row`]s ([`sidecar`], [`table`]).
//!
//! The journal is the one state of a job. Everything else follows from it and can be made again.

pub mod error;
pub mod inputs;
pub mod journal;
pub mod lines;
pub mod meter;
pub mod pages;
pub mod passed_over;
mod pattern;
pub mod prepare;
pub mod questions;
pub mod row;
pub mod shard;
pub mod sidecar;
pub mod table;
pub mod worker;

pub use error::BatchError;
