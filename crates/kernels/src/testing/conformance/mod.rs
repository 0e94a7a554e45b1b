//! What every backend must do, as functions that a test of it calls: operations over awkward shapes, against the
//! definition or their formulas, and the promises that the model and the engine rely on.
//!
//! Each panics where a backend does not conform, and names it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

pub mod attention;
pub mod dense;
pub mod packed;
pub mod rows;

use crate::Backend;

/// A backend under test, and what to call it.
pub struct Subject<B> {
    pub name: String,
    pub backend: B,
}

/// `values` as a tensor of `cols` columns.
fn tensor<B: Backend>(backend: &B, values: &[f32], cols: usize) -> B::Tensor {
    let mut tensor = backend.tensor(values.len() / cols, cols).unwrap();
    backend.upload(values, 0, &mut tensor);
    tensor
}

/// All values of a tensor.
fn values<B: Backend>(backend: &B, tensor: &B::Tensor) -> Vec<f32> {
    let mut values = Vec::new();
    backend.download(tensor, 0..backend.shape(tensor).0, &mut values).unwrap();
    values
}
