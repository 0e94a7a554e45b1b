//! Phi-3-vision and Phi-3.5-vision on the user's own machine, exactly as the reference computes them.

pub mod bench;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod constraint;
pub mod demo;
pub mod engine;
pub mod error;
pub mod eval;
pub mod files;
pub mod image;
pub mod memory;
pub mod model;
pub mod processor;
pub mod sampler;
pub mod stop;
pub mod tokenizer;
pub mod trace;
pub mod weights;

pub use error::{Error, Result};
