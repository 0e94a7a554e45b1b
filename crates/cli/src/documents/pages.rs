//! The pictures of a file, whatever it is.

use super::animation;
use super::choice::PageChoice;
use super::drawer::{Document, Drawer};
use super::error::DocumentError;
use super::video::{self, Frame, FrameChoice};
use phi3v::document::is_pdf;
use phi3v::image::{self, ImageError, ImageInputs, ImageLimits, ImageMode, ImageParams};
use std::sync::Arc;
use std::time::Duration;

/// How files become pictures.
#[derive(Clone, Debug)]
pub struct Reading {
    /// As people see them, or as the reference does.
    pub mode: ImageMode,
    /// How many tiles, and how pixels are normalised.
    pub params: ImageParams,
    /// What a picture may cost.
    pub limits: ImageLimits,
    /// Which pages of documents; without a choice all of a PDF, and of a TIFF the first, as the reference does.
    pub pages: Option<PageChoice>,
    /// Which frames of a video; none where videos are refused. Of a GIF the first frame is read where nobody chose.
    pub frames: Option<FrameChoice>,
    /// Pages of a document that are looked at where nobody chose.
    pub pages_unasked_max: usize,
    /// What draws PDF files.
    pub drawer: Drawer,
}

/// A page that is ready for the model.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its number, from 1, where the file has or could have several.
    pub number: Option<usize>,
    /// What the model sees.
    pub inputs: Arc<ImageInputs>,
    /// When it is shown, where the file is a video.
    pub time: Option<Duration>,
    /// Whether something of it could not be drawn.
    pub is_incomplete: bool,
}

/// The pages of a file, one after the other.
pub struct Pages {
    content: Content,
    reading: Reading,
    /// Those that are to come; of a video its frames, from 1.
    left: std::vec::IntoIter<usize>,
}

enum Content {
    Pdf(Box<Document>),
    /// Frames that are to come.
    Video(std::vec::IntoIter<Frame>),
    /// The bytes of a file, and whether it is one with pages.
    Image {
        bytes: Vec<u8>,
        has_pages: bool,
    },
}

impl Reading {
    /// Opens a file by its `bytes`.
    ///
    /// # Errors
    /// It is no picture, and no document that can be drawn; or it does not have the chosen pages.
    pub fn open(&self, bytes: Vec<u8>) -> Result<Pages, DocumentError> {
        if is_drawn(&bytes) {
            check_bytes(&bytes, &self.limits)?;
            return self.pages_of(self.drawer.open(&bytes)?);
        }
        if let Some(frames) = self.frames.map(|choice| self.frames_of(&bytes, choice)).transpose()?.flatten()
        {
            let left = (1..=frames.len()).collect();
            return Ok(self.pages(Content::Video(frames.into_iter()), left));
        }
        let left = match (&self.pages, image::pages(&bytes, &self.limits)) {
            (Some(choice), Ok(Some(count))) => Some(choice.of_document(count)?),
            (Some(_), Err(error)) => return Err(error.into()),
            _ => None,
        };
        let has_pages = left.is_some();
        Ok(self.pages(Content::Image { bytes, has_pages }, left.unwrap_or_else(|| vec![1])))
    }

    /// The pages of a PDF that is open.
    ///
    /// # Errors
    /// It does not have the chosen pages, or too many where nobody chose.
    pub fn pages_of(&self, document: Document) -> Result<Pages, DocumentError> {
        let left = match &self.pages {
            Some(choice) => choice.of_document(document.pages())?,
            None if document.pages() > self.pages_unasked_max => {
                let (pages, limit) = (document.pages(), self.pages_unasked_max);
                return Err(DocumentError::ManyPages { pages, limit });
            }
            None => (1..=document.pages()).collect(),
        };
        Ok(self.pages(Content::Pdf(Box::new(document)), left))
    }

    /// The frames of a video, or of an animation that somebody chose frames of; none where it is something else.
    fn frames_of(&self, bytes: &[u8], choice: FrameChoice) -> Result<Option<Vec<Frame>>, DocumentError> {
        let limits = &self.limits;
        let told = image::pages(bytes, limits);
        let is_video =
            matches!(told, Err(ImageError::UnsupportedFormat { format }) if format.starts_with("video"));
        if is_video || (choice.is_asked_for && bytes.starts_with(b"GIF8")) {
            check_bytes(bytes, limits)?;
            return video::frames(bytes, choice, limits).map(Some);
        }
        if choice.is_asked_for && told.is_ok() {
            return animation::frames(bytes, choice, self.mode, limits);
        }
        Ok(None)
    }

    fn pages(&self, content: Content, left: Vec<usize>) -> Pages {
        Pages { content, reading: self.clone(), left: left.into_iter() }
    }
}

/// Whether the file is drawn page by page, in this build.
fn is_drawn(bytes: &[u8]) -> bool {
    cfg!(feature = "pdf") && is_pdf(bytes)
}

fn check_bytes(bytes: &[u8], limits: &ImageLimits) -> Result<(), ImageError> {
    let (bytes, limit) = (bytes.len(), limits.bytes_max);
    if bytes > limit { Err(ImageError::Bytes { bytes, limit }) } else { Ok(()) }
}

/// The pages of a file that are pictures of their own.
pub struct CountedPages {
    /// Their numbers, from 1.
    pub numbers: Vec<usize>,
    /// The document itself, where it had to be opened to count them.
    pub document: Option<Document>,
}

/// The pages of a file that are pictures of their own: all of a PDF, and of a TIFF those that `reading` chooses. None
/// where it is one picture.
///
/// # Errors
/// As for [`Reading::open`].
pub fn count_pages(bytes: &[u8], reading: &Reading) -> Result<Option<CountedPages>, DocumentError> {
    let (count, document) = if is_drawn(bytes) {
        check_bytes(bytes, &reading.limits)?;
        let document = reading.drawer.open(bytes)?;
        (document.pages(), Some(document))
    } else {
        let asked = reading.pages.as_ref().map(|_| image::pages(bytes, &reading.limits));
        let Some(count) = asked.transpose()?.flatten() else { return Ok(None) };
        (count, None)
    };
    let chosen = reading.pages.as_ref().map(|choice| choice.of_document(count)).transpose()?;
    let numbers = chosen.unwrap_or_else(|| (1..=count).collect());
    Ok(Some(CountedPages { numbers, document }))
}

impl Iterator for Pages {
    type Item = Result<Page, DocumentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let page = self.left.next()?;
        Some(self.page(page))
    }
}

impl Pages {
    /// The document that the pages are of, for others of its pages, where it is a PDF that is still open.
    #[must_use]
    pub fn into_document(self) -> Option<Document> {
        match self.content {
            Content::Pdf(document) => Some(*document).filter(Document::is_open),
            Content::Video(_) | Content::Image { .. } => None,
        }
    }

    fn page(&mut self, page: usize) -> Result<Page, DocumentError> {
        let Reading { mode, params, limits, .. } = &self.reading;
        let mut time = None;
        let (rgb, number, is_incomplete) = match &mut self.content {
            Content::Video(frames) => {
                let frame = frames.next().ok_or(DocumentError::NoFrames)?;
                time = Some(frame.time);
                (frame.image, None, false)
            }
            Content::Pdf(document) => {
                let num_crops = params.with_num_crops(params.num_crops).num_crops;
                let (rgb, is_incomplete) = document.draw(page, num_crops)?;
                let number = (document.pages() > 1).then_some(page);
                (rgb, number, is_incomplete)
            }
            Content::Image { bytes, has_pages: true } => {
                (image::decode_page(bytes, page, *mode, limits)?, Some(page), false)
            }
            Content::Image { bytes, has_pages: false } => (image::decode(bytes, *mode, limits)?, None, false),
        };
        let inputs = Arc::new(image::process(&rgb, params)?);
        Ok(Page { number, inputs, time, is_incomplete })
    }
}
