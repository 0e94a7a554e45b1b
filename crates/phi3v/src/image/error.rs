//! What can be wrong with an image, one sentence each.

use crate::error::count;

use super::converter::{SUPPORTED, converter, missing_feature};

/// Why an image was refused: unsupported format, damage, an exceeded limit, or a size or settings that cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The input is empty or longer than [`ImageLimits::bytes_max`](super::ImageLimits::bytes_max).
    #[error("{}", bytes_message(*.bytes, *.limit))]
    Bytes {
        /// Length of the input.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The first bytes match no image format.
    #[error("this is not a picture: it begins with {start}")]
    NotAnImage {
        /// The first bytes, in printable form.
        start: String,
    },
    /// A known format that is not decoded.
    #[error("{format} is not supported")]
    UnsupportedFormat {
        /// Name of the format.
        format: &'static str,
    },
    /// A format that [`decode`](super::decode) does not decode, since it needs a separate process.
    #[error("{format} is read by a process of its own only")]
    OwnProcess {
        /// Name of the format.
        format: &'static str,
    },
    /// A supported format in a form that is not decoded.
    #[error("this kind of {format} picture is not supported: {kind}")]
    UnsupportedKind {
        /// Name of the format.
        format: &'static str,
        /// The unsupported feature.
        kind: String,
    },
    /// The header announces more pixels than [`ImageLimits::pixels_max`](super::ImageLimits::pixels_max).
    #[error("the picture is {width}x{height}, that is {} pixels, the limit is {limit}", *.width as u64 * *.height as u64)]
    Pixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// There are no pixels: the header, or the caller, states a side of zero.
    #[error("the picture is {width}x{height}, a side must be 1 pixel or more")]
    Empty {
        /// Stated width.
        width: u32,
        /// Stated height.
        height: u32,
    },
    /// A side is longer than [`ImageLimits::side_max`](super::ImageLimits::side_max).
    #[error("the picture is {width}x{height}, the limit of a side is {limit} pixels")]
    Side {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit.
        limit: u32,
    },
    /// More frames or scans than allowed (frames: [`ImageLimits::frames_max`](super::ImageLimits::frames_max)), or a
    /// page beyond that limit.
    #[error("the {format} picture has more than {}, the limit", count(*.limit, frame_of(.format)))]
    Frames {
        /// Name of the format.
        format: &'static str,
        /// Number of frames, pages or scans counted; there may be more.
        frames: usize,
        /// The limit.
        limit: usize,
    },
    /// The system could not allocate memory for pixels.
    #[error("there is no memory for {bytes} bytes of the picture's pixels")]
    OutOfMemory {
        /// Bytes requested.
        bytes: usize,
    },
    /// The file ends before the image does.
    #[error("the {format} picture is truncated")]
    Truncated {
        /// Name of the format.
        format: &'static str,
    },
    /// The file contradicts its format.
    #[error("the {format} picture is damaged: {reason}")]
    Damaged {
        /// Name of the format.
        format: &'static str,
        /// The decoder's message.
        reason: String,
    },
    /// The pixels of an [`RgbImage`](super::RgbImage) are not `width * height * 3` bytes.
    #[error("a picture of {width}x{height} needs {} bytes of pixels, not {bytes}", *.width as u128 * *.height as u128 * 3)]
    PixelBytes {
        /// Pixels of a row.
        width: usize,
        /// Rows of the image.
        height: usize,
        /// Number of bytes given.
        bytes: usize,
    },
    /// The image is so long and narrow that a side is zero after the resize.
    #[error(
        "the picture of {width}x{height} has no pixels left on its short side after the resize for num_crops {num_crops}"
    )]
    TooNarrow {
        /// Pixels of a row.
        width: usize,
        /// Rows of the image.
        height: usize,
        /// Maximum number of crops allowed.
        num_crops: usize,
    },
    /// `num_crops` is zero or too large.
    #[error("num_crops is {num_crops}, it must be 1 to {limit}")]
    NumCrops {
        /// The given value.
        num_crops: usize,
        /// The limit.
        limit: usize,
    },
    /// An HD image whose size is not a whole number of tiles, or that has too many tiles.
    #[error("an HD image of {height}x{width} is not made of 1 to {limit} tiles of {side}x{side}")]
    HdSize {
        /// Rows of the HD image.
        height: usize,
        /// Pixels of a row.
        width: usize,
        /// Side of a tile.
        side: usize,
        /// Maximum number of tiles.
        limit: usize,
    },
    /// Fewer values than the tiles of the HD image need.
    #[error("the tiles of an HD image of {height}x{width} have {needed} pixel values, not {values}")]
    PixelValues {
        /// Rows of the HD image.
        height: usize,
        /// Pixels of a row.
        width: usize,
        /// Number of values of its tiles and the global view.
        needed: usize,
        /// Number of values given.
        values: usize,
    },
    /// A pixel value that is infinite or NaN.
    #[error("a pixel value is infinite or not a number")]
    NotFinite,
    /// A mean or standard deviation that cannot be used.
    #[error("image_mean and image_std must be finite and image_std above zero, they are {values}")]
    Normalisation {
        /// The given values.
        values: String,
    },
}

impl ImageError {
    /// Returns what the user can do about the error, in one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Bytes { bytes: 0, .. } => "look where it came from: nothing was written to it".to_owned(),
            Self::Frames { format: "JPEG", .. } => {
                "open it in a picture viewer and save it again, as PNG for example".to_owned()
            }
            Self::Frames { format, limit, .. } => {
                format!("{}, or raise the limit if you trust the file", fewer_frames(format, *limit))
            }
            Self::Bytes { .. } | Self::Pixels { .. } | Self::Side { .. } => {
                "scale the picture down, or raise the limit if you trust the file".to_owned()
            }
            Self::OutOfMemory { .. } => "scale the picture down, or close other programs".to_owned(),
            Self::NotAnImage { .. } => format!("convert it to one of {SUPPORTED}"),
            Self::UnsupportedFormat { format } => match (converter(format), missing_feature(format)) {
                (Some(command), Some(feature)) => {
                    format!("convert it, with `{command}` for example, or use a build with the feature `{feature}`")
                }
                (Some(command), None) => format!("convert it, with `{command}` for example"),
                (None, _) => format!("convert it to one of {SUPPORTED}"),
            },
            Self::OwnProcess { .. } => "call decode_avif in a process that may end".to_owned(),
            Self::Empty { .. } => {
                "look where it came from; a camera's raw file is converted by `darktable-cli photo.nef photo.png`"
                    .to_owned()
            }
            Self::UnsupportedKind { .. } => "save it as an ordinary 8-bit PNG or JPEG".to_owned(),
            Self::Truncated { .. } => "copy or download the file again".to_owned(),
            Self::Damaged { .. } => {
                "open it in a picture viewer and save it again, as PNG for example".to_owned()
            }
            Self::PixelBytes { .. } => "give 3 bytes per pixel, row by row".to_owned(),
            Self::TooNarrow { .. } => "crop the picture, or allow more crops".to_owned(),
            Self::NumCrops { .. } => {
                "Phi-3-vision was trained with 16, Phi-3.5-vision with 4 (several pictures) and 16 (one)"
                    .to_owned()
            }
            Self::HdSize { .. } | Self::PixelValues { .. } | Self::NotFinite => {
                "give pixel_values and image_sizes as the image processor makes them".to_owned()
            }
            Self::Normalisation { .. } => "use the values of preprocessor_config.json".to_owned(),
        };
        Some(hint)
    }
}

/// The word for one of the items that a file of this format may have too many of.
fn frame_of(format: &str) -> &'static str {
    match format {
        "JPEG" => "scan",
        "TIFF" => "page",
        _ => "frame",
    }
}

/// Says how to read a file with more than `limit` pages or frames nevertheless.
fn fewer_frames(format: &str, limit: usize) -> String {
    match format {
        "TIFF" if limit == 1 => "choose its first page".to_owned(),
        "TIFF" => format!("choose among its first {limit} pages"),
        _ => "save its first frame as a picture of its own".to_owned(),
    }
}

fn bytes_message(bytes: usize, limit: usize) -> String {
    match bytes {
        0 => "the file is empty: it has 0 bytes, and a picture has at least 1".to_owned(),
        _ => format!("the picture has {bytes} bytes, the limit is {limit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_of_something_are_called_what_they_are() {
        let told = |format| {
            let error = ImageError::Frames { format, frames: 6, limit: 5 };
            (error.to_string(), error.hint().unwrap())
        };
        assert_eq!(told("TIFF").0, "the TIFF picture has more than 5 pages, the limit");
        assert!(told("TIFF").1.starts_with("choose among its first 5 pages, or raise the limit"));
        assert_eq!(told("GIF").0, "the GIF picture has more than 5 frames, the limit");
        assert!(told("GIF").1.starts_with("save its first frame as a picture of its own, or raise"));
        assert_eq!(told("JPEG").0, "the JPEG picture has more than 5 scans, the limit");
        assert!(!told("JPEG").1.contains("raise"), "there is no limit to raise");
    }

    #[test]
    fn what_another_build_reads_is_told_so() {
        for (format, feature, is_read) in [
            ("PDF", "pdf", cfg!(feature = "pdf")),
            ("HEIF", "heic", cfg!(feature = "heic")),
            ("AVIF", "avif", cfg!(feature = "avif")),
        ] {
            let hint = ImageError::UnsupportedFormat { format }.hint().unwrap();
            assert_ne!(hint.contains(&format!("a build with the feature `{feature}`")), is_read, "{hint}");
        }
    }
}
