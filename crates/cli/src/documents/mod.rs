//! Where one file becomes pictures: the pages of a PDF or a TIFF, frames of a video, or the picture that a file is.
//!
//! Commands and server read every picture by [`Pages`]. A PDF is drawn, and HEIC and AVIF are decoded, by a process of its own ([`Drawer`]),
//! the same program once more, so that no file can take down, hang or swell the one that answers: it is ended where it takes
//! too long or too much memory, and one that ends by itself, as by a stack that is too deep, is an error of the file.

mod animation;
mod choice;
mod drawer;
mod error;
mod open;
mod pages;
mod process;
mod video;
pub mod worker;

pub use choice::PageChoice;
pub use drawer::{Document, DrawLimits, Drawer, HostProgram, draw_by_host};
pub use error::DocumentError;
pub use open::{OpenFile, OpenFiles};
pub use pages::{CountedPages, Kind, Page, Pages, Reading, count_pages, is_for_drawer};
pub use process::{output_of, private_folder};
pub use video::FrameChoice;
