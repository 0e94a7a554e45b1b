//! From tensor names to the operands of a backend.

use crate::Result;
use crate::weights::{Weights, names};
use phi3v_kernels::{Backend, Epilogue, Precision};

/// Loads the parts of a model by their names in the checkpoint.
pub(super) struct Loader<'a, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) weights: &'a Weights,
    pub(super) precision: Precision,
}

impl<B: Backend> Loader<'_, B> {
    /// Returns the layer `name`, including its bias if the checkpoint has one.
    pub(super) fn linear(&self, name: &str) -> Result<B::Linear> {
        let source = self.weights.linear(name, self.precision)?;
        Ok(self.backend.linear_weight(source)?)
    }

    /// Returns the table `name`, whose rows are looked up.
    pub(super) fn embedding(&self, name: &str) -> Result<B::Table> {
        let source = self.weights.linear(name, self.precision)?;
        Ok(self.backend.embedding(source)?)
    }

    /// Returns the factors of the norm `name`, which has no bias.
    pub(super) fn rms_norm(&self, name: &str) -> Result<B::Vector> {
        self.vector(&names::weight(name))
    }

    fn vector(&self, name: &str) -> Result<B::Vector> {
        Ok(self.backend.vector(&self.weights.vector(name)?)?)
    }

    /// Returns the tensor `name` as rows of `cols` values.
    pub(super) fn rows(&self, name: &str, cols: usize) -> Result<B::Tensor> {
        let values = self.weights.vector(name)?;
        let mut tensor = self.backend.tensor(values.len() / cols, cols)?;
        self.backend.upload(&values, 0, &mut tensor);
        Ok(tensor)
    }

    /// Returns factors and bias of the layer norm `name`.
    pub(super) fn layer_norm(&self, name: &str) -> Result<(B::Vector, B::Vector)> {
        Ok((self.vector(&names::weight(name))?, self.vector(&names::bias(name))?))
    }
}

/// Shapes `out` for the product and computes it; `cols` is the number of output columns.
pub(super) fn linear_into<B: Backend>(
    backend: &B,
    x: &B::Tensor,
    weight: &B::Linear,
    cols: usize,
    epilogue: Epilogue,
    out: &mut B::Tensor,
) -> Result<()> {
    backend.reshape(out, backend.shape(x).0, cols)?;
    backend.linear(x, weight, epilogue, out);
    Ok(())
}
