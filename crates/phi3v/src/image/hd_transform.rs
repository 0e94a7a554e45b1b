//! The HD transform: converts an image of any size to a grid of 336x336 tiles, padded with white.
//!
//! Follows `HD_transform` of the checkpoint's `image_processing_phi3_v.py`. The original transposes a portrait image
//! first and transposes it back at the end. Here nothing is transposed: the columns of a portrait image are filtered
//! before its rows, and it is padded left and right. The result is identical to the last bit.

use super::error::ImageError;
use super::resize::{Order, resize};
use super::room::filled;
use super::{RgbImage, Size, TILE_SIDE};

/// The maximum number of crops of an image that Phi-3-vision was trained with, which is what "high detail" means. With
/// the global view, an image has one tile more: 17.
pub const NUM_CROPS_HIGH: usize = 16;
/// The maximum number of crops that can be requested, 16 times [`NUM_CROPS_HIGH`]. It bounds the work and memory per
/// image; the pixels of a crop take 1 MB in f32.
pub const NUM_CROPS_MAX: usize = 16 * NUM_CROPS_HIGH;
/// White, the colour of the padding.
const PAD: u8 = 255;
/// Rows, and columns, of image tokens of one tile after the 2x2 merge of its 24x24 patches.
const TOKENS_SIDE: usize = TILE_SIDE / 14 / 2;

/// How an image of a given size is cut into tiles of 336 x 336 pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HdGrid {
    /// Rows of tiles in the grid.
    pub h_crop: usize,
    /// Columns of tiles in the grid.
    pub w_crop: usize,
    /// Width after the resize, before the padding.
    pub resized_width: usize,
    /// Height after the resize, before the padding.
    pub resized_height: usize,
}

impl HdGrid {
    /// The grid for an image of `width` x `height` with at most `num_crops` tiles, computed from the sizes alone.
    ///
    /// ```
    /// use phi3v::image::HdGrid;
    ///
    /// let grid = HdGrid::of(1920, 1080, 16)?;
    /// assert_eq!((grid.h_crop, grid.w_crop, grid.num_img_tokens()), (3, 5, 2353));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ImageError::Empty`] for a side of zero, [`ImageError::Side`] for a side beyond `u32`,
    /// [`ImageError::NumCrops`] outside 1 to [`NUM_CROPS_MAX`], and [`ImageError::TooNarrow`] if the resize leaves no
    /// pixels on the short side.
    pub fn of(width: usize, height: usize, num_crops: usize) -> Result<Self, ImageError> {
        if num_crops == 0 || num_crops > NUM_CROPS_MAX {
            return Err(ImageError::NumCrops { num_crops, limit: NUM_CROPS_MAX });
        }
        let (Ok(width_u32), Ok(height_u32)) = (u32::try_from(width), u32::try_from(height)) else {
            return Err(ImageError::Side { width: u32::MAX, height: u32::MAX, limit: u32::MAX });
        };
        if width == 0 || height == 0 {
            return Err(ImageError::Empty { width: width_u32, height: height_u32 });
        }
        let (long, short) = (width_u32.max(height_u32), width_u32.min(height_u32));
        let ratio = f64::from(long) / f64::from(short);
        let long_tiles = tiles_along(ratio, num_crops);
        let new_long = long_tiles * TILE_SIDE;
        // truncated as by Python's int(); at most `new_long`, since the ratio is at least 1
        let new_short = (new_long as f64 / ratio) as usize;
        if new_short == 0 {
            return Err(ImageError::TooNarrow { width, height, num_crops });
        }
        let short_tiles = new_short.div_ceil(TILE_SIDE);
        Ok(if width < height {
            Self {
                h_crop: long_tiles,
                w_crop: short_tiles,
                resized_width: new_short,
                resized_height: new_long,
            }
        } else {
            Self {
                h_crop: short_tiles,
                w_crop: long_tiles,
                resized_width: new_long,
                resized_height: new_short,
            }
        })
    }

    /// Number of tiles of the grid, `h_crop * w_crop`, without the global view.
    #[must_use]
    pub fn tiles(&self) -> usize {
        self.h_crop * self.w_crop
    }

    /// Size of the HD image in pixels. The reference's `image_sizes` states the height first.
    #[must_use]
    pub fn image_size(&self) -> Size {
        let side = |tiles: usize| (tiles * TILE_SIDE) as u32;
        Size { width: side(self.w_crop), height: side(self.h_crop) }
    }

    /// Number of tokens of the image in the prompt: 144 for every tile and for the global view, one separator at the
    /// end of each of their 12 token rows, and one between the tiles and the global view.
    #[must_use]
    pub fn num_img_tokens(&self) -> usize {
        (self.tiles() + 1) * TOKENS_SIDE * TOKENS_SIDE + 1 + (self.h_crop + 1) * TOKENS_SIDE
    }
}

/// Tiles along the long side: the largest number that keeps the grid within `num_crops`.
fn tiles_along(ratio: f64, num_crops: usize) -> usize {
    let fits = |scale: usize| (scale as f64 * (scale as f64 / ratio).ceil()) <= num_crops as f64;
    (1..=num_crops).take_while(|&scale| fits(scale)).last().unwrap_or(1)
}

/// Resizes and pads an image to the HD image, `[h_crop * 336, w_crop * 336, 3]`.
///
/// # Errors
/// Those of [`HdGrid::of`], [`ImageError::PixelBytes`] if the number of pixel bytes does not match the image's size,
/// and [`ImageError::OutOfMemory`].
pub fn hd_transform(image: &RgbImage, num_crops: usize) -> Result<RgbImage, ImageError> {
    image.check()?;
    let grid = HdGrid::of(image.width, image.height, num_crops)?;
    let order = if image.width < image.height { Order::VerticalFirst } else { Order::HorizontalFirst };
    pad(resize(image, grid.resized_width, grid.resized_height, order)?, &grid)
}

/// Centres the resized image in a white HD image. An odd pixel of padding goes below or right.
fn pad(resized: RgbImage, grid: &HdGrid) -> Result<RgbImage, ImageError> {
    let Size { width, height } = grid.image_size();
    let (width, height) = (width as usize, height as usize);
    if (resized.height, resized.width) == (height, width) {
        return Ok(resized);
    }
    let (top, left) = ((height - resized.height) / 2, (width - resized.width) / 2);
    let mut pixels = filled(height * width * 3, PAD)?;
    let rows = pixels.chunks_exact_mut(width * 3).skip(top);
    for (out, row) in rows.zip(resized.pixels.chunks_exact(resized.width * 3)) {
        out[left * 3..left * 3 + row.len()].copy_from_slice(row);
    }
    Ok(RgbImage { width, height, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(width: usize, height: usize, num_crops: usize) -> usize {
        HdGrid::of(width, height, num_crops).unwrap().num_img_tokens()
    }

    #[test]
    fn token_counts_of_ordinary_sizes() {
        assert_eq!(tokens(800, 600, 16), 1921);
        assert_eq!(tokens(600, 800, 16), 1933);
        assert_eq!(tokens(500, 500, 16), 2509);
        assert_eq!(tokens(500, 500, 4), 757);
        assert_eq!(tokens(600, 100, 16), 2485);
        assert_eq!(tokens(10, 160, 16), 2653);
        assert_eq!(tokens(160, 10, 16), 2473);
        assert_eq!(tokens(1, 1, 1), 313);
    }

    #[test]
    fn every_size_gives_a_grid_or_an_error() {
        let sides = [1, 2, 3, 335, 336, 337, 1000, 4032, 65_535, 1 << 20, u32::MAX as usize];
        for width in sides {
            for height in sides {
                for num_crops in [1, 2, 4, NUM_CROPS_HIGH, NUM_CROPS_MAX] {
                    match HdGrid::of(width, height, num_crops) {
                        Ok(grid) => {
                            assert!(grid.tiles() >= 1 && grid.tiles() <= num_crops);
                            let Size { width, height } = grid.image_size();
                            assert!((1..=width as usize).contains(&grid.resized_width));
                            assert!((1..=height as usize).contains(&grid.resized_height));
                        }
                        Err(error) => assert!(matches!(error, ImageError::TooNarrow { .. })),
                    }
                }
            }
        }
    }

    #[test]
    fn impossible_requests_are_errors() {
        assert_eq!(HdGrid::of(0, 5, 4), Err(ImageError::Empty { width: 0, height: 5 }));
        assert_eq!(HdGrid::of(5, 0, 4), Err(ImageError::Empty { width: 5, height: 0 }));
        assert!(matches!(HdGrid::of(5, 5, 0), Err(ImageError::NumCrops { .. })));
        assert!(matches!(HdGrid::of(5, 5, usize::MAX), Err(ImageError::NumCrops { .. })));
        assert!(matches!(HdGrid::of(usize::MAX, 5, 4), Err(ImageError::Side { .. })));
        assert!(matches!(HdGrid::of(3000, 5, 1), Err(ImageError::TooNarrow { .. })));
        assert!(HdGrid::of(3000, 5, 16).is_ok());
        let short = RgbImage { width: 2, height: 2, pixels: vec![0; 11] };
        assert!(matches!(hd_transform(&short, 1), Err(ImageError::PixelBytes { .. })));
    }

    #[test]
    fn a_portrait_image_is_its_transposed_landscape() {
        let (width, height) = (7, 4);
        let pixel = |x: usize, y: usize| [(x * 37) as u8, (y * 61) as u8, (x * y * 11) as u8];
        let build = |w: usize, h: usize, at: &dyn Fn(usize, usize) -> [u8; 3]| RgbImage {
            width: w,
            height: h,
            pixels: (0..h).flat_map(|y| (0..w).flat_map(move |x| at(x, y))).collect(),
        };
        let landscape = build(width, height, &pixel);
        let portrait = build(height, width, &|x, y| pixel(y, x));
        let a = hd_transform(&landscape, 4).unwrap();
        let b = hd_transform(&portrait, 4).unwrap();
        assert_eq!((a.width, a.height), (b.height, b.width));
        for y in 0..a.height {
            for x in 0..a.width {
                let (i, j) = ((y * a.width + x) * 3, (x * b.width + y) * 3);
                assert_eq!(a.pixels[i..i + 3], b.pixels[j..j + 3]);
            }
        }
    }
}
