//! One error type for the library: each area has its own enum, and each error knows a hint of what to do.
//!
//! Messages are one sentence, lower case, without a full stop, and name the value and the limit. The command line,
//! the server and the Python module print them unchanged.

/// Shorthand for results of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in the library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration file was refused.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A checkpoint's weights were refused.
    #[error(transparent)]
    Weights(#[from] crate::weights::WeightsError),
    /// A checkpoint could not be quantised.
    #[error(transparent)]
    Convert(#[from] crate::weights::convert::ConvertError),
    /// A checkpoint was refused.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// The engine refused a request.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// A step shared with other requests failed.
    #[error("a step shared by several requests failed: {reason}")]
    Step {
        /// The words of the error that all of them share.
        reason: String,
    },
    /// The caller stopped the work.
    #[error("stopped")]
    Stopped,
    /// The model takes more memory than there is.
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
    /// The device refused.
    #[error(transparent)]
    Backend(#[from] phi3v_kernels::BackendError),
    /// The picture was refused.
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    /// The tokenizer's file was refused.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// The prompt was refused.
    #[error(transparent)]
    Processor(#[from] crate::processor::ProcessorError),
    /// An answer could not be held to its form.
    #[error(transparent)]
    Constraint(#[from] crate::constraint::ConstraintError),
    /// No token could be chosen, or parameters were refused.
    #[error(transparent)]
    Sampler(#[from] crate::sampler::SamplerError),
}

impl Error {
    /// What the user can do about it, one sentence, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Weights(error) => error.hint(),
            Self::Convert(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Processor(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Constraint(error) => error.hint(),
            Self::Sampler(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Step { .. } | Self::Stopped => None,
            Self::Memory(error) => error.hint(),
            Self::Backend(phi3v_kernels::BackendError::OutOfMemory { .. }) => {
                Some("choose a smaller context with --context, or close other programs".to_owned())
            }
            Self::Backend(_) => None,
        }
    }
}
