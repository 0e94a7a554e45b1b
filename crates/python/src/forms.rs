//! Forms of answers, each compiled once for the answers that are held to it one after the other.

use phi3v::constraint::{ConstraintFactory, Grammar, GrammarConstraint, GrammarLimits};
use phi3v::tokenizer::Tokenizer;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Forms that are kept, of those asked for last.
const KEPT_MAX: usize = 8;

/// The forms of one model.
#[derive(Default)]
pub(crate) struct Forms {
    factory: OnceLock<ConstraintFactory>,
    /// The one asked for last comes last.
    kept: Mutex<VecDeque<Kept>>,
}

/// A form, as it is at the start of an answer.
struct Kept {
    text: String,
    constraint: GrammarConstraint,
}

impl Forms {
    /// What holds an answer to a form, which `text` tells from every other.
    ///
    /// # Errors
    /// The form cannot be followed.
    pub(crate) fn constraint(
        &self,
        tokenizer: &Tokenizer,
        form: &Grammar,
        text: String,
    ) -> Result<GrammarConstraint, phi3v::Error> {
        if let Some(constraint) = self.kept(&text) {
            return Ok(constraint);
        }
        // others need not wait while it is compiled
        let constraint = self.factory(tokenizer)?.constraint(form)?;
        let mut kept = self.lock();
        kept.retain(|kept| kept.text != text);
        kept.push_back(Kept { text, constraint: constraint.clone() });
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
        Ok(constraint)
    }

    fn kept(&self, text: &str) -> Option<GrammarConstraint> {
        let mut kept = self.lock();
        let place = kept.iter().position(|kept| kept.text == text)?;
        let found = kept.remove(place)?;
        let constraint = found.constraint.clone();
        kept.push_back(found);
        Some(constraint)
    }

    fn factory(&self, tokenizer: &Tokenizer) -> Result<&ConstraintFactory, phi3v::Error> {
        if let Some(factory) = self.factory.get() {
            return Ok(factory);
        }
        let made = ConstraintFactory::new(tokenizer, GrammarLimits::default())?;
        Ok(self.factory.get_or_init(|| made))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
