//! The phi3v command, as a library so that tests can call it in process.

pub mod hub;
