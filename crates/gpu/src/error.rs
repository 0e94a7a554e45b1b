//! Reasons why a card cannot be used.

use std::path::PathBuf;

/// Why the GPU backend could not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no card, or no driver for one.
    #[error("no graphics card was found")]
    NoAdapter,
    /// There is no card, only software drivers that run on the processor.
    #[error("no graphics card was found, only {} in software", .found.join(", "))]
    OnlySoftware {
        /// Numbers and names of the available drivers.
        found: Vec<String>,
    },
    /// There are cards, but not the requested one.
    #[error("there is no graphics card {asked:?}, but {}", .found.join(", "))]
    UnknownAdapter {
        /// The requested number or name.
        asked: String,
        /// Numbers and names of the available cards.
        found: Vec<String>,
    },
    /// A card's driver lacks something that every kernel needs.
    #[error("{name} has no {missing}")]
    Unsuitable {
        /// The card's name.
        name: String,
        /// What is missing.
        missing: &'static str,
    },
    /// The driver does not compile a kernel.
    #[error("{name} refuses a kernel: {reason}")]
    Refused {
        /// The card's name.
        name: String,
        /// Message of the driver, or of the program that translates kernels for it.
        reason: String,
    },
    /// The driver could not open the card, or during the self-test the card was lost or out of memory.
    #[error("{name} could not be opened: {reason}")]
    Open {
        /// The card's name.
        name: String,
        /// Message of the driver.
        reason: String,
    },
    /// A kernel's results on this card are wrong.
    #[error("{name} computes wrongly ({what})")]
    SelfTest {
        /// The card's name.
        name: String,
        /// The first operation that failed.
        what: String,
        /// The file that records this for the next start. While it exists, the card is not tested again.
        kept: Option<PathBuf>,
    },
}

/// What makes a card available to Vulkan, or to the API that the system has in its place.
const DRIVER: &str = if cfg!(target_os = "linux") {
    "install Vulkan's loader (libvulkan1) and the Vulkan part of the card's driver (mesa-vulkan-drivers, or NVIDIA's \
     libnvidia-gl), until vulkaninfo lists the card"
} else {
    "install the card's driver, with Vulkan"
};

impl GpuError {
    /// Returns what the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoAdapter => format!("{DRIVER}, or use the CPU"),
            Self::OnlySoftware { .. } => {
                format!(
                    "{DRIVER}, or use the CPU; one in software, which is slow, has to be chosen by its number"
                )
            }
            Self::UnknownAdapter { .. } => {
                "choose one of these, by a part of its name or by its number".to_owned()
            }
            Self::Unsuitable { .. } | Self::Refused { .. } | Self::Open { .. } | Self::SelfTest { .. } => {
                let again = self.again().map(|again| format!("; {again}")).unwrap_or_default();
                format!("install a newer driver, or use the CPU{again}")
            }
        })
    }

    /// Returns how to have the card tested again, if its recorded result would otherwise prevent that.
    #[must_use]
    pub fn again(&self) -> Option<String> {
        match self {
            Self::SelfTest { kept: Some(kept), .. } => {
                Some(format!("delete {} to have the card tried again", kept.display()))
            }
            _ => None,
        }
    }
}
