//! Answers that must have a given form: JSON, a JSON schema, a regular expression or a grammar.
//!
//! Before every token, a constraint forbids all tokens after which the text could no longer be completed in that form.
//! Tokens that end the answer are allowed only if the text is complete. So a finished answer has the form whatever the
//! sampler draws; an answer cut off by a token limit may lack its end. If the form is a schema, a finished answer is also
//! validated against the original schema before it may end. An answer that does not validate is an error.
//!
//! If a form leaves only one possible text, it leaves only one tokenization: the one that the tokenizer produces for that
//! text. So forced tokens can be known, and computed, before the model is asked ([`Constraint::forced`]).
//!
//! The form applies to the text people see: if the first token of an answer begins with a space, that space is not part
//! of the text, just as decoding drops it. The grammar engine is llguidance.

mod different;
mod grammar;
mod lark;
mod repetitions;
mod schema;
mod vocabulary;

pub use grammar::{Grammar, GrammarLimits};

use llguidance::{Matcher, ParserFactory};
use std::collections::VecDeque;

use crate::Result;
use crate::tokenizer::Tokenizer;

/// Decides, token by token, what an answer may contain.
pub trait Constraint: Send {
    /// Sets the logits, `[vocab_size]`, of all tokens that may not come next to negative infinity.
    ///
    /// # Errors
    /// If the grammar's limits are exceeded.
    fn allowed(&mut self, logits: &mut [f32]) -> Result<()>;

    /// Returns the token that comes next whatever the logits are, because [`allowed`](Self::allowed) would leave only that
    /// token. Returns `None` if there is a choice, or if this is not known.
    ///
    /// # Errors
    /// If the grammar's limits are exceeded.
    fn forced(&mut self) -> Result<Option<u32>> {
        Ok(None)
    }

    /// Advances past a chosen token.
    ///
    /// # Errors
    /// If the token was not allowed.
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Returns whether the answer is complete and nothing may follow.
    fn is_complete(&self) -> bool;
}

/// Why an answer cannot be constrained to a form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// The form has more text or more levels than the limit allows.
    #[error("the {kind} has {value} {unit}, the limit is {limit}")]
    TooLarge {
        /// JSON schema, list of choices, regex or grammar.
        kind: &'static str,
        /// The size or depth of the form.
        value: usize,
        /// The unit of both numbers.
        unit: &'static str,
        /// The largest allowed value.
        limit: usize,
    },
    /// The form is wrong or not supported.
    #[error("the {kind} cannot be used: {reason}")]
    Invalid {
        /// JSON schema, list of choices, regex or grammar.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Following the form would take too long.
    #[error("the form of the answer is too complex to follow: {reason}")]
    TooComplex {
        /// Which limit was exceeded.
        reason: String,
    },
    /// A complete answer followed the grammar of its schema but does not satisfy the schema: a bug in this library.
    #[error("the answer does not satisfy its JSON schema: {reason}")]
    NotValid {
        /// What is wrong with the answer.
        reason: String,
    },
    /// An array of different items (`uniqueItems`) needs another item, but every possible item is already in it.
    #[error(
        "the answer cannot be ended by its JSON schema: an array cannot go on without an item that it already has"
    )]
    NoOtherItem,
    /// A forbidden token was chosen.
    #[error("token {token} is not allowed by the form of the answer")]
    NotAllowed {
        /// The token's id in the vocabulary.
        token: u32,
    },
}

impl ConstraintError {
    /// Returns what the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TooLarge { kind: grammar::CHOICES, .. } => "give fewer choices, or shorter ones".to_owned(),
            Self::TooLarge { .. } | Self::TooComplex { .. } => {
                "make it simpler: fewer alternatives, fewer levels, shorter patterns".to_owned()
            }
            Self::Invalid { kind, .. } => format!("correct the {kind}, or leave it out to get free text"),
            Self::NotValid { .. } => "ask again, and report it with the schema".to_owned(),
            Self::NoOtherItem => {
                "let minItems and maxItems ask for no more items than can differ, or list the items in an enum".to_owned()
            }
            Self::NotAllowed { .. } => "choose tokens only after Constraint::allowed".to_owned(),
        })
    }
}

/// Stack size of the threads that compile forms and check answers: more than eight times what compiling the deepest
/// permitted forms takes.
const STACK_BYTES: usize = 64 << 20;

/// Runs `work` on a thread of its own with a large stack, and waits for the thread to finish.
fn on_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, ConstraintError> + Send,
) -> Result<T, ConstraintError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("form".to_owned()).stack_size(STACK_BYTES);
        let too_complex = |reason: String| ConstraintError::TooComplex { reason };
        let done = thread.spawn_scoped(scope, work).map_err(|error| too_complex(error.to_string()))?;
        done.join().unwrap_or_else(|_| Err(too_complex("the engine gave up".to_owned())))
    })
}

/// Makes constraints for one tokenizer. Building a factory walks the whole vocabulary, so keep one.
pub struct ConstraintFactory {
    parsers: ParserFactory,
    limits: GrammarLimits,
    /// Tokens whose text begins with a space. // [vocab_size]
    begins_with_space: std::sync::Arc<[bool]>,
    space: u32,
    stop_ids: [u32; 2],
}

impl std::fmt::Debug for ConstraintFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConstraintFactory").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl ConstraintFactory {
    /// Reads the texts of the tokens.
    ///
    /// # Errors
    /// [`ConstraintError::TooComplex`] if the vocabulary cannot be indexed.
    pub fn new(tokenizer: &Tokenizer, limits: GrammarLimits) -> Result<Self, ConstraintError> {
        Ok(Self {
            parsers: vocabulary::parser_factory(tokenizer)?,
            limits,
            begins_with_space: vocabulary::begins_with_space(tokenizer),
            space: tokenizer.byte_id(b' '),
            stop_ids: tokenizer.stop_ids(),
        })
    }

    /// Returns a constraint at the start of an answer. The grammar is compiled on a thread with its own stack. The limits on
    /// grammars (docs/internals/forms.md) bound the time and the memory, so compilation always terminates.
    ///
    /// ```
    /// use phi3v::constraint::{ConstraintFactory, Grammar, GrammarLimits};
    /// use std::ops::ControlFlow;
    ///
    /// let mut session = phi3v::load("demo")?;
    /// let mut request = session.preparer().ask([], "Is it raining?")?;
    /// let factory = ConstraintFactory::new(session.tokenizer(), GrammarLimits::default())?;
    /// request.constraint = Some(Box::new(factory.constraint(&Grammar::Regex("yes|no".to_owned()))?));
    ///
    /// let answer = session.run(request, &mut |_| ControlFlow::Continue(()))?;
    /// assert!(["yes", "no"].contains(&answer.text.as_str()));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ConstraintError::TooLarge`], [`ConstraintError::TooComplex`] or [`ConstraintError::Invalid`] name what is wrong
    /// with the grammar.
    pub fn constraint(&self, grammar: &Grammar) -> Result<GrammarConstraint, ConstraintError> {
        on_large_stack(|| self.compile(grammar))
    }

    fn compile(&self, grammar: &Grammar) -> Result<GrammarConstraint, ConstraintError> {
        let kind = grammar.kind();
        let grammar = grammar.resolved()?;
        let invalid = |error| grammar::invalid(kind, &error);
        let parser = grammar.after_a_space(&self.limits)?;
        let parser = self.parsers.create_parser_from_init_default(parser).map_err(invalid)?;
        let mut matcher = Matcher::new(Ok(parser));
        // The text begins after the space that precedes it in the grammar.
        matcher.consume_token(self.space).map_err(invalid)?;
        let may_end = matcher.is_accepting().map_err(invalid)?;
        matcher.rollback(1).map_err(invalid)?;
        Ok(GrammarConstraint {
            matcher,
            begins_with_space: self.begins_with_space.clone(),
            space: self.space,
            stop_ids: self.stop_ids,
            at_start: true,
            may_end,
            check: grammar.check().map(std::sync::Arc::new),
            text: Vec::new(),
            not_valid: None,
            allowed: Vec::new(),
            forced: VecDeque::new(),
        })
    }
}

/// Constrains one answer to a grammar.
///
/// The internal grammar is " " followed by the user's grammar. A first token that begins with a space is matched against
/// it unchanged. Any other first token is matched after an implied space. In both cases the rest of the grammar matches
/// the text that people see.
///
/// Clones advance independently from the position of the original, so a grammar is compiled once for all choices of a
/// request.
pub struct GrammarConstraint {
    matcher: Matcher,
    begins_with_space: std::sync::Arc<[bool]>,
    space: u32,
    stop_ids: [u32; 2],
    at_start: bool,
    /// Whether the text so far has the form.
    may_end: bool,
    /// The check of a complete text, besides the grammar.
    check: Option<std::sync::Arc<schema::Check>>,
    /// The text so far, if there is a check.
    text: Vec<u8>,
    /// The error of the check, if the grammar would let the text so far end.
    not_valid: Option<ConstraintError>,
    /// The tokens that were allowed last: the grammar engine may refuse one of them because of its cost.
    allowed: Vec<bool>,
    /// The tokens that must come next, as far as they are known.
    forced: VecDeque<u32>,
}

impl Clone for GrammarConstraint {
    fn clone(&self) -> Self {
        Self {
            // a plain clone would share the lexer's cache and its lock with the original
            matcher: self.matcher.deep_clone(),
            begins_with_space: self.begins_with_space.clone(),
            check: self.check.clone(),
            text: self.text.clone(),
            not_valid: self.not_valid.clone(),
            allowed: self.allowed.clone(),
            forced: self.forced.clone(),
            ..*self
        }
    }
}

impl std::fmt::Debug for GrammarConstraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarConstraint").field("may_end", &self.may_end).finish_non_exhaustive()
    }
}

impl GrammarConstraint {
    /// Returns whether the answer may end here; more may still follow.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.may_end
    }

    /// Returns which tokens may come first: those with a leading space unchanged, the others after an implied space.
    fn first_tokens(&mut self) -> anyhow::Result<Vec<bool>> {
        let with_space = self.matcher.compute_mask()?;
        self.matcher.consume_token(self.space)?;
        let without_space = self.matcher.compute_mask_or_eos()?;
        self.matcher.rollback(1)?;
        let begins = self.begins_with_space.iter().enumerate();
        Ok(begins.map(|(i, &space)| if space { with_space.get(i) } else { without_space.get(i) }).collect())
    }

    /// Appends the text of a token to that of the answer.
    fn note(&mut self, token: u32, begins_with_space: bool) -> Result<(), ConstraintError> {
        if self.check.is_some() {
            let tokens = self.matcher.tok_env().map_err(|error| grammar::too_complex(&error))?;
            let bytes = tokens.tok_trie().token(token);
            self.text.extend_from_slice(&bytes[usize::from(self.at_start && begins_with_space)..]);
        }
        self.at_start = false;
        Ok(())
    }

    /// Returns what is wrong with the text so far if it is taken as a complete answer.
    fn check_whole(&self) -> Option<ConstraintError> {
        let check = self.check.as_ref()?;
        on_large_stack(|| check.run(&self.text)).err()
    }

    /// Finds the tokens that must come next, if they are not known. The first token is never forced: it may begin with a
    /// space or not.
    fn look_ahead(&mut self) {
        if !self.at_start && self.forced.is_empty() && !self.matcher.is_stopped() {
            self.forced = self.matcher.compute_ff_tokens().into();
        }
    }

    /// Forbids the tokens after which an array would contain an item twice.
    fn leave_out_repetitions(&mut self, allowed: &mut [bool]) -> Result<(), ConstraintError> {
        let Self { matcher, check: Some(check), text, .. } = self else { return Ok(()) };
        if text.is_empty() || !check.asks_for_unique_items() {
            return Ok(());
        }
        on_large_stack(|| different::leave_out_repetitions(matcher, check, text, allowed))
    }

    fn next_tokens(&mut self) -> anyhow::Result<Vec<bool>> {
        if self.at_start {
            return self.first_tokens();
        }
        self.look_ahead();
        if let Some(&forced) = self.forced.front() {
            return Ok((0..self.begins_with_space.len()).map(|i| i == forced as usize).collect());
        }
        let mask = self.matcher.compute_mask_or_eos()?;
        Ok((0..self.begins_with_space.len()).map(|i| mask.get(i)).collect())
    }
}

impl Constraint for GrammarConstraint {
    fn allowed(&mut self, logits: &mut [f32]) -> Result<()> {
        let mut allowed = self.next_tokens().map_err(|error| grammar::too_complex(&error))?;
        for id in self.stop_ids {
            allowed[id as usize] = self.may_end;
        }
        let before = allowed.contains(&true);
        self.leave_out_repetitions(&mut allowed)?;
        if !allowed.contains(&true)
            && let Some(error) = self.not_valid.clone().or(before.then_some(ConstraintError::NoOtherItem))
        {
            return Err(error.into());
        }
        // Rows of a checkpoint beyond the tokenizer's vocabulary have no text.
        for (i, logit) in logits.iter_mut().enumerate() {
            if !allowed.get(i).is_some_and(|&allowed| allowed) {
                *logit = f32::NEG_INFINITY;
            }
        }
        self.allowed = allowed;
        Ok(())
    }

    fn forced(&mut self) -> Result<Option<u32>> {
        if self.may_end {
            return Ok(None);
        }
        self.look_ahead();
        let Some(&token) = self.forced.front() else { return Ok(None) };
        let mut allowed: Vec<bool> = (0..=token).map(|id| id == token).collect();
        self.leave_out_repetitions(&mut allowed)?;
        Ok(allowed[token as usize].then_some(token))
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        let foreseen = self.forced.pop_front() == Some(token);
        if !foreseen {
            self.forced.clear();
        }
        let allowed = foreseen || self.allowed.get(token as usize).is_some_and(|&allowed| allowed);
        let refused = |error: anyhow::Error| {
            if allowed { grammar::too_complex(&error) } else { ConstraintError::NotAllowed { token } }
        };
        if self.stop_ids.contains(&token) {
            return if self.may_end { Ok(()) } else { Err(ConstraintError::NotAllowed { token }.into()) };
        }
        let &begins_with_space =
            self.begins_with_space.get(token as usize).ok_or(ConstraintError::NotAllowed { token })?;
        if self.at_start && !begins_with_space {
            self.matcher.consume_token(self.space).map_err(refused)?;
        }
        self.matcher.consume_token(token).map_err(refused)?;
        let may_end = self.matcher.is_accepting().map_err(|error| grammar::too_complex(&error))?;
        self.note(token, begins_with_space)?;
        self.not_valid = if may_end { self.check_whole() } else { None };
        self.may_end = may_end && self.not_valid.is_none();
        match &self.not_valid {
            Some(error) if self.matcher.is_stopped() => Err(error.clone().into()),
            _ => Ok(()),
        }
    }

    fn is_complete(&self) -> bool {
        self.may_end && self.matcher.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Follows an answer token by token, with the grammar of one schema and the check of another.
    fn followed(grammar: serde_json::Value, check: serde_json::Value, answer: &[u8]) -> Result<bool, String> {
        let tokenizer =
            Tokenizer::from_json(include_bytes!("../../../../testdata/tiny/tokenizer.json")).unwrap();
        let factory = ConstraintFactory::new(&tokenizer, GrammarLimits::default()).unwrap();
        let mut constraint = factory.constraint(&Grammar::JsonSchema(grammar)).unwrap();
        constraint.check = Grammar::JsonSchema(check).check().map(std::sync::Arc::new);
        for &byte in answer {
            constraint.allowed(&mut vec![0.0; tokenizer.vocab_size()]).map_err(|error| error.to_string())?;
            constraint.accept(tokenizer.byte_id(byte)).map_err(|error| error.to_string())?;
        }
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        constraint.allowed(&mut logits).map_err(|error| error.to_string())?;
        Ok(tokenizer.stop_ids().iter().all(|&id| logits[id as usize] == 0.0))
    }

    #[test]
    fn what_follows_its_grammar_and_not_its_schema_may_not_end() {
        let (object, other) = (json!({"type": "object"}), json!({"maxProperties": 0}));
        assert_eq!(followed(object.clone(), object.clone(), b"{\"a\":1}"), Ok(true));
        assert_eq!(followed(object.clone(), other.clone(), b"{\"a\":1"), Ok(false));
        let refused =
            "the answer does not satisfy its JSON schema: an object has 1 member, maxProperties is 0";
        assert_eq!(followed(object, other, b"{\"a\":1}"), Err(refused.to_owned()));
        // an answer that may continue does so
        let tens = json!({"type": "integer", "multipleOf": 10});
        let integer = json!({"type": "integer", "maximum": 99});
        assert_eq!(followed(integer.clone(), tens.clone(), b" 7"), Ok(false));
        assert_eq!(followed(integer.clone(), tens.clone(), b" 70"), Ok(true));
        let refused = "the answer does not satisfy its JSON schema: 75 is no multiple of 10";
        assert_eq!(followed(integer, tens, b"75"), Err(refused.to_owned()));
    }

    #[test]
    fn an_array_that_has_run_out_of_different_items_is_no_fault_of_the_library() {
        let schema = json!({"items": {"type": "string", "pattern": "^[ab]$"}, "type": "array", "minItems": 3,
            "uniqueItems": true});
        // both required items can follow; after them no other letter is left
        assert_eq!(followed(schema.clone(), schema.clone(), b"[\"a\",\"b\","), Ok(false));
        let refused = followed(schema.clone(), schema, b"[\"a\",\"b\",\"");
        assert_eq!(refused, Err(ConstraintError::NoOtherItem.to_string()));
        let hint = ConstraintError::NoOtherItem.hint().unwrap();
        assert!(hint.contains("minItems") && !hint.contains("report"), "{hint}");
    }
}
