//! Documents that stay open from one of their pages to the next.

use super::drawer::Document;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Documents that are open at most beside those that are being drawn: one for each thread that draws pages of a batch.
const OPEN_MAX: usize = 4;

/// Documents that nobody draws at the moment, by the names of their files. Several threads may draw pages of the same file,
/// each by a document of its own.
#[derive(Clone, Default)]
pub struct OpenDocuments(Arc<Mutex<VecDeque<Open>>>);

struct Open {
    source: OsString,
    document: Document,
}

impl OpenDocuments {
    /// Takes an open document of the file `source`, if there is one.
    #[must_use]
    pub fn take(&self, source: &OsStr) -> Option<Document> {
        let mut open = self.locked();
        let index = open.iter().position(|open| open.source == source)?;
        open.remove(index).map(|open| open.document)
    }

    /// Keeps a document for whoever wants a page of it next. The one that was kept longest is closed where there are too many.
    pub fn keep(&self, source: &OsStr, document: Document) {
        let mut open = self.locked();
        open.push_back(Open { source: source.to_owned(), document });
        let closed = if open.len() > OPEN_MAX { open.pop_front() } else { None };
        // to close one is to wait for its process
        drop(open);
        drop(closed);
    }

    /// Keeps a document if there is room: of many that are opened one after the other the first are wanted first.
    pub fn keep_if_room(&self, source: &OsStr, document: Document) {
        let mut open = self.locked();
        if open.len() < OPEN_MAX {
            open.push_back(Open { source: source.to_owned(), document });
        }
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
