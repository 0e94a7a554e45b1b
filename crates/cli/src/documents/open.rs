//! Files with pages that stay open from one of their pages to the next.

use super::drawer::Document;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files that are open at most beside those whose pages are being drawn: one for each thread that draws pages of a batch.
const OPEN_MAX: usize = 4;

/// A file with pages that is open.
pub enum OpenFile {
    /// A PDF, which one thread draws pages of.
    Pdf(Box<Document>),
    /// A TIFF, which threads share.
    Tiff {
        /// The bytes of the file.
        bytes: Arc<Vec<u8>>,
        /// How many pages it has; one more than are looked at where there are more.
        pages: usize,
    },
}

impl OpenFile {
    /// How many pages it has.
    #[must_use]
    pub fn pages(&self) -> usize {
        match self {
            Self::Pdf(document) => document.pages(),
            Self::Tiff { pages, .. } => *pages,
        }
    }

    /// Whether its pages can be read, as far as is known: not after an error of the process that draws them.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Pdf(document) => document.is_open(),
            Self::Tiff { .. } => true,
        }
    }
}

/// Files that are open, by their names. Several threads may draw pages of the same PDF, each by a document of its own.
#[derive(Clone, Default)]
pub struct OpenFiles(Arc<Mutex<VecDeque<Open>>>);

struct Open {
    source: OsString,
    file: OpenFile,
}

impl OpenFiles {
    /// The open file `source`, if there is one. Nobody else has a PDF until it is kept again.
    #[must_use]
    pub fn take(&self, source: &OsStr) -> Option<OpenFile> {
        let mut open = self.locked();
        let index = open.iter().position(|open| open.source == source)?;
        if let OpenFile::Tiff { bytes, pages } = &open[index].file {
            return Some(OpenFile::Tiff { bytes: Arc::clone(bytes), pages: *pages });
        }
        open.remove(index).map(|open| open.file)
    }

    /// Keeps a file for whoever wants a page of it next. The one that was kept longest is closed where there are too many.
    pub fn keep(&self, source: &OsStr, file: OpenFile) {
        let mut open = self.locked();
        let same = |open: &Open| open.source == source && matches!(open.file, OpenFile::Tiff { .. });
        if open.iter().any(same) {
            return;
        }
        open.push_back(Open { source: source.to_owned(), file });
        let closed = if open.len() > OPEN_MAX { open.pop_front() } else { None };
        // to close one is to wait for its process
        drop(open);
        drop(closed);
    }

    /// Keeps a file if there is room: of many that are opened one after the other the first are wanted first.
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
