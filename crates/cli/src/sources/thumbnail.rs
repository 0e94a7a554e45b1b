//! Small versions of prepared pictures, for people to look at.

use phi3v::image::{ImageInputs, ImageParams, RgbImage, TILE_SIDE};

/// Returns a thumbnail of at most 112 pixels width and height. It is the global view without its padding; each pixel
/// is the mean of `STEP` by `STEP` pixels. `params` must be those that the picture was prepared with.
#[must_use]
pub fn thumbnail(inputs: &ImageInputs, params: &ImageParams) -> RgbImage {
    const STEP: usize = 3;
    const PLANE: usize = TILE_SIDE * TILE_SIDE;
    let grid = &inputs.grid;
    let hd = grid.image_size();
    let within =
        |resized: usize, hd: u32| (resized * TILE_SIDE / hd as usize / STEP).clamp(1, TILE_SIDE / STEP);
    let (width, height) = (within(grid.resized_width, hd.width), within(grid.resized_height, hd.height));
    let (left, top) = ((TILE_SIDE - width * STEP) / 2, (TILE_SIDE - height * STEP) / 2);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for channel in 0..3 {
            let at = channel * PLANE + (top + y * STEP) * TILE_SIDE + left + x * STEP;
            let rows = (0..STEP).flat_map(|row| &inputs.distinct[at + row * TILE_SIDE..][..STEP]);
            let mean = rows.sum::<f32>() / (STEP * STEP) as f32;
            let level = (mean * params.image_std[channel] + params.image_mean[channel]) * 255.0;
            pixels.push(level.round().clamp(0.0, 255.0) as u8);
        }
    }
    RgbImage { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3v::image::process;

    #[test]
    fn a_thumbnail_has_the_shape_and_the_colours_of_its_picture() {
        let pixels = [[200, 10, 30].repeat(300 * 100), [10, 200, 30].repeat(300 * 100)].concat();
        let params = ImageParams { num_crops: 4, ..ImageParams::default() };
        let inputs = process(&RgbImage { width: 300, height: 200, pixels }, &params).unwrap();
        let small = thumbnail(&inputs, &params);
        assert_eq!((small.width, small.height, small.pixels.len()), (112, 74, 112 * 74 * 3));
        let near = |at: usize, color: [u8; 3]| {
            small.pixels[at..at + 3].iter().zip(color).all(|(a, b)| a.abs_diff(b) < 4)
        };
        assert!(near(0, [200, 10, 30]) && near(small.pixels.len() - 3, [10, 200, 30]));
    }
}
