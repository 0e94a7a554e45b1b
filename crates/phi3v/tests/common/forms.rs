//! Answers under a form, drawn at random or given.

use phi3v::constraint::{Constraint, ConstraintFactory, GrammarConstraint, GrammarLimits};
use phi3v::tokenizer::Tokenizer;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// The same form, which does not tell what it forces.
pub struct Unforeseen(pub GrammarConstraint);

impl Constraint for Unforeseen {
    fn allowed(&mut self, logits: &mut [f32]) -> phi3v::Result<()> {
        self.0.allowed(logits)
    }

    fn accept(&mut self, token: u32) -> phi3v::Result<()> {
        self.0.accept(token)
    }

    fn is_complete(&self) -> bool {
        self.0.is_complete()
    }
}

/// Makes forms for the tokenizer of the tiny checkpoint.
pub struct Forms {
    pub tokenizer: Tokenizer,
    pub factory: ConstraintFactory,
}

impl Forms {
    pub fn new() -> Self {
        let path = super::repository().join("testdata/tiny/tokenizer.json");
        let tokenizer = Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap();
        let factory = ConstraintFactory::new(&tokenizer, GrammarLimits::default()).unwrap();
        Self { tokenizer, factory }
    }

    /// A finished answer of random tokens that tends to its end; None if it has not ended after `tokens_max`.
    pub fn answer(
        &self,
        constraint: &mut dyn Constraint,
        random: &mut Pcg64,
        tokens_max: usize,
    ) -> Result<Option<String>, String> {
        let mut output = Vec::new();
        let ends = self.tokenizer.stop_ids();
        let mut logits = vec![0.0; self.tokenizer.vocab_size()];
        for step in 0..tokens_max {
            logits.fill(0.0);
            constraint.allowed(&mut logits).map_err(|error| error.to_string())?;
            let allowed: Vec<u32> =
                (0..).zip(&logits).filter(|&(_, &logit)| logit == 0.0).map(|(id, _)| id).collect();
            if allowed.is_empty() {
                return Err("no token is allowed".to_owned());
            }
            let closes = |id: &&u32| {
                let text = self.tokenizer.text_bytes(**id);
                ends.contains(id) || text.iter().all(|byte| b"\"}]".contains(byte))
            };
            let closing: Vec<u32> = allowed.iter().filter(closes).copied().collect();
            let hurry = step > 20 || random.next_u32().is_multiple_of(4);
            let from = if hurry && !closing.is_empty() { &closing } else { &allowed };
            let token = from[random.next_u32() as usize % from.len()];
            constraint.accept(token).map_err(|error| error.to_string())?;
            if ends.contains(&token) {
                return Ok(Some(self.tokenizer.decode(&output, true)));
            }
            output.push(token);
        }
        Ok(None)
    }

    /// Whether a text may be the answer, however it is spelled.
    pub fn takes(&self, constraint: &mut GrammarConstraint, answer: &str) -> bool {
        let takes = |byte| constraint.accept(self.tokenizer.byte_id(byte)).is_ok();
        answer.bytes().all(takes) && constraint.may_end()
    }
}
