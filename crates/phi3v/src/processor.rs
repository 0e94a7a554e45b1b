//! Chat and pictures to model inputs.
