//! What a batch comes across and does not ask about.

use super::error::BatchError;
use crate::note;
use crate::paths::is_called_a_picture;
use phi3v::error::count;
use std::fs::Metadata;
use std::io;
use std::path::Path;

/// What was come across in folders and by patterns, and is not asked about.
#[derive(Debug, Default)]
pub struct PassedOver {
    /// Files that are no pictures and are not called so either.
    pub files: usize,
    /// Files that are called as pictures are, and are none.
    pub called: Passed,
    /// PDF files, in a build that does not read them.
    pub pdfs: Passed,
    /// Links that lead nowhere.
    pub dangling: Passed,
    /// Links to folders, which are not followed.
    pub linked: Passed,
    /// Pipes, devices and sockets.
    pub special: Passed,
    /// Named folders without a picture, as they were named.
    pub empty: Vec<String>,
    /// Folders below those that were named which cannot be read, and what in them cannot be looked at.
    pub unread: usize,
    /// Why the first of them cannot.
    pub first_unread: Option<BatchError>,
}

/// Files of one kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// How many there are.
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

    /// A note about them, if there are any: `thing` is what one is, `one` and `more` go on from the names.
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
    /// Notes on stderr, each about one kind.
    pub fn tell(&self) {
        if self.files > 0 {
            let what = if self.files == 1 { "not a picture" } else { "not pictures" };
            note!("{} passed over: {what}", count(self.files, "file"));
        }
        self.tell_named();
        self.empty.iter().for_each(|name| note!("there is no picture in {name}"));
        self.tell_unread();
    }

    /// Notes about what somebody may miss, each with the first name.
    pub fn tell_named(&self) {
        self.called.tell("file", "is called a picture and is none", "are called pictures and are none");
        let build = "not read by this build of phi3v (feature pdf)";
        self.pdfs.tell("PDF", &format!("is {build}"), &format!("are {build}"));
        self.dangling.tell("link", "leads nowhere", "lead nowhere");
        self.linked.tell("link", "is one to a folder", "are links to folders");
        self.special.tell("pipe or device", "is no file", "are no files");
    }

    /// A note about what cannot be read, if there is something.
    pub fn tell_unread(&self) {
        let Some(first) = &self.first_unread else { return };
        match self.unread {
            1 => note!("{first}; it was passed over"),
            unread => note!("{first}; it was passed over, and {} like it", count(unread - 1, "other")),
        }
    }

    /// Why nothing was found by `names`: a folder that cannot be read may be what they mean, or files of which notes tell.
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

    /// Counts a file that is no picture.
    pub(super) fn file(&mut self, path: &Path, is_pdf: bool) {
        if is_pdf {
            self.pdfs.add(path);
        } else if is_called_a_picture(&path.to_string_lossy()) {
            self.called.add(path);
        } else {
            self.files += 1;
        }
    }

    /// Counts what is no file, as it was `told`: a link to a folder or to nowhere, a pipe or device, or what cannot be looked at.
    pub(super) fn no_file(&mut self, path: &Path, told: io::Result<Metadata>) {
        match told {
            Ok(metadata) if metadata.is_dir() => self.linked.add(path),
            Ok(_) => self.special.add(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // without a link it is gone by now
                if path.is_symlink() {
                    self.dangling.add(path);
                }
            }
            Err(error) => self.unread(BatchError::read(path, error)),
        }
    }

    /// Counts a folder that cannot be read, or what cannot be looked at.
    pub(super) fn unread(&mut self, error: BatchError) {
        self.unread += 1;
        self.first_unread.get_or_insert(error);
    }
}
