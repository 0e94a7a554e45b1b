//! Phi-3-vision and Phi-3.5-vision on the user's own machine, computed exactly as the reference does.
//!
//! A first example, with the built-in demo model; a checkpoint's folder can replace its name:
//!
//! ```
//! let mut session = phi3v::load("demo")?;
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/cover.png");
//! let cover = session.image(path)?;
//! session.ask([cover], "Who wrote this book?", |text| print!("{text}"))?;
//! # Ok::<(), phi3v::Error>(())
//! ```
//!
//! A [`Session`] is built from these parts: a [`checkpoint`] is opened, a [`model`] loads its weights onto a device of
//! [`kernels`], and an [`engine`] runs requests on it. [`image`](mod@image) turns images into tiles, and [`processor`]
//! turns messages into ids. For streams, conversations and many images at a time, see `examples/`.
//!
//! A device has threads, which a fork of the process does not copy. So in a forked child, a device and whatever contains
//! one (a session, an engine or a model) can be neither used nor dropped: either would wait for the threads forever.

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
/// The backends, and their types that appear in this crate's interface.
pub use phi3v_kernels as kernels;
pub use session::{Preparer, Reply, Session, SessionOptions, load};
