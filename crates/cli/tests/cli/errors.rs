//! What is said, and with which exit code, when something is wrong.

use super::{Fixture, Run, absence};
use phi3v_cli::paths::quoted;
#[cfg(unix)]
use {super::tiny, std::process::Command};

#[test]
fn pictures_are_refused_with_3() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("notes.txt"), "no picture").unwrap();
    let whole = std::fs::read(fixture.path("wide.png")).unwrap();
    std::fs::write(fixture.path("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let refusal = |picture: &str| fixture.run(&["ask", picture, "What?"]).refusal(3);
    let told = format!("error: cannot read absent.png: {}\nhint: check the path\n", absence("absent.png"));
    assert_eq!(refusal("absent.png"), told);
    for device in ["NUL", "con.png", "./COM1"].into_iter().filter(|_| cfg!(windows)) {
        let told = refusal(device);
        assert!(told.contains("its name is one that Windows keeps for a device"), "{told}");
    }
    let text = refusal("notes.txt");
    assert!(text.starts_with("error: notes.txt: this is not a picture"), "{text}");
    assert!(text.contains("\nhint: convert it to one of "), "{text}");
    let cut = refusal("cut.png");
    assert!(cut.starts_with("error: cut.png: the PNG picture is truncated\nhint: "), "{cut}");
    assert_eq!(
        refusal("https://example.org/a.png"),
        "error: https://example.org/a.png is not fetched: pictures come from files and stdin, and from hosts that were \
         allowed by name\n\
         hint: allow its host: phi3v ask --allow-url example.org https://example.org/a.png \"...\"; or fetch it \
         yourself: curl -sL https://example.org/a.png | phi3v ask - \"...\"\n"
    );
    let empty = fixture.run_with_input(&["ask", "-", "What?"], b"").refusal(3);
    assert!(empty.starts_with("error: stdin: the file is empty: it has 0 bytes"), "{empty}");
}

/// A picture of 2^16 x 2^16 pixels takes 12.9 GB, and the process may have 8.
#[cfg(target_os = "linux")]
#[test]
fn pixels_that_the_memory_does_not_hold_are_refused_with_5() {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\
        \0\0\0\x0dIHDR\0\x01\0\0\0\x01\0\0\x08\x02\0\0\0\xe3\xe6\xa7\xb4\
        \0\0\0\x08IDAT\x78\x9c\x03\0\0\0\0\x01\x48\x06\x89\xd2\
        \0\0\0\0IEND\xae\x42\x60\x82";
    let fixture = Fixture::new();
    std::fs::write(fixture.path("large.png"), PNG).unwrap();
    let program = fixture.command::<&str>(&[]);
    let mut shell = Command::new("sh");
    let limits = "--max-pixels 4294967296 --max-side 1048576";
    let line = format!("ulimit -v 8000000; exec \"$0\" ask -q --model demo {limits} large.png What?");
    shell.args(["-c", &line]);
    shell.arg(program.get_program()).current_dir(fixture.dir.path());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(
        Run::of(shell.output().unwrap()).refusal(5),
        "error: large.png: there is no memory for 12884901888 bytes of the picture's pixels\n\
         hint: scale the picture down, or close other programs\n"
    );
}

#[test]
fn models_are_refused_with_4() {
    let fixture = Fixture::new();
    let refusal = |model: &str| fixture.run(&["ask", "--model", model, "What?"]).refusal(4);
    let unknown = refusal("phi-9");
    assert!(unknown.starts_with("error: there is no model or folder \"phi-9\"\nhint: "), "{unknown}");
    let empty = refusal(".");
    assert!(empty.contains("config.json") && empty.contains("\nhint: "), "{empty}");
    let offline = refusal("phi-3.5-vision");
    assert!(offline.contains("HF_HUB_OFFLINE"), "{offline}");
}

#[test]
fn a_file_that_is_no_model_is_told_for_what_it_is() {
    let fixture = Fixture::new();
    for (name, bytes) in [
        ("phi.gguf", &b"GGUF\x03\0\0\0"[..]),
        ("notes.txt", b"a note\n"),
        ("config.json", b"{}"),
        ("empty.safetensors", b""),
    ] {
        std::fs::write(fixture.path(name), bytes).unwrap();
    }
    for (name, words, hint) in [
        ("phi.gguf", "a GGUF file, which phi3v does not read\n", "phi3v pull phi-3.5-vision"),
        ("small.png", "a PNG picture, and no model\n", "phi3v ask small.png \"What is this?\""),
        ("notes.txt", "a text", "a folder with a checkpoint"),
        ("config.json", "one file of a checkpoint", "--model ."),
        ("empty.safetensors", "an empty file", "a folder with a checkpoint"),
    ] {
        for command in
            [&["ask", "What?", "--model"][..], &["info", "--model"], &["quantize"], &["bench", "--model"]]
        {
            let told = fixture.run(&[command, &[name]].concat()).refusal(4);
            assert!(told.starts_with(&format!("error: {name} is {words}")), "{told}");
            assert!(told.lines().nth(1).is_some_and(|line| line.contains(hint)), "{told}");
        }
    }
}

#[test]
fn too_much_is_refused_with_5() {
    let fixture = Fixture::new();
    let refusal = |args: &[&str]| fixture.run(&[&["ask"], args].concat()).refusal(5);
    // as it was asked for, though the cache has whole blocks
    let odd = refusal(&["--context", "100", "wide.png", "What?"]);
    assert!(odd.contains("exceed the context of 100 tokens\nhint: "), "{odd}");
    let long = refusal(&["--context", "256", "wide.png", "What?"]);
    assert!(long.contains("exceed the context of 256 tokens\nhint: "), "{long}");
    let many = refusal(&[&["--context", "4000"][..], &["wide.png"; 40], &["What?"]].concat());
    let told = many.strip_prefix("error: the pictures have ").and_then(|rest| rest.split_once(' ')).unwrap();
    let rows: usize = told.0.parse().unwrap();
    assert!((4001..8000).contains(&rows), "no more are read than it takes to know: {many}");
    assert!(told.1.starts_with("tokens or more, which exceed the context of 4000 tokens\nhint: "), "{many}");
    let answer = refusal(&["--context", "256", "--max-new-tokens", "300", "What?"]);
    assert!(answer.contains("an answer of up to 300 exceed"), "{answer}");
    assert_eq!(
        refusal(&["--context", "131073", "What?"]),
        "error: a context of 131073 tokens is longer than the model's 131072\n\
         hint: choose a context of at most 131072 with --context\n"
    );
}

#[test]
fn wrong_usage_is_refused_with_2() {
    let fixture = Fixture::new();
    let refusal = |args: &[&str]| fixture.run(args).refusal(2);
    assert!(refusal(&[]).contains("Usage: phi3v"));
    assert!(refusal(&["ask"]).contains("phi3v ask [OPTIONS] [IMAGE|-]... <QUESTION>"));
    assert!(
        refusal(&["ask", "--tempereture", "1", "What?"])
            .contains("a similar argument exists: '--temperature'")
    );
    assert!(refusal(&["ask", "--detail", "most", "What?"]).contains("[possible values: low, high, auto]"));
    assert!(
        refusal(&["ask", "--detail", "low", "--num-crops", "2", "What?"]).contains("cannot be used with")
    );
    assert!(refusal(&["ask", "--logprobs", "2", "What?"]).contains("--json"));
    assert!(refusal(&["trace", "--out", "x"]).contains("--prompt"));
    assert_eq!(
        refusal(&["ask", "-", "-", "What?"]),
        "error: stdin can be one picture only, and - was given twice\n"
    );
    let hot = refusal(&["ask", "--temperature", "-1", "What?"]);
    assert!(hot.contains("temperature"), "{hot}");
}

#[test]
fn a_picture_where_the_question_should_be_is_refused() {
    let fixture = Fixture::new();
    let refusal = |args: &[&str]| fixture.run(&[&["ask"], args].concat()).refusal(2);
    assert_eq!(
        refusal(&["wide.png", "small.png"]),
        "error: no question was given: small.png is a picture\n\
         hint: put the question last: phi3v ask wide.png small.png \"What is this?\"\n"
    );
    let first = refusal(&["What's this?", "small.png", "wide.png"]);
    let question = quoted("What's this?");
    let told = format!("hint: put the question last: phi3v ask small.png wide.png {question}\n");
    assert!(first.ends_with(&told), "{first}");
    // what would not work is not proposed
    let absent = refusal(&["small.png", "absent.png"]);
    assert!(absent.ends_with("hint: put the question last, in quotes: \"What is this?\"\n"), "{absent}");
    let address = refusal(&["https://example.org/a.png"]);
    let command = "phi3v ask --allow-url example.org https://example.org/a.png \"What is this?\"\n";
    assert!(address.ends_with(command), "{address}");
    for empty in ["", " "] {
        assert!(refusal(&["wide.png", empty]).starts_with("error: the question is empty\nhint: "));
    }
    for last in ["wide.png", "-", "absent.JPG", "folder/absent.jpeg", "https://example.org/a"] {
        let told = refusal(&["wide.png", last]);
        assert!(
            told.starts_with(&format!("error: no question was given: {last} is a picture\nhint: ")),
            "{told}"
        );
        assert!(refusal(&[last]).contains("no question was given"), "{last}");
    }
    let asked = fixture.run(&["ask", "--max-new-tokens", "1", "small.png", "What is in absent.jpg"]);
    asked.answer();
}

/// Port 9 discards; nothing listens there on a test machine.
#[test]
fn what_will_not_fit_is_not_downloaded_first() {
    let fixture = Fixture::new();
    let run = |words: &[&str]| {
        let mut command = fixture.command(words);
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HUB_CACHE", fixture.path("hub"));
        Run::of(command.env_remove("HF_HUB_OFFLINE").env_remove("TRANSFORMERS_OFFLINE").output().unwrap())
    };
    let model = ["--model", "phi-3.5-vision", "--context", "200000"];
    let (error, hint) = (
        "a context of 200000 tokens is longer than the model's 131072",
        "choose a context of at most 131072",
    );
    for command in [&["ask", "small.png", "What?"][..], &["serve", "--port", "0"]] {
        let told = run(&[command, &model].concat()).refusal(5);
        assert!(told.starts_with(&format!("error: {error}\nhint: {hint}")), "{told}");
    }
    let told = run(&[&["info"], &model[..]].concat()).answer();
    assert!(told.contains(&format!("\nmemory        {error}\n  hint        {hint}")), "{told}");
    let told = run(&[&["info", "--json"], &model[..]].concat()).json();
    assert!(told["refusal"] == error && told["hint"].as_str().unwrap().starts_with(hint), "{told}");
    // before what would be downloaded, too
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let told = run(&[&["serve", "--port", &port], &model[..]].concat()).refusal(1);
    assert!(told.starts_with(&format!("error: cannot listen at 127.0.0.1:{port}: ")), "{told}");
}

#[test]
fn a_folder_is_no_question() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("photos")).unwrap();
    for args in [
        &["ask", "photos"][..],
        &["ask", "small.png", "photos"],
        &["ask", "--schema", "@receipt", "photos"],
        &["ask", "--schema", "@receipt", "small.png", "photos"],
        &["ask", "photos", "What?"],
        &["decide", "--choices", "a,b", "photos"],
        &["decide", "--choices", "a,b", "small.png", "photos"],
    ] {
        let told = fixture.run(args).refusal(3);
        assert!(told.starts_with("error: cannot read photos: "), "{args:?}: {told}");
        assert!(told.contains("\nhint: phi3v batch FOLDER "), "{args:?}: {told}");
    }
    // but the last word of one without quotes
    for command in [&["ask"][..], &["decide", "--choices", "a,b"]] {
        let told = fixture.run(&[command, &["small.png", "What", "is", "in", "photos"]].concat()).refusal(3);
        let hint = format!("\nhint: put the question in quotes: {}\n", quoted("What is in photos"));
        assert!(told.starts_with("error: cannot read What: ") && told.ends_with(&hint), "{told}");
    }
}

#[test]
fn beside_a_preset_a_wrong_name_is_no_question() {
    let fixture = Fixture::new();
    for names in [&["receipt1"][..], &["scans/receipt1"], &["clip.avi"], &["small.png", "scans/receipt2"]] {
        let told = fixture.run(&[&["ask", "--schema", "@receipt"], names].concat()).refusal(3);
        let absent = names[names.len() - 1];
        assert_eq!(told, format!("error: cannot read {absent}: {}\nhint: check the path\n", absence(absent)));
    }
    // words about a picture are, and several words
    for words in [&["small.png", "Total?"][..], &["small.png", "a/b?"], &["这是什么？"], &["What is it?"]]
    {
        let ask = ["ask", "--schema", "@alt", "--max-new-tokens", "2"];
        let asked = fixture.run(&[&ask[..], words].concat());
        assert!(asked.code == Some(0) && asked.stdout.len() > 1, "{}", asked.stderr);
    }
    let empty = fixture.run(&["ask", "--schema", "@receipt", ""]).refusal(2);
    assert!(empty.starts_with("error: the question is empty\n"), "{empty}");
}

#[test]
fn a_question_without_quotes_is_told_from_a_picture_that_is_not_there() {
    let fixture = Fixture::new();
    let refusal = |args: &[&str], code| fixture.run(args).refusal(code);
    let hint = format!("hint: put the question in quotes: {}\n", quoted("What is this"));
    for command in [&["ask"][..], &["decide", "--choices", "yes,no"]] {
        let loose = refusal(&[command, &["small.png", "What", "is", "this"]].concat(), 3);
        assert_eq!(loose, format!("error: cannot read What: {}\n{hint}", absence("What")));
        let path = refusal(&[command, &["absent", "What is this?"]].concat(), 3);
        assert_eq!(path, format!("error: cannot read absent: {}\nhint: check the path\n", absence("absent")));
        let path = refusal(&[command, &["absent.png", "What"]].concat(), 3);
        assert!(path.ends_with("hint: check the path\n"), "{path}");
    }
    std::fs::create_dir(fixture.path("photos")).unwrap();
    std::fs::copy(fixture.path("small.png"), fixture.path("photos/a.png")).unwrap();
    for words in [&["What is this?"][..], &["What is this"], &["What", "is", "this?"]] {
        let told = refusal(&[&["batch", "photos"], words].concat(), 3);
        let question = quoted(&words.join(" "));
        assert!(
            told.ends_with(&format!("\nhint: if it is the question, write --prompt {question}\n")),
            "{told}"
        );
        let asked = refusal(&[&["batch", "photos", "--prompt", "x"], words].concat(), 3);
        assert!(!asked.contains("--prompt"), "{asked}");
    }
    let typo = refusal(&["batch", "phots"], 3);
    assert!(typo.ends_with("hint: check the path\n"), "{typo}");
    for command in
        [&["batch", "photos", "-p", ""][..], &["calibrate", "photos", "-p", " "], &["eval", "--prompt", ""]]
    {
        let told = refusal(command, 2);
        assert_eq!(
            told,
            "error: the question is empty\nhint: give one, in quotes: --prompt \"What is in this picture?\"\n"
        );
    }
}

#[test]
fn a_file_of_a_flag_that_cannot_be_used_is_refused_with_2_and_a_hint() {
    let fixture = Fixture::new();
    for flags in [
        &["ask", "small.png", "What?", "--schema", "nope.json"][..],
        &["ask", "small.png", "What?", "--schema", "receipt"],
        &["ask", "small.png", "What?", "--schema", "small.png"],
        &["ask", "small.png", "What?", "--schema", "."],
        &["chat", "--schema", "nope.json"],
        &["batch", "small.png", "-p", "x", "--schema", "nope.json"],
        &["batch", "small.png", "--questions", "nope.txt"],
        &["batch", "small.png", "--questions", "small.png"],
        &["decide", "small.png", "--questions", "nope.txt"],
        &["decide", "small.png", "--questions", "small.png"],
        &["decide", "small.png", "x", "--choices", "a,b", "--calibration", "nope.json"],
        &["decide", "small.png", "x", "--choices", "a,b", "--calibration", "small.png"],
        &["calibrate", "nope", "--prompt", "x"],
        &["calibrate", "nope"],
        &["calibrate", "small.png"],
        &["trace", "--prompt-file", "nope.txt", "--out", "x"],
        &["serve", "--port", "0", "--api-key-file", "nope.txt"],
        &["serve", "--port", "0", "--api-key-file", "small.png"],
        &["serve", "--port", "0", "--tls-cert", "nope.pem", "--tls-key", "nope.pem"],
        &["serve", "--port", "0", "--tls-cert", "small.png", "--tls-key", "small.png"],
        &["serve", "--port", "0", "--allow-image-dir", "nope"],
    ] {
        let told = fixture.run(flags).refusal(2);
        assert!(told.starts_with("error: ") && told.contains("\nhint: "), "{flags:?}: {told}");
    }
    let preset = fixture.run(&["ask", "small.png", "What?", "--schema", "receipt"]).refusal(2);
    assert!(preset.ends_with("hint: for the preset write --schema @receipt\n"), "{preset}");
    let folder = fixture.run(&["calibrate", "nope", "--prompt", "x"]).refusal(2);
    assert_eq!(folder, format!("error: cannot read nope: {}\nhint: check the path\n", absence("nope")));
}

#[test]
fn nothing_is_written_to_a_file_called_as_stdout_is() {
    let fixture = Fixture::new();
    for command in [
        &["batch", "small.png", "-p", "x", "--out", "-"][..],
        &["batch", "small.png", "-p", "x", "--csv", "-"],
        &["batch", "small.png", "-p", "x", "--parquet", "-"],
        &["calibrate", "photos", "-p", "x", "--out", "-"],
        &["quantize", "demo", "--out", "-"],
        &["trace", "--prompt", "x", "--out", "-"],
        &["man", "-"],
        &["export-demo", "-"],
    ] {
        let told = fixture.run(command).refusal(2);
        assert!(told.contains("it is written to a file and not to stdout; give a name"), "{told}");
        assert!(!fixture.path("-").exists());
    }
}

#[test]
fn what_no_model_could_follow_is_refused_before_one_is_opened() {
    let fixture = Fixture::new();
    for (flags, words) in [
        (["--num-crops", "0"], "1..=256"),
        (["--num-crops", "257"], "1..=256"),
        (
            ["--temperature", "-1"],
            "--temperature is -1, it must be from 0 to 2\nhint: leave --temperature out",
        ),
        (["--temperature", "0,5"], "for '--temperature <T>': write a number, as 0.5"),
        (["--top-p", "2"], "--top-p is 2, it must be above 0 and at most 1\nhint: leave --top-p out"),
        (["--stop", ""], "stop string 1"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0, it must be at least 1"),
    ] {
        for command in [&["ask", "What?"][..], &["chat"]] {
            let told = fixture.run(&[command, &["--model", "no-such-model"], &flags].concat()).refusal(2);
            assert!(told.contains(words), "{told}");
        }
    }
}

#[test]
fn limits_of_pictures_are_flags_and_named() {
    let fixture = Fixture::new();
    for (flag, value) in [("--max-pixels", "1000"), ("--max-side", "699"), ("--max-image-bytes", "100")] {
        let told = fixture.run(&["ask", flag, value, "wide.png", "What?"]).refusal(3);
        assert!(told.starts_with("error: wide.png: ") && told.contains(&format!("with {flag} if")), "{told}");
    }
    let large =
        ["--max-pixels", "1000000", "--max-side", "1000", "--max-frames", "3", "--max-new-tokens", "1"];
    fixture.run(&[&["ask", "wide.png", "What?"], &large[..]].concat()).answer();
}

#[test]
fn an_address_is_fetched_from_allowed_hosts_of_the_internet_alone() {
    let fixture = Fixture::new();
    let refusal = |host: &str, url: &str| fixture.run(&["ask", "--allow-url", host, url, "What?"]).refusal(3);
    let other = refusal("images.example.org", "https://example.org/a.png");
    assert!(other.starts_with("error: https://example.org/a.png is not fetched: "), "{other}");
    assert!(other.contains("hint: name its host with --allow-url"), "{other}");
    let here = refusal("127.0.0.1", "http://127.0.0.1/a.png?b=1&c=2");
    let download = format!("curl -sL {} | ", quoted("http://127.0.0.1/a.png?b=1&c=2"));
    assert!(here.contains(&download), "{here}");
    assert!(here.contains("outside the public internet") && here.contains("curl -sL"), "{here}");
    let file = refusal("example.org", "file:///etc/passwd");
    assert!(file.contains("hint: give the path of the file"), "{file}");
    let chat = fixture.run(&["chat", "https://example.org/a.png"]).refusal(3);
    assert!(chat.contains("--allow-url example.org"), "{chat}");
}

#[test]
fn a_cpu_level_that_is_none_is_an_error_that_names_the_choices() {
    let fixture = Fixture::new();
    let mut command = fixture.command(&["ask", "What?"]);
    let refusal = Run::of(command.env("PHI3V_CPU", "sse9").output().unwrap()).refusal(2);
    assert!(refusal.starts_with("error: unknown CPU level \"sse9\"\nhint: "), "{refusal}");
    assert!(["scalar", "avx2", "avx512"].iter().all(|level| refusal.contains(level)), "{refusal}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let fixture = Fixture::new();
    for empty in ["", " "] {
        let run = |args: &[&str]| {
            let mut command = fixture.command(args);
            // compose files leave them so: PHI3V_MODEL=${MODEL:-}
            for name in ["PHI3V_MODEL", "PHI3V_DEVICE", "PHI3V_CPU", "PHI3V_CACHE", "HF_HOME"] {
                command.env(name, empty);
            }
            command.env("HF_HUB_CACHE", empty).env("HF_ENDPOINT", empty);
            Run::of(command.output().unwrap())
        };
        let told = run(&["info", "--json"]).json();
        assert_eq!(told["model"]["name"], "demo");
        assert!(!told["caches"]["quantized"].as_str().unwrap().starts_with(' '), "{told}");
        assert_eq!(run(&["quantize", "--out", "demo-q8.safetensors"]).code, Some(0));
        assert!(fixture.path("demo-q8.safetensors").is_file());
        std::fs::remove_file(fixture.path("demo-q8.safetensors")).unwrap();
        // a flag that is empty is a mistake all the same
        let refused = run(&["info", "--model", ""]).refusal(4);
        assert!(refused.starts_with("error: there is no model or folder \"\""), "{refused}");
    }
}

#[test]
fn a_device_that_is_not_there_is_refused_by_name() {
    let fixture = Fixture::new();
    for command in [&["info"][..], &["ask", "What?"], &["bench", "--quick"]] {
        let run = |device| fixture.run(&[command, &["--device", device]].concat()).refusal(2);
        for device in ["tpu", "gpu:x", ""] {
            let refused = run(device);
            let told = format!("no device is called \"{device}\"; there are auto");
            assert!(refused.contains(&told), "{refused}");
        }
        // no machine has so many
        let refused = run("gpu:1000");
        assert!(refused.contains("graphics card"), "{refused}");
        assert!(refused.contains("hint: "), "{refused}");
    }
    let mut command = fixture.command(&["info", "--json"]);
    let told = Run::of(command.env("PHI3V_DEVICE", "CPU").output().unwrap()).json();
    assert!(told["cpu"].is_object() && told["gpu"].is_null() && told["cards"].is_array(), "{told}");
}

#[test]
fn the_processor_is_told_of_whichever_device_runs_the_model() {
    let fixture = Fixture::new();
    let of_processor = fixture.run(&["info", "--json", "--device", "cpu", "--threads", "1"]).json();
    let told = fixture.run(&["info", "--device", "cpu", "--threads", "1"]).stdout;
    let processor = told.lines().find(|line| line.starts_with("processor     level ")).unwrap();
    assert!(processor.ends_with(", 1 thread, runs the model"), "{told}");
    if of_processor["cards"].as_array().unwrap().is_empty() {
        phi3v_kernels::testing::skip(
            "a card beside the processor",
            "install a driver of graphics cards, as Mesa's for Vulkan",
        );
        return;
    }
    let of_card = fixture.run(&["info", "--json", "--device", "gpu:0", "--threads", "1"]).json();
    assert_eq!((&of_card["cpu"], &of_card["gpu"]), (&of_processor["cpu"], &0.into()));
    let told = fixture.run(&["info", "--device", "gpu:0", "--threads", "1"]).stdout;
    let processor = told.lines().find(|line| line.starts_with("processor     level ")).unwrap();
    assert!(!processor.contains(", runs the model") && told.contains(", runs the model"), "{told}");
}

#[test]
fn texts_that_are_read_whole_have_a_limit() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("long.txt"), vec![b'a'; (1 << 20) + 1]).unwrap();
    if cfg!(unix) {
        let endless = fixture.run(&["trace", "--prompt-file", "/dev/zero", "--out", "x"]).refusal(2);
        assert!(endless.starts_with("error: cannot read /dev/zero: it is a device"), "{endless}");
    }
    for file in ["long.txt"] {
        let trace = fixture.run(&["trace", "--prompt-file", file, "--out", "x"]).refusal(2);
        assert_eq!(
            trace,
            format!(
                "error: cannot read {file}: it has more than 1048576 bytes, the limit\n\
                 hint: check that it is the text you mean, or shorten it\n"
            )
        );
        assert!(!fixture.path("x").exists());
        for flags in [&["--api-key-file", file][..], &["--tls-cert", file, "--tls-key", file]] {
            let serve = fixture.run(&[&["serve", "--port", "0"], flags].concat());
            assert!(serve.refusal(2).contains("\nhint: "), "{flags:?}");
        }
    }
    std::fs::write(fixture.path("latin.txt"), b"caf\xe9").unwrap();
    let trace = fixture.run(&["trace", "--prompt-file", "latin.txt", "--out", "x"]).refusal(2);
    assert_eq!(
        trace,
        "error: cannot read latin.txt: it is not UTF-8 text\n\
         hint: check that it is the text you mean, and save it as UTF-8\n"
    );
}

#[test]
fn a_damaged_model_is_named() {
    let fixture = Fixture::new();
    fixture.copy_model();
    let shard = fixture.path("model-00001-of-00002.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 100]).unwrap();
    let refusal = fixture.run(&["ask", "--model", ".", "What?"]).refusal(4);
    assert!(
        refusal.contains("model-00001-of-00002.safetensors") && refusal.contains("\nhint: "),
        "{refusal}"
    );
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let fixture = Fixture::new();
    fixture.copy_model();
    let pipe = |name: &str| {
        drop(std::fs::remove_file(fixture.path(name)));
        Command::new("mkfifo").arg(fixture.path(name)).status().is_ok_and(|status| status.success())
    };
    if !pipe("pipe") {
        phi3v_kernels::testing::skip("a pipe needs mkfifo", "install mkfifo");
        return;
    }
    for file in [
        "config.json",
        "preprocessor_config.json",
        "generation_config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-00002-of-00002.safetensors",
    ] {
        assert!(pipe(file));
        for command in ["info", "ask"] {
            let told =
                fixture.run(&[&[command, "--model", "."], &["x"][..usize::from(command == "ask")]].concat());
            let told = told.refusal(4);
            assert!(
                told.starts_with(&format!("error: ./{file} cannot be read: it is a pipe and not a file\n")),
                "{told}"
            );
        }
        std::fs::remove_file(fixture.path(file)).unwrap();
        std::fs::copy(tiny().join(file), fixture.path(file)).unwrap_or_default();
    }
    std::os::unix::fs::symlink("/dev/zero", fixture.path("config")).unwrap();
    for (args, code) in [
        (&["ask", "pipe", "What?"][..], 3),
        (&["ask", "pipe"], 3),
        (&["ask", "--schema", "@receipt", "pipe"], 3),
        (&["decide", "--choices", "a,b", "pipe"], 3),
        (&["trace", "--prompt-file", "pipe", "--out", "x"], 2),
        (&["serve", "--port", "0", "--api-key-file", "pipe"], 2),
        (&["serve", "--port", "0", "--tls-cert", "pipe", "--tls-key", "pipe"], 2),
    ] {
        let told = fixture.run(args).refusal(code);
        let hint = if code == 2 { "hint: check the path\n" } else { "" };
        assert_eq!(told, format!("error: cannot read pipe: it is a pipe and not a file\n{hint}"));
    }
    let device = fixture.run(&["ask", "config", "What?"]).refusal(3);
    assert!(device.contains("it is a device and not a file"), "{device}");
}

#[cfg(unix)]
#[test]
fn what_a_shell_has_opened_is_read() {
    let fixture = Fixture::new();
    let small = std::fs::read(fixture.path("small.png")).unwrap();
    let ask = ["ask", "/dev/stdin", "What?", "--max-new-tokens", "1"];
    let told = fixture.run_with_input(&ask, &small);
    assert_eq!(told.answer(), fixture.run(&["ask", "small.png", "What?", "--max-new-tokens", "1"]).answer());
    let mut bash = Command::new("bash");
    let program = env!("CARGO_BIN_EXE_phi3v");
    bash.args(["-c", &format!("{program} ask <(sleep 0.2; cat small.png) What? --max-new-tokens 1")]);
    let environment = fixture.command::<&str>(&[]);
    bash.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bash.current_dir(fixture.path(""));
    match bash.output() {
        Ok(output) => drop(Run::of(output).answer()),
        Err(_) => phi3v_kernels::testing::skip("<(...) needs bash", "install bash"),
    }
}
