//! What can be wrong with a document, one sentence each.

#[cfg(feature = "pdf")]
use crate::image::ImageError;
use serde::{Deserialize, Serialize};

/// Why a PDF cannot be opened or one of its pages cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum PdfError {
    /// It opens with a password only.
    #[error("the PDF needs a password")]
    Password,
    /// It is encrypted in a way that is not read.
    #[error("the PDF is encrypted in a way that is not supported")]
    Encryption,
    /// It cannot be read, not even by looking for its parts one by one.
    #[error("the PDF is damaged")]
    Damaged,
    /// It has no page.
    #[error("the PDF has no page")]
    Empty,
    /// There is no such page.
    #[error("there is no page {page}, the document has {pages}")]
    NoPage {
        /// The page that was asked for, from 1.
        page: usize,
        /// Pages that there are.
        pages: usize,
    },
    /// A page is so long and narrow that nothing is left of its short side.
    #[error("page {page} is so narrow that it has no pixels left on its short side")]
    TooNarrow {
        /// The page, from 1.
        page: usize,
    },
    /// A page has a font, a picture or something else that is not understood, and nothing of it was drawn.
    #[error("page {page} could not be drawn: {reason}")]
    Page {
        /// The page, from 1.
        page: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Tiles that no image can be cut into.
    #[error("num_crops is {num_crops}, it must be 1 to {limit}")]
    NumCrops {
        /// The value that was given.
        num_crops: usize,
        /// The most that is allowed.
        limit: usize,
    },
}

impl PdfError {
    /// What the user can do about it, one sentence.
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

    /// The error of a size that page `page` cannot be drawn at.
    #[cfg(feature = "pdf")]
    pub(super) fn of_size(error: &ImageError, page: usize) -> Self {
        match *error {
            ImageError::NumCrops { num_crops, limit } => Self::NumCrops { num_crops, limit },
            _ => Self::TooNarrow { page },
        }
    }
}
