//! Documents: the pages of a PDF, drawn as images.
//!
//! A page is drawn on white paper at the size at which the tiles of the model see every pixel ([`page_size`]), so that
//! nothing is scaled afterwards. Without the feature `pdf` there is no `Pdf`.
//!
//! What a hostile document can make its reader do is not bounded here: code of others recurses and allocates as the
//! document says. Whoever draws documents of strangers does so in a process of its own, with limits on its time and
//! memory, as the command line and the server do.

mod error;
#[cfg(feature = "pdf")]
mod pdf;
mod size;

pub use error::PdfError;
#[cfg(feature = "pdf")]
pub use pdf::{DrawnPage, Pdf};
pub use size::page_size;

/// Bytes at the beginning of a file among which the mark of a PDF stands: readers look for it in so many.
pub const PDF_HEAD_BYTES: usize = 1024;

/// Whether a file that begins with `head`, of which [`PDF_HEAD_BYTES`] are enough, is a PDF.
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
