//! The names by which people choose a device, read in this one place.

use phi3v_kernels::CpuError;
use std::fmt;
use std::str::FromStr;

/// A device by the name that people give it.
///
/// ```
/// use phi3v::device::DeviceChoice;
///
/// assert_eq!("cpu".parse::<DeviceChoice>()?, DeviceChoice::Cpu);
/// let error = "tpu".parse::<DeviceChoice>().unwrap_err();
/// assert_eq!(error.to_string(), "no device is called \"tpu\"; there are auto and cpu");
/// # Ok::<(), phi3v::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The best device that there is.
    #[default]
    Auto,
    /// The processor, whatever else there is.
    Cpu,
}

/// Every choice in words, for an error and for help.
const CHOICES: &str = "auto and cpu";

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        match name.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => Err(DeviceError::Unknown { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
        })
    }
}

/// Why a device cannot run the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device has this name.
    #[error("no device is called {name:?}; there are {CHOICES}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The processor could not be set up as it was asked for.
    #[error(transparent)]
    Cpu(#[from] CpuError),
}

impl DeviceError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { .. } => Some("auto takes the best device that there is".to_owned()),
            Self::Cpu(error) => error.hint(),
        }
    }
}
