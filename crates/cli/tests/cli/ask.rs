//! `phi3v ask`.

use super::{Fixture, Run, check_ctrl_c_ends, signals};
use serde_json::Value;
use std::io::Read;
use std::process::Stdio;

const SHORT: [&str; 2] = ["--max-new-tokens", "12"];

fn ask(fixture: &Fixture, args: &[&str]) -> Run {
    fixture.run(&[&["ask"], &SHORT[..], args].concat())
}

#[test]
fn the_answer_is_alone_on_stdout_and_the_same_every_time() {
    let fixture = Fixture::new();
    let question = ["wide.png", "Could you please introduce this stock to me?"];
    let answer = ask(&fixture, &question).answer();
    assert!(answer.ends_with('\n') && answer.trim().len() > 1, "{answer:?}");
    assert_eq!(ask(&fixture, &[&question[..], &["--threads", "1"]].concat()).answer(), answer);
    let picture = std::fs::read(fixture.path("wide.png")).unwrap();
    let piped = fixture.run_with_input(&[&["ask"], &SHORT[..], &["-", question[1]]].concat(), &picture);
    assert_eq!(piped.answer(), answer);
    assert_ne!(ask(&fixture, &["small.png", question[1]]).answer(), answer);
}

#[test]
fn a_data_url_is_the_picture_that_it_holds() {
    let fixture = Fixture::new();
    let picture = std::fs::read(fixture.path("wide.png")).unwrap();
    let escaped: String = picture.iter().map(|byte| format!("%{byte:02x}")).collect();
    let url = format!("data:image/png,{escaped}");
    let answer = ask(&fixture, &["wide.png", "What?"]).answer();
    assert_eq!(ask(&fixture, &[&url, "What?"]).answer(), answer);
    let told = ask(&fixture, &["--verbose", &url, "What?"]).stderr;
    assert!(told.contains("the data URL") && !told.contains("data:image"), "{told}");
    let damaged = ask(&fixture, &["data:image/png;base64,%%", "What?"]).refusal(3);
    assert_eq!(
        damaged,
        "error: the data URL is not fetched: the data URL is not valid base64\n\
         hint: write it as data:image/png;base64,iVBORw0K..., or give the path of a file\n"
    );
    let batch = fixture.run(&["batch", &url, "--prompt", "What?", "--out", "out.jsonl"]);
    let refused = batch.refusal(3);
    assert!(refused.starts_with("error: cannot read the data URL: ") && refused.len() < 400, "{refused}");
}

#[test]
fn flags_may_stand_anywhere() {
    let fixture = Fixture::new();
    let answer = ask(&fixture, &["--detail", "low", "wide.png", "small.png", "What?"]).answer();
    assert_eq!(ask(&fixture, &["wide.png", "--detail", "low", "small.png", "What?"]).answer(), answer);
    assert_eq!(ask(&fixture, &["wide.png", "small.png", "--detail=low", "What?"]).answer(), answer);
    assert_eq!(ask(&fixture, &["wide.png", "small.png", "What?", "--detail", "low"]).answer(), answer);
}

#[test]
fn a_question_may_begin_with_a_dash() {
    let fixture = Fixture::new();
    for question in ["-3 degrees: is it cold?", "--stats say what?", "- what is this?"] {
        let plain = ask(&fixture, &["--", "small.png", question]).answer();
        assert_eq!(ask(&fixture, &["small.png", question]).answer(), plain, "{question}");
    }
    let flag = ask(&fixture, &["small.png", "--tempereture"]).refusal(2);
    assert!(flag.contains("'--temperature'"), "{flag}");
}

#[test]
fn a_seed_makes_a_drawn_answer_repeatable() {
    let fixture = Fixture::new();
    let drawn = |seed| ask(&fixture, &["--temperature", "1", "--seed", seed, "Tell me something."]).answer();
    assert_eq!(drawn("7"), drawn("7"));
    assert_ne!(drawn("7"), drawn("8"));
}

#[test]
fn reports_go_to_stderr() {
    let fixture = Fixture::new();
    let question = ["wide.png", "small.png", "What differs?"];
    let plain = ask(&fixture, &question).answer();
    let told = ask(&fixture, &[&["--stats", "--verbose"], &question[..]].concat());
    assert_eq!((told.code, told.stdout), (Some(0), plain));
    let lines: Vec<&str> = told.stderr.lines().collect();
    assert_eq!(
        lines[1..3],
        [
            "image 1: wide.png: 700x400 pixels, 5 tiles (2 rows of 2, and the whole; 5 computed), 757 tokens",
            "image 2: small.png: 90x60 pixels, 5 tiles (2 rows of 2, and the whole; 5 computed), 757 tokens",
        ]
    );
    assert!(
        lines[0].starts_with("memory: 317.5 kB of weights, ") && lines[0].ends_with("are available"),
        "{}",
        lines[0]
    );
    let begins: Vec<&str> = lines[3..].iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(begins, ["vision", "prompt", "first", "answer"]);
}

#[test]
fn json_tells_everything_in_one_object() {
    let fixture = Fixture::new();
    let question = ["wide.png", "What is this?"];
    let told = ask(&fixture, &[&["--json", "--logprobs", "2"], &question[..]].concat());
    let json = told.json();
    assert_eq!(json["answer"].as_str().unwrap().to_owned() + "\n", ask(&fixture, &question).answer());
    assert_eq!((&json["finish_reason"], &json["dtype"]), (&"length".into(), &"bf16".into()));
    let picture = serde_json::json!({
        "name": "wide.png", "width": 700, "height": 400, "grid": [2, 2], "tiles": 5, "distinct_tiles": 5, "tokens": 757
    });
    assert_eq!(json["images"], Value::from(vec![picture]));
    let usage = &json["usage"];
    assert_eq!((&usage["image_tokens"], &usage["completion_tokens"]), (&757.into(), &12.into()));
    assert!(json["timings"]["first_token_ms"].as_f64().unwrap() > 0.0);
    let tokens = json["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), 12);
    for token in tokens {
        let top = token["top"].as_array().unwrap();
        // greedy: the likeliest is the one taken
        assert_eq!((top.len(), &top[0]["id"], &top[0]["logprob"]), (2, &token["id"], &token["logprob"]));
        assert!(token["logprob"].as_f64().unwrap() < 0.0 && token["token"].is_string());
    }
    assert!(ask(&fixture, &["--json", "Hello."]).json().get("logprobs").is_none());
    let words = json["words"].as_array().unwrap();
    let texts: Vec<&str> = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
    assert_eq!(texts, json["answer"].as_str().unwrap().split_whitespace().collect::<Vec<_>>());
    let probabilities = tokens.iter().map(|token| token["logprob"].as_f64().unwrap().exp());
    let probabilities: Vec<f64> = probabilities.collect();
    for word in words {
        let p = word["p"].as_f64().unwrap();
        assert!(probabilities.iter().any(|own| (own - p).abs() < 1e-6), "{p} is of no token");
    }
    assert!(words.iter().all(|word| word["p"].as_f64() <= word["mean"].as_f64()));
}

#[test]
fn an_answer_that_is_cut_says_what_allows_more() {
    let fixture = Fixture::new();
    let question = ["wide.png", "What is this?"];
    let prompt = &ask(&fixture, &[&["--json"], &question[..]].concat()).json()["usage"]["prompt_tokens"];
    let context = (prompt.as_u64().unwrap() + 5).to_string();
    let full = ["--context", &context];
    let told = fixture.run(&[&["ask"], &question[..], &full].concat()).stderr;
    let cut = "the answer was cut after 5 tokens, where the context is full; ";
    assert_eq!(told, format!("{cut}--context gives more room\n"));
    let chat = [&["chat", "wide.png"], &full[..]].concat();
    let told = fixture.run_with_input(&chat, b"What is this?\n").stderr;
    assert!(
        told.ends_with(&format!("{cut}/reset makes room, and chat --context gives more of it\n")),
        "{told}"
    );
    // as many as were asked for are no surprise
    ask(&fixture, &question).answer();
    fixture.run(&[&["ask", "--max-new-tokens", "5"], &question[..], &full].concat()).answer();
}

#[test]
fn detail_and_crops_choose_the_tiles() {
    let fixture = Fixture::new();
    let tokens = |flags: &[&str]| {
        let told = ask(&fixture, &[flags, &["--json", "wide.png", "What?"]].concat()).json();
        told["images"][0]["tokens"].as_u64().unwrap()
    };
    // (h_crop * w_crop + 1) * 144 + 1 + (h_crop + 1) * 12
    assert_eq!(tokens(&["--detail", "low"]), 313);
    assert_eq!(tokens(&[]), 757);
    assert_eq!(tokens(&["--num-crops", "6"]), 1 + 7 * 144 + 3 * 12);
    assert_eq!(tokens(&["--detail", "high"]), 1 + 16 * 144 + 4 * 12);
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let fixture = Fixture::new();
    let answer = ask(&fixture, &["What is this?"]).answer();
    let letters: Vec<char> = answer.trim_end().chars().collect();
    let stop: String = letters[letters.len() / 2..letters.len() / 2 + 2].iter().collect();
    let json = ask(&fixture, &["--json", "--stop", &stop, "What is this?"]).json();
    assert_eq!(json["finish_reason"], "stop");
    assert_eq!(json["answer"], answer.split(&stop).next().unwrap());
}

/// A question whose answer goes on until it is stopped, or for minutes.
fn endless(fixture: &Fixture) -> std::process::Child {
    fixture.endless_model();
    let args =
        ["ask", "--model", ".", "--max-new-tokens", "100000", "--context", "101000", "Go on for ever."];
    let mut command = fixture.command(&args);
    signals::hear(&mut command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_answer_streams_and_ctrl_c_ends_it() {
    if !signals::can_be_sent() {
        return;
    }
    let fixture = Fixture::new();
    check_ctrl_c_ends(endless(&fixture));
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let fixture = Fixture::new();
    let mut child = endless(&fixture);
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1]).unwrap();
    drop(stdout);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}

#[test]
fn special_tokens_in_a_question_are_text() {
    let fixture = Fixture::new();
    let prompt_tokens = |question: &str| {
        ask(&fixture, &["--json", question]).json()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    // seven characters stay several tokens; the special token would be one
    assert!(prompt_tokens("a<|end|>b") > prompt_tokens("a b") + 3);
    assert_eq!(ask(&fixture, &["--json", "<|image_1|>What?"]).json()["images"], Value::Array(Vec::new()));
}

#[test]
fn every_cpu_level_runs() {
    let fixture = Fixture::new();
    let mut command = fixture.command(&["ask", "--max-new-tokens", "3", "--dtype", "f32", "Hello."]);
    let scalar = Run::of(command.env("PHI3V_CPU", "scalar").output().unwrap()).answer();
    let mut command = fixture.command(&["ask", "--max-new-tokens", "3", "--dtype", "f32", "Hello."]);
    assert_eq!(Run::of(command.output().unwrap()).answer(), scalar);
}

#[test]
fn flags_that_choose_nothing_of_a_picture_are_told() {
    let fixture = Fixture::new();
    for (flag, value) in [("--pages", "2"), ("--frames", "4"), ("--fps", "1")] {
        let told = fixture.run(&["ask", "small.png", "What?", "--max-new-tokens", "1", flag, value]);
        let note = format!("small.png is one picture, of which {flag} chooses nothing\n");
        assert!(told.code == Some(0) && told.stderr.contains(&note), "{}", told.stderr);
    }
    let told = fixture.run(&["ask", "small.png", "What?", "--max-new-tokens", "1", "--pages", "1-3"]);
    assert!(told.code == Some(0) && !told.stderr.contains("--pages"), "its first is itself: {}", told.stderr);
}
