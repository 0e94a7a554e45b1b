//! Top-level fields of a request that this server does not support. They are ignored if they cannot change the answer
//! or request what happens anyway, and otherwise refused by name.

use crate::server::error::ApiError;
use serde_json::{Map, Value};

/// Fields that do not change an answer.
const HARMLESS: &[&str] = &[
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// Fields of OpenAI's API that are allowed as long as they request nothing: `null`, `[]`, `{}`, or the value given.
const NEUTRAL: &[(&str, &str)] = &[
    ("audio", ""),
    ("background", "false"),
    ("function_call", "\"none\""),
    ("functions", ""),
    ("include", ""),
    ("logit_bias", ""),
    ("modalities", "[\"text\"]"),
    ("prediction", ""),
    ("reasoning", "{\"effort\":\"none\"}"),
    ("reasoning_effort", "\"none\""),
    ("tool_choice", "\"none\""),
    ("tools", ""),
    ("top_logprobs", "0"),
    ("truncation", "\"disabled\""),
    ("verbosity", "\"medium\""),
];

/// A choice that is `none`, and the list from which nothing is then chosen.
const OPTED_OUT: &[(&str, &str)] = &[("tool_choice", "tools"), ("function_call", "functions")];

/// Values of OpenAI's `include` that no answer here has, about reasoning and tools.
const NOTHING_INCLUDED: &[&str] = &[
    "reasoning.encrypted_content",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "web_search_call.action.sources",
    "web_search_call.results",
];

/// Removes from `object` what may be ignored, and refuses what is left besides `known`.
///
/// # Errors
/// The first field that would change the answer.
pub fn strip(object: &mut Map<String, Value>, known: &[String]) -> Result<(), ApiError> {
    for name in HARMLESS {
        object.remove(*name);
    }
    for (choice, list) in OPTED_OUT {
        if object.get(*choice).is_some_and(|choice| choice == "none") {
            object.remove(*list);
        }
    }
    if let Some(Value::Array(included)) = object.get_mut("include") {
        included.retain(|what| !NOTHING_INCLUDED.iter().any(|nothing| what == nothing));
    }
    if let Some(Value::Object(options)) = object.get_mut("stream_options")
        && options.get("continuous_usage_stats").is_some_and(|asked| asked == false)
    {
        options.remove("continuous_usage_stats");
    }
    object.retain(|name, value| known.contains(name) || !is_neutral(name, value));
    match object.keys().find(|name| !known.contains(name)) {
        Some(name) => Err(ApiError::unsupported_field(name)),
        None => Ok(()),
    }
}

/// Fields in whose values a null member means the same as an absent one.
const NULLABLE: &[&str] = &["input", "messages", "questions", "response_format", "stream_options", "text"];

/// Removes null members from messages, questions and options. Clients write `refusal: null`, `tool_calls: null`,
/// `verbosity: null` and the like, also when they send a previous answer back. The client's own data, schemas and JSON,
/// stays as it is.
pub fn drop_nulls(object: &mut Map<String, Value>) {
    let mut open: Vec<&mut Value> = object
        .iter_mut()
        .filter(|(name, _)| NULLABLE.contains(&name.as_str()))
        .map(|(_, value)| value)
        .collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                fields.retain(|_, value| !value.is_null());
                let is_json = fields.get("type").is_some_and(|kind| kind == "input_json");
                let is_own = |name: &str| name == "schema" || (is_json && name == "data");
                open.extend(fields.iter_mut().filter(|(name, _)| !is_own(name)).map(|(_, value)| value));
            }
            _ => {}
        }
    }
}

fn is_neutral(name: &str, value: &Value) -> bool {
    // of no other field is a value looked at, which may be large
    let Some((_, neutral)) = NEUTRAL.iter().find(|(field, _)| *field == name) else { return value.is_null() };
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    let empty = match &value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    // "auto" chooses a tool only if there are tools, and those are refused; it truncates an input only if it does not
    // fit, and that is refused too
    let auto = matches!(name, "tool_choice" | "function_call" | "truncation") && value == "auto";
    let written = value.to_string();
    empty || auto || written == *neutral
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stripped(value: Value) -> Result<Vec<String>, String> {
        let Value::Object(mut object) = value else { panic!("an object") };
        strip(&mut object, &["messages".to_owned()]).map_err(|error| error.message)?;
        Ok(object.keys().cloned().collect())
    }

    #[test]
    fn harmless_and_neutral_fields_are_ignored() {
        let request = json!({"messages": 1, "user": "me", "metadata": {"a": "b"}, "tools": [], "tool_choice": "auto",
            "logit_bias": {}, "modalities": ["text"], "anything": null});
        assert_eq!(stripped(request).unwrap(), ["messages"]);
    }

    #[test]
    fn tools_that_are_not_to_be_called_are_ignored() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let with = |choice: Value| stripped(json!({"messages": 1, "tools": tools, "tool_choice": choice}));
        assert_eq!(with(json!("none")).unwrap(), ["messages"]);
        for choice in [json!("auto"), json!("required"), json!(null), json!({"type": "function"})] {
            assert!(with(choice.clone()).unwrap_err().contains("tool"), "{choice}");
        }
        let older = json!({"messages": 1, "functions": [{"name": "f"}], "function_call": "none"});
        assert_eq!(stripped(older).unwrap(), ["messages"]);
        assert_eq!(stripped(json!({"messages": 1, "truncation": "auto"})).unwrap(), ["messages"]);
        assert!(stripped(json!({"truncation": "middle"})).is_err());
    }

    #[test]
    fn nulls_are_absent_but_in_what_is_the_client_s_own() {
        let schema = json!({"properties": {"a": {"default": null, "enum": [null]}}});
        let mut request = json!({
            "text": {"verbosity": null, "format": {"type": "json_schema", "description": null, "schema": schema}},
            "response_format": {"type": "json_schema", "json_schema": {"strict": null, "schema": schema}},
            "input": [{"type": "input_json", "data": {"a": null}, "phase": null}],
        });
        drop_nulls(request.as_object_mut().unwrap());
        let expected = json!({
            "text": {"format": {"type": "json_schema", "schema": schema}},
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
            "input": [{"type": "input_json", "data": {"a": null}}],
        });
        assert_eq!(request, expected);
    }

    #[test]
    fn what_asks_for_no_reasoning_is_ignored() {
        for reasoning in [
            json!({}),
            json!({"effort": null, "summary": null}),
            json!({"effort": "none", "generate_summary": null}),
        ] {
            let request = json!({"messages": 1, "reasoning": reasoning, "reasoning_effort": "none",
                "include": ["reasoning.encrypted_content"]});
            assert_eq!(stripped(request).unwrap(), ["messages"]);
        }
        for asked in [json!({"effort": "low"}), json!({"effort": "none", "unknown": 1}), json!("none")] {
            assert!(stripped(json!({"messages": 1, "reasoning": asked})).unwrap_err().contains("reasoning"));
        }
        assert!(stripped(json!({"messages": 1, "reasoning_effort": "minimal"})).is_err());
        let mut request =
            json!({"include": ["words", "reasoning.encrypted_content", "file_search_call.results"]});
        strip(request.as_object_mut().unwrap(), &["include".to_owned()]).unwrap();
        assert_eq!(request, json!({"include": ["words"]}));
    }

    #[test]
    fn counts_in_every_chunk_may_be_declined() {
        let options = |asked: bool| {
            let mut request =
                json!({"stream_options": {"include_usage": true, "continuous_usage_stats": asked}});
            strip(request.as_object_mut().unwrap(), &["stream_options".to_owned()]).unwrap();
            request["stream_options"].as_object().unwrap().len()
        };
        assert_eq!((options(false), options(true)), (1, 2));
    }

    #[test]
    fn fields_that_would_change_the_answer_are_refused_by_name() {
        for field in
            ["tools", "functions", "logit_bias", "web_search_options", "reasoning_effort", "temprature"]
        {
            let error = stripped(json!({"messages": 1, field: {"a": 1}})).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
        assert!(stripped(json!({"modalities": ["audio"]})).is_err());
        assert!(stripped(json!({"tool_choice": "required"})).is_err());
    }
}
