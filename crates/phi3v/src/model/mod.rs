//! The model text.
