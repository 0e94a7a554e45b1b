//! Entry point of the `phi3v` binary.

fn main() {}
