//! Why a card could not be used.

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
    /// The driver would not open the card.
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
    },
}

impl GpuError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoAdapter => "install the card's driver, with Vulkan, or use the CPU".to_owned(),
            Self::OnlySoftware { .. } => {
                "install the card's driver, with Vulkan, or use the CPU; one in software, which is slow, has to be chosen by its number"
                    .to_owned()
            }
            Self::UnknownAdapter { .. } => {
                "choose one of these, by a part of its name or by its number".to_owned()
            }
            Self::Unsuitable { .. } | Self::Open { .. } | Self::SelfTest { .. } => {
                "install a newer driver, or use the CPU".to_owned()
            }
        })
    }
}
