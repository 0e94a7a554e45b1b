//! Documents: the pages of a PDF, drawn as images.
//!
//! A page is drawn on white paper at the size at which the tiles of the model see every pixel ([`page_size`]), so that
//! nothing is scaled afterwards. Without the feature `pdf` there is no `Pdf`.
//!
//! This module does not bound what a hostile document can make its reader do: third-party code recurses and allocates as
//! the document says. Programs that draw untrusted documents should do so in a separate process with limits on time and
//! memory, as the command line and the server do.

mod error;
#[cfg(feature = "pdf")]
mod pdf;
mod size;

pub use error::PdfError;
#[cfg(feature = "pdf")]
pub use pdf::{DrawnPage, Pdf};
pub use size::page_size;

/// Number of bytes at the beginning of a file in which readers look for the mark of a PDF.
pub const PDF_HEAD_BYTES: usize = 1024;

/// Returns whether a file that begins with `head` is a PDF. [`PDF_HEAD_BYTES`] of the file are enough.
///
/// ```
/// use phi3v::document::is_pdf;
///
/// assert!(is_pdf(b"%PDF-1.7\n") && is_pdf(b"\xef\xbb\xbf\n%PDF-2.0\n"));
/// assert!(!is_pdf(b"\x89PNG\r\n\x1a\n%PDF-1.7"));
/// ```
#[must_use]
pub fn is_pdf(head: &[u8]) -> bool {
    const MARK: &[u8] = b"%PDF-";
    let head = &head[..head.len().min(PDF_HEAD_BYTES)];
    head.starts_with(MARK)
        || (!crate::image::is_picture(head) && head.windows(MARK.len()).any(|window| window == MARK))
}
