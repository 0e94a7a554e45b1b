//! Entries that a batch finds and does not ask about.

use super::error::BatchError;
use crate::note;
use crate::paths::is_called_a_picture;
use phi3v::error::count;
use std::fs::Metadata;
use std::io;
use std::path::Path;

/// Entries found in folders and by patterns that are not asked about.
#[derive(Debug, Default)]
pub struct PassedOver {
    /// Files that are not pictures and have no picture's extension.
    pub files: usize,
    /// Files with a picture's extension that are not pictures.
    pub called: Passed,
    /// PDF files, in a build that cannot read them.
    pub pdfs: Passed,
    /// Broken links.
    pub dangling: Passed,
    /// Links to folders, which are not followed.
    pub linked: Passed,
    /// Pipes, devices and sockets.
    pub special: Passed,
    /// Named folders without a picture, as the user named them.
    pub empty: Vec<String>,
    /// Unreadable folders below the named ones, and entries that cannot be examined.
    pub unread: usize,
    /// Why the first of them cannot be read.
    pub first_unread: Option<BatchError>,
}

/// Files of one kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The number of files.
    pub count: usize,
    /// The path of the first.
    pub first: String,
}

impl Passed {
    pub(super) fn add(&mut self, path: &Path) {
        if self.count == 0 {
            self.first = path.display().to_string();
        }
        self.count += 1;
    }

    /// Prints a note about these files, if any: `thing` names one, `one` and `more` continue the sentence.
    fn tell(&self, thing: &str, one: &str, more: &str) {
        let Self { count: number, first } = self;
        match number {
            0 => {}
            1 => note!("1 {thing} passed over: {first} {one}"),
            _ => note!("{} passed over: {first} and the others {more}", count(*number, thing)),
        }
    }
}

impl PassedOver {
    /// Prints a note on stderr for each kind.
    pub fn tell(&self) {
        if self.files > 0 {
            let what = if self.files == 1 { "not a picture" } else { "not pictures" };
            note!("{} passed over: {what}", count(self.files, "file"));
        }
        self.tell_named();
        self.empty.iter().for_each(|name| note!("there is no picture in {name}"));
        self.tell_unread();
    }

    /// Prints notes about entries that the user may miss, each with the first name.
    pub fn tell_named(&self) {
        self.called.tell("file", "is called a picture and is none", "are called pictures and are none");
        let build = "not read by this build of phi3v (feature pdf)";
        self.pdfs.tell("PDF", &format!("is {build}"), &format!("are {build}"));
        self.dangling.tell("link", "leads nowhere", "lead nowhere");
        self.linked.tell("link", "is one to a folder", "are links to folders");
        self.special.tell("pipe or device", "is no file", "are no files");
    }

    /// Prints a note about entries that cannot be read, if any.
    pub fn tell_unread(&self) {
        let Some(first) = &self.first_unread else { return };
        match self.unread {
            1 => note!("{first}; it was passed over"),
            unread => note!("{first}; it was passed over, and {} like it", count(unread - 1, "other")),
        }
    }

    /// The error if `names` yield nothing: an unreadable folder may be what they mean, or files that the notes mention.
    pub(super) fn none(&mut self, names: String) -> BatchError {
        self.tell_named();
        if let Some(unread) = self.first_unread.take() {
            return unread;
        }
        match self.pdfs.count {
            0 => BatchError::NoPictures { names },
            _ => BatchError::NoPdf { names },
        }
    }

    /// Counts a file that is not a picture.
    pub(super) fn file(&mut self, path: &Path, is_pdf: bool) {
        if is_pdf {
            self.pdfs.add(path);
        } else if is_called_a_picture(&path.to_string_lossy()) {
            self.called.add(path);
        } else {
            self.files += 1;
        }
    }

    /// Counts an entry that is not a regular file, given its metadata: a link to a folder, a broken link, a pipe or device, or
    /// one that cannot be examined.
    pub(super) fn no_file(&mut self, path: &Path, told: io::Result<Metadata>) {
        match told {
            Ok(metadata) if metadata.is_dir() => self.linked.add(path),
            Ok(_) => self.special.add(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // if it is not a link, it was removed meanwhile
                if path.is_symlink() {
                    self.dangling.add(path);
                }
            }
            Err(error) => self.unread(BatchError::read(path, error)),
        }
    }

    /// Counts a folder that cannot be read, or an entry that cannot be examined.
    pub(super) fn unread(&mut self, error: BatchError) {
        self.unread += 1;
        self.first_unread.get_or_insert(error);
    }
}
