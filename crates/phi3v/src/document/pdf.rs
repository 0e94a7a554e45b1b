//! PDF, drawn by hayro.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::PdfError;
use super::size::page_size;
use crate::image::{RgbImage, Size};
use hayro::hayro_interpret::{InterpreterSettings, TransformExt};
use hayro::hayro_syntax::page::Page;
use hayro::hayro_syntax::{self, DecryptionError, LoadPdfError};
use hayro::kurbo::Affine;
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::vello_cpu::{Pixmap, RasterizerSettings, RenderContext, Resources, TargetInit};
use hayro::{RenderCache, RenderSettings, render_into};

/// A PDF whose pages can be drawn.
///
/// ```
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/documents/shapes.pdf");
/// use phi3v::document::Pdf;
///
/// let pdf = Pdf::open(std::fs::read(path)?)?;
/// assert_eq!(pdf.pages(), 3);
/// let first = pdf.draw(1, 16)?;
/// assert_eq!((first.image.width, first.image.height), (950, 1344));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pdf(hayro_syntax::Pdf);

/// A page as it was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnPage {
    /// The page on white paper.
    pub image: RgbImage,
    /// Whether a font or a picture of the page is not supported and is missing in the image.
    pub is_incomplete: bool,
}

impl fmt::Debug for Pdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdf").field("pages", &self.pages()).finish_non_exhaustive()
    }
}

impl Pdf {
    /// Opens a PDF, even one with an empty password, and finds its pages.
    ///
    /// # Errors
    /// [`PdfError`]: if the PDF needs a password, is damaged, or has no page.
    pub fn open(bytes: Vec<u8>) -> Result<Self, PdfError> {
        let pdf = caught(|| hayro_syntax::Pdf::new(bytes)).unwrap_or(Err(LoadPdfError::Invalid));
        let pdf = pdf.map_err(|error| match error {
            LoadPdfError::Decryption(DecryptionError::PasswordProtected) => PdfError::Password,
            LoadPdfError::Decryption(_) => PdfError::Encryption,
            LoadPdfError::Invalid => PdfError::Damaged,
        })?;
        if pdf.pages().is_empty() {
            return Err(PdfError::Empty);
        }
        Ok(Self(pdf))
    }

    /// Returns the number of pages, 1 or more.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.0.pages().len()
    }

    /// Draws page `page`, counted from 1, at the size that [`page_size`] returns for `num_crops` tiles.
    ///
    /// # Errors
    /// [`PdfError`]: if there is no such page, or nothing of it can be drawn.
    pub fn draw(&self, page: usize, num_crops: usize) -> Result<DrawnPage, PdfError> {
        let pages = self.0.pages();
        let found = page.checked_sub(1).and_then(|index| pages.get(index));
        let found = found.ok_or(PdfError::NoPage { page, pages: pages.len() })?;
        let (width, height) = found.render_dimensions();
        let size = page_size(width.into(), height.into(), num_crops);
        let size = size.map_err(|error| PdfError::of_size(&error, page))?;
        let failed = |reason: &str| PdfError::Page { page, reason: reason.to_owned() };
        let drawn = caught(|| draw(found, size)).ok_or_else(|| failed("it is damaged"))?;
        if drawn.is_incomplete && drawn.image.pixels.iter().all(|value| *value == u8::MAX) {
            return Err(failed("its pictures or fonts are damaged or not supported"));
        }
        Ok(drawn)
    }
}

/// Returns the result of `work`, or `None` if it panics: it is third-party code on hostile bytes.
fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

fn draw(page: &Page<'_>, size: Size) -> DrawnPage {
    // a strip of 196 tiles or more is longer than can be drawn, and is scaled up afterwards
    let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
    let (width, height) = (side(size.width), side(size.height));
    let incomplete = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&incomplete);
    let settings = InterpreterSettings {
        warning_sink: Arc::new(move |_| noted.store(true, Ordering::Relaxed)),
        ..InterpreterSettings::default()
    };
    let (page_width, page_height) = page.render_dimensions();
    let scale = |pixels: u16, length: f32| f64::from(pixels) / f64::from(length);
    let transform = Affine::scale_non_uniform(scale(width, page_width), scale(height, page_height))
        * page.initial_transform(true).to_kurbo();
    let mut context = RenderContext::new(width, height);
    let (cache, drawing) = (RenderCache::new(), RenderSettings::default());
    render_into(page, &cache, &settings, &drawing, &mut context, transform);
    context.flush();
    let mut pixmap = Pixmap::new(width, height);
    let paper = RasterizerSettings { target_init: TargetInit::Clear(WHITE), ..RasterizerSettings::default() };
    context.render_with(&mut pixmap, &mut Resources::default(), paper);
    // nothing is transparent on paper
    let pixels = pixmap.data_as_u8_slice().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    let image = RgbImage { width: width.into(), height: height.into(), pixels: pixels.collect() };
    DrawnPage { image, is_incomplete: incomplete.load(Ordering::Relaxed) }
}
