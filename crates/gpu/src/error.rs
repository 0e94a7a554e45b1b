//! Why a card could not be used.

use std::path::PathBuf;

/// Why the GPU backend could not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no card at all, or no driver for one.
    #[error("no graphics card was found")]
    NoAdapter,
    /// There is no card, only drivers that are the processor itself.
    #[error("no graphics card was found, only {} in software", .found.join(", "))]
    OnlySoftware {
        /// Numbers and names of the drivers there are.
        found: Vec<String>,
    },
    /// Cards there are, but not this one.
    #[error("there is no graphics card {asked:?}, but {}", .found.join(", "))]
    UnknownAdapter {
        /// Number or name that was asked for.
        asked: String,
        /// Numbers and names of the cards there are.
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
        /// What the driver, or what translates kernels for it, says.
        reason: String,
    },
    /// The driver would not open the card, or lost it or had no memory when it was tried.
    #[error("{name} could not be opened: {reason}")]
    Open {
        /// The card's name.
        name: String,
        /// What the driver says.
        reason: String,
    },
    /// A kernel's results on this card are wrong.
    #[error("{name} computes wrongly ({what})")]
    SelfTest {
        /// The card's name.
        name: String,
        /// The first operation that failed.
        what: String,
        /// The file that keeps this for the next start, which does not try the card again while it is there.
        kept: Option<PathBuf>,
    },
}

/// What makes a card known to Vulkan, or to what the system has in its place.
const DRIVER: &str = if cfg!(target_os = "linux") {
    "install Vulkan's loader (libvulkan1) and the Vulkan part of the card's driver (mesa-vulkan-drivers, or NVIDIA's \
     libnvidia-gl), until vulkaninfo lists the card"
} else {
    "install the card's driver, with Vulkan"
};

impl GpuError {
    /// What the user can do about it.
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

    /// How the card is tried again, where what was found of it is kept and it would not be.
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
