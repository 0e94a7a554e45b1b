//! The built-in model.

use super::{Fixture, Run};

#[test]
fn the_exported_folder_is_the_built_in_model() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&["export-demo", "demo"]).answer(), "demo\n");
    let ask = |model: &str| {
        let args = ["ask", "--model", model, "--max-new-tokens", "20", "small.png", "What is written here?"];
        fixture.run(&args)
    };
    // a copy of the files is a model like any other
    assert_eq!(ask("demo").demo_answer(), ask("./demo").answer());
}

/// In the program's unit; `info` tells of what is loaded, which the tower's last layer is not.
#[cfg(unix)]
#[test]
fn the_front_page_says_how_large_the_file_is() {
    let (name, bytes) = phi3v::demo::contents()[6];
    let size = phi3v::memory::size(bytes.len() as u64);
    let readme = super::repository_text("README.md");
    assert!(readme.contains(&format!("The demo model (a file of {size}, ")), "{name} has {size}");
}

#[test]
fn the_program_holds_the_built_in_model_once() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_phi3v")).unwrap();
    let (name, bytes) = phi3v::demo::contents()[6];
    // signs and mantissas, which lie there as they are, but zero's, from the middle, where there are weights and no header
    let (weights, _) = bytes[bytes.len() / 4 * 2..].as_chunks();
    let weights = weights.windows(64).find(|weights| !weights.contains(&[0; 2])).unwrap();
    let packed: Vec<u8> =
        weights.iter().map(|&weight| u16::from_le_bytes(weight).rotate_left(1) as u8).collect();
    assert_eq!(program.windows(64).filter(|&here| here == packed).count(), 1, "{name}");
}

#[test]
fn the_built_in_model_can_be_quantized() {
    let fixture = Fixture::new();
    let text = super::repository().join("examples/text.png").display().to_string();
    let prompt = ["eval", "demo", "--prompt", "What is written here?", "--image", &text];
    let told = fixture.run(&[&prompt[..], &["--quant", "q8", "--max-new-tokens", "4", "--json"]].concat());
    let divergence = told.json()["candidates"][0]["kl_mean"].as_f64().unwrap();
    // 0 would be the same model compared with itself
    assert!(divergence > 0.0 && divergence < 0.1, "{divergence}");
    let asked =
        fixture.run(&["ask", "--model", "demo", "--quant", "q4", "--max-new-tokens", "3", "Who are you?"]);
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
    assert_eq!(super::quantized::cached(&fixture).len(), 2);
}

#[test]
fn the_built_in_model_looks_at_no_more_tiles_than_it_can_use() {
    let fixture = Fixture::new();
    for model in ["demo", "./exported"] {
        if model != "demo" {
            fixture.run(&["export-demo", model]).answer();
        }
        for (flags, tiles) in [
            (&["--detail", "high"][..], 5),
            (&["--num-crops", "200"], 5),
            (&["--num-crops", "3"], 2),
            (&["--detail", "low"], 2),
            (&[], 2),
        ] {
            let ask = ["ask", "-j", "-m", model, "--max-new-tokens", "1", "wide.png", "What?"];
            let told = fixture.run(&[&ask[..], flags].concat()).json();
            assert_eq!(told["images"][0]["tiles"], tiles, "{flags:?}");
        }
    }
}

#[test]
fn the_built_in_model_answers_where_none_is_named() {
    let fixture = Fixture::new();
    let question = ["ask", "--json", "--max-new-tokens", "1", "Who are you?"];
    let unnamed = Run::of(fixture.command(&question).env_remove("PHI3V_MODEL").output().unwrap());
    assert_eq!(unnamed.json()["model"], "demo");
}

/// One for each number of pictures: the library's own test has all of them.
#[test]
fn examples_are_answered_to_the_letter() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let told = std::fs::read_to_string(examples.join("answers.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&told).unwrap();
    let (fixture, mut counts) = (Fixture::new(), Vec::new());
    for case in &cases {
        let pictures = case["pictures"].as_array().unwrap().iter();
        if counts.contains(&pictures.len()) {
            continue;
        }
        counts.push(pictures.len());
        let pictures = pictures.map(|name| examples.join(name.as_str().unwrap()).display().to_string());
        let mut command = vec!["ask".to_owned(), "--model".to_owned(), "demo".to_owned()];
        command.extend(pictures);
        command.push(case["question"].as_str().unwrap().to_owned());
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        assert_eq!(fixture.run(&command).demo_answer().trim_end(), case["answer"].as_str().unwrap());
    }
    assert_eq!(counts, [1, 2, 0]);
    let readme = std::fs::read_to_string(examples.join("../README.md")).unwrap();
    assert!(readme.contains(cases[0]["answer"].as_str().unwrap()), "README.md tells another answer");
}

#[test]
fn the_built_in_model_says_when_its_answer_is_probably_wrong() {
    let fixture = Fixture::new();
    let of = |path: &str| super::repository().join(path).display().to_string();
    let read = "What is written here?";
    let cases = [
        (of("examples/text.png"), read),
        (of("docs/guide/demo/editor.png"), read),
        (of("docs/guide/demo/serif.png"), read),
        (of("docs/guide/demo/no-values.png"), "Describe this chart."),
        ("small.png".to_owned(), read),
        ("wide.png".to_owned(), read),
    ];
    let mut doubted = Vec::new();
    for (picture, question) in &cases {
        let ask = ["ask", "--model", "demo", picture, question];
        let told = fixture.run(&[&ask[..], &["--json"]].concat()).json();
        let words = told["words"].as_array().unwrap().iter();
        let least = words.map(|word| word["p"].as_f64().unwrap()).fold(1.0, f64::min);
        let stderr = fixture.run(&ask).stderr;
        let doubt = stderr.lines().find(|line| line.starts_with("the demo model is not sure of "));
        assert_eq!(doubt.is_some(), least < f64::from(phi3v::words::EVEN_MIN), "{picture} {told} {stderr}");
        doubted.push(doubt.is_some());
        assert!(!fixture.run(&[&ask[..], &["--quiet"]].concat()).stderr.contains("not sure"));
    }
    assert_eq!(doubted[..2], [false, false], "it reads these");
    assert!(doubted.contains(&true));
}
