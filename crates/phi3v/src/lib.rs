//! Phi-3-vision and Phi-3.5-vision on the user's own machine, exactly as the reference computes them.
//!
//! The first use, with the built-in demo model; a checkpoint's folder takes the place of its name:
//!
//! ```
//! let mut session = phi3v::load("demo")?;
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/cover.png");
//! let cover = session.image(path)?;
//! session.ask([cover], "Who wrote this book?", |text| print!("{text}"))?;
//! # Ok::<(), phi3v::Error>(())
//! ```
//!
//! Below a [`Session`]: a [`checkpoint`] is opened, its weights are loaded by a [`model`] onto a device of [`kernels`], an
//! [`engine`] runs requests on it. [`image`](mod@image) makes images tiles, [`processor`] makes messages ids. A stream, a
//! conversation and many images at a time: `examples/`.
//!
//! A device, and so a session, an engine or a model, has threads, which a fork of the process does not copy: in a forked child
//! it can be neither used nor dropped, for it would wait for them without end.

pub mod batch;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod constraint;
pub mod conversation;
pub mod decide;
pub mod demo;
pub mod device;
pub mod document;
pub mod engine;
pub mod error;
pub mod eval;
pub mod fields;
pub mod files;
pub mod image;
pub mod memory;
pub mod model;
mod placing;
pub mod presets;
pub mod processor;
pub mod sampler;
pub mod session;
pub mod stop;
mod threads;
pub mod tokenizer;
pub mod trace;
pub mod weights;
pub mod words;

pub use conversation::{Conversation, GenerationOptions};
pub use error::{Error, Result};
/// The backends, and those of their types that appear in this crate's interface.
pub use phi3v_kernels as kernels;
pub use session::{Preparer, Reply, Session, SessionOptions, load};
