//! Pictures that are ready for the model, and reports about them.

use crate::documents::Page;
use crate::tell;
use crate::terminal::printable;
use phi3v::error::count;
use phi3v::image::{ImageInputs, Size};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// A picture that was read and cut into tiles, with the name that the user gave.
#[derive(Clone, Debug)]
pub struct NamedImage {
    /// As the user named it.
    pub name: String,
    /// The input of the model.
    pub inputs: Arc<ImageInputs>,
    /// When the frame is shown, if the picture is a frame of a video.
    pub time: Option<Duration>,
    /// Whether a part of the picture's page could not be drawn.
    pub is_incomplete: bool,
}

/// A report about a picture: its size, its tiles and its tokens.
#[derive(Debug, Serialize)]
pub struct ImageReport {
    /// As the user named it.
    pub name: String,
    /// Pixels in each row, as decoded.
    pub width: u32,
    /// Rows of pixels, as decoded.
    pub height: u32,
    /// `[rows, columns]` of tiles.
    pub grid: [usize; 2],
    /// Tiles, the global view included.
    pub tiles: usize,
    /// Number of distinct tiles; only these are computed.
    pub distinct_tiles: usize,
    /// Number of tokens that represent the picture in the prompt.
    pub tokens: usize,
}

impl NamedImage {
    /// Creates the picture of a page of the file `name`. It is named like `report.pdf#page=3` if the file could have
    /// several pages.
    pub(super) fn of_page(name: &str, page: Page) -> Self {
        let Page { number, inputs, time, is_incomplete } = page;
        let name = match (number, time) {
            (Some(number), _) => page_name(name, number),
            // the W3C's Media Fragments name a time in a video like this
            (None, Some(time)) => format!("{name}#t={}", seconds(time)),
            (None, None) => name.to_owned(),
        };
        Self { name, inputs, time, is_incomplete }
    }

    /// The warning about an incomplete page, since its answer may be wrong.
    #[must_use]
    pub fn incomplete_notice(&self) -> String {
        format!("{}: a picture or a font on it could not be drawn, and is missing", printable(&self.name))
    }

    /// Prints the warning on stderr if the page is incomplete.
    pub fn tell_incomplete(&self) {
        if self.is_incomplete {
            tell!("{}", self.incomplete_notice());
        }
    }

    /// Returns the report about the picture: its name, size, tiles and tokens.
    #[must_use]
    pub fn report(&self) -> ImageReport {
        let grid = self.inputs.grid;
        let Size { width, height } = self.inputs.original_size;
        ImageReport {
            name: self.name.clone(),
            width,
            height,
            grid: [grid.h_crop, grid.w_crop],
            tiles: 1 + grid.tiles(),
            distinct_tiles: self.inputs.distinct_tiles(),
            tokens: self.inputs.num_img_tokens(),
        }
    }
}

/// Describes in the prompt when frames are shown. The pictures are numbered from `first`. Returns `None` if there are
/// no frames.
#[must_use]
pub fn times_of(pictures: &[NamedImage], first: usize) -> Option<String> {
    let time = |(index, picture): (usize, &NamedImage)| {
        Some(format!("image {} at {} s", first + index, seconds(picture.time?)))
    };
    let times: Vec<String> = pictures.iter().enumerate().filter_map(time).collect();
    (!times.is_empty()).then(|| format!("Frames of a video: {}.", times.join(", ")))
}

/// Seconds, rounded to hundredths.
fn seconds(time: Duration) -> String {
    let hundredths = (time.as_secs_f64() * 100.0).round() / 100.0;
    format!("{hundredths}")
}

/// Separates the name of a file from the number of its page.
const PAGE: &str = "#page=";

/// Returns the name of page `page` of the file `name`, with the fragment that RFC 8118 defines.
#[must_use]
pub fn page_name(name: &str, page: usize) -> String {
    format!("{name}{PAGE}{page}")
}

/// Splits a name made by [`page_name`] into the file and the page. The page is `None` for the name of a whole file.
#[must_use]
pub fn file_and_page(name: &str) -> (&str, Option<usize>) {
    let page = || {
        let (file, page) = name.rsplit_once(PAGE)?;
        Some((file, page.parse().ok()?))
    };
    page().map_or((name, None), |(file, page)| (file, Some(page)))
}

impl std::fmt::Display for ImageReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, width, height, grid: [rows, columns], tiles, distinct_tiles, tokens } = self;
        write!(
            f,
            "{}: {width}x{height} pixels, {} ({} of {columns}, and the whole; {distinct_tiles} computed), {}",
            printable(name),
            count(*tiles, "tile"),
            count(*rows, "row"),
            count(*tokens, "token"),
        )
    }
}
