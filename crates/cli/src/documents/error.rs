//! Why a document yields no pictures.

use crate::paths::system_words;
use phi3v::document::PdfError;
use phi3v::image::ImageError;
use std::io;
use std::time::Duration;

/// Why a file yields no pictures: it is not a picture, or it is a document that cannot be drawn within the limits.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file is not a picture, or the picture is refused.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The file is a PDF that cannot be drawn.
    #[error(transparent)]
    Pdf(#[from] PdfError),
    /// More pages were chosen than allowed, or none were chosen and the document has more than are read by default.
    #[error("the document has {pages} pages, and {limit} at most are looked at together")]
    ManyPages {
        /// Number of pages of the document.
        pages: usize,
        /// Maximum number of pages read together.
        limit: usize,
    },
    /// Several pages were chosen, but only one is read here.
    #[error("{chosen} pages of the document were chosen, and one is looked at here")]
    ChosenPages {
        /// Number of chosen pages.
        chosen: usize,
    },
    /// Drawing took too long.
    #[error("the document could not be drawn within {} s for a page, the limit", .limit.as_secs())]
    Time {
        /// The time limit for a page.
        limit: Duration,
    },
    /// The files of a request took too long together.
    #[error("the documents and pictures could not be drawn within {} s together, the limit", .limit.as_secs())]
    TimeTogether {
        /// The time limit for all of them.
        limit: Duration,
    },
    /// Drawing took too much memory.
    #[error("drawing the document takes more than {} MiB of memory, the limit", .limit >> 20)]
    Memory {
        /// The memory limit in bytes.
        limit: u64,
    },
    /// Decoding a picture took too long.
    #[error("the picture could not be decoded within {} s, the limit", .limit.as_secs())]
    PictureTime {
        /// The time limit for a picture.
        limit: Duration,
    },
    /// Decoding a picture took too much memory.
    #[error("decoding the picture takes more than {} MiB of memory, the limit", .limit >> 20)]
    PictureMemory {
        /// The memory limit in bytes.
        limit: u64,
    },
    /// The file is a video, and ffmpeg is not installed.
    #[error("videos need the program ffmpeg, which is not installed")]
    NoFfmpeg,
    /// ffmpeg returns no frames of the video.
    #[error("ffmpeg finds no picture in the video")]
    NoFrames,
    /// ffmpeg fails before the end of the video.
    #[error("ffmpeg cannot read the video: {reason}")]
    Ffmpeg {
        /// ffmpeg's message or exit status.
        reason: String,
    },
    /// ffmpeg exists but cannot be started.
    #[error("ffmpeg does not start: {}", system_words(.0))]
    FfmpegStart(io::Error),
    /// The video cannot be stored where ffmpeg could read it.
    #[error("the video cannot be kept for ffmpeg: {}", system_words(.0))]
    VideoFile(io::Error),
    /// Reading the frames of a video or an animation took too long.
    #[error("the frames could not be read within {} s, the limit", .limit.as_secs())]
    VideoTime {
        /// The time limit for reading a video once.
        limit: Duration,
    },
    /// Reading a video took too much memory.
    #[error("ffmpeg takes more than {} MiB of memory for the video, the limit", .limit >> 20)]
    VideoMemory {
        /// The memory limit in bytes.
        limit: u64,
    },
    /// The drawing process ended before it was done.
    #[error("the document cannot be drawn: the process that draws it ended too early")]
    Ended,
    /// The program was replaced by another version, which uses a different protocol.
    #[error("documents, HEIC and AVIF cannot be read: phi3v was replaced by version {version} while it runs")]
    Replaced {
        /// Version of the program that was started for drawing.
        version: String,
    },
    /// The process that draws documents and decodes HEIC and AVIF cannot be started, or ends before it has read anything.
    #[error("documents, HEIC and AVIF cannot be read: the process for it does not start: {}", system_words(.0))]
    Start(io::Error),
}

impl DocumentError {
    /// Returns what the user can do about the error, in one sentence, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Image(error) => error.hint(),
            Self::Pdf(error) => Some(error.hint()),
            Self::ManyPages { limit, .. } => Some(format!("choose pages, as 1-{limit}")),
            Self::ChosenPages { .. } => Some("choose one of them".to_owned()),
            Self::Time { .. } | Self::Memory { .. } | Self::Ended => Some(
                "choose other pages, or draw it elsewhere, with `pdftoppm -r 150 -png file.pdf page` for example"
                    .to_owned(),
            ),
            Self::PictureTime { .. } | Self::PictureMemory { .. } => {
                Some("scale it down, or convert it, with `heif-convert photo.heic photo.png` for example".to_owned())
            }
            Self::TimeTogether { .. } => Some("send fewer pages or files at a time".to_owned()),
            Self::NoFfmpeg => Some("install ffmpeg, or make pictures of the video elsewhere".to_owned()),
            Self::NoFrames | Self::Ffmpeg { .. } => Some("look whether it can be played".to_owned()),
            Self::VideoTime { .. } | Self::VideoMemory { .. } => {
                Some("cut a part out of it or scale it down, or make pictures of it elsewhere".to_owned())
            }
            Self::VideoFile(_) => {
                Some("make room for temporary files, or name another folder for them (TMPDIR, on Windows TMP)".to_owned())
            }
            Self::FfmpegStart(_) => Some("look whether ffmpeg -version runs".to_owned()),
            Self::Replaced { .. } => Some("end it and start it again".to_owned()),
            Self::Start(_) => None,
        }
    }
}
