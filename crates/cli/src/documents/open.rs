//! Files with pages that stay open between reads of their pages.

use super::drawer::Document;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum number of open files besides those whose pages are being drawn: one for each thread that draws pages of a batch.
const OPEN_MAX: usize = 4;

/// An open file with pages.
pub enum OpenFile {
    /// A PDF, whose pages one thread draws.
    Pdf(Box<Document>),
    /// A TIFF, which threads share.
    Tiff {
        /// The bytes of the file.
        bytes: Arc<Vec<u8>>,
        /// Number of pages, or one more than the limit if there are more.
        pages: usize,
    },
}

impl OpenFile {
    /// Number of pages of the file.
    #[must_use]
    pub fn pages(&self) -> usize {
        match self {
            Self::Pdf(document) => document.pages(),
            Self::Tiff { pages, .. } => *pages,
        }
    }

    /// Whether the pages can be read, as far as is known. After an error of the drawing process, they cannot.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Pdf(document) => document.is_open(),
            Self::Tiff { .. } => true,
        }
    }
}

/// Open files by name. Several threads may draw pages of the same PDF, each with its own document.
#[derive(Clone, Default)]
pub struct OpenFiles(Arc<Mutex<VecDeque<Open>>>);

struct Open {
    source: OsString,
    file: OpenFile,
}

impl OpenFiles {
    /// Takes the open file `source`, if there is one. A PDF is unavailable to others until it is kept again.
    #[must_use]
    pub fn take(&self, source: &OsStr) -> Option<OpenFile> {
        let mut open = self.locked();
        let index = open.iter().position(|open| open.source == source)?;
        if let OpenFile::Tiff { bytes, pages } = &open[index].file {
            return Some(OpenFile::Tiff { bytes: Arc::clone(bytes), pages: *pages });
        }
        open.remove(index).map(|open| open.file)
    }

    /// Keeps a file for later reads of its pages. If there are too many, the one kept longest is closed.
    pub fn keep(&self, source: &OsStr, file: OpenFile) {
        let mut open = self.locked();
        let same = |open: &Open| open.source == source && matches!(open.file, OpenFile::Tiff { .. });
        if open.iter().any(same) {
            return;
        }
        open.push_back(Open { source: source.to_owned(), file });
        let closed = if open.len() > OPEN_MAX { open.pop_front() } else { None };
        // closing a file waits for its process, so release the lock first
        drop(open);
        drop(closed);
    }

    /// Keeps a file if there is room. Of many files opened in sequence, the first are needed first.
    pub fn keep_if_room(&self, source: &OsStr, file: OpenFile) {
        let mut open = self.locked();
        if open.len() < OPEN_MAX {
            open.push_back(Open { source: source.to_owned(), file });
        }
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
