//! Pictures that are ready for the model, and what is told about them.

use crate::documents::Page;
use crate::tell;
use crate::terminal::printable;
use phi3v::error::count;
use phi3v::image::{ImageInputs, Size};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// A picture that is read and cut into tiles, with the name that the user gave it.
#[derive(Clone, Debug)]
pub struct NamedImage {
    /// As the user named it.
    pub name: String,
    /// What the model sees.
    pub inputs: Arc<ImageInputs>,
    /// When it is shown, where it is a frame of a video.
    pub time: Option<Duration>,
    /// Whether something of the page that it is could not be drawn.
    pub is_incomplete: bool,
}

/// What is told about a picture: its size, how it was cut, and its tokens.
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
    /// Tiles that differ from each other; only these are computed.
    pub distinct_tiles: usize,
    /// Tokens of the prompt that stand for the picture.
    pub tokens: usize,
}

impl NamedImage {
    /// A page of the file that the user called `name`, as `report.pdf#page=3` where it could have several.
    pub(super) fn of_page(name: &str, page: Page) -> Self {
        let Page { number, inputs, time, is_incomplete } = page;
        let name = match (number, time) {
            (Some(number), _) => page_name(name, number),
            // as the W3C's Media Fragments name a place in a video
            (None, Some(time)) => format!("{name}#t={}", seconds(time)),
            (None, None) => name.to_owned(),
        };
        Self { name, inputs, time, is_incomplete }
    }

    /// What is told of a page that lacks something: the answer may be wrong for want of it.
    #[must_use]
    pub fn incomplete_notice(&self) -> String {
        format!("{}: a picture or a font on it could not be drawn, and is missing", printable(&self.name))
    }

    /// Tells on stderr of a page that lacks something, if it does.
    pub fn tell_incomplete(&self) {
        if self.is_incomplete {
            tell!("{}", self.incomplete_notice());
        }
    }

    /// What reports tell of the picture: its name, size, tiles and tokens.
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

/// When frames are shown, for the prompt: the pictures by their numbers, the first of which is `first`. None where there is no frame.
#[must_use]
pub fn times_of(pictures: &[NamedImage], first: usize) -> Option<String> {
    let time = |(index, picture): (usize, &NamedImage)| {
        Some(format!("image {} at {} s", first + index, seconds(picture.time?)))
    };
    let times: Vec<String> = pictures.iter().enumerate().filter_map(time).collect();
    (!times.is_empty()).then(|| format!("Frames of a video: {}.", times.join(", ")))
}

/// Seconds, to a hundredth where it is not a whole number.
fn seconds(time: Duration) -> String {
    let hundredths = (time.as_secs_f64() * 100.0).round() / 100.0;
    format!("{hundredths}")
}

/// What stands between a file and its page.
const PAGE: &str = "#page=";

/// What page `page` of the file `name` is called, by the fragment that RFC 8118 has for it.
#[must_use]
pub fn page_name(name: &str, page: usize) -> String {
    format!("{name}{PAGE}{page}")
}

/// The file and the page that [`page_name`] has given a name; no page where it is that of a whole file.
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
