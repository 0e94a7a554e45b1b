//! Pictures, ready for the model.

use crate::errors::{self, Class};
use crate::source::{Origin, Source};
use crate::work::{self, CancelFlag};
use phi3v::document::is_pdf;
use phi3v::image::{
    self, ImageError, ImageInputs, ImageLimits, ImageMode, ImageParams, NUM_CROPS_MAX, RgbImage, Size,
    TILE_VALUES, is_avif, is_heic,
};
use phi3v_cli::documents::{Kind, PageChoice};
use phi3v_cli::error::CliError;
use phi3v_cli::sources::{
    AllowedHost, DATA_URL, ImageOptions, NamedImage, NamedImageError, PAGES_UNASKED_MAX, pages_of,
    read_data_url, read_named, thumbnail, useless_flags,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A picture ready for the model.
#[pyclass(frozen, module = "phi3v._phi3v")]
pub(crate) struct Picture {
    pub(crate) inputs: Arc<ImageInputs>,
    /// As the user named it.
    #[pyo3(get)]
    name: String,
    /// What is to be told of a page that lacks something, or of `pages` that choose nothing.
    #[pyo3(get)]
    notice: Option<String>,
    params: ImageParams,
}

/// How pictures are read and cut. The limits are the command line's where none are given.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Reading {
    /// Most tiles; the model's own number where none is given.
    #[pyo3(default)]
    num_crops: Option<usize>,
    /// Whether pixels are the reference's.
    reference: bool,
    /// Hosts that pictures may be fetched from.
    allow_hosts: Vec<String>,
    #[pyo3(default)]
    max_pixels: Option<u64>,
    #[pyo3(default)]
    max_side: Option<u32>,
    #[pyo3(default)]
    max_image_bytes: Option<usize>,
    #[pyo3(default)]
    max_frames: Option<usize>,
    /// Which pages of documents, as the command line has them.
    #[pyo3(default)]
    pages: Option<String>,
    /// Set when the pictures are not wanted any more.
    #[pyo3(default)]
    cancel: Option<Py<CancelFlag>>,
}

impl Reading {
    /// What a picture may cost.
    fn limits(&self) -> ImageLimits {
        let default = ImageLimits::default();
        ImageLimits {
            bytes_max: self.max_image_bytes.unwrap_or(default.bytes_max),
            pixels_max: self.max_pixels.unwrap_or(default.pixels_max),
            side_max: self.max_side.unwrap_or(default.side_max),
            frames_max: self.max_frames.unwrap_or(default.frames_max),
        }
    }

    /// The command line's words for it, of a model with the settings `own`.
    fn options(&self, py: Python<'_>, own: &ImageParams) -> PyResult<ImageOptions> {
        let refused = |message: String| errors::raise(py, Class::Option, &message, None);
        let host = |name: &String| name.parse::<AllowedHost>().map_err(refused);
        let hosts = self.allow_hosts.iter().map(host).collect::<PyResult<Vec<_>>>()?;
        if let Some(num_crops) = self.num_crops
            && !(1..=NUM_CROPS_MAX).contains(&num_crops)
        {
            let error = ImageError::NumCrops { num_crops, limit: NUM_CROPS_MAX };
            return Err(errors::raise(py, Class::Option, &error.to_string(), error.hint().as_deref()));
        }
        let mode = if self.reference { ImageMode::Reference } else { ImageMode::AsSeen };
        let params = own.with_num_crops(self.num_crops.unwrap_or(own.num_crops));
        let pages =
            self.pages.as_ref().map(|pages| pages.parse::<PageChoice>()).transpose().map_err(refused)?;
        Ok(ImageOptions::of_files(mode, params, self.limits()).with_hosts(&hosts).with_pages(pages))
    }
}

/// Reads the pictures of a source for a model with the settings `own`: one, or the pages of a document, of which there may be
/// `pages_unasked_max` where nobody chose.
pub(crate) fn read(
    py: Python<'_>,
    source: &Source,
    reading: &Reading,
    own: &ImageParams,
    pages_unasked_max: usize,
) -> PyResult<Vec<Picture>> {
    let cancelled = reading.cancel.as_ref().map(|flag| flag.get().shared()).unwrap_or_default();
    work::check_wanted(py, &cancelled)?;
    let options = work::held(py, || reading.options(py, own))??;
    let (origin, params) = (source.origin.clone(), options.params);
    // a pipe, a host or a document may let one wait
    let may_wait = match &origin {
        Origin::Named(_) | Origin::DataUrl(_) => true,
        Origin::Bytes(bytes, _) => is_pdf(bytes) || is_avif(bytes) || is_heic(bytes),
        Origin::Pixels { .. } => false,
    };
    let told = Arc::clone(&cancelled);
    let work = move || prepared(origin, &options, pages_unasked_max, &told).map_err(CliError::from);
    let (pictures, useless) =
        if may_wait { work::beside(py, &cancelled, work)? } else { work::outside(py, work)? };
    let picture = |picture: NamedImage| {
        let notice = picture.is_incomplete.then(|| picture.incomplete_notice()).or_else(|| useless.clone());
        Picture { inputs: picture.inputs, name: picture.name, notice, params }
    };
    Ok(pictures.into_iter().map(picture).collect())
}

/// A source's pictures, cut, those until `cancelled` was set; and what is told of an option that chooses nothing of them.
fn prepared(
    origin: Origin,
    options: &ImageOptions,
    pages_unasked_max: usize,
    cancelled: &AtomicBool,
) -> Result<(Vec<NamedImage>, Option<String>), NamedImageError> {
    let mut useless = None;
    let mut tell = |line: String| useless = Some(line.replace("--pages", "pages"));
    let (name, bytes) = match origin {
        Origin::Named(name) => (name.to_string_lossy().into_owned(), read_named(&name, options)?),
        Origin::Bytes(bytes, name) => {
            // before they are copied
            if let Err(error) = options.limits.check_bytes(bytes.len()) {
                return Err(NamedImageError::Image { name, error });
            }
            (name, bytes.to_vec())
        }
        Origin::DataUrl(url) => (DATA_URL.to_owned(), read_data_url(&url, options.limits.bytes_max)?),
        Origin::Pixels { width, height, rgb } => {
            let name = "the pixels".to_owned();
            useless_flags(&name, Kind::Picture, options).into_iter().for_each(tell);
            return match of_pixels(width, height, &rgb, options) {
                Ok(inputs) => {
                    let inputs = Arc::new(inputs);
                    Ok((vec![NamedImage { name, inputs, time: None, is_incomplete: false }], useless))
                }
                Err(error) => Err(NamedImageError::Image { name, error }),
            };
        }
    };
    let mut pages = pages_of(name, bytes, options, pages_unasked_max, &mut tell)?;
    let wanted = std::iter::from_fn(|| if cancelled.load(Ordering::Relaxed) { None } else { pages.next() });
    let pictures = wanted.collect::<Result<_, _>>()?;
    Ok((pictures, useless))
}

/// Pixels `[height, width, 3]` within the limits, cut.
fn of_pixels(
    width: usize,
    height: usize,
    rgb: &[u8],
    options: &ImageOptions,
) -> Result<ImageInputs, ImageError> {
    options.limits.check_size(Size::of(width, height))?;
    image::process(&RgbImage { width, height, pixels: rgb.to_vec() }, &options.params)
}

/// Refuses what `name` says has so many pixels where these are beyond the limits, before anything is made of them.
#[pyfunction]
pub(crate) fn check_size(
    py: Python<'_>,
    name: String,
    width: usize,
    height: usize,
    reading: Reading,
) -> PyResult<()> {
    let checked = work::held(py, || reading.limits().check_size(Size::of(width, height)))?;
    checked.map_err(|error| match error {
        // which is no file, as that of a camera
        ImageError::Empty { .. } => {
            let hint = "look how it was made: a part cut out beyond a picture's edge has no pixels";
            errors::raise(py, Class::Picture, &format!("{name}: {error}"), Some(hint))
        }
        error => errors::exception(py, &CliError::from(NamedImageError::Image { name, error })),
    })
}

/// Reads the pictures of a source for no certain model: with the settings of Phi-3-vision, cut into at most `num_crops` tiles.
#[pyfunction]
pub(crate) fn prepare(
    py: Python<'_>,
    source: &Source,
    num_crops: usize,
    reading: Reading,
) -> PyResult<Vec<Picture>> {
    let own = ImageParams { num_crops, ..ImageParams::default() };
    read(py, source, &reading, &own, PAGES_UNASKED_MAX)
}

#[pymethods]
impl Picture {
    /// The tiles of the reference's `pixel_values`, `[crops + 1, 3, 336, 336]`, and its `image_sizes`.
    #[staticmethod]
    fn of_values(py: Python<'_>, values: PyBuffer<f32>, height: u32, width: u32) -> PyResult<Self> {
        let values = values.to_vec(py)?;
        let inputs = work::outside(py, || {
            let inputs = ImageInputs::from_pixel_values(&values, Size { width, height });
            Ok(inputs.map_err(phi3v::Error::from)?)
        })?;
        let name = "pixel_values".to_owned();
        Ok(Self { inputs: Arc::new(inputs), name, notice: None, params: ImageParams::default() })
    }

    /// `(width, height)` in pixels, as decoded.
    #[getter]
    fn size(&self) -> (u32, u32) {
        let Size { width, height } = self.inputs.original_size;
        (width, height)
    }

    /// Rows and columns of tiles.
    #[getter]
    fn grid(&self) -> (usize, usize) {
        (self.inputs.grid.h_crop, self.inputs.grid.w_crop)
    }

    /// Tiles, the global view included.
    #[getter]
    fn tiles(&self) -> usize {
        self.inputs.tile_of.len()
    }

    /// Tiles that differ from each other; only these are computed.
    #[getter]
    fn distinct_tiles(&self, py: Python<'_>) -> PyResult<usize> {
        work::held(py, || self.inputs.distinct_tiles())
    }

    /// Tokens of the prompt that stand for the picture.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<usize> {
        work::held(py, || self.inputs.num_img_tokens())
    }

    /// `(height, width)` of the HD image: the reference's `image_sizes`.
    #[getter]
    fn hd_size(&self, py: Python<'_>) -> PyResult<(u32, u32)> {
        let Size { width, height } = work::held(py, || self.inputs.grid.image_size())?;
        Ok((height, width))
    }

    /// The reference's `pixel_values`, `[tiles, 3, 336, 336]` in f32: the global view, the tiles, and zeros.
    fn pixel_values<'py>(&self, py: Python<'py>, tiles: usize) -> PyResult<Bound<'py, PyByteArray>> {
        let inputs = &self.inputs;
        if tiles < inputs.tile_of.len() {
            return Err(PyValueError::new_err(format!(
                "the picture has {} tiles, and room was asked for {tiles}",
                inputs.tile_of.len()
            )));
        }
        const TILE_BYTES: usize = TILE_VALUES * size_of::<f32>();
        let copy = |bytes: &mut [u8]| {
            for (out, &tile) in bytes.chunks_exact_mut(TILE_BYTES).zip(&inputs.tile_of) {
                let values = &inputs.distinct[tile * TILE_VALUES..][..TILE_VALUES];
                out.copy_from_slice(bytemuck::cast_slice(values));
            }
        };
        let bytes = tiles.checked_mul(TILE_BYTES).filter(|bytes| isize::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or_else(|| PyValueError::new_err(format!("no memory holds {tiles} tiles")))?;
        PyByteArray::new_with(py, bytes, |bytes| work::held(py, || copy(bytes)))
    }

    /// The picture small, as the model's global view has it: width, height and `[height, width, 3]`.
    fn thumbnail<'py>(&self, py: Python<'py>) -> PyResult<(usize, usize, Bound<'py, PyBytes>)> {
        let small = work::outside(py, || Ok(thumbnail(&self.inputs, &self.params)))?;
        Ok((small.width, small.height, PyBytes::new(py, &small.pixels)))
    }
}
