//! The flags that say how pictures are found and read.

use crate::documents::{FrameChoice, PageChoice};
use crate::sources::{AllowedHost, ImageOptions};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use phi3v::image::{ImageLimits, ImageMode, ImageParams, NUM_CROPS_HIGH, NUM_CROPS_MAX};

/// How pictures are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pictures")]
pub struct PictureArgs {
    /// How closely to look: low is one tile, high up to 16, auto the model's own number
    #[arg(long, value_enum, default_value_t = Detail::Auto, help_heading = None::<&str>)]
    pub detail: Detail,
    /// Most tiles that a picture is cut into, instead of --detail: 1 to 256
    #[arg(long, value_name = "N", conflicts_with = "detail", value_parser = num_crops())]
    pub num_crops: Option<usize>,
    /// Pages of a PDF or a many-page TIFF, as 1-3,7,10- [default: all of a PDF, the first of a TIFF]
    #[arg(long, value_name = "PAGES")]
    pub pages: Option<PageChoice>,
    /// Read pictures exactly as the reference does: not turned upright, transparency dropped
    #[arg(long)]
    pub reference: bool,
    /// A host of the internet that pictures may be fetched from, as images.example.org; repeat it for several
    #[arg(long, value_name = "HOST", help_heading = "Network")]
    pub allow_url: Vec<AllowedHost>,
    /// What a picture may cost
    #[command(flatten)]
    pub limits: PictureLimitArgs,
}

/// Which frames of a video are looked at.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Pictures")]
pub struct FrameArgs {
    /// Frames of a video or an animation (GIF, WebP), at most N: 1 to 64; those at which the picture changes most [default: 8 of a video]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub frames: Option<usize>,
    /// Frames of a video or an animation (GIF, WebP), F in a second from its beginning, up to --frames of them
    #[arg(long, value_name = "F", value_parser = frames_per_second)]
    pub fps: Option<f64>,
}

impl FrameArgs {
    /// Frames that are looked at where no number is given.
    const FRAMES: usize = 8;

    /// The frames of a video.
    #[must_use]
    pub fn choice(self) -> FrameChoice {
        let is_asked_for = self.fps.is_some() || self.frames.is_some();
        FrameChoice { fps: self.fps, frames: self.frames.unwrap_or(Self::FRAMES), is_asked_for }
    }
}

fn frames_per_second(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|fps| (0.001..=60.0).contains(fps));
    number.ok_or_else(|| "it must be a number from 0.001 to 60".to_owned())
}

/// What a picture may cost. The upper ends of the ranges keep what is computed with them within 64 bits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of pictures")]
pub struct PictureLimitArgs {
    /// Width times height of a picture
    #[arg(long, value_name = "N", default_value_t = ImageLimits::default().pixels_max, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub max_pixels: u64,
    /// Width, and height
    #[arg(long, value_name = "N", default_value_t = ImageLimits::default().side_max, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_side: u32,
    /// Length of a picture's file
    #[arg(long, value_name = "BYTES", default_value_t = ImageLimits::default().bytes_max as u64, value_parser = clap::value_parser!(u64).range(1..=1 << 34))]
    pub max_image_bytes: u64,
    /// Frames of an animation, of which the first is looked at
    #[arg(long, value_name = "N", default_value_t = ImageLimits::default().frames_max as u32, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_frames: u32,
}

/// How closely to look at pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Detail {
    /// One tile
    Low,
    /// Up to 16 tiles
    High,
    /// What the model's preprocessor_config.json says
    Auto,
}

/// A number of tiles that a picture can be cut into.
pub(super) fn num_crops() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=NUM_CROPS_MAX as u64)
}

impl PictureArgs {
    /// Most tiles that a picture is cut into; `model` is the checkpoint's own number.
    #[must_use]
    pub fn num_crops(&self, model: usize) -> usize {
        match (self.num_crops, self.detail) {
            (Some(num_crops), _) => num_crops,
            (None, Detail::Low) => 1,
            (None, Detail::High) => NUM_CROPS_HIGH,
            (None, Detail::Auto) => model,
        }
    }

    /// How pictures are read, of a checkpoint with these settings.
    #[must_use]
    pub fn options(&self, own: &ImageParams) -> ImageOptions {
        let params = own.with_num_crops(self.num_crops(own.num_crops));
        let options = ImageOptions::of_files(self.mode(), params, self.limits.limits());
        options.with_hosts(&self.allow_url).with_pages(self.pages.clone())
    }

    /// How pictures are decoded.
    #[must_use]
    pub fn mode(&self) -> ImageMode {
        if self.reference { ImageMode::Reference } else { ImageMode::AsSeen }
    }
}

impl PictureLimitArgs {
    /// The library's words for it.
    #[must_use]
    pub fn limits(&self) -> ImageLimits {
        let or_max = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        ImageLimits {
            bytes_max: or_max(self.max_image_bytes),
            pixels_max: self.max_pixels,
            side_max: self.max_side,
            frames_max: or_max(self.max_frames.into()),
        }
    }
}
