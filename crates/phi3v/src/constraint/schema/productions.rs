//! A context-free grammar under construction: symbols, their alternatives, and which of them can produce a finite text.

use std::collections::HashMap;

use llguidance::api::{GenGrammarOptions, GrammarId, GrammarInit, SkipSpec};
use llguidance::derivre::RegexAst;
use llguidance::earley::lexerspec::{LexemeClass, LexerSpec};
use llguidance::earley::{Grammar, SymIdx, SymbolProps};

use super::Refused;

/// Maximum symbols of a grammar. The engine numbers them with 16 bits.
const SYMBOLS_MAX: usize = 20_000;

/// Maximum places of symbols in all alternatives together.
const PLACES_MAX: usize = 200_000;

/// A symbol of the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Symbol(usize);

/// What a symbol stands for.
enum Production {
    /// Text of a regular expression.
    Text(RegexAst),
    /// One of several sequences. A choice without sequences matches nothing.
    Choice(Vec<Vec<Symbol>>),
}

/// The symbols and their productions.
#[derive(Default)]
pub(super) struct Productions {
    productions: Vec<Production>,
    places: usize,
    literals: HashMap<String, Symbol>,
    repeats: HashMap<(Symbol, u64), Symbol>,
    at_mosts: HashMap<(Symbol, u64), Symbol>,
}

impl Productions {
    fn add(&mut self, production: Production) -> Result<Symbol, Refused> {
        if self.productions.len() >= SYMBOLS_MAX {
            return Err(Refused::new(format!("its grammar has more than {SYMBOLS_MAX} symbols")));
        }
        self.productions.push(production);
        Ok(Symbol(self.productions.len() - 1))
    }

    /// Returns a symbol whose alternatives are added later.
    pub(super) fn symbol(&mut self) -> Result<Symbol, Refused> {
        self.add(Production::Choice(Vec::new()))
    }

    /// Adds an alternative to a symbol made by [`Self::symbol`].
    pub(super) fn alternative(&mut self, symbol: Symbol, sequence: Vec<Symbol>) -> Result<(), Refused> {
        self.places += sequence.len() + 1;
        if self.places > PLACES_MAX {
            return Err(Refused::new(format!("its grammar has more than {PLACES_MAX} parts")));
        }
        if let Production::Choice(alternatives) = &mut self.productions[symbol.0] {
            alternatives.push(sequence);
        }
        Ok(())
    }

    /// Returns a choice of sequences.
    pub(super) fn choice(&mut self, sequences: Vec<Vec<Symbol>>) -> Result<Symbol, Refused> {
        let symbol = self.symbol()?;
        for sequence in sequences {
            self.alternative(symbol, sequence)?;
        }
        Ok(symbol)
    }

    /// Returns the texts of a regular expression.
    pub(super) fn text(&mut self, regex: RegexAst) -> Result<Symbol, Refused> {
        self.add(Production::Text(regex))
    }

    /// Returns a literal text.
    pub(super) fn literal(&mut self, text: &str) -> Result<Symbol, Refused> {
        if let Some(&symbol) = self.literals.get(text) {
            return Ok(symbol);
        }
        let symbol = self.text(RegexAst::Literal(text.to_owned()))?;
        self.literals.insert(text.to_owned(), symbol);
        Ok(symbol)
    }

    /// Repeats `item` exactly `times` times. The number of symbols grows with the logarithm of `times`.
    pub(super) fn repeat(&mut self, item: Symbol, times: u64) -> Result<Symbol, Refused> {
        if let Some(&symbol) = self.repeats.get(&(item, times)) {
            return Ok(symbol);
        }
        let symbol = match times {
            0 => self.choice(vec![Vec::new()])?,
            1 => item,
            _ => {
                let half = self.repeat(item, times / 2)?;
                let mut sequence = vec![half, half];
                sequence.extend((times % 2 == 1).then_some(item));
                self.choice(vec![sequence])?
            }
        };
        self.repeats.insert((item, times), symbol);
        Ok(symbol)
    }

    /// Repeats `item` at most `times` times. Each number of repetitions has only one derivation.
    pub(super) fn at_most(&mut self, item: Symbol, times: u64) -> Result<Symbol, Refused> {
        if let Some(&symbol) = self.at_mosts.get(&(item, times)) {
            return Ok(symbol);
        }
        let symbol = if times == 0 {
            self.choice(vec![Vec::new()])?
        } else {
            // either at least the largest power of two, or less
            let power = 1 << (63 - times.leading_zeros());
            let many = self.repeat(item, power)?;
            let rest = self.at_most(item, times - power)?;
            let few = self.at_most(item, power - 1)?;
            self.choice(vec![vec![many, rest], vec![few]])?
        };
        self.at_mosts.insert((item, times), symbol);
        Ok(symbol)
    }

    /// Repeats `item` from `min` to `max` times.
    pub(super) fn between(&mut self, item: Symbol, min: u64, max: Option<u64>) -> Result<Symbol, Refused> {
        let least = self.repeat(item, min)?;
        let more = match max {
            Some(max) if max < min => return self.symbol(),
            Some(max) => self.at_most(item, max - min)?,
            None => {
                let more = self.symbol()?;
                self.alternative(more, Vec::new())?;
                self.alternative(more, vec![more, item])?;
                more
            }
        };
        self.choice(vec![vec![least, more]])
    }

    /// Returns, for each symbol, whether it can produce a finite text.
    fn finished(&self) -> Vec<bool> {
        let mut finished: Vec<bool> =
            self.productions.iter().map(|production| matches!(production, Production::Text(_))).collect();
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.productions.len()];
        for (index, production) in self.productions.iter().enumerate() {
            if let Production::Choice(alternatives) = production {
                for symbol in alternatives.iter().flatten() {
                    users[symbol.0].push(index);
                }
            }
        }
        let mut open: Vec<usize> = (0..self.productions.len()).collect();
        while let Some(index) = open.pop() {
            let Production::Choice(alternatives) = &self.productions[index] else { continue };
            let ends = |alternative: &Vec<Symbol>| alternative.iter().all(|symbol| finished[symbol.0]);
            if !finished[index] && alternatives.iter().any(ends) {
                finished[index] = true;
                open.extend(&users[index]);
            }
        }
        finished
    }

    /// Returns the engine's grammar of a space followed by `start`; `None` if `start` cannot produce a finite text.
    pub(super) fn after_a_space(self, start: Symbol) -> anyhow::Result<Option<GrammarInit>> {
        let finished = self.finished();
        if !finished[start.0] {
            return Ok(None);
        }
        let mut lexer = LexerSpec::new()?;
        let mut grammar = Grammar::new(None);
        let outside = lexer.setup_lexeme_class_with_skip(SkipSpec::unbounded(RegexAst::NoMatch))?;
        let first = grammar.fresh_symbol_ext("start", props(outside, true));
        let space = terminal(&mut grammar, &mut lexer, outside, RegexAst::Literal(" ".to_owned()))?;
        let answer = grammar.fresh_symbol_ext("answer", props(outside, false));
        let name = GrammarId::Name("answer".to_owned());
        grammar.make_gen_grammar(answer, GenGrammarOptions { grammar: name, temperature: None })?;
        grammar.add_rule(first, vec![space, answer])?;
        // no white space between parts: it has no meaning, costs tokens, and a small model may never stop writing it
        let inside = lexer.setup_lexeme_class_with_skip(SkipSpec::unbounded(RegexAst::NoMatch))?;
        let begin = grammar.fresh_symbol_ext("start", props(inside, true));
        grammar.add_rule(answer, vec![begin])?;
        let mut symbols: Vec<SymIdx> = Vec::with_capacity(self.productions.len());
        for production in &self.productions {
            symbols.push(match production {
                Production::Text(regex) => terminal(&mut grammar, &mut lexer, inside, regex.clone())?,
                Production::Choice(_) => grammar.fresh_symbol_ext("", props(inside, false)),
            });
        }
        for (index, production) in self.productions.into_iter().enumerate() {
            let Production::Choice(alternatives) = production else { continue };
            for alternative in alternatives {
                if alternative.iter().all(|symbol| finished[symbol.0]) {
                    grammar.add_rule(
                        symbols[index],
                        alternative.iter().map(|symbol| symbols[symbol.0]).collect(),
                    )?;
                }
            }
        }
        grammar.add_rule(begin, vec![symbols[start.0]])?;
        Ok(Some(GrammarInit::Internal(grammar, lexer)))
    }
}

fn props(class: LexemeClass, is_start: bool) -> SymbolProps {
    SymbolProps { grammar_id: class, is_start, ..SymbolProps::default() }
}

fn terminal(
    grammar: &mut Grammar,
    lexer: &mut LexerSpec,
    class: LexemeClass,
    regex: RegexAst,
) -> anyhow::Result<SymIdx> {
    let lexeme = lexer.add_greedy_lexeme(String::new(), regex, false, None, usize::MAX)?;
    let symbol = grammar.fresh_symbol_ext("", props(class, false));
    grammar.make_terminal(symbol, lexeme, lexer)?;
    Ok(symbol)
}
