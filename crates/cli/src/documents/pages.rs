//! The pictures of a file of any kind.

use super::animation;
use super::choice::PageChoice;
use super::drawer::Drawer;
use super::error::DocumentError;
use super::open::OpenFile;
use super::video::{self, Frame, FrameChoice, Frames};
use phi3v::document::is_pdf;
use phi3v::image::{self, ImageError, ImageInputs, ImageLimits, ImageMode, ImageParams, RgbImage};
use std::sync::Arc;
use std::time::Duration;

/// How files are converted to pictures.
#[derive(Clone, Debug)]
pub struct Reading {
    /// As people see them, or as the reference does.
    pub mode: ImageMode,
    /// Number of tiles, and normalisation of pixels.
    pub params: ImageParams,
    /// Limits on a picture.
    pub limits: ImageLimits,
    /// The chosen pages of documents. `None` means all pages of a PDF, and the first page of a TIFF, as in the reference.
    pub pages: Option<PageChoice>,
    /// The frames of a video; `None` refuses videos. If no frames were asked for, a GIF is read as its first frame.
    pub frames: Option<FrameChoice>,
    /// Maximum number of pages of a document that are read if none were chosen.
    pub pages_unasked_max: usize,
    /// Draws PDF files and decodes HEIC and AVIF.
    pub drawer: Drawer,
}

/// A page that is ready for the model.
#[derive(Clone, Debug)]
pub struct Page {
    /// The page number, counted from 1, if the file has or could have several pages.
    pub number: Option<usize>,
    /// The input of the model.
    pub inputs: Arc<ImageInputs>,
    /// When the frame is shown, if the file is a video.
    pub time: Option<Duration>,
    /// Whether a part of the page could not be drawn.
    pub is_incomplete: bool,
}

/// The pages of a file, read one after the other.
pub struct Pages {
    content: Content,
    reading: Reading,
    /// The remaining pages; for a video, its frames counted from 1.
    left: std::vec::IntoIter<usize>,
}

/// How a file is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture without pages, and without frames that are read.
    Picture,
    /// A file with pages.
    Document,
    /// Frames of a video or an animation.
    Video,
}

enum Content {
    /// A file with pages.
    Open(OpenFile),
    /// The remaining frames.
    Video(Frames),
    /// The bytes of a picture.
    Image(Vec<u8>),
}

impl Reading {
    /// Opens a file with the contents `bytes`.
    ///
    /// # Errors
    /// The file is neither a picture nor a document that can be drawn, or it does not have the chosen pages.
    pub fn open(&self, bytes: Vec<u8>) -> Result<Pages, DocumentError> {
        if is_drawn(&bytes) {
            return self.pages_of(self.pdf(&bytes)?);
        }
        if let Some(frames) = self.frames.map(|choice| self.frames_of(&bytes, choice)).transpose()?.flatten()
        {
            let left = (1..=frames.most).collect();
            return Ok(self.pages(Content::Video(frames), left));
        }
        match self.tiff_pages(&bytes)? {
            Some(pages) => self.pages_of(OpenFile::Tiff { bytes: Arc::new(bytes), pages }),
            None => Ok(self.pages(Content::Image(bytes), vec![1])),
        }
    }

    /// Returns the pages of an open file.
    ///
    /// # Errors
    /// The file does not have the chosen pages, or has too many if none were chosen.
    pub fn pages_of(&self, file: OpenFile) -> Result<Pages, DocumentError> {
        let left = self.chosen(&file)?;
        Ok(self.pages(Content::Open(file), left))
    }

    /// Returns the chosen pages of a file, or all if none were chosen.
    fn chosen(&self, file: &OpenFile) -> Result<Vec<usize>, DocumentError> {
        let (pages, limit) = (file.pages(), self.limits.frames_max);
        let chosen_max = self.drawer.limits().pages_max;
        let unasked_max = self.pages_unasked_max.min(chosen_max);
        match &self.pages {
            // `pages` is not the full count here: counting stops after `limit`
            Some(choice) if matches!(file, OpenFile::Tiff { .. }) && pages > limit => {
                let chosen = choice.of_document(pages, limit).ok();
                let chosen = chosen.filter(|chosen| chosen.iter().all(|page| *page <= limit));
                Ok(chosen.ok_or(ImageError::Frames { format: "TIFF", frames: pages, limit })?)
            }
            Some(choice) => choice.of_document(pages, chosen_max),
            None if pages > unasked_max => Err(DocumentError::ManyPages { pages, limit: unasked_max }),
            None => Ok((1..=pages).collect()),
        }
    }

    /// Opens a PDF.
    fn pdf(&self, bytes: &[u8]) -> Result<OpenFile, DocumentError> {
        self.limits.check_bytes(bytes.len())?;
        Ok(OpenFile::Pdf(Box::new(self.drawer.open(bytes)?)))
    }

    /// Returns the number of pages of a TIFF, or `None` if no pages were chosen or the file is a single picture.
    fn tiff_pages(&self, bytes: &[u8]) -> Result<Option<usize>, ImageError> {
        if self.pages.is_some() { image::pages(bytes, &self.limits) } else { Ok(None) }
    }

    /// Returns the frames of a video, or of an animation whose frames were asked for; otherwise `None`.
    fn frames_of(&self, bytes: &[u8], choice: FrameChoice) -> Result<Option<Frames>, DocumentError> {
        let limits = &self.limits;
        let told = image::pages(bytes, limits);
        let is_video =
            matches!(told, Err(ImageError::UnsupportedFormat { format }) if format.starts_with("video"));
        if is_video || (choice.is_asked_for && bytes.starts_with(b"GIF8")) {
            limits.check_bytes(bytes.len())?;
            return video::frames(bytes, choice, limits).map(Some);
        }
        if choice.is_asked_for && told.is_ok() {
            return animation::frames(bytes, choice, self.mode, limits);
        }
        Ok(None)
    }

    /// Decodes a picture. Formats whose decoder may end its process or take long are decoded by another process.
    fn picture(&self, bytes: &[u8]) -> Result<RgbImage, DocumentError> {
        let Self { mode, limits, .. } = self;
        let Some(format) = format_of_drawer(bytes) else {
            return Ok(image::decode(bytes, *mode, limits)?);
        };
        limits.check_bytes(bytes.len())?;
        self.drawer.picture(format, bytes, *mode, limits)
    }

    fn pages(&self, content: Content, left: Vec<usize>) -> Pages {
        Pages { content, reading: self.clone(), left: left.into_iter() }
    }
}

/// Whether another process draws or decodes the file, in this build.
#[must_use]
pub fn is_for_drawer(bytes: &[u8]) -> bool {
    is_drawn(bytes) || format_of_drawer(bytes).is_some()
}

/// The format of a picture that another process decodes, in this build.
fn format_of_drawer(bytes: &[u8]) -> Option<&'static str> {
    if cfg!(feature = "avif") && image::is_avif(bytes) {
        Some("AVIF")
    } else if cfg!(feature = "heic") && image::is_heic(bytes) {
        Some("HEIC")
    } else {
        None
    }
}

/// Whether the file is drawn page by page, in this build.
fn is_drawn(bytes: &[u8]) -> bool {
    cfg!(feature = "pdf") && is_pdf(bytes)
}

/// The pages of a file that count as separate pictures.
pub struct CountedPages {
    /// The page numbers, counted from 1.
    pub numbers: Vec<usize>,
    /// The file, which had to be opened to count its pages.
    pub file: OpenFile,
}

/// Returns the pages of a file that count as separate pictures: all of a PDF, and those of a TIFF that `reading`
/// chooses. Returns `None` if the file is one picture.
///
/// # Errors
/// As for [`Reading::open`].
pub fn count_pages(bytes: Vec<u8>, reading: &Reading) -> Result<Option<CountedPages>, DocumentError> {
    let file = if is_drawn(&bytes) {
        reading.pdf(&bytes)?
    } else {
        let Some(pages) = reading.tiff_pages(&bytes)? else { return Ok(None) };
        OpenFile::Tiff { bytes: Arc::new(bytes), pages }
    };
    let numbers = reading.chosen(&file)?;
    Ok(Some(CountedPages { numbers, file }))
}

impl Iterator for Pages {
    type Item = Result<Page, DocumentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let page = self.left.next()?;
        self.page(page)
    }
}

impl Pages {
    /// Whether the file is one picture, a document or a video.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.content {
            Content::Open(_) => Kind::Document,
            Content::Video(_) => Kind::Video,
            Content::Image(_) => Kind::Picture,
        }
    }

    /// Maximum number of remaining pages.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// Returns the file for reading other pages, if it has pages and is still open.
    #[must_use]
    pub fn into_open(self) -> Option<OpenFile> {
        match self.content {
            Content::Open(file) => file.is_open().then_some(file),
            Content::Video(_) | Content::Image(_) => None,
        }
    }

    /// Reads a page, or the next frame if there is one.
    fn page(&mut self, page: usize) -> Option<Result<Page, DocumentError>> {
        let Reading { mode, params, limits, .. } = &self.reading;
        let plain = |image| Seen { image, number: None, time: None, is_incomplete: false };
        let seen = match &mut self.content {
            Content::Video(frames) => {
                frames.frames.next()?.map(|Frame { time, image }| Seen { time: Some(time), ..plain(image) })
            }
            Content::Open(OpenFile::Pdf(document)) => {
                let num_crops = params.with_num_crops(params.num_crops).num_crops;
                let number = (document.pages() > 1).then_some(page);
                let drawn = document.draw(page, num_crops);
                drawn.map(|(image, is_incomplete)| Seen { number, is_incomplete, ..plain(image) })
            }
            Content::Open(OpenFile::Tiff { bytes, .. }) => image::decode_page(bytes, page, *mode, limits)
                .map(|image| Seen { number: Some(page), ..plain(image) })
                .map_err(DocumentError::from),
            Content::Image(bytes) => self.reading.picture(bytes).map(plain),
        };
        Some(seen.and_then(|seen| {
            let Seen { image, number, time, is_incomplete } = seen;
            let inputs = Arc::new(image::process(&image, params)?);
            Ok(Page { number, inputs, time, is_incomplete })
        }))
    }
}

/// A page as drawn or decoded; the fields are those of [`Page`].
struct Seen {
    image: RgbImage,
    number: Option<usize>,
    time: Option<Duration>,
    is_incomplete: bool,
}
