//! What every backend must do, as functions that its tests call: operations over awkward shapes, compared with the
//! definition or their formulas, and the guarantees that the model and the engine rely on.
//!
//! Each function panics if a backend does not conform, and names the backend.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

pub mod attention;
pub mod dense;
pub mod packed;
pub mod rows;

use crate::Backend;

/// A backend under test, and its name.
pub struct Subject<B> {
    pub name: String,
    pub backend: B,
}

/// Returns `values` as a tensor of `cols` columns.
fn tensor<B: Backend>(backend: &B, values: &[f32], cols: usize) -> B::Tensor {
    let mut tensor = backend.tensor(values.len() / cols, cols).unwrap();
    backend.upload(values, 0, &mut tensor);
    tensor
}

/// Returns all values of a tensor.
fn values<B: Backend>(backend: &B, tensor: &B::Tensor) -> Vec<f32> {
    let mut values = Vec::new();
    backend.download(tensor, 0..backend.shape(tensor).0, &mut values).unwrap();
    values
}
