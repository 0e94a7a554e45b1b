//! The names by which users choose a device; all of them are parsed here.

use phi3v_kernels::CpuError;
use std::fmt;
use std::str::FromStr;

/// A device, chosen by the name that users give it. Only opening it shows whether there is a card of that name.
///
/// ```
/// use phi3v::device::{Device, DeviceChoice, DeviceOptions};
///
/// assert_eq!("cpu".parse::<DeviceChoice>()?, DeviceChoice::Cpu);
/// assert_eq!("gpu:1".parse::<DeviceChoice>()?, DeviceChoice::Gpu(Some(1)));
/// let options = DeviceOptions { choice: "tpu".parse()?, ..DeviceOptions::default() };
/// let error = Device::open(&options).err().unwrap();
/// assert!(error.to_string().starts_with("no device is called \"tpu\"; there are auto"));
/// # Ok::<(), phi3v::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The device that the environment variable `PHI3V_DEVICE` names; [`Auto`](Self::Auto) if the variable is not set.
    #[default]
    Variable,
    /// The best available device.
    Auto,
    /// The processor, whatever other devices there are.
    Cpu,
    /// The graphics card with this number among [`cards`](super::cards), or without a number the best that is not
    /// software.
    Gpu(Option<usize>),
    /// The first graphics card whose name contains this text, ignoring case.
    Named(String),
}

/// A bare number below this is a card's number; from here on it is part of a name, as in 4090.
const NUMBERS_END: usize = 100;

/// The environment variable that names the device if nothing else does.
const VARIABLE: &str = "PHI3V_DEVICE";

impl DeviceChoice {
    /// Replaces [`Variable`](Self::Variable) by the choice that the environment variable names.
    pub(super) fn made(&self) -> Result<Self, DeviceError> {
        if *self != Self::Variable {
            return Ok(self.clone());
        }
        let name = std::env::var_os(VARIABLE).unwrap_or_default();
        match name.to_string_lossy().trim() {
            "" => Ok(Self::Auto),
            name => name.parse(),
        }
    }

    /// Whether another device may be used if the best does not suit.
    pub(crate) fn is_free(&self) -> bool {
        matches!(self.made(), Ok(Self::Auto))
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        match name.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "gpu" => Ok(Self::Gpu(None)),
            "" => Err(DeviceError::unknown(name, &[])),
            other => match (other.strip_prefix("gpu:"), other.parse()) {
                (Some(number), _) => number
                    .parse()
                    .map(|number| Self::Gpu(Some(number)))
                    .map_err(|_| DeviceError::unknown(name, &[])),
                (None, Ok(number)) if number < NUMBERS_END => Ok(Self::Gpu(Some(number))),
                (None, _) => Ok(Self::Named(name.trim().to_owned())),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Variable => f.write_str(VARIABLE),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(None) => f.write_str("gpu"),
            Self::Gpu(Some(number)) => write!(f, "gpu:{number}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// Why a device cannot run the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device has this name.
    #[error("no device is called {name:?}; there are {known}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// All available devices, in words.
        known: String,
    },
    /// The user chose a graphics card, but this build supports none.
    #[error("this build of phi3v runs on no graphics card, as {name} would be")]
    NoCards {
        /// The name that was given.
        name: String,
    },
    /// The graphics card cannot be opened, or does not exist.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] phi3v_gpu::GpuError),
    /// The processor cannot be set up with the given options.
    #[error(transparent)]
    Cpu(#[from] CpuError),
}

impl DeviceError {
    /// The error that no device is called `name`; `cards` are the names of the graphics cards.
    pub(super) fn unknown(name: &str, cards: &[String]) -> Self {
        let gpu = if cfg!(feature = "gpu") { ["gpu", "gpu:0 and so on"].as_slice() } else { &[] };
        let mut known: Vec<&str> = ["auto", "cpu"].into_iter().chain(gpu.iter().copied()).collect();
        known.extend(cards.iter().map(String::as_str));
        let last = known.pop().unwrap_or_default();
        Self::Unknown { name: name.to_owned(), known: format!("{} and {last}", known.join(", ")) }
    }

    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { .. } => Some("auto takes the best device that there is".to_owned()),
            Self::NoCards { .. } => Some("build it with the feature gpu, or use the processor".to_owned()),
            Self::Cpu(error) => error.hint(),
            #[cfg(feature = "gpu")]
            Self::Gpu(error) => error.hint(),
        }
    }
}
