//! Converts pixels to the input of the vision tower: normalised tiles, the global view first, with equal tiles stored once.

use std::collections::HashMap;

use super::error::ImageError;
use super::global_view::{self, Axis};
use super::hd_transform::{HdGrid, NUM_CROPS_HIGH, NUM_CROPS_MAX, hd_transform};
use super::room::zeros;
use super::threads::for_each_band;
use super::{RgbImage, Size, TILE_SIDE};

/// Values of one colour plane of a tile.
const PLANE: usize = TILE_SIDE * TILE_SIDE;
/// Values of one normalised tile, `[3, 336, 336]`: colours, rows and columns, in f32.
pub const TILE_VALUES: usize = 3 * PLANE;
/// Must change when the preprocessing changes its results: the hash identifies the pixels *and* their preprocessing.
const HASH_CONTEXT: &str = "phi3v 2024 image inputs v1";
/// The same for values that were given without pixels.
const VALUES_HASH_CONTEXT: &str = "phi3v 2026 image inputs of values v1";

/// The settings of the image processor, from `preprocessor_config.json`: tiles, mean and standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageParams {
    /// The maximum number of tiles that an image may be cut into.
    pub num_crops: usize,
    /// The maximum number of tiles that the model can use, whatever `num_crops` asks for. The reference has no such
    /// setting; for its checkpoints this is [`NUM_CROPS_MAX`].
    pub num_crops_max: usize,
    /// Mean per colour, for values in 0 to 1.
    pub image_mean: [f32; 3],
    /// Standard deviation per colour.
    pub image_std: [f32; 3],
}

impl Default for ImageParams {
    /// The values of Phi-3-vision: 16 crops, and the mean and standard deviation of CLIP.
    fn default() -> Self {
        Self {
            num_crops: NUM_CROPS_HIGH,
            num_crops_max: NUM_CROPS_MAX,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

impl ImageParams {
    /// Returns these settings with at most `num_crops` tiles, or fewer if the model cannot use that many.
    ///
    /// ```
    /// let quick = phi3v::image::ImageParams::default().with_num_crops(4);
    /// assert_eq!(quick.num_crops, 4);
    /// ```
    #[must_use]
    pub fn with_num_crops(self, num_crops: usize) -> Self {
        Self { num_crops: num_crops.min(self.num_crops_max), ..self }
    }

    fn check(&self) -> Result<(), ImageError> {
        let num_crops = self.num_crops;
        if !(1..=NUM_CROPS_MAX).contains(&num_crops) {
            return Err(ImageError::NumCrops { num_crops, limit: NUM_CROPS_MAX });
        }
        let finite = self.image_mean.iter().chain(&self.image_std).all(|v| v.is_finite());
        if finite && self.image_std.iter().all(|v| *v > 0.0) {
            return Ok(());
        }
        Err(ImageError::Normalisation { values: format!("{:?} and {:?}", self.image_mean, self.image_std) })
    }

    /// The normalised value of each of the 256 levels, per colour: `(v/255 - mean) / std` in f32, each step rounded,
    /// as in torchvision.
    fn lut(&self) -> [[f32; 256]; 3] {
        let value = |c: usize, v: usize| (v as f32 / 255.0 - self.image_mean[c]) / self.image_std[c];
        std::array::from_fn(|c| std::array::from_fn(|v| value(c, v)))
    }
}

/// An image ready for the vision tower.
///
/// The reference's `pixel_values` hold the global view, then the tiles row by row, then tiles of zeros up to
/// `num_crops + 1`. The reference discards the results of the zero tiles, so they are not created here. Equal tiles
/// (blank regions, the global view of a 1x1 grid) are stored once, since the vision tower encodes each tile separately.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInputs {
    /// How the image was cut.
    pub grid: HdGrid,
    /// Size of the image before the transform.
    pub original_size: Size,
    /// For the global view and each tile, the index of its values in `distinct`. `[1 + tiles]`
    pub tile_of: Vec<usize>,
    /// Normalised values of the distinct tiles. `[distinct_tiles, 3, 336, 336]`
    pub distinct: Vec<f32>,
    /// A hash of the pixels, the size and every preprocessing setting.
    pub hash: [u8; 32],
}

impl ImageInputs {
    /// Number of tokens that represent the image in the prompt, as counted by [`HdGrid::num_img_tokens`].
    #[must_use]
    pub fn num_img_tokens(&self) -> usize {
        self.grid.num_img_tokens()
    }

    /// Number of tiles that the vision tower has to encode; equal tiles count once.
    #[must_use]
    pub fn distinct_tiles(&self) -> usize {
        self.distinct.len() / TILE_VALUES
    }

    /// The tiles as in the reference, without its padding of zeros. `[1 + tiles, 3, 336, 336]`
    #[must_use]
    pub fn pixel_values(&self) -> Vec<f32> {
        let tile = |&i: &usize| &self.distinct[i * TILE_VALUES..(i + 1) * TILE_VALUES];
        self.tile_of.iter().flat_map(tile).copied().collect()
    }
}

impl ImageInputs {
    /// Creates the inputs of an image whose tiles were computed elsewhere.
    ///
    /// `values` has the order of the reference's `pixel_values`: the global view, then the tiles row by row, `[1 +
    /// tiles, 3, 336, 336]`. Values after these, the reference's padding, are ignored. `hd_size` is the size of the HD
    /// image, as in the reference's `image_sizes`. The size of the image before the transform is unknown and assumed
    /// to be `hd_size`.
    ///
    /// ```
    /// use phi3v::image::{ImageInputs, Size, TILE_VALUES};
    ///
    /// let hd_size = Size { width: 336, height: 336 };
    /// let inputs = ImageInputs::from_pixel_values(&[0.5; 2 * TILE_VALUES], hd_size)?;
    /// assert_eq!((inputs.tile_of.len(), inputs.distinct_tiles()), (2, 1));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ImageError::HdSize`] for a size that is not a grid of tiles, [`ImageError::PixelValues`] for too few values,
    /// and [`ImageError::NotFinite`] for a value that is infinite or NaN.
    pub fn from_pixel_values(values: &[f32], hd_size: Size) -> Result<Self, ImageError> {
        let (height, width) = (hd_size.height as usize, hd_size.width as usize);
        let (h_crop, w_crop) = (height / TILE_SIDE, width / TILE_SIDE);
        let tiles = h_crop.saturating_mul(w_crop);
        if !(1..=NUM_CROPS_MAX).contains(&tiles)
            || (h_crop * TILE_SIDE, w_crop * TILE_SIDE) != (height, width)
        {
            return Err(ImageError::HdSize { height, width, side: TILE_SIDE, limit: NUM_CROPS_MAX });
        }
        let needed = (1 + tiles) * TILE_VALUES;
        let Some(values) = values.get(..needed) else {
            return Err(ImageError::PixelValues { height, width, needed, values: values.len() });
        };
        if !values.iter().all(|value| value.is_finite()) {
            return Err(ImageError::NotFinite);
        }
        let grid = HdGrid { h_crop, w_crop, resized_width: width, resized_height: height };
        let mut hasher = blake3::Hasher::new_derive_key(VALUES_HASH_CONTEXT);
        let mut index_of: HashMap<blake3::Hash, usize> = HashMap::new();
        let (mut tile_of, mut distinct) = (Vec::with_capacity(1 + tiles), Vec::new());
        for size in [height, width] {
            hasher.update(&(size as u64).to_le_bytes());
        }
        for tile in values.chunks_exact(TILE_VALUES) {
            let bytes: Vec<u8> = tile.iter().flat_map(|value| value.to_le_bytes()).collect();
            let name = blake3::hash(&bytes);
            hasher.update(name.as_bytes());
            let next = index_of.len();
            let index = *index_of.entry(name).or_insert(next);
            if index == next {
                distinct.extend_from_slice(tile);
            }
            tile_of.push(index);
        }
        let hash = *hasher.finalize().as_bytes();
        Ok(Self { grid, original_size: hd_size, tile_of, distinct, hash })
    }
}

/// Cuts an image into normalised tiles.
///
/// ```
/// use phi3v::image::{ImageParams, RgbImage, TILE_VALUES, process};
///
/// let white = RgbImage { width: 400, height: 300, pixels: vec![255; 400 * 300 * 3] };
/// let inputs = process(&white, &ImageParams::default())?;
/// assert_eq!(inputs.grid.tiles(), 12);
/// assert!(inputs.distinct_tiles() < 12, "tiles that look the same are kept once");
/// assert_eq!(inputs.distinct.len(), inputs.distinct_tiles() * TILE_VALUES);
/// # Ok::<(), phi3v::Error>(())
/// ```
///
/// # Errors
/// Those of [`hd_transform`], and [`ImageError::Normalisation`] for unusable settings.
pub fn process(image: &RgbImage, params: &ImageParams) -> Result<ImageInputs, ImageError> {
    params.check()?;
    let params = &params.with_num_crops(params.num_crops);
    let hd = hd_transform(image, params.num_crops)?;
    let grid = HdGrid::of(image.width, image.height, params.num_crops)?;
    let lut = params.lut();
    let global = global_view(&hd, &grid, &lut);
    let (sources, tile_of) = distinct_tiles(&hd, &grid, &global, &lut);
    let mut distinct = zeros(sources.len() * TILE_VALUES)?;
    for_each_band(&mut distinct, PLANE, |first_plane, band| {
        for (i, out) in band.chunks_exact_mut(PLANE).enumerate() {
            let (source, channel) = ((first_plane + i) / 3, (first_plane + i) % 3);
            match sources[source] {
                Source::Global => out.copy_from_slice(&global[channel * PLANE..][..PLANE]),
                Source::Tile(tile) => normalise(&hd, &grid, tile, channel, &lut[channel], out),
            }
        }
    });
    Ok(ImageInputs {
        grid,
        // a grid was found, so both sides fit
        original_size: Size { width: image.width as u32, height: image.height as u32 },
        tile_of,
        distinct,
        hash: hash(image, params, &hd),
    })
}

/// The source of a distinct tile's values.
enum Source {
    Global,
    Tile(usize),
}

/// Computes the global view, `[3, 336, 336]`.
fn global_view(hd: &RgbImage, grid: &HdGrid, lut: &[[f32; 256]; 3]) -> Vec<f32> {
    let (vertical, horizontal) = (Axis::new(grid.h_crop), Axis::new(grid.w_crop));
    let mut values = vec![0.0; TILE_VALUES];
    for (channel, out) in values.chunks_exact_mut(PLANE).enumerate() {
        global_view::plane(&hd.pixels, &vertical, &horizontal, channel, &lut[channel], out);
    }
    values
}

/// Finds equal tiles. Returns the sources of the distinct tiles, the global view first, and the distinct tile of each tile.
fn distinct_tiles(
    hd: &RgbImage,
    grid: &HdGrid,
    global: &[f32],
    lut: &[[f32; 256]; 3],
) -> (Vec<Source>, Vec<usize>) {
    let mut sources = vec![Source::Global];
    let mut tile_of = vec![0];
    let mut index_of: HashMap<blake3::Hash, usize> = HashMap::new();
    for tile in 0..grid.tiles() {
        let mut hasher = blake3::Hasher::new();
        for row in tile_rows(hd, grid, tile) {
            hasher.update(row);
        }
        let index = *index_of.entry(hasher.finalize()).or_insert_with(|| {
            if is_global(hd, grid, tile, global, lut) {
                return 0;
            }
            sources.push(Source::Tile(tile));
            sources.len() - 1
        });
        tile_of.push(index);
    }
    (sources, tile_of)
}

/// Returns the 336 rows of a tile, `[336, 3]` each.
fn tile_rows<'a>(hd: &'a RgbImage, grid: &HdGrid, tile: usize) -> impl Iterator<Item = &'a [u8]> {
    let (top, left) = (tile / grid.w_crop * TILE_SIDE, tile % grid.w_crop * TILE_SIDE);
    let rows = hd.pixels.chunks_exact(hd.width * 3).skip(top).take(TILE_SIDE);
    rows.map(move |row| &row[left * 3..(left + TILE_SIDE) * 3])
}

/// Whether a tile's values equal those of the global view, bit for bit.
fn is_global(hd: &RgbImage, grid: &HdGrid, tile: usize, global: &[f32], lut: &[[f32; 256]; 3]) -> bool {
    let pixels = tile_rows(hd, grid, tile).flat_map(|row| row.chunks_exact(3));
    pixels.enumerate().all(|(i, pixel)| {
        (0..3).all(|c| lut[c][usize::from(pixel[c])].to_bits() == global[c * PLANE + i].to_bits())
    })
}

/// Normalises one colour plane of a tile, `[336, 336]`.
fn normalise(hd: &RgbImage, grid: &HdGrid, tile: usize, channel: usize, lut: &[f32; 256], out: &mut [f32]) {
    for (row, out) in tile_rows(hd, grid, tile).zip(out.chunks_exact_mut(TILE_SIDE)) {
        for (value, pixel) in out.iter_mut().zip(row.chunks_exact(3)) {
            *value = lut[usize::from(pixel[channel])];
        }
    }
}

/// Hashes the HD image and the settings: they determine every value of the inputs, and hashing the HD image is cheaper
/// than hashing the original.
fn hash(image: &RgbImage, params: &ImageParams, hd: &RgbImage) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
    for size in [image.width, image.height, hd.width, hd.height, params.num_crops] {
        hasher.update(&(size as u64).to_le_bytes());
    }
    for value in params.image_mean.iter().chain(&params.image_std) {
        hasher.update(&value.to_le_bytes());
    }
    hasher.update(&hd.pixels);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_made_elsewhere_are_the_same_tiles() {
        let (width, height) = (700, 500);
        let pixels =
            (0..width * height * 3).map(|i| if i < 900_000 { 255 } else { (i * i % 251) as u8 }).collect();
        let made = process(&RgbImage { width, height, pixels }, &ImageParams::default()).unwrap();
        let mut values = made.pixel_values();
        values.resize(18 * TILE_VALUES, 0.0); // the reference's padding
        let given = ImageInputs::from_pixel_values(&values, made.grid.image_size()).unwrap();
        assert!(made.distinct_tiles() < made.tile_of.len(), "the blank tiles are one");
        assert_eq!((&given.tile_of, &given.distinct), (&made.tile_of, &made.distinct));
        assert_eq!(given.num_img_tokens(), made.num_img_tokens());
        values[0] += 1.0;
        let other = ImageInputs::from_pixel_values(&values, made.grid.image_size()).unwrap();
        assert_ne!(other.hash, given.hash);
    }

    #[test]
    fn values_that_are_no_tiles_are_refused() {
        let of = |tiles: usize, value: f32, width, height| {
            let values = vec![value; tiles * TILE_VALUES];
            ImageInputs::from_pixel_values(&values, Size { width, height }).unwrap_err()
        };
        for (width, height) in
            [(0, 336), (336, 300), (337, 336), (336 * 17, 336 * 17), (u32::MAX, 336), (336, u32::MAX)]
        {
            let refused = of(2, 0.0, width, height);
            assert!(matches!(refused, ImageError::HdSize { .. }), "{width}x{height}");
        }
        let (needed, values) = (3 * TILE_VALUES, 2 * TILE_VALUES);
        let refused = ImageError::PixelValues { height: 336, width: 672, needed, values };
        assert_eq!(of(2, 0.0, 672, 336), refused);
        for value in [f32::NAN, f32::INFINITY] {
            assert_eq!(of(2, value, 336, 336), ImageError::NotFinite);
        }
    }
}
