//! `phi3v batch` below its flags: the inputs and questions ([`inputs`], [`questions`]), the [`journal`] that stores results
//! and lets a later run continue, requests prepared on other threads ([`prepare`]), the engine's loop ([`worker`]), and
//! what is derived from the journal's [`row`]s ([`sidecar`], [`table`]).
//!
//! The journal is the only state of a job. Everything else is derived from it and can be made again.

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
