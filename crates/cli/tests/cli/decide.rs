//! `phi3v decide` and `phi3v calibrate`.

use super::{Fixture, Run};
use serde_json::Value;

/// A fixture with the pictures of examples/ in a folder called `photos`.
fn with_photos() -> Fixture {
    let fixture = Fixture::new();
    fixture.copy_examples("photos");
    fixture
}

const ASK: [&str; 5] = ["decide", "--model", "demo", "photos/text.png", "What is written here?"];

fn decide(fixture: &Fixture, more: &[&str]) -> Run {
    fixture.run(&[&ASK[..], more].concat())
}

#[test]
fn the_likeliest_choice_is_printed_with_all_probabilities() {
    let fixture = with_photos();
    let sign = "Fresh Bread\nOpen Daily\nWelcome";
    let told = decide(&fixture, &["--choices", &format!("No Entry,{sign}")]).demo_answer();
    assert_eq!(
        told,
        "Fresh Bread Open Daily Welcome\n  100.00 %  Fresh Bread Open Daily Welcome\n    0.00 %  No Entry\n"
    );
    let json = decide(&fixture, &["--choices", &format!("No Entry,{sign}"), "--json"]).json();
    let decision = &json["decisions"][0];
    assert_eq!((decision["choice"].as_str(), decision["temperature"].as_f64()), (Some(sign), Some(1.0)));
    assert!(decision["covered"].as_f64().unwrap() > 0.99, "{decision}");
    let probabilities: Vec<f64> = decision["probabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["probability"].as_f64().unwrap())
        .collect();
    assert!(probabilities[0] < 1e-6 && (probabilities[0] + probabilities[1] - 1.0).abs() < 1e-12);
    assert_eq!(json["usage"]["image_tokens"], json["images"][0]["tokens"]);
    // what it says itself is what is most probable
    let asked =
        fixture.run(&["ask", "--model", "demo", "--json", "photos/text.png", "What is written here?"]).json();
    assert_eq!(asked["answer"], sign);
}

#[test]
fn who_would_say_something_else_is_told_of() {
    let fixture = with_photos();
    let told = decide(&fixture, &["--choices", "Fresh Bread,No Entry"]);
    assert!(told.stdout.starts_with("Fresh Bread\n"), "{}", told.stdout);
    let note = "note: the choices have less than 1 % of the model's probability, it would say something else";
    assert!(told.stderr.contains(note), "{}", told.stderr);
    std::fs::write(fixture.path("questions.txt"), "What is written here?\nWho are you?\n").unwrap();
    let several =
        ["decide", "--model", "demo", "photos/text.png", "--questions", "questions.txt", "--choices", "a,b"];
    let told = fixture.run(&several);
    assert!(told.stderr.contains("note: for 2 of 2 questions the choices have less"), "{}", told.stderr);
}

#[test]
fn several_questions_are_decided_as_each_alone() {
    let fixture = with_photos();
    let questions = "{\"prompt\": \"What is written here?\"}\n\
        {\"name\": \"kind\", \"prompt\": \"What is this?\", \"choices\": [\"a sign\", \"a book\", \"a chart of values\"]}\n";
    std::fs::write(fixture.path("questions.txt"), questions).unwrap();
    let common = ["decide", "--model", "demo", "--json", "photos/text.png"];
    let several = ["--questions", "questions.txt", "--choices", "Fresh Bread,No Entry"];
    let together = fixture.run(&[&common[..], &several].concat()).json();
    assert_eq!(together["decisions"][1]["name"], "kind");
    for (index, (question, choices)) in [
        ("What is written here?", "Fresh Bread,No Entry"),
        ("What is this?", "a sign,a book,a chart of values"),
    ]
    .into_iter()
    .enumerate()
    {
        let alone = fixture.run(&[&common[..], &[question, "--choices", choices]].concat()).json();
        assert_eq!(alone["decisions"][0]["probabilities"], together["decisions"][index]["probabilities"]);
    }
    let usage = |name: &str| together["usage"][name].as_u64().unwrap();
    // the picture's rows stand in both prompts, and are computed once
    assert_eq!(usage("image_tokens"), 2 * together["images"][0]["tokens"].as_u64().unwrap());
    assert!(usage("prompt_tokens") - usage("cached_tokens") < usage("image_tokens") / 2 + 100);
    let text = fixture.run(&[&["decide", "--model", "demo", "-q", "photos/text.png"][..], &several].concat());
    assert!(text.stdout.starts_with("What is written here?\nFresh Bread\n"), "{}", text.stdout);
    assert!(text.stdout.contains("\n\nkind\n"), "{}", text.stdout);
}

#[test]
fn what_cannot_be_decided_is_refused() {
    let fixture = with_photos();
    std::fs::write(fixture.path("questions.txt"), "Is it?\n").unwrap();
    std::fs::write(fixture.path("empty.txt"), "\n").unwrap();
    std::fs::write(fixture.path("wrong.json"), "{}").unwrap();
    for (args, code, told) in [
        (&["photos/text.png", "--choices", "yes,no"][..], 2, "no question was given"),
        (&["--choices", "yes,no"], 2, "no question was given"),
        (
            &["photos/text.png", "Is it?"],
            2,
            "no choices were given for \"Is it?\"\nhint: add --choices yes,no",
        ),
        (&["photos/text.png", " ", "--choices", "yes,no"], 2, "the question is empty"),
        (&["Is it?", "--choices", "yes"], 2, "a question has 1 choice, it must have 2 to 255"),
        (&["Is it?", "--choices", "yes,"], 2, "choice 2 is empty"),
        (&["Is it?", "--choices", "yes,no,yes"], 2, "the choices \"yes\" and \"yes\" are the same answer"),
        (&["none.png", "Is it?", "--choices", "yes,no"], 3, "none.png"),
        (&["Is it?", "--questions", "questions.txt", "--choices", "yes,no"], 2, "beside --questions"),
        (&["--questions", "questions.txt"], 2, "no choices were given"),
        (&["--questions", "none.txt"], 2, "cannot read none.txt"),
        (&["--questions", "empty.txt"], 2, "the questions in empty.txt cannot be used: there is none"),
        (
            &["photos/text.png", "Is it?", "--choices", "yes,no", "--context", "64"],
            5,
            "exceed the context of 64 tokens",
        ),
        (&["Is it?", "--choices", "yes,no", "--calibration", "none.json"], 2, "cannot read none.json"),
        (&["Is it?", "--choices", "yes,no", "--calibration", "wrong.json"], 2, "this is no calibration"),
    ] {
        let run = fixture.run(&[&["decide", "--model", "demo"], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(told) && run.stderr.contains("error: "), "{args:?}: {}", run.stderr);
    }
    // a question that begins with a dash is one where it comes last
    let dashed = fixture.run(&["decide", "--model", "demo", "--choices", "yes,no", "- is it?"]);
    assert_eq!(dashed.code, Some(0), "{}", dashed.stderr);
}

#[test]
fn a_calibration_is_fitted_and_used() {
    let fixture = with_photos();
    // two pictures are alike, and one of them bears the wrong label: at best one of two is right
    for (choice, name, from) in [
        ("Fresh Bread", "1.png", "photos/text.png"),
        ("Fresh Bread", "2.png", "photos/text.png"),
        ("Fresh Bread", "3.png", "photos/text.png"),
        ("No Entry", "4.png", "photos/text.png"),
    ] {
        std::fs::create_dir_all(fixture.path("signs").join(choice)).unwrap();
        std::fs::copy(fixture.path(from), fixture.path("signs").join(choice).join(name)).unwrap();
    }
    let prompt = ["--model", "demo", "--prompt", "What is written here?"];
    let calibrate = |more: &[&str]| fixture.run(&[&["calibrate", "signs"][..], &prompt, more].concat());
    let told = calibrate(&["--out", "signs.json"]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let line = told.stdout.lines().nth(1).unwrap();
    assert!(line.contains(" 75.0 % ") && line.ends_with("What is written here?"), "{}", told.stdout);
    let written: Value = serde_json::from_slice(&std::fs::read(fixture.path("signs.json")).unwrap()).unwrap();
    let fitted = &written["questions"][0];
    assert_eq!((fitted["examples"].as_u64(), fitted["choices"][1].as_str()), (Some(4), Some("No Entry")));
    assert!(fitted["after"]["nll"].as_f64().unwrap() < fitted["before"]["nll"].as_f64().unwrap());

    let choices = ["--choices", "No Entry,Fresh Bread", "--json", "--calibration", "signs.json"];
    let calibrated = decide(&fixture, &choices).json();
    let decision = &calibrated["decisions"][0];
    assert_eq!(decision["temperature"], fitted["temperature"]);
    let plain = decide(&fixture, &choices[..3]).json();
    let logprob = |index: usize| plain["decisions"][0]["probabilities"][index]["logprob"].as_f64().unwrap();
    let temperature = fitted["temperature"].as_f64().unwrap();
    let expected = 1.0 / (1.0 + ((logprob(0) - logprob(1)) / temperature).exp());
    assert!((decision["probability"].as_f64().unwrap() - expected).abs() < 1e-9, "{decision}");

    let exists = calibrate(&["--out", "signs.json"]).refusal(2);
    assert!(exists.contains("signs.json exists already"), "{exists}");
    assert_eq!(calibrate(&["--out", "signs.json", "--force"]).code, Some(0));
    let other = decide(&fixture, &["--choices", "Fresh Bread,Garden", "--calibration", "signs.json"]);
    assert!(
        other
            .refusal(2)
            .contains("the calibration has no question \"What is written here?\" with the choices")
    );
    let format = decide(&fixture, &[&choices[..], &["--dtype", "f32"]].concat());
    assert!(format.refusal(2).contains("and the model is demo (quant none, dtype f32"));
}

#[test]
fn labels_that_cannot_be_used_are_refused() {
    let fixture = with_photos();
    std::fs::write(fixture.path("labels.jsonl"), "{\"image\": \"none.png\"}").unwrap();
    let line = |answer: &str| {
        format!("{{\"image\": \"none.png\", \"prompt\": \"Is it?\", \"answer\": \"{answer}\"}}\n")
    };
    std::fs::write(fixture.path("missing.jsonl"), line("yes") + &line("no")).unwrap();
    for (args, code, told) in [
        (&["photos"][..], 2, "nothing is asked about the pictures in photos\nhint: add --prompt"),
        (&["photos", "--prompt", ""], 2, "the question is empty"),
        (&["photos", "--prompt", "Is it?"], 2, "there is no labelled picture"),
        (&["labels.jsonl", "--prompt", "Is it?"], 2, "--prompt says nothing about labels"),
        (&["labels.jsonl"], 2, "line 1: missing field `prompt`"),
        (&["missing.jsonl"], 3, "none.png"),
        (&["nowhere"], 2, "cannot read nowhere: "),
    ] {
        let refused = fixture.run(&[&["calibrate", "--model", "demo"], args].concat()).refusal(code);
        assert!(refused.contains(told), "{args:?}: {refused}");
        assert!(!fixture.path("calibration.json").exists());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_refused_before_a_model_is_looked_for() {
    let fixture = with_photos();
    for args in
        [&["calibrate", "photos", "--prompt", "Is it?"][..], &["trace", "--prompt", "x"], &["quantize"]]
    {
        // a folder in which no file can be made, whoever asks
        let refused =
            fixture.run(&[args, &["--out", "/proc/x", "--model", "no-such-model"]].concat()).refusal(1);
        assert!(refused.starts_with("error: cannot write /proc/x"), "{args:?}: {refused}");
    }
}

#[test]
fn a_labelled_picture_that_cannot_be_read_is_left_out_and_told() {
    let fixture = with_photos();
    std::fs::write(fixture.path("photos/damaged.png"), b"\x89PNG\r\n\x1a\nand no more").unwrap();
    let line = |image: &str, answer: &str| {
        format!("{{\"image\": \"photos/{image}\", \"prompt\": \"Is it?\", \"answer\": \"{answer}\"}}\n")
    };
    let all = [
        line("gone.png", "yes"),
        line("damaged.png", "no"),
        line("text.png", "yes"),
        line("cover.png", "no"),
    ];
    std::fs::write(fixture.path("labels.jsonl"), all.concat()).unwrap();
    let run = fixture.run(&["calibrate", "--model", "demo", "labels.jsonl", "--out", "some.json"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for name in ["gone.png", "damaged.png"] {
        let is_told = |line: &str| line.starts_with("left out: ") && line.contains(name);
        assert!(run.stderr.lines().any(is_told), "{}", run.stderr);
    }
    assert!(run.stderr.contains("2 answers in ") && run.stderr.contains("; 2 failed\n"), "{}", run.stderr);
    assert!(fixture.path("some.json").exists());
    let two = "\"prompt\": \"Is it?\", \"answer\": \"no\", \"choices\": [\"yes\", \"no\"]}";
    std::fs::write(fixture.path("none.jsonl"), format!("{{\"image\": \"photos/damaged.png\", {two}\n"))
        .unwrap();
    let refused = fixture.run(&["calibrate", "--model", "demo", "none.jsonl", "--out", "none.json"]);
    assert!(refused.code == Some(3) && !fixture.path("none.json").exists(), "{}", refused.stderr);
    // an address of a host that is not allowed is refused before anything is asked
    let address = line("", "yes").replace("photos/", "https://example.org/a.png") + &all.concat();
    std::fs::write(fixture.path("address.jsonl"), address).unwrap();
    let refused = fixture.run(&["calibrate", "--model", "no-such-model", "address.jsonl"]).refusal(3);
    assert!(refused.starts_with("error: https://example.org/a.png is not fetched: "), "{refused}");
}

#[test]
fn a_calibration_replaces_nothing_that_it_is_made_from() {
    let fixture = with_photos();
    let line = |image: &str, answer: &str| {
        format!("{{\"image\": \"photos/{image}\", \"prompt\": \"Is it?\", \"answer\": \"{answer}\"}}\n")
    };
    std::fs::write(fixture.path("labels.jsonl"), line("text.png", "yes") + &line("cover.png", "no")).unwrap();
    for (folder, from) in [("yes", "text.png"), ("no", "cover.png")] {
        std::fs::create_dir_all(fixture.path("signs").join(folder)).unwrap();
        let to = fixture.path("signs").join(folder).join("1.png");
        std::fs::copy(fixture.path("photos").join(from), to).unwrap();
    }
    for (out, labels) in [
        ("labels.jsonl", &["labels.jsonl"][..]),
        ("./labels.jsonl", &["labels.jsonl"]),
        ("photos/cover.png", &["labels.jsonl"]),
        ("signs/../signs/no/1.png", &["signs", "--prompt", "Is it?"]),
    ] {
        let before = std::fs::read(fixture.path(out)).unwrap();
        let flags = ["--model", "demo", "--out", out, "--force"];
        let refused = fixture.run(&[&["calibrate"], labels, &flags].concat()).refusal(2);
        let told =
            format!("error: writing {out} would destroy what it is made from\nhint: give another name");
        assert!(refused.starts_with(&told), "{refused}");
        assert!(std::fs::read(fixture.path(out)).unwrap() == before, "{out}");
    }
}

/// The guide's examples, on the demo model.
#[cfg(unix)]
#[test]
fn the_guide_s_examples_work() {
    let fixture = with_photos();
    let guide = super::repository_text("docs/guide/decide.md");
    let told = fixture.run_examples(&guide, &[]);
    assert!(told.len() >= 4, "{}", told.len());
    assert!(guide.contains(&format!("```text\n{}```", told[0])), "{}", told[0]);
}
