//! Where a picture comes from, before it is one.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use std::ffi::OsString;
use std::sync::Arc;

/// Where a picture comes from: a path, bytes, pixels or an address.
#[pyclass(frozen, module = "phi3v._phi3v")]
pub(crate) struct Source {
    pub(crate) origin: Origin,
}

/// The kinds of it. Bytes stay where Python has them.
#[derive(Clone)]
pub(crate) enum Origin {
    /// A file, or an http address.
    Named(OsString),
    /// The bytes of a file, and what to call it.
    Bytes(Arc<PyBackedBytes>, String),
    /// A `data:` URL.
    DataUrl(String),
    /// `[height, width, 3]`, rows from the top.
    Pixels { width: usize, height: usize, rgb: Arc<PyBackedBytes> },
}

#[pymethods]
impl Source {
    /// The file at a path, or the picture at an http address.
    #[staticmethod]
    fn named(name: OsString) -> Self {
        // which would be stdin
        let name = if name == "-" { OsString::from("./-") } else { name };
        Self { origin: Origin::Named(name) }
    }

    /// The bytes of a file.
    #[staticmethod]
    fn of_bytes(data: PyBackedBytes, name: String) -> Self {
        Self { origin: Origin::Bytes(Arc::new(data), name) }
    }

    /// A `data:` URL.
    #[staticmethod]
    fn of_data_url(url: String) -> Self {
        Self { origin: Origin::DataUrl(url) }
    }

    /// Pixels, `[height, width, 3]`.
    #[staticmethod]
    fn of_pixels(width: usize, height: usize, rgb: PyBackedBytes) -> Self {
        Self { origin: Origin::Pixels { width, height, rgb: Arc::new(rgb) } }
    }
}
