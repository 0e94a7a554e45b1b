//! Converts one file to pictures: the pages of a PDF or a TIFF, the frames of a video, or a single picture.
//!
//! Commands and server read every picture with [`Pages`]. PDFs are drawn, and HEIC and AVIF decoded, by a separate
//! process ([`Drawer`]), which runs the same program. So no file can crash or hang the answering process or exhaust
//! its memory. The separate process is stopped if it takes too long or too much memory. If it ends by itself, for
//! example because of a stack overflow, that is an error of the file.

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
