//! Pixels with transparency, and the operations that the properties of a HEIF file ask for.

use super::super::super::error::ImageError;
use super::super::super::room::filled;

/// A picture while it is assembled.
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    /// `[height, width]`; each pixel is red, green, blue and opacity.
    pub(super) pixels: Vec<[u8; 4]>,
}

impl Canvas {
    /// Creates a canvas of one colour.
    pub(super) fn filled(width: usize, height: usize, pixel: [u8; 4]) -> Result<Self, ImageError> {
        Ok(Self { width, height, pixels: filled(width * height, pixel)? })
    }

    /// Returns the part that begins at `left`, `top`. The part must lie inside the canvas.
    pub(super) fn cropped(
        &self,
        left: usize,
        top: usize,
        width: usize,
        height: usize,
    ) -> Result<Self, ImageError> {
        self.gather(width, height, |x, y| (left + x, top + y))
    }

    /// Rotates the picture counter-clockwise by `quarters` quarter turns.
    pub(super) fn turned(self, quarters: u8) -> Result<Self, ImageError> {
        let (w, h) = (self.width, self.height);
        match quarters % 4 {
            0 => Ok(self),
            1 => self.gather(h, w, |x, y| (w - 1 - y, x)),
            2 => self.gather(w, h, |x, y| (w - 1 - x, h - 1 - y)),
            _ => self.gather(h, w, |x, y| (y, h - 1 - x)),
        }
    }

    /// Mirrors the picture from top to bottom, or from left to right.
    pub(super) fn mirrored(self, top_to_bottom: bool) -> Result<Self, ImageError> {
        let (w, h) = (self.width, self.height);
        if top_to_bottom {
            self.gather(w, h, |x, y| (x, h - 1 - y))
        } else {
            self.gather(w, h, |x, y| (w - 1 - x, y))
        }
    }

    /// Sets the opacity of each pixel from the red channel of `alpha`, scaled to this size by repeating pixels.
    pub(super) fn set_alpha(&mut self, alpha: &Self) {
        if alpha.pixels.is_empty() {
            return;
        }
        let (width, height) = (self.width, self.height);
        for (y, row) in self.pixels.chunks_exact_mut(width.max(1)).enumerate() {
            let row_of_alpha = &alpha.pixels[y * alpha.height / height * alpha.width..][..alpha.width];
            for (x, pixel) in row.iter_mut().enumerate() {
                pixel[3] = row_of_alpha[x * alpha.width / width][0];
            }
        }
    }

    /// Divides colours by their opacity, to undo premultiplied alpha.
    pub(super) fn unmultiply(&mut self) {
        for [colors @ .., alpha] in &mut self.pixels {
            let alpha = u32::from(*alpha);
            for color in colors {
                let divided = (u32::from(*color) * 255 + alpha / 2).checked_div(alpha);
                *color = divided.map_or(0, |divided| divided.min(255) as u8);
            }
        }
    }

    /// Copies `tile` with its top left at `x`, `y`, and drops what lies outside the canvas.
    pub(super) fn copy(&mut self, tile: &Self, x: usize, y: usize) {
        let width = tile.width.min(self.width.saturating_sub(x));
        let height = tile.height.min(self.height.saturating_sub(y));
        for row in 0..height {
            let from = &tile.pixels[row * tile.width..][..width];
            self.pixels[(y + row) * self.width + x..][..width].copy_from_slice(from);
        }
    }

    /// Blends `layer` over the canvas with its top left at `x`, `y`, and drops what lies outside.
    pub(super) fn lay_over(&mut self, layer: &Self, x: i64, y: i64) {
        for (row, pixels) in layer.pixels.chunks_exact(layer.width.max(1)).enumerate() {
            let Some(row) = within(y, row, self.height) else { continue };
            for (column, pixel) in pixels.iter().enumerate() {
                if let Some(column) = within(x, column, self.width) {
                    let below = &mut self.pixels[row * self.width + column];
                    *below = over(*pixel, *below);
                }
            }
        }
    }

    /// Builds a picture whose pixel at `x`, `y` is this one's at `from(x, y)`. Works in blocks, so that exchanging
    /// rows and columns stays within the cache.
    fn gather(
        &self,
        width: usize,
        height: usize,
        from: impl Fn(usize, usize) -> (usize, usize),
    ) -> Result<Self, ImageError> {
        const BLOCK: usize = 32;
        let mut turned = Self::filled(width, height, [0; 4])?;
        for top in (0..height).step_by(BLOCK) {
            for left in (0..width).step_by(BLOCK) {
                for y in top..(top + BLOCK).min(height) {
                    for x in left..(left + BLOCK).min(width) {
                        let (from_x, from_y) = from(x, y);
                        turned.pixels[y * width + x] = self.pixels[from_y * self.width + from_x];
                    }
                }
            }
        }
        Ok(turned)
    }
}

/// Returns `start + offset`, if it is from 0 to below `end`.
fn within(start: i64, offset: usize, end: usize) -> Option<usize> {
    let place = usize::try_from(start.checked_add(i64::try_from(offset).ok()?)?).ok()?;
    (place < end).then_some(place)
}

/// Blends a pixel over another.
fn over(above: [u8; 4], below: [u8; 4]) -> [u8; 4] {
    let opacity = u32::from(above[3]);
    let mixed = |a: u8, b: u8| ((u32::from(a) * opacity + u32::from(b) * (255 - opacity)) / 255) as u8;
    let rest = mixed(0, below[3]);
    [
        mixed(above[0], below[0]),
        mixed(above[1], below[1]),
        mixed(above[2], below[2]),
        above[3].saturating_add(rest),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 x 2 pixels whose reds are 0 to 5.
    fn numbered() -> Canvas {
        Canvas { width: 3, height: 2, pixels: (0..6).map(|red| [red, 0, 0, 255]).collect() }
    }

    fn reds(canvas: &Canvas) -> Vec<u8> {
        canvas.pixels.iter().map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn pictures_are_turned_mirrored_and_cropped() {
        let turned = |quarters| {
            let turned = numbered().turned(quarters).unwrap();
            (turned.width, reds(&turned))
        };
        assert_eq!(turned(0), (3, vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(turned(1), (2, vec![2, 5, 1, 4, 0, 3]));
        assert_eq!(turned(2), (3, vec![5, 4, 3, 2, 1, 0]));
        assert_eq!(turned(3), (2, vec![3, 0, 4, 1, 5, 2]));
        assert_eq!(reds(&numbered().mirrored(true).unwrap()), [3, 4, 5, 0, 1, 2]);
        assert_eq!(reds(&numbered().mirrored(false).unwrap()), [2, 1, 0, 5, 4, 3]);
        assert_eq!(reds(&numbered().cropped(1, 0, 2, 2).unwrap()), [1, 2, 4, 5]);
    }

    #[test]
    fn what_there_is_no_room_for_is_an_error() {
        // more bytes than an address can count, although the number of pixels fits
        let (width, height) = (1 << 31, 1 << 30);
        let refused = Err(ImageError::OutOfMemory { bytes: width * height * 4 });
        assert_eq!(Canvas::filled(width, height, [0; 4]).map(|_| ()), refused);
        assert_eq!(numbered().cropped(0, 0, width, height).map(|_| ()), refused);
    }

    #[test]
    fn tiles_are_copied_and_layers_laid_over() {
        let mut canvas = Canvas::filled(4, 2, [9, 9, 9, 255]).unwrap();
        canvas.copy(&numbered(), 2, 1);
        canvas.copy(&numbered(), 9, 9);
        assert_eq!(reds(&canvas), [9, 9, 9, 9, 9, 9, 0, 1]);
        let half = Canvas::filled(3, 1, [109, 9, 9, 51]).unwrap();
        canvas.lay_over(&half, -2, 0);
        canvas.lay_over(&half, 3, 1);
        canvas.lay_over(&half, i64::MAX, i64::MIN);
        assert_eq!(reds(&canvas), [29, 9, 9, 9, 9, 9, 0, 22]);
        assert!(canvas.pixels.iter().all(|pixel| pixel[3] == 255));
    }

    #[test]
    fn colours_are_divided_by_transparency() {
        let mut canvas = numbered();
        canvas.pixels[..4].copy_from_slice(&[[3, 2, 1, 255], [50, 60, 61, 100], [9, 0, 1, 0], [1, 2, 3, 2]]);
        canvas.unmultiply();
        let divided = [[3, 2, 1, 255], [128, 153, 156, 100], [0, 0, 0, 0], [128, 255, 255, 2]];
        assert_eq!(canvas.pixels[..4], divided);
    }

    #[test]
    fn transparency_is_scaled_to_the_picture() {
        let mut canvas = numbered();
        canvas.set_alpha(&Canvas { width: 2, height: 1, pixels: vec![[1; 4], [2; 4]] });
        let alphas: Vec<u8> = canvas.pixels.iter().map(|pixel| pixel[3]).collect();
        assert_eq!(alphas, [1, 1, 2, 1, 1, 2]);
    }
}
