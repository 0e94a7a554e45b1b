//! `phi3v info`, `trace`, `completions`, `man`, and the page made from the help.

use super::{Fixture, Run, absence, tiny};
use phi3v_cli::hub::OFFLINE_VARIABLES;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

#[test]
fn info_tells_of_model_processor_and_memory() {
    let fixture = Fixture::new();
    let text = fixture.run(&["info", "--context", "1000", "--threads", "1"]).answer();
    for line in
        ["model         ", "  decoder     2 layers of 48, 3 heads", "processor     level ", ", 1 thread"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    let json = fixture.run(&["info", "--context", "1000", "--json"]).json();
    // 2 layers x keys and values x 48 values x 2 bytes
    assert_eq!(json["memory"]["kv_bytes_per_token"], 384);
    // a context is rounded up to blocks of 64 tokens
    assert_eq!(json["memory"]["kv_bytes"], 384 * 1024);
    assert_eq!(json["model"]["num_hidden_layers"], 2);
    let chosen = fixture.run(&["info", "--json", "--dtype", "f32"]).json();
    assert_eq!(
        (&chosen["memory"]["kv_bytes_per_token"], &chosen["memory"]["dtype"]),
        (&768.into(), &"f32".into())
    );
    assert_eq!(chosen["memory"]["context_tokens"], 16_384);
    // what a model will be quantized to counts, and is not made for it
    let quantized = fixture.run(&["info", "--json", "--quant", "q8"]).json();
    assert_eq!(quantized["memory"]["quant"], "q8");
    assert!(!fixture.path("cache").exists());
    fixture.run(&["quantize", tiny().to_str().unwrap(), "--out", "q8.safetensors"]);
    let made = fixture.run(&["info", "--json", "--model", "q8.safetensors"]).json();
    for part in ["weights_bytes", "kv_bytes", "total_bytes"] {
        assert_eq!(quantized["memory"][part], made["memory"][part], "{part}");
    }
    assert!(made["memory"].get("quant").is_none());
    let text = fixture.run(&["info", "--quant", "q4"]).answer();
    assert!(text.contains(", quantized to q4 at first use\n"), "{text}");
}

#[test]
fn a_model_may_be_below_the_users_folder() {
    let fixture = Fixture::new();
    let home = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let mut command = fixture.command(&["info", "--json"]);
    command.env(home, tiny().parent().unwrap()).env("PHI3V_MODEL", "~/tiny");
    let info = Run::of(command.output().unwrap()).json();
    assert_eq!(info["model"]["num_hidden_layers"], 2);
}

#[test]
fn a_build_tells_what_it_is() {
    let fixture = Fixture::new();
    let printed = fixture.run(&["--version"]).answer();
    let json = fixture.run(&["info", "--json"]).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let features: Vec<_> =
        json["features"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(features.contains(&"gpu"), cfg!(feature = "gpu"));
    let commit = json["commit"].as_str().unwrap_or("no commit");
    let named = if features.is_empty() { "no features".to_owned() } else { features.join(", ") };
    assert_eq!(printed, format!("phi3v {} ({commit}; {named})\n", env!("CARGO_PKG_VERSION")));
    assert!(
        fixture.run(&["info"]).answer().starts_with(&format!("phi3v         {}", env!("CARGO_PKG_VERSION")))
    );
}

/// Who has a card shall know what was never run on one.
#[test]
fn info_tells_on_which_cards_it_was_tried() {
    if !cfg!(feature = "gpu") {
        return;
    }
    let fixture = Fixture::new();
    let told = fixture.run(&["info", "--verbose", "--device", "cpu"]).answer();
    let line = "  cards of NVIDIA, AMD, Intel and Apple: nothing; nor is their speed known\n";
    assert!(told.contains("tried of the support of graphics cards\n") && told.contains(line), "{told}");
    let json = fixture.run(&["info", "-v", "--json", "--device", "cpu"]).json();
    assert_eq!(json["tried"].as_array().unwrap().len(), 4);
    assert!(!fixture.run(&["info", "--device", "cpu"]).answer().contains("tried of"));
}

/// The loader of Vulkan looks for drivers where this variable says.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_printed_where_there_is_no_driver() {
    let fixture = Fixture::new();
    let ask = ["ask", "--max-new-tokens", "3", "--dtype", "f32", "--device", "auto", "Hello."];
    for args in [&["info", "--device", "auto"][..], &ask] {
        let mut command = fixture.command(args);
        command.env("VK_DRIVER_FILES", "/nonexistent").env_remove("PHI3V_DEVICE");
        let told = Run::of(command.output().unwrap()).answer();
        assert!(!told.contains("gpu:"), "{told}");
    }
}

#[test]
fn info_does_not_download() {
    let fixture = Fixture::new();
    let mut command = fixture.command(&["info", "--model", "phi-3-vision"]);
    for name in OFFLINE_VARIABLES {
        command.env_remove(name);
    }
    let text = Run::of(command.output().unwrap()).answer();
    assert!(text.contains("not downloaded yet: phi3v pull phi-3-vision"), "{text}");
    // what it will take is known before
    for line in [
        "memory        ",
        "  weights     4.3 GB, quantized to q8 at first use",
        "  weights     8.3 GB in bf16",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let caches = [("downloads", fixture.path("hub").join("hub")), ("quantized", fixture.path("cache"))];
    for (name, folder) in caches {
        assert!(text.contains(&format!("  {name:11} {}\n", folder.display())), "{name}: {text}");
    }
    let json = fixture
        .run(&["info", "--json", "--quant", "q4", "--model", "microsoft/Phi-3.5-vision-instruct"])
        .json();
    assert_eq!((&json["model"]["downloaded"], &json["memory"]["quant"]), (&false.into(), &"q4".into()));
    let other = fixture.run(&["info", "--json", "--model", "some/model"]).json();
    assert!(other["memory"].is_null() && other["refusal"].is_null());
}

#[test]
fn a_trace_holds_every_stage() {
    let fixture = Fixture::new();
    let prompt = "<|user|>\n<|image_1|>\nWhat is shown?<|end|>\n<|assistant|>\n";
    let flags = ["--image", "wide.png", "--num-crops", "4", "--max-new-tokens", "4"];
    let traced =
        [&["trace", "--prompt", prompt, "--hidden-states", "--out", "trace.safetensors"], &flags[..]]
            .concat();
    assert_eq!(fixture.run(&traced).answer(), "");
    let bytes = std::fs::read(fixture.path("trace.safetensors")).unwrap();
    let trace = SafeTensors::deserialize(&bytes).unwrap();
    let ids = trace.tensor("input_ids").unwrap();
    let tokens = ids.shape()[0];
    let expected = [
        ("pixel_values.1", Dtype::F32, vec![5, 3, 336, 336]),
        ("image_sizes", Dtype::I64, vec![1, 2]),
        ("input_ids", Dtype::I64, vec![tokens]),
        ("vision_features.1", Dtype::F32, vec![5, 576, 32]),
        ("image_embeds.1", Dtype::F32, vec![757, 48]),
        ("hidden_states.0", Dtype::F32, vec![tokens, 48]),
        ("hidden_states.2", Dtype::F32, vec![tokens, 48]),
        ("logits", Dtype::F32, vec![512]),
        ("generated_ids", Dtype::I64, vec![4]),
    ];
    for (name, dtype, shape) in expected {
        let tensor = trace.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &shape[..]), "{name}");
    }
    let ids: Vec<i64> =
        ids.data().chunks_exact(8).map(|id| i64::from_le_bytes(id.try_into().unwrap())).collect();
    assert_eq!(ids.iter().filter(|id| **id == -1).count(), 757);

    std::fs::write(fixture.path("prompt.txt"), prompt).unwrap();
    let from_file =
        [&["trace", "--prompt-file", "prompt.txt", "--hidden-states", "--out", "again"], &flags[..]].concat();
    assert_eq!(fixture.run(&from_file).answer(), "");
    assert_eq!(std::fs::read(fixture.path("again")).unwrap(), bytes);
    let in_f32 =
        [&["trace", "--prompt", prompt, "--hidden-states", "--out", "f32", "--dtype", "f32"], &flags[..]];
    assert_eq!(fixture.run(&in_f32.concat()).answer(), "");
    assert_eq!(std::fs::read(fixture.path("f32")).unwrap(), bytes, "f32 unless said otherwise");
}

#[test]
fn a_trace_tells_of_the_memory_where_it_is_asked_to() {
    let fixture = Fixture::new();
    let told = fixture.run(&["trace", "--prompt", "a", "--out", "x", "--verbose"]);
    assert!(
        told.code == Some(0) && told.stderr.starts_with("memory: 317.5 kB of weights, "),
        "{}",
        told.stderr
    );
}

#[test]
fn more_tokens_than_the_model_takes_are_refused_without_overflow() {
    let fixture = Fixture::new();
    let most = usize::MAX.to_string();
    for command in [&["trace", "--prompt", "a", "--out", "x"][..], &["eval", ".", "--prompt", "a"]] {
        fixture.copy_model();
        let told = fixture.run(&[command, &["--max-new-tokens", &most]].concat()).refusal(5);
        assert!(
            told.contains(&format!("up to {most} exceed the context of 131072 tokens\nhint: shorten")),
            "{told}"
        );
    }
}

#[test]
fn a_trace_refuses_a_prompt_that_does_not_fit_its_pictures() {
    let fixture = Fixture::new();
    let refusal =
        fixture.run(&["trace", "--prompt", "<|image_2|>", "--image", "small.png", "--out", "x"]).refusal(2);
    assert!(refusal.contains("image numbers must be 1, 2, 3"), "{refusal}");
    let refusal = fixture
        .run(&["trace", "--model", "no-such-model", "--prompt", "a", "--out", "no/such/folder/x"])
        .refusal(1);
    let told = format!("error: cannot write no/such/folder/x: {}", absence("no/such/folder/x"));
    assert!(refusal.starts_with(&told), "{refusal}");
}

#[test]
fn a_trace_replaces_nothing_that_it_is_made_from() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("prompt.txt"), "<|image_1|>").unwrap();
    let trace = ["trace", "--prompt-file", "prompt.txt", "--image", "small.png", "--force", "--out"];
    for out in ["small.png", "prompt.txt"] {
        let before = std::fs::read(fixture.path(out)).unwrap();
        let refused = fixture.run(&[&trace[..], &[out]].concat()).refusal(2);
        let told = format!("error: writing {out} would destroy what it is made from\n");
        assert!(refused.starts_with(&told), "{refused}");
        assert!(std::fs::read(fixture.path(out)).unwrap() == before, "{out}");
    }
    let stdin = fixture.run_with_input(
        &["trace", "--prompt", "<|image_1|>", "--image", "-", "--out", "x"],
        &std::fs::read(fixture.path("small.png")).unwrap(),
    );
    stdin.answer();
}

#[test]
fn completions_and_manual_pages_are_made() {
    let fixture = Fixture::new();
    let script = fixture.run(&["completions", "bash"]).answer();
    assert!(script.contains("_phi3v()") && script.contains("--num-crops"));
    assert_eq!(fixture.run(&["man", "pages"]).answer(), "");
    let page = std::fs::read_to_string(fixture.path("pages/phi3v-ask.1")).unwrap();
    assert!(page.contains("max\\-new\\-tokens"), "{page}");
    let example = ".SH \"EXAMPLES\"\n.nf\n  phi3v ask cover.jpg ";
    assert!(page.contains(example) && !page.contains("EXTRA"), "{page}");
    let main = std::fs::read_to_string(fixture.path("pages/phi3v.1")).unwrap();
    assert!(
        main.contains(".SH \"EXIT STATUS\"\n.nf\n  0    done") && main.contains(".SH \"ENVIRONMENT\"\n.nf\n"),
        "{main}"
    );
    assert!(fixture.path("pages/phi3v.1").is_file());
}

#[test]
fn help_is_a_command_and_a_model_a_flag_everywhere() {
    let fixture = Fixture::new();
    let help = fixture.run(&["help", "ask"]);
    assert_eq!(help.answer(), fixture.run(&["ask", "--help"]).answer());
    let told = fixture.run(&["quantize", "-m", "demo", "--out", "a.safetensors"]);
    assert_eq!((told.code, told.stdout.trim_end()), (Some(0), "a.safetensors"), "{}", told.stderr);
    for command in [&["quantize"][..], &["eval", "--prompt", "x"], &["pull"]] {
        let unknown = fixture.run(&[command, &["--model", "phi-9"]].concat()).refusal(4);
        assert!(unknown.starts_with("error: there is no model or folder \"phi-9\"\nhint: "), "{unknown}");
        let both = fixture.run(&[command, &["demo", "--model", "demo"]].concat()).refusal(2);
        assert!(both.contains("cannot be used with"), "{both}");
    }
}

/// In a home where no shell has put anything yet.
#[cfg(unix)]
#[test]
fn completions_are_put_where_the_help_says() {
    let fixture = Fixture::new();
    let help = fixture.run(&["completions", "--help"]).answer();
    let of_files = |line: &&str| line.starts_with("  mkdir") || line.contains(" > ~");
    let lines: Vec<&str> = help.lines().filter(of_files).collect();
    fixture.run_examples(&format!("```sh\nHOME=$PWD/home\n{}\n```", lines.join("\n")), &[]);
    for (shell, file) in [
        ("bash", ".local/share/bash-completion/completions/phi3v"),
        ("zsh", ".zfunc/_phi3v"),
        ("fish", ".config/fish/completions/phi3v.fish"),
    ] {
        let written = std::fs::read_to_string(fixture.path("home").join(file)).unwrap();
        assert_eq!(written, fixture.run(&["completions", shell]).answer());
    }
}

/// What bash offers for the last of the words, by the script.
#[cfg(unix)]
fn offered(fixture: &Fixture, words: &[&str]) -> Option<Vec<String>> {
    let list = words.iter().map(|word| phi3v_cli::paths::quoted(word)).collect::<Vec<_>>().join(" ");
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let script = format!(
        "eval \"$(\"$0\" completions bash)\"; compopt() {{ :; }}; COMP_WORDS=({list}); COMP_CWORD={}; _phi3v_words phi3v {} {}; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.len() - 1,
        phi3v_cli::paths::quoted(last),
        phi3v_cli::paths::quoted(before)
    );
    let run = std::process::Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_phi3v")])
        .current_dir(fixture.path(""))
        .output()
        .ok()?;
    let told = Run::of(run);
    assert_eq!(told.stderr, "");
    Some(told.stdout.lines().map(str::to_owned).collect())
}

#[cfg(unix)]
#[test]
fn bash_completes_what_values_are() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("two words.json"), "{}").unwrap();
    for (words, expected) in [
        (&["phi3v", "schemas", "@re"][..], &["@receipt"][..]),
        (&["phi3v", "ask", "--schema", "@re"], &["@receipt"]),
        (&["phi3v", "ask", "--model", "phi-3."], &["phi-3.5-vision"]),
        (&["phi3v", "pull", "phi-3-"], &["phi-3-vision"]),
        (&["phi3v", "chat", "--detail", "=", "h"], &["high"]),
        (&["phi3v", "decide", "--calibration", "two"], &["two words.json"]),
        (&["phi3v", "ask", "--choices", "sma"], &["sma"]),
    ] {
        let Some(offered) = offered(&fixture, words) else {
            phi3v_kernels::testing::skip("completions", "install bash");
            return;
        };
        assert_eq!(offered, expected, "{words:?}");
    }
}

#[test]
fn the_folder_of_the_tests_is_a_model() {
    let fixture = Fixture::new();
    let by_flag =
        fixture.run(&["ask", "--max-new-tokens", "2", "--model", tiny().to_str().unwrap(), "Hello."]);
    assert_eq!(by_flag.answer(), fixture.run(&["ask", "--max-new-tokens", "2", "Hello."]).answer());
}

#[test]
fn docs_hold_the_help() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = phi3v_cli::args::reference_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/cli.md is not what the help says; run UPDATE_DOCS=1 cargo test -p phi3v-cli docs"
    );
}
