//! Restrictions on an answer's form: which tokens may come next.

use crate::Result;

/// Decides, token by token, what an answer may be.
pub trait Constraint: Send {
    /// Sets the logits, `[vocab_size]`, of all tokens that may not come next to negative infinity.
    ///
    /// # Errors
    /// If no token may come next, or the grammar's limits are exceeded.
    fn allowed(&mut self, logits: &mut [f32]) -> Result<()>;

    /// Moves on past a chosen token.
    ///
    /// # Errors
    /// If the token was not allowed.
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Whether the answer is whole and nothing may follow.
    fn is_complete(&self) -> bool;
}
