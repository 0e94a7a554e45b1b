//! What a batch comes across and does not ask about.

use super::error::BatchError;
use crate::note;
use crate::terminal::count;

/// What was come across in folders and by patterns, and is not asked about.
#[derive(Debug, Default)]
pub struct PassedOver {
    /// Files that are no pictures.
    pub files: usize,
    /// Named folders without a picture, as they were named.
    pub empty: Vec<String>,
    /// Folders below those that were named which cannot be read.
    pub unread: usize,
    /// Why the first of them cannot.
    pub first_unread: Option<BatchError>,
}

impl PassedOver {
    /// Notes on stderr, each about one kind.
    pub fn tell(&self) {
        if self.files > 0 {
            let what = if self.files == 1 { "not a picture" } else { "not pictures" };
            note!("{} passed over: {what}", count(self.files, "file"));
        }
        self.empty.iter().for_each(|name| note!("there is no picture in {name}"));
        self.tell_unread();
    }

    /// A note about folders that cannot be read, if there are any.
    pub fn tell_unread(&self) {
        let Some(first) = &self.first_unread else { return };
        match self.unread {
            1 => note!("{first}; it was passed over"),
            unread => note!("{first}; it was passed over, as were {}", count(unread - 1, "other folder")),
        }
    }

    /// Why nothing was found by `names`: a folder that cannot be read may be what they mean.
    pub(super) fn none(&mut self, names: String) -> BatchError {
        self.first_unread.take().unwrap_or(BatchError::NoPictures { names })
    }

    /// Counts a folder that cannot be read.
    pub(super) fn unread(&mut self, error: BatchError) {
        self.unread += 1;
        self.first_unread.get_or_insert(error);
    }
}
