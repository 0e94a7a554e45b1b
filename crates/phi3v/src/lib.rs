//! Phi-3-vision and Phi-3.5-vision on the user's own machine, exactly as the reference computes them.
//!
//! A [`checkpoint`] is opened, its weights are loaded by a [`model`] onto a device of [`kernels`], an [`engine`] runs
//! requests on it. [`image`] makes pictures tiles, [`processor`] makes messages ids.
//!
//! ```
//! use phi3v::chat_template::{Message, Part};
//! use phi3v::checkpoint::Checkpoint;
//! use phi3v::engine::{Engine, EngineOptions, Request};
//! use phi3v::kernels::{Cpu, CpuOptions};
//! use phi3v::model::{ModelOptions, Phi3V};
//! use phi3v::processor;
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // the built-in demo model; `Checkpoint::open` reads a folder
//! let checkpoint = Checkpoint::from_files(&phi3v::demo::files())?;
//! let cpu = Cpu::new(&CpuOptions { threads: None, level: None })?;
//! let model = Phi3V::load(cpu, &checkpoint.config, &checkpoint.weights, ModelOptions::BF16, &mut |_| ())?;
//! let tokenizer = Arc::clone(&checkpoint.tokenizer);
//! let mut engine = Engine::new(model, tokenizer, checkpoint.stop_ids(), EngineOptions::default())?;
//!
//! let messages = [Message::user([Part::Text("What is the capital of France?".to_owned())])];
//! let input_ids = processor::chat_prompt(&checkpoint.tokenizer, &messages, &[])?;
//! let finished = engine.run(Request::greedy(input_ids, Vec::new(), 20), &mut ())?;
//! assert!(finished.usage.completion_tokens > 0);
//! # Ok(())
//! # }
//! ```
//!
//! With pictures, token by token, and many at a time: `examples/`.

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
/// The devices, and the types of theirs that this crate's interface names.
pub use phi3v_kernels as kernels;
