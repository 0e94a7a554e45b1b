//! What can be wrong with a document, one sentence each.

#[cfg(feature = "pdf")]
use crate::image::ImageError;
use serde::{Deserialize, Serialize};

/// Why a PDF cannot be opened or one of its pages cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum PdfError {
    /// The document opens only with a password.
    #[error("the PDF needs a password")]
    Password,
    /// The document is encrypted in an unsupported way.
    #[error("the PDF is encrypted in a way that is not supported")]
    Encryption,
    /// The document cannot be read, not even by searching for its parts one by one.
    #[error("the PDF is damaged")]
    Damaged,
    /// The document has no page.
    #[error("the PDF has no page")]
    Empty,
    /// There is no such page.
    #[error("there is no page {page}, the document has {pages}")]
    NoPage {
        /// The requested page, from 1.
        page: usize,
        /// The number of pages.
        pages: usize,
    },
    /// A page is so long and narrow that its short side has no pixels left.
    #[error("page {page} is so narrow that it has no pixels left on its short side")]
    TooNarrow {
        /// The page, from 1.
        page: usize,
    },
    /// A page has an unsupported font, picture or other part, and nothing of it was drawn.
    #[error("page {page} could not be drawn: {reason}")]
    Page {
        /// The page, from 1.
        page: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A number of tiles that no image can be cut into.
    #[error("num_crops is {num_crops}, it must be 1 to {limit}")]
    NumCrops {
        /// The value that was given.
        num_crops: usize,
        /// The largest allowed value.
        limit: usize,
    },
}

impl PdfError {
    /// Returns what the user can do about the error, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Password | Self::Encryption => {
                "save it without a password, with `qpdf --decrypt --password=... file.pdf open.pdf` for example"
                    .to_owned()
            }
            Self::Damaged | Self::Page { .. } => {
                "print it to a new PDF in a viewer that shows it, or draw it with `pdftoppm -r 150 -png file.pdf page`"
                    .to_owned()
            }
            Self::Empty => "look where it came from".to_owned(),
            Self::NoPage { pages: 1, .. } => "it has one page, 1".to_owned(),
            Self::NoPage { pages, .. } => format!("its pages are 1 to {pages}"),
            Self::TooNarrow { .. } => "crop the page, or allow more crops".to_owned(),
            Self::NumCrops { .. } => "Phi-3-vision was trained with 16, Phi-3.5-vision with 4 and 16".to_owned(),
        }
    }

    /// Converts the error of a size at which page `page` cannot be drawn.
    #[cfg(feature = "pdf")]
    pub(super) fn of_size(error: &ImageError, page: usize) -> Self {
        match *error {
            ImageError::NumCrops { num_crops, limit } => Self::NumCrops { num_crops, limit },
            _ => Self::TooNarrow { page },
        }
    }
}
