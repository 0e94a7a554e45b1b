//! One error type for the library: each module has its own enum, and each error has a hint about what to do.
//!
//! Messages are one sentence, lower case, without a full stop, and name the value and the limit. The command line prints
//! them unchanged. The server repeats only the parts that strangers may know, and has hints of its own.

use std::fmt::Display;
use std::sync::Arc;

/// Shorthand for results of this library, whose error is [`enum@Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Returns a number of things in words, with the plural if needed: `1 token`, `2 tokens`.
#[must_use]
pub fn count(number: impl Display, thing: &str) -> String {
    let number = number.to_string();
    format!("{number} {thing}{}", if number == "1" { "" } else { "s" })
}

/// Everything that can go wrong in the library; each module has its own enum.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration file was refused.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A checkpoint's weights were refused.
    #[error(transparent)]
    Weights(#[from] crate::weights::WeightsError),
    /// A checkpoint could not be quantized.
    #[error(transparent)]
    Convert(#[from] crate::weights::convert::ConvertError),
    /// A checkpoint was refused.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// The engine refused a request.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// The failure of a step that several requests shared: the same error for each of them. See [`Error::root`].
    #[error(transparent)]
    Shared(Arc<Error>),
    /// The caller stopped the work.
    #[error("stopped")]
    Stopped,
    /// The model takes more memory than there is.
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
    /// The device does not exist, or could not be set up as requested.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// A file exists but cannot be read.
    #[error(transparent)]
    Read(#[from] crate::files::ReadError),
    /// The system cannot start a thread.
    #[error("no thread can be had: {0}")]
    Threads(std::io::Error),
    /// The device reported an error, mostly because of a lack of memory.
    #[error(transparent)]
    Backend(#[from] phi3v_kernels::BackendError),
    /// The image was refused.
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    /// The tokenizer's file was refused.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// The prompt was refused.
    #[error(transparent)]
    Processor(#[from] crate::processor::ProcessorError),
    /// An answer could not be constrained to its form.
    #[error(transparent)]
    Constraint(#[from] crate::constraint::ConstraintError),
    /// A question cannot be decided.
    #[error(transparent)]
    Decide(#[from] crate::decide::DecideError),
    /// A calibration cannot be used.
    #[error(transparent)]
    Calibration(#[from] crate::decide::CalibrationError),
    /// No token could be chosen, or parameters were refused.
    #[error(transparent)]
    Sampler(#[from] crate::sampler::SamplerError),
}

impl Error {
    /// Returns the error itself if several requests share it: it decides about hints, exit codes and HTTP status.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Shared(error) => error.root(),
            error => error,
        }
    }

    /// Returns the error once for each of `requests` that it ends; a single request gets it unshared.
    pub(crate) fn for_each(self, requests: usize) -> impl Iterator<Item = Self> {
        let (alone, shared) = if requests == 1 { (Some(self), None) } else { (None, Some(Arc::new(self))) };
        alone.into_iter().chain(shared.into_iter().cycle().take(requests).map(Self::Shared))
    }

    /// Returns what the user can do about the error, in one sentence, if anything.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Shared(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Weights(error) => error.hint(),
            Self::Convert(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Processor(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Constraint(error) => error.hint(),
            Self::Sampler(error) => error.hint(),
            Self::Decide(error) => error.hint(),
            Self::Calibration(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Stopped => None,
            Self::Memory(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::Threads(_) => Some("close other programs, or allow more processes (ulimit -u)".to_owned()),
            Self::Read(_) => Some("check that the file can be read".to_owned()),
            Self::Backend(phi3v_kernels::BackendError::OutOfMemory { .. }) => {
                Some("choose a smaller context, or close other programs".to_owned())
            }
            Self::Backend(phi3v_kernels::BackendError::Device { .. }) => {
                Some("open the device anew, or another".to_owned())
            }
            Self::Backend(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!([0, 1, 2, 11].map(|n| count(n, "tile")), ["0 tiles", "1 tile", "2 tiles", "11 tiles"]);
    }
}
