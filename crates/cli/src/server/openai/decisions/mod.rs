//! `POST /v1/decisions`: how likely statements, choices and levels are. Nothing is generated; each possible answer is
//! scored as if it were the model's whole answer.

mod input;
pub mod types;

use super::content::parts;
use super::{models, parse};
use crate::server::ask::TurnPart;
use crate::server::decide::{self, Decide, DecideQuestion};
use crate::server::engine_thread::Update;
use crate::server::error::ApiError;
use crate::server::guard::Caller;
use crate::server::hints::question as hint;
use crate::server::limits::{Limits, Times};
use crate::server::state::App;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use phi3v::chat_template::Role;
use phi3v::decide::Decision;
use phi3v::engine::{FinishReason, Finished};
use std::sync::Arc;
use types::{
    Answer, Choice, ChoiceProbability, ChoiceValue, DecisionObject, DecisionRequest, DecisionUsage,
    InputTokensDetails, Level, LevelProbability, Question,
};

/// Maximum number of questions in a request.
const QUESTIONS_MAX: usize = 400;

/// The ways to say that a statement is true. A model may write either, whatever its instructions, and both count.
const YES: [&str; 2] = ["yes", "Yes"];
/// The ways to say that a statement is false.
const NO: [&str; 2] = ["no", "No"];

/// Decides all questions of a request.
///
/// # Errors
/// What is wrong with the request, or why it cannot be answered.
pub async fn decisions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DecisionObject>, ApiError> {
    let times = Times::start(&app.limits);
    let model = app.ready()?.clone();
    let (request, budget) = parse::read::<DecisionRequest>(&app, &headers, body, caller.cache_salt).await?;
    models::check_name(&model, request.model.as_deref())?;
    let (decide, asked) = decide(request, &app.limits)?;
    let decide = Decide { cache_salt: caller.cache_salt, ..decide };
    decide.check(&app.limits)?;
    let places = app.engine.places(caller.cache_salt, 1)?;
    let (request, budget) = times.within(decide::request(&app, &model, decide, budget, times)).await?;
    let mut updates = app.engine.submit([request].into_iter().zip(places), budget, false, times)?;
    loop {
        if let Update::Finished(_, finished) = updates.next().await? {
            return Ok(Json(object(asked, *finished, model.name)?));
        }
    }
}

/// What is needed to build the answer to a question.
enum Asked {
    Predicate { name: Option<String> },
    Choice { name: Option<String>, choices: Vec<Choice> },
    Score { name: Option<String>, levels: Vec<Level> },
}

/// Converts the request to the server's own types, without a cache salt. Also returns what is needed to build the
/// answers.
///
/// # Errors
/// The first invalid field.
fn decide(request: DecisionRequest, limits: &Limits) -> Result<(Decide, Vec<Asked>), ApiError> {
    let count = request.questions.len();
    if !(1..=QUESTIONS_MAX).contains(&count) {
        let message = format!("there are {count} questions, there must be 1 to {QUESTIONS_MAX}");
        return Err(ApiError::invalid_value("questions", message).hint(hint::QUESTIONS));
    }
    let turns = input::turns(request.input, limits)?;
    let questions =
        request.questions.into_iter().enumerate().map(|(index, question)| self::question(index, question));
    let (questions, asked) = questions.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    Ok((Decide { turns, questions, cache_salt: Default::default() }, asked))
}

/// Converts a question, and returns with it what is needed to build its answer.
fn question(index: usize, question: Question) -> Result<(DecideQuestion, Asked), ApiError> {
    let place = format!("questions[{index}].instructions");
    let asked = |instructions, field: &str, choices: Vec<String>, how: String| {
        let mut parts = parts(Role::User, instructions, &place)?;
        let blank = |part: &TurnPart| matches!(part, TurnPart::Text(text) if text.trim().is_empty());
        if parts.iter().all(blank) {
            let error = ApiError::invalid_value(&place, format!("{place} is empty"));
            return Err(error.hint(hint::INSTRUCTIONS));
        }
        parts.push(TurnPart::Text(how));
        Ok(DecideQuestion { parts, choices, param: format!("questions[{index}].{field}") })
    };
    Ok(match question {
        Question::Predicate { instructions, name } => {
            let choices = [YES, NO].concat().into_iter().map(str::to_owned).collect();
            let how = "Is this true? Answer yes or no.".to_owned();
            (asked(instructions, "instructions", choices, how)?, Asked::Predicate { name })
        }
        Question::Choice { instructions, choices, name } => {
            let values = values(&choices);
            let descriptions = choices.iter().map(|choice| choice.description.as_deref());
            let how = listing("Answer with one of these and nothing else:", &values, descriptions);
            (asked(instructions, "choices", values, how)?, Asked::Choice { name, choices })
        }
        Question::Score { instructions, levels, name } => {
            let labels: Vec<String> = levels.iter().map(|level| level.label.clone()).collect();
            let descriptions = levels.iter().map(|level| level.description.as_deref());
            let head =
                "Answer with one of these levels, which go from the lowest to the highest, and nothing else:";
            let how = listing(head, &labels, descriptions);
            (asked(instructions, "levels", labels, how)?, Asked::Score { name, levels })
        }
    })
}

/// Returns the answers for the choices. A text that looks like a truth value is put in quotation marks if that truth
/// value is also a choice.
fn values(choices: &[Choice]) -> Vec<String> {
    let answer = |choice: &Choice| match &choice.value {
        ChoiceValue::Bool(value) => value.to_string(),
        ChoiceValue::Text(text) => {
            let is_taken = |other: &Choice| matches!(other.value, ChoiceValue::Bool(value) if *text == value.to_string());
            if choices.iter().any(is_taken) { format!("{text:?}") } else { text.clone() }
        }
    };
    choices.iter().map(answer).collect()
}

/// Returns the possible answers, one per line, with their descriptions.
fn listing<'a>(head: &str, values: &[String], descriptions: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut text = head.to_owned();
    for (value, description) in values.iter().zip(descriptions) {
        text += &format!("\n- {value}");
        if let Some(description) = description {
            text += &format!(": {description}");
        }
    }
    text
}

/// Returns the answers in the shape of the API.
///
/// # Errors
/// The request was cancelled, which only the engine itself can have done.
fn object(asked: Vec<Asked>, finished: Finished, model: String) -> Result<DecisionObject, ApiError> {
    if finished.reason == FinishReason::Cancelled {
        return Err(ApiError::internal("the answer was cancelled"));
    }
    let decided = asked.into_iter().zip(finished.scores);
    let answers = decided.map(|(asked, scores)| answer(asked, &Decision::new(scores, 1.0))).collect();
    let usage = finished.usage;
    Ok(DecisionObject {
        answers,
        model,
        usage: DecisionUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails {
                cached_tokens: usage.cached_tokens,
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: Default::default(),
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        },
    })
}

fn answer(asked: Asked, decision: &Decision) -> Answer {
    let Decision { probabilities, .. } = decision;
    let best = decision.best();
    match asked {
        Asked::Predicate { name } => {
            let probability = probabilities[..YES.len()].iter().sum();
            Answer::Predicate { name, probability }
        }
        Asked::Choice { name, choices } => Answer::Choice {
            name,
            choice: choices[best].value.clone(),
            confidence: probabilities[best],
            probabilities: choices
                .into_iter()
                .zip(probabilities)
                .map(|(choice, &probability)| ChoiceProbability { value: choice.value, probability })
                .collect(),
        },
        Asked::Score { name, levels } => Answer::Score {
            name,
            score: probabilities
                .iter()
                .enumerate()
                .map(|(value, probability)| value as f64 * probability)
                .sum(),
            confidence: probabilities[best],
            probabilities: levels
                .into_iter()
                .zip(probabilities)
                .enumerate()
                .map(|(value, (level, &probability))| LevelProbability {
                    label: level.label,
                    value,
                    probability,
                })
                .collect(),
        },
    }
}
