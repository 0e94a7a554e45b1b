//! `phi3v decide` and `phi3v calibrate` below their flags: the questions ([`questions`]) and the right answers ([`labels`]).

mod error;
pub mod labels;
pub mod questions;

pub use error::InputError;
pub use questions::Asked;
