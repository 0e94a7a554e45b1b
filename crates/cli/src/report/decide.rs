//! Reports of decisions and calibrations.

use super::{TimingsReport, UsageReport};
use crate::args::ModelArgs;
use crate::decide::Asked;
use crate::runtime::Runtime;
use crate::sources::{ImageReport, NamedImage};
use crate::terminal::printable;
use phi3v::decide::{Calibration, Decision};
use phi3v::engine::Finished;
use phi3v::error::count;
use serde::Serialize;
use std::fmt::Write;

/// The object that `phi3v decide --json` prints: a decision for each question, its pictures, and its cost.
#[derive(Debug, Serialize)]
pub struct DecideReport {
    decisions: Vec<DecisionReport>,
    model: String,
    dtype: &'static str,
    images: Vec<ImageReport>,
    usage: UsageReport,
    timings: TimingsReport,
}

/// A question, its likeliest choice, and the probability of each choice.
#[derive(Debug, Serialize)]
pub struct DecisionReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    question: String,
    choice: String,
    probability: f64,
    /// The choices in the order given.
    probabilities: Vec<ChoiceReport>,
    /// The share of the model's probability on the choices.
    covered: f64,
    temperature: f64,
}

#[derive(Debug, Serialize)]
struct ChoiceReport {
    choice: String,
    probability: f64,
    /// Logarithm of the choice's probability as the model's whole answer.
    logprob: f64,
}

impl DecideReport {
    /// The report of decisions about `pictures`, with the model and the cost.
    #[must_use]
    pub fn new(
        args: &ModelArgs,
        decisions: Vec<DecisionReport>,
        pictures: &[NamedImage],
        runtime: &Runtime,
        finished: &Finished,
    ) -> Self {
        Self {
            decisions,
            model: runtime.name.clone(),
            dtype: args.dtype.name(),
            images: pictures.iter().map(NamedImage::report).collect(),
            usage: finished.usage.into(),
            timings: finished.timings.into(),
        }
    }
}

/// The reports of decisions at their temperatures, in the order of the questions.
#[must_use]
pub fn decisions(asked: &[Asked], decisions: &[Decision], temperatures: &[f64]) -> Vec<DecisionReport> {
    let all = asked.iter().zip(decisions).zip(temperatures);
    let report = |((asked, decision), &temperature): ((&Asked, &Decision), &f64)| {
        let best = decision.best();
        let choices = asked.choices.iter().zip(&decision.probabilities).zip(&decision.log_probs);
        DecisionReport {
            name: asked.name.clone(),
            question: asked.prompt.clone(),
            choice: asked.choices[best].clone(),
            probability: decision.probabilities[best],
            probabilities: choices
                .map(|((choice, &probability), &logprob)| ChoiceReport {
                    choice: choice.clone(),
                    probability,
                    logprob,
                })
                .collect(),
            covered: decision.covered(),
            temperature,
        }
    };
    all.map(report).collect()
}

/// Formats for each question a line with the likeliest choice, followed by the probabilities of all, the likeliest first. If
/// there are several questions, each precedes its answer.
#[must_use]
pub fn decision_table(asked: &[Asked], decisions: &[Decision]) -> String {
    let mut table = String::new();
    for (asked, decision) in asked.iter().zip(decisions) {
        if decisions.len() > 1 {
            let name = asked.name.as_ref().unwrap_or(&asked.prompt);
            let _ = writeln!(table, "{}", one_line(name));
        }
        let _ = writeln!(table, "{}", one_line(&asked.choices[decision.best()]));
        let mut order: Vec<usize> = (0..asked.choices.len()).collect();
        order.sort_by(|&a, &b| decision.log_probs[b].total_cmp(&decision.log_probs[a]));
        for index in order {
            let percent = 100.0 * decision.probabilities[index];
            let _ = writeln!(table, "{percent:8.2} %  {}", one_line(&asked.choices[index]));
        }
        if decisions.len() > 1 {
            table.push('\n');
        }
    }
    let end = table.trim_end().len();
    table.truncate(end);
    table + "\n"
}

/// Formats a calibration's result: for each question its temperature, and error and likelihood before and after.
#[must_use]
pub fn calibration_table(calibration: &Calibration) -> String {
    let mut table =
        "temperature  examples  right      ECE before  after    NLL before  after    question\n".to_owned();
    for fitted in &calibration.questions {
        let (before, after) = (&fitted.before, &fitted.after);
        let _ = writeln!(
            table,
            "{:11.4}  {:8}  {:5.1} %    {:10.4}  {:.4}   {:10.4}  {:.4}   {}",
            fitted.temperature,
            fitted.examples,
            100.0 * after.accuracy,
            before.ece,
            after.ece,
            before.nll,
            after.nll,
            one_line(&fitted.question)
        );
    }
    let _ =
        writeln!(table, "{} for {}", count(calibration.questions.len(), "temperature"), calibration.model);
    table
}

/// Puts a text on one line, without terminal control characters.
fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(prompt: &str, choices: &[&str]) -> Asked {
        Asked::new(prompt, &choices.iter().map(|&choice| choice.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_likeliest_choice_stands_first() {
        let red = asked("Is it red?", &["yes", "no"]);
        let decision = Decision::new(vec![-3.0, -1.0], 1.0);
        let alone = decision_table(std::slice::from_ref(&red), std::slice::from_ref(&decision));
        assert_eq!(alone, "no\n   88.08 %  no\n   11.92 %  yes\n");
        let kind =
            Asked { name: Some("kind".to_owned()), ..asked("What is it?", &["a\ncat", "a dog\u{1b}[2J"]) };
        let other = Decision::new(vec![-1.0, -1.0], 1.0);
        let both = decision_table(&[red, kind], &[decision, other]);
        let second = "kind\na cat\n   50.00 %  a cat\n   50.00 %  a dog";
        assert!(both.starts_with(&format!("Is it red?\n{}\n{second}", alone)), "{both}");
        assert!(!both.contains('\u{1b}') && both.ends_with("[2J\n"), "{both}");
    }
}
