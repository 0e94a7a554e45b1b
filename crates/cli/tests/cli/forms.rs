//! Answers of a form: `--schema`, `--regex` and `--choices` of `ask`, `chat` and `batch`, and `phi3v schemas`.

use super::Fixture;
use serde_json::{Value, json};

/// One or two objects with a digit each.
fn digits(fixture: &Fixture) {
    let digit = json!({"type": "object", "properties": {"a digit": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["a digit"], "additionalProperties": false});
    let digits = json!({"type": "array", "items": digit, "minItems": 1, "maxItems": 2});
    std::fs::write(fixture.path("digits.json"), digits.to_string()).unwrap();
}

#[test]
fn an_answer_has_the_form_that_is_asked_for() {
    let fixture = Fixture::new();
    digits(&fixture);
    let ask = |flags: &[&str]| fixture.run(&[&["ask"], flags, &["What?"]].concat()).answer();
    assert!(["yes\n", "not sure\n"].contains(&ask(&["--choices", "yes, not sure"]).as_str()));
    let number = ask(&["--regex", "[0-9]{3}"]);
    assert!(number.trim_end().len() == 3 && number.trim_end().parse::<u32>().is_ok(), "{number}");
    let cut = fixture.run(&["ask", "--max-new-tokens", "2", "--schema", "digits.json", "What?"]);
    assert_eq!(cut.stderr, "the answer was cut after 2 tokens; --max-new-tokens allows more\n");
    let answer: Value = serde_json::from_str(&ask(&["--schema", "digits.json"])).unwrap();
    assert!(answer[0]["a digit"].is_u64());
    // the same answer, and how sure the model was of its values
    let told = fixture.run(&["ask", "--json", "--schema", "digits.json", "What?"]).json();
    assert_eq!(serde_json::from_str::<Value>(told["answer"].as_str().unwrap()).unwrap(), answer);
    let fields = told["fields"].as_object().unwrap();
    assert_eq!(fields.len(), answer.as_array().unwrap().len());
    for (path, field) in fields {
        assert_eq!(&field["value"], answer.pointer(path).unwrap());
        let p = field["p"].as_f64().unwrap();
        assert!(p > 0.0 && p <= 1.0, "{path}: {p}");
    }
    let told = fixture.run(&["ask", "--json", "--choices", "yes,no", "What?"]).json();
    assert_eq!(told["fields"][""]["value"], told["answer"]);
    assert!(fixture.run(&["ask", "--json", "--max-new-tokens", "2", "What?"]).json().get("fields").is_none());
}

#[test]
fn objects_are_printed_as_a_table() {
    let fixture = Fixture::new();
    digits(&fixture);
    let json: Value =
        serde_json::from_str(&fixture.run(&["ask", "--schema", "digits.json", "What?"]).answer()).unwrap();
    let table = fixture.run(&["ask", "--csv", "--schema", "digits.json", "What?"]).answer();
    let rows = json.as_array().unwrap().iter().map(|digit| format!("{}\r\n", digit["a digit"]));
    assert_eq!(table, format!("a digit\r\n{}", rows.collect::<String>()));
    let cut = ["ask", "--csv", "--schema", "digits.json", "--max-new-tokens", "2", "What?"];
    let refused = fixture.run(&cut).refusal(1);
    let told = "the answer is no table: it was cut at its limit of tokens\nhint: allow more with --max-new";
    assert!(refused.contains(told), "{refused}");
    let ask = ["ask", "--schema", "digits.json", "What?"];
    let prompt = &fixture.run(&[&ask[..], &["--json"]].concat()).json()["usage"]["prompt_tokens"];
    let context = (prompt.as_u64().unwrap() + 2).to_string();
    let full = fixture.run(&[&ask[..], &["--csv", "--context", &context]].concat()).refusal(1);
    let told = "the answer is no table: it was cut where the context is full\nhint: raise --context, ";
    assert!(full.contains(told), "{full}");
    let stopped = fixture.run(&[&ask[..], &["--csv", "--stop", "digit"]].concat()).refusal(1);
    assert!(stopped.contains("it is not whole\nhint: leave --stop out"), "{stopped}");
    assert!(fixture.run(&["ask", "--csv", "What?"]).refusal(2).contains("--schema"));
}

#[test]
fn a_preset_brings_its_question() {
    let fixture = Fixture::new();
    let own = fixture.run(&["ask", "--schema", "@alt", "small.png"]).answer();
    let alt = phi3v::presets::Preset::named("@alt").unwrap();
    let asked = fixture.run(&["ask", "--schema", "@alt", "small.png", alt.question()]).answer();
    assert_eq!(own, asked);
    let answer: Value = serde_json::from_str(&own).unwrap();
    assert!(answer["alt"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    assert_ne!(own, fixture.run(&["ask", "--schema", "@alt", "small.png", "Who made it?"]).answer());
    let chatted = fixture.run_with_input(&["chat", "-q", "--schema", "@alt", "small.png"], b"\n").answer();
    assert_eq!(chatted, own);
}

#[test]
fn every_turn_of_a_chat_has_the_form() {
    let fixture = Fixture::new();
    let chatted =
        fixture.run_with_input(&["chat", "-q", "--choices", "yes,no"], b"Is it?\n\nAnd now?\n").answer();
    let turns: Vec<&str> = chatted.lines().collect();
    assert!(turns.len() == 2 && turns.iter().all(|turn| ["yes", "no"].contains(turn)), "{chatted}");
}

#[test]
fn a_batch_s_answers_have_the_form_of_the_flags_or_their_own() {
    let fixture = Fixture::new();
    digits(&fixture);
    let questions = json!([{"name": "digits", "prompt": "How many?"},
        {"name": "sure", "prompt": "Is it?", "choices": ["yes", "no"]}, {"name": "alt", "schema": "@alt"}]);
    std::fs::write(fixture.path("questions.json"), questions.to_string()).unwrap();
    let flags =
        ["--detail", "low", "--questions", "questions.json", "--schema", "digits.json", "--csv", "t.csv"];
    fixture.run(&[&["batch", "-q", "small.png"], &flags[..]].concat()).answer();
    let rows = std::fs::read_to_string(fixture.path("results.jsonl")).unwrap();
    let mut seen = 0;
    for row in rows.lines().skip(1).map(|row| serde_json::from_str::<Value>(row).unwrap()) {
        let choice = &row["response"]["body"]["choices"][0];
        let (answer, fields) = (choice["message"]["content"].as_str().unwrap(), &choice["fields"]);
        let json = |answer| serde_json::from_str::<Value>(answer).unwrap();
        seen += 1;
        match row["custom_id"].as_str().unwrap() {
            "small.png#digits" => assert_eq!(fields["/0/a digit"]["value"], json(answer)[0]["a digit"]),
            "small.png#sure" => assert_eq!(fields[""]["value"], *answer),
            _ => assert_eq!(fields["/alt"]["value"], json(answer)["alt"]),
        }
        assert!(choice["logprobs"].is_null() && choice.get("words").is_none());
    }
    assert_eq!(seen, 3);
    let table = std::fs::read_to_string(fixture.path("t.csv")).unwrap();
    assert!(table.starts_with("custom_id,question,answer,finish_reason,error,a digit,alt\r\n"), "{table}");
    // a preset asks by itself, and another form is another job
    fixture
        .run(&["batch", "-q", "small.png", "--detail", "low", "--schema", "@alt", "--out", "alt.jsonl"])
        .answer();
    let other = [
        "batch",
        "-q",
        "small.png",
        "--detail",
        "low",
        "--prompt",
        "x",
        "--regex",
        "a",
        "--out",
        "alt.jsonl",
    ];
    assert!(fixture.run(&other).refusal(2).contains("another job"));
}

#[test]
fn presets_are_listed_and_printed() {
    let fixture = Fixture::new();
    let list = fixture.run(&["schemas"]).answer();
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["@receipt", "@invoice", "@table", "@card", "@alt"]);
    let receipt = fixture.run(&["schemas", "@receipt"]).answer();
    std::fs::write(fixture.path("receipt.json"), &receipt).unwrap();
    let told = fixture.run(&["schemas", "@receipt", "--json"]).json();
    assert_eq!(told["schema"], serde_json::from_str::<Value>(&receipt).unwrap());
    assert_eq!(fixture.run(&["schemas", "--json"]).json()[0], told);
    let refused = fixture.run(&["schemas", "@letter"]).refusal(2);
    assert!(
        refused.starts_with("error: there is no preset @letter\nhint: there are @receipt, "),
        "{refused}"
    );
}

#[test]
fn a_form_that_cannot_be_is_refused_before_the_model_is_loaded() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("bad.json"), "{").unwrap();
    std::fs::write(fixture.path("none.json"), "{\"type\": \"nothing\"}").unwrap();
    for (flags, code, told) in [
        (&["--schema", "@letter"][..], 2, "there is no preset @letter\nhint: there are @receipt, @invoice"),
        (&["--schema", "bad.json"], 2, "the schema in bad.json is not valid JSON: "),
        (&["--schema", "none.json"], 2, "the JSON schema cannot be used: "),
        (&["--schema", "missing.json"], 2, "cannot read missing.json: "),
        (&["--regex", "("], 2, "the regex cannot be used: "),
        (&["--choices", "a,,b"], 2, "the list of choices cannot be used: one of them is empty"),
        (&["--choices", "a,a"], 2, "the list of choices cannot be used: \"a\" stands there twice"),
        (&["--choices", "a,b", "--regex", "a"], 2, "cannot be used with"),
    ] {
        for command in [&["ask", "What?"][..], &["chat"], &["batch", "small.png", "--prompt", "What?"]] {
            let refused = fixture.run(&[command, flags].concat()).refusal(code);
            assert!(refused.contains(told), "{command:?} {flags:?}: {refused}");
        }
    }
}

#[cfg(unix)]
#[test]
fn the_guide_s_examples_work() {
    let fixture = Fixture::new();
    let told = fixture.run_guide("forms.md");
    let [choice, two, presets, alt, table, json] = &told[..] else { panic!("{told:?}") };
    assert!(["yes\n", "no\n"].contains(&choice.as_str()), "{choice}");
    let (number, book) = two.split_once('\n').unwrap();
    assert!(number.parse::<u16>().is_ok(), "{number}");
    let book: Value = serde_json::from_str(book).unwrap();
    assert!(presets.starts_with("@receipt ") && alt.starts_with("{\"alt\":"), "{presets}{alt}");
    assert!(table.starts_with("title,author\r\n"), "{table}");
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["fields"]["/title"]["value"], book["title"]);
}
