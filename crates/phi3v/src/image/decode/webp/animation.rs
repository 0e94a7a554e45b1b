//! All frames of an animation, each drawn over what the previous frames have left.

use super::super::super::error::ImageError;
use super::super::super::orientation::Orientation;
use super::super::super::room::zeros;
use super::super::super::{ImageLimits, ImageMode, Size};
use super::super::raster::{Layout, Raster};
use super::{ALPHA, ANIMATED, Container, damaged, error, stated_part};
use image_webp::WebPDecoder;
use std::io::Cursor;
use std::time::Duration;

/// The remaining frames of an animation.
pub(in super::super) struct Frames {
    decoder: WebPDecoder<Cursor<Vec<u8>>>,
    orientation: Orientation,
    left: usize,
}

impl Frames {
    /// Returns the frames of `bytes`, or `None` if it is a still picture.
    pub(in super::super) fn of(
        bytes: &[u8],
        mode: ImageMode,
        limits: &ImageLimits,
    ) -> Result<Option<Self>, ImageError> {
        let bytes = stated_part(bytes)?;
        let container = Container::read(bytes, limits)?;
        if container.frame.is_none() {
            return Ok(None);
        }
        if container.announced & ANIMATED == 0 {
            return Err(damaged("its header tells of no animation"));
        }
        // Pixels that no frame has covered are transparent, whatever the header says about alpha. Its other flags are
        // dropped, since what they announce may be missing.
        let bytes = container.with_flags(bytes, ANIMATED | ALPHA).into_owned();
        let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(error)?;
        let (width, height) = decoder.dimensions();
        limits.check_size(Size { width, height })?;
        // like libwebp, ignore the file's background colour
        decoder.set_background_color([0; 4]).map_err(error)?;
        let exif = container.exif.filter(|_| mode == ImageMode::AsSeen);
        let orientation = exif.map(Orientation::from_exif).unwrap_or_default();
        Ok(Some(Self { decoder, orientation, left: container.frames }))
    }

    /// Returns the next frame and how long it is shown.
    pub(in super::super) fn next(&mut self) -> Option<Result<(Raster, Duration), ImageError>> {
        self.left = self.left.checked_sub(1)?;
        let frame = self.read();
        if frame.is_err() {
            self.left = 0;
        }
        Some(frame)
    }

    fn read(&mut self) -> Result<(Raster, Duration), ImageError> {
        let bytes = self.decoder.output_buffer_size().ok_or_else(|| damaged("it is too large"))?;
        let mut samples = zeros(bytes)?;
        let milliseconds = self.decoder.read_frame(&mut samples).map_err(error)?;
        let (width, height) = self.decoder.dimensions();
        let layout = if self.decoder.has_alpha() { Layout::Rgba } else { Layout::Rgb };
        let mut raster = Raster::new(Size { width, height }, layout, samples);
        raster.orientation = self.orientation;
        Ok((raster, Duration::from_millis(milliseconds.into())))
    }
}
