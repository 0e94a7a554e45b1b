//! The size at which a page is drawn.

use crate::image::{HdGrid, ImageError, Size};

/// The long side of a page in the units in which the grid receives its shape.
const LONG_SIDE: f64 = (1 << 20) as f64;
/// How far from the grid's own short side to search for one that the grid keeps unchanged.
const SEARCH: usize = 3;

/// Returns the size in pixels at which to draw a page of `width` by `height`, in any unit. This is the size to which
/// [`hd_transform`](crate::image::hd_transform) would scale an image of this shape for at most `num_crops` tiles. An image
/// of this size is not scaled at all, so that the tiles see every pixel that was drawn.
///
/// ```
/// use phi3v::document::page_size;
/// use phi3v::image::Size;
///
/// // A4 for 16 tiles: four tiles high, 110 dots per inch
/// let size = page_size(210.0, 297.0, 16)?;
/// assert_eq!((size.width, size.height), (950, 1344));
/// # Ok::<(), phi3v::Error>(())
/// ```
///
/// # Errors
/// [`ImageError::Empty`] for a side that is not above 0, and the errors of [`HdGrid::of`].
pub fn page_size(width: f64, height: f64, num_crops: usize) -> Result<Size, ImageError> {
    let long = width.max(height);
    if !(width > 0.0 && height > 0.0 && long.is_finite()) {
        return Err(ImageError::Empty { width: 0, height: 0 });
    }
    // at most LONG_SIDE
    let side = |side: f64| (side / long * LONG_SIDE).round() as usize;
    let grid = HdGrid::of(side(width).max(1), side(height).max(1), num_crops)?;
    let (width, height) = (grid.resized_width, grid.resized_height);
    // the grid rounds, so some sizes come out a pixel narrower than they went in
    let near = |offset: usize| {
        let longer = |side: usize| side + offset;
        let shorter = |side: usize| side.saturating_sub(offset).max(1);
        if width < height {
            [(longer(width), height), (shorter(width), height)]
        } else {
            [(width, longer(height)), (width, shorter(height))]
        }
    };
    let is_kept = |&(width, height): &(usize, usize)| {
        HdGrid::of(width, height, num_crops)
            .is_ok_and(|grid| (grid.resized_width, grid.resized_height) == (width, height))
    };
    let (width, height) = (0..=SEARCH).flat_map(near).find(is_kept).unwrap_or((width, height));
    // at most 256 tiles of 336 pixels
    Ok(Size { width: width as u32, height: height as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_drawn_is_not_scaled() {
        for (width, height) in
            [(210.0, 297.0), (297.0, 210.0), (8.5, 11.0), (8.5, 14.0), (100.0, 100.0), (1920.0, 1080.0)]
        {
            for num_crops in [1, 2, 4, 9, 16, 64, 256] {
                let Size { width, height } = page_size(width, height, num_crops).unwrap();
                let grid = HdGrid::of(width as usize, height as usize, num_crops).unwrap();
                assert_eq!((grid.resized_width, grid.resized_height), (width as usize, height as usize));
            }
        }
    }

    #[test]
    fn every_shape_has_a_size_that_the_grid_keeps() {
        for long in [336, 1000, 5000] {
            for short in 1..=long {
                let Ok(Size { width, height }) = page_size(long.into(), short.into(), 16) else {
                    assert!(short * 400 < long, "{long}x{short}");
                    continue;
                };
                let grid = HdGrid::of(width as usize, height as usize, 16).unwrap();
                let kept = (grid.resized_width, grid.resized_height) == (width as usize, height as usize);
                assert!(kept, "{long}x{short} as {width}x{height}");
            }
        }
    }

    #[test]
    fn a_page_without_a_size_is_refused() {
        for (width, height) in [(0.0, 1.0), (1.0, -1.0), (f64::NAN, 1.0), (f64::INFINITY, 1.0)] {
            assert!(matches!(page_size(width, height, 4), Err(ImageError::Empty { .. })));
        }
        assert!(matches!(page_size(1.0, 1.0, 0), Err(ImageError::NumCrops { .. })));
        assert!(matches!(page_size(1e9, 1.0, 16), Err(ImageError::TooNarrow { .. })));
        // 10 m of paper
        assert!(page_size(28_346.0, 595.0, 16).is_ok());
    }
}
