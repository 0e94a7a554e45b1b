//! `phi3v decide` and `phi3v calibrate` below their flags: what is asked ([`questions`]), and what is right ([`labels`]).

mod error;
pub mod labels;
pub mod questions;

pub use error::InputError;
pub use questions::Asked;
