//! `phi3v quantize`, `--quant`, `bench` and `eval`.

use super::{Fixture, Run, tiny};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// stdout of a run that did well, whatever it told on stderr.
fn stdout(run: Run) -> String {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.stdout
}

/// Quantized models that the fixture's cache holds.
pub(super) fn cached(fixture: &Fixture) -> Vec<PathBuf> {
    cached_in(&fixture.path("cache"))
}

/// Quantized models that the cache in `folder` holds.
pub(super) fn cached_in(folder: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten();
    folders
        .flat_map(|folder| std::fs::read_dir(folder.path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "safetensors"))
        .collect()
}

#[test]
fn a_quantized_file_is_a_whole_model() {
    let fixture = Fixture::new();
    for (bits, size) in [("q8", 2_000_000), ("q4", 2_000_000)] {
        let out = stdout(fixture.run(&["quantize", tiny().to_str().unwrap(), "--to", bits]));
        assert_eq!(out.trim(), format!("tiny-{bits}.safetensors"));
        assert!(fixture.path(out.trim()).metadata().unwrap().len() < size);
        let ask = ["ask", "small.png", "What is this?", "--max-new-tokens", "8", "--model", out.trim()];
        let answer = fixture.run(&ask).answer();
        assert_eq!(fixture.run(&ask).answer(), answer, "the same every time");
        let info = fixture.run(&["info", "--json", "--model", out.trim()]).json();
        assert_eq!(info["model"]["weights_format"], bits);
    }
}

/// Neither the system nor the processor's level changes a byte.
#[test]
fn a_quantized_file_is_the_same_everywhere() {
    let fixture = Fixture::new();
    for (bits, digest) in [
        ("q8", "c4d5383021c2319885c624a7f2accf83b32f00b7c3c088ca5c76bee1775285f6"),
        ("q4", "c568e1d282efa403cefb100378766197bf8d165f784f5feb573ae424bf6c6e3d"),
    ] {
        stdout(fixture.run(&["quantize", tiny().to_str().unwrap(), "--to", bits]));
        let file = std::fs::read(fixture.path(&format!("tiny-{bits}.safetensors"))).unwrap();
        let found: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "{bits}");
    }
}

#[test]
fn what_would_destroy_something_is_refused() {
    let fixture = Fixture::new();
    fixture.copy_model();
    for out in ["config.json", "model-00001-of-00002.safetensors"] {
        let before = std::fs::read(fixture.path(out)).unwrap();
        let refusal = fixture.run(&["quantize", ".", "--out", out]).refusal(2);
        assert!(refusal.starts_with(&format!("error: writing {out} would destroy the model")), "{refusal}");
        assert_eq!(std::fs::read(fixture.path(out)).unwrap(), before);
    }
    let refusal = fixture.run(&["quantize", ".", "--out", "config.json", "--force"]).refusal(2);
    assert!(refusal.contains("would destroy the model"), "{refusal}");
    let trace = ["trace", "--model", ".", "--prompt", "x", "--out", "config.json", "--force"];
    assert!(fixture.run(&trace).refusal(2).contains("would destroy the model"));
    // what would be read in place of the model's own files, were it there
    for out in ["model.safetensors", "model.safetensors.index.json", "generation_config.json"] {
        let _ = std::fs::remove_file(fixture.path(out));
        let refusal = fixture.run(&["quantize", ".", "--out", out, "--force"]).refusal(2);
        assert!(refusal.starts_with(&format!("error: writing {out} would destroy the model")), "{refusal}");
        assert!(!fixture.path(out).exists());
    }
    std::fs::create_dir(fixture.path("folder")).unwrap();
    let model = tiny();
    for command in [
        &["quantize", model.to_str().unwrap(), "--out", "folder"][..],
        &["trace", "--prompt", "x", "--out", "folder"],
    ] {
        let refusal = fixture.run(command).refusal(1);
        assert!(refusal.starts_with("error: cannot write folder: "), "{refusal}");
    }
}

#[test]
fn what_exists_is_replaced_only_where_it_is_asked_for() {
    let fixture = Fixture::new();
    let model = tiny();
    for command in [
        &["quantize", model.to_str().unwrap(), "--out", "photo.jpg"][..],
        &["trace", "--prompt", "x", "--out", "photo.jpg"],
        // refused before the model is looked for
        &["quantize", "no-such-model", "--out", "photo.jpg"],
    ] {
        std::fs::write(fixture.path("photo.jpg"), "a photo").unwrap();
        let refusal = fixture.run(command).refusal(2);
        assert_eq!(
            refusal,
            "error: photo.jpg exists already\nhint: give another name, or replace it with --force\n"
        );
        assert_eq!(std::fs::read_to_string(fixture.path("photo.jpg")).unwrap(), "a photo");
        if command[1] != "no-such-model" {
            stdout(fixture.run(&[command, &["--force"]].concat()));
            assert_ne!(std::fs::read(fixture.path("photo.jpg")).unwrap(), b"a photo");
        }
    }
    stdout(fixture.run(&["quantize", model.to_str().unwrap()]));
    let refusal = fixture.run(&["quantize", model.to_str().unwrap()]).refusal(2);
    assert!(refusal.contains("tiny-q8.safetensors exists already"), "{refusal}");
    for command in ["export-demo", "man"] {
        let run = |more: &[&str]| fixture.run(&[&[command, "folder"], more].concat());
        stdout(run(&[]));
        let refusal = run(&[]).refusal(2);
        assert!(refusal.contains(" exists already\nhint: "), "{refusal}");
        stdout(run(&["--force"]));
    }
    let parts =
        |name: &str| std::fs::read_dir(fixture.path(name)).unwrap().map(|entry| entry.unwrap().path());
    assert!(
        parts(".").chain(parts("folder")).all(|path| path.extension().is_none_or(|e| e != "phi3v-partial"))
    );
}

#[cfg(unix)]
#[test]
fn links_in_the_place_of_results_are_not_followed() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("folder")).unwrap();
    std::fs::write(fixture.path("precious"), "precious").unwrap();
    for link in ["folder/config.json", "trace.safetensors"] {
        std::os::unix::fs::symlink(fixture.path("precious"), fixture.path(link)).unwrap();
    }
    for command in [&["export-demo", "folder"][..], &["trace", "--prompt", "x", "--out", "trace.safetensors"]]
    {
        assert!(fixture.run(command).refusal(2).contains(" exists already"));
        stdout(fixture.run(&[command, &["--force"]].concat()));
    }
    assert_eq!(std::fs::read_to_string(fixture.path("precious")).unwrap(), "precious");
    assert!(!fixture.path("trace.safetensors").is_symlink());
}

#[test]
fn what_is_quantized_is_nobodys_reference() {
    let fixture = Fixture::new();
    stdout(fixture.run(&["quantize", tiny().to_str().unwrap(), "--out", "tiny.safetensors"]));
    for (command, hint) in [
        (&["eval", "tiny.safetensors", "--prompt", "x"][..], "give the original checkpoint\n"),
        (
            &["ask", "--model", "tiny.safetensors", "--quant", "q4", "x"],
            "give the original checkpoint, or leave --quant out\n",
        ),
    ] {
        let refusal = fixture.run(command).refusal(2);
        assert!(refusal.ends_with(&format!(" is quantized to q8 already\nhint: {hint}")), "{refusal}");
    }
    fixture
        .run(&["ask", "--model", "tiny.safetensors", "--quant", "q8", "--max-new-tokens", "1", "x"])
        .answer();
    let both = fixture.run(&["bench", "--model", "tiny.safetensors", "--format", "q4"]).refusal(2);
    assert!(both.contains("cannot be used with"), "{both}");
}

#[test]
fn a_second_process_waits_for_the_first() {
    let fixture = Fixture::new();
    let ask = ["ask", "Who?", "--max-new-tokens", "4", "--quant", "q8"];
    let answer = stdout(fixture.run(&ask));
    let kept = cached(&fixture).remove(0);
    // as a first process does it: the unfinished file is locked, then gets its name
    let partial = kept.with_file_name(".tiny-q8.safetensors.phi3v-partial");
    std::fs::rename(&kept, &partial).unwrap();
    let lock = std::fs::File::options().write(true).open(&partial).unwrap();
    lock.try_lock().unwrap();
    let mut second = fixture.command(&ask).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(second.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(told.nth(1).unwrap(), "note: waiting for another process that does it already");
    std::fs::rename(&partial, &kept).unwrap();
    drop(lock);
    let second = second.wait_with_output().unwrap();
    assert!(second.status.success());
    assert_eq!(String::from_utf8(second.stdout).unwrap(), answer);
    assert_eq!(cached(&fixture), [kept]);
}

#[test]
fn quantized_weights_are_kept_for_the_next_time() {
    let fixture = Fixture::new();
    let ask = |quant: &str| {
        let mut command =
            fixture.command(&["ask", "small.png", "What?", "--max-new-tokens", "6", "--quant", quant]);
        stdout(Run::of(command.env("PHI3V_CACHE", fixture.path("cache")).output().unwrap()))
    };
    let told = fixture.run(&["ask", "Who?", "--max-new-tokens", "1", "--quant", "q8"]).stderr;
    assert!(told.starts_with("note: the weights are quantized to q8 first"), "{told}");
    let first = ask("q8");
    let kept = cached(&fixture);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let written = kept[0].metadata().unwrap().modified().unwrap();
    assert_eq!(ask("q8"), first);
    assert_eq!(kept[0].metadata().unwrap().modified().unwrap(), written, "the second run makes nothing");
    ask("q4");
    assert_eq!(cached(&fixture).len(), 2);
    // a damaged one is made again
    std::fs::write(&kept[0], "no model").unwrap();
    assert_eq!(ask("q8"), first);
    ask("none");
    assert_eq!(cached(&fixture).len(), 2);
}

/// Changes a byte of a file and sets its time back.
#[cfg(unix)]
fn damage(path: &Path, place: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let modified = path.metadata().unwrap().modified().unwrap();
    bytes[place] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[cfg(unix)]
#[test]
fn damage_to_a_kept_copy_or_a_change_of_its_source_is_seen() {
    let fixture = Fixture::new();
    fixture.copy_model();
    let ask = ["ask", "Who?", "--model", ".", "--max-new-tokens", "4", "--quant", "q8"];
    let first = stdout(fixture.run(&ask));
    let kept = cached(&fixture).remove(0);
    let whole = std::fs::read(&kept).unwrap();
    assert_eq!(fixture.run(&ask).answer(), first, "nothing is told of a copy that is right");
    for place in [whole.len() / 2, whole.len() - 1, 5000] {
        damage(&kept, place);
        let run = fixture.run(&ask);
        let told = format!("note: {} is made again: its contents have changed\n", kept.display());
        assert!(run.stderr.starts_with(&told), "{}", run.stderr);
        assert_eq!(stdout(run), first);
        assert_eq!(std::fs::read(&kept).unwrap(), whole);
    }
    // a copy that was touched is read once and used
    std::fs::File::options()
        .write(true)
        .open(&kept)
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    assert_eq!(fixture.run(&ask).answer(), first);
    // other weights of the same size and time are another model
    let shard = fixture.path("model-00002-of-00002.safetensors");
    // of the last number, not the half that holds its exponent
    let last = shard.metadata().unwrap().len() as usize - 2;
    damage(&shard, last);
    let told = fixture.run(&ask).stderr;
    assert_eq!(cached(&fixture).len(), 2);
    let stale = format!("note: {} (", kept.display());
    assert!(told.contains(&stale) && told.contains(" before that changed, and can be deleted\n"), "{told}");
    assert!(!fixture.run(&ask).stderr.contains("can be deleted"), "it is told once");
}

#[test]
fn what_else_lies_in_a_checkpoint_s_folder_makes_no_other_model_of_it() {
    let fixture = Fixture::new();
    fixture.copy_model();
    let ask = ["ask", "Who?", "--model", ".", "--max-new-tokens", "4", "--quant", "q8"];
    let first = stdout(fixture.run(&ask));
    let kept = cached(&fixture);
    stdout(fixture.run(&["quantize", ".", "--to", "q4", "--out", "q4.safetensors"]));
    for name in ["labels.json", "calibration.json", "trace.safetensors"] {
        std::fs::write(fixture.path(name), "{}").unwrap();
    }
    assert_eq!(fixture.run(&ask).answer(), first, "nothing is made again");
    assert_eq!(cached(&fixture), kept);
    // what it consists of does
    let config = std::fs::read_to_string(fixture.path("config.json")).unwrap();
    std::fs::write(fixture.path("config.json"), config + "\n").unwrap();
    stdout(fixture.run(&ask));
    assert_eq!(cached(&fixture).len(), 2);
}

#[cfg(unix)]
#[test]
fn what_is_no_note_of_a_check_is_neither_waited_for_nor_read_to_its_end() {
    let fixture = Fixture::new();
    let ask = ["ask", "Who?", "--max-new-tokens", "1", "--quant", "q8"];
    let first = stdout(fixture.run(&ask));
    let note = cached(&fixture).remove(0).with_extension("checked");
    std::fs::remove_file(&note).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &note).unwrap();
    assert_eq!(fixture.run(&ask).answer(), first);
    std::fs::remove_file(&note).unwrap();
    std::fs::File::create(&note).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(fixture.run(&ask).answer(), first);
    std::fs::remove_file(&note).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&note).status();
    if !made.is_ok_and(|status| status.success()) {
        phi3v_kernels::testing::skip("a pipe needs mkfifo", "install mkfifo");
        return;
    }
    assert_eq!(fixture.run(&ask).answer(), first);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_device_is_not_replaced_by_force() {
    let fixture = Fixture::new();
    for (link, target) in [("null", "/dev/null"), ("stdout", "/dev/stdout")] {
        std::os::unix::fs::symlink(target, fixture.path(link)).unwrap();
        let refusal = fixture.run(&["quantize", "demo", "--force", "--out", link]).refusal(1);
        assert!(refusal.starts_with(&format!("error: cannot write {link}: it is a ")), "{refusal}");
        assert_eq!(std::fs::read_link(fixture.path(link)).unwrap(), Path::new(target));
    }
}

#[test]
fn the_cache_may_be_below_the_users_folder() {
    let fixture = Fixture::new();
    let mut command = fixture.command(&["ask", "Who?", "--max-new-tokens", "1", "--quant", "q8"]);
    let home = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let run = command.env("PHI3V_CACHE", "~/there").env(home, fixture.path("home")).output().unwrap();
    stdout(Run::of(run));
    assert!(fixture.path("home/there").is_dir() && !fixture.path("~").exists());
}

#[test]
fn a_broken_weight_is_no_answer_whatever_the_cache_and_the_level() {
    let fixture = Fixture::new();
    fixture.copy_model();
    // the embedding of "z" of the tiny vocabulary
    let (shard, z) = (fixture.path("model-00001-of-00002.safetensors"), 348);
    let mut bytes = std::fs::read(&shard).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let embeddings = metadata.info("model.embed_tokens.weight").unwrap();
    let row = 2 * embeddings.shape[1];
    let start = 8 + header + embeddings.data_offsets.0 + z * row;
    bytes[start..start + row].fill(0xff);
    std::fs::write(shard, bytes).unwrap();
    #[cfg(target_arch = "x86_64")]
    let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let has_avx2 = false;
    for level in ["scalar", ""].into_iter().chain(has_avx2.then_some("avx2")) {
        for kv in ["f32", "bf16", "q8"] {
            let ask = |question: &str| {
                let ask =
                    ["ask", "--model", ".", "--dtype", "f32", "--kv", kv, "--max-new-tokens", "2", question];
                let mut command = fixture.command(&ask);
                Run::of(command.env("PHI3V_DEVICE", "cpu").env("PHI3V_CPU", level).output().unwrap())
            };
            let told = ask("a zoo and more");
            assert!(told.code != Some(0) && told.stdout.is_empty(), "{level} {kv}: {}", told.stdout);
            assert!(told.stderr.contains("gave NaN as the logit"), "{level} {kv}: {}", told.stderr);
            ask("a moor").answer();
        }
    }
}

#[test]
fn a_bench_has_the_documented_shape() {
    let fixture = Fixture::new();
    let model = tiny();
    let report =
        fixture.run(&["bench", "--quick", "--json", "--threads", "1", "--model", model.to_str().unwrap()]);
    let report = report.json();
    for key in ["int8_gops", "bf16_gflops", "f32_gflops", "read_gb_s"] {
        let machine = &report["machine"];
        let [low, high] = [0, 1].map(|i| machine["quartiles"][key][i].as_f64().unwrap());
        let median = machine[key].as_f64().unwrap();
        assert!(low > 0.0 && low <= median && median <= high, "{key}: {machine}");
    }
    assert!(report["machine"]["read_bytes"].as_u64().unwrap() >= 1 << 20);
    assert_eq!(report["machine"]["threads"], 1);
    assert!(report["machine"]["cpu_level"].is_string());
    let results = report["results"].as_array().unwrap();
    for name in ["load", "vision", "decode", "decode_16", "prefill"] {
        let found = results.iter().find(|result| result["name"] == name).unwrap();
        assert!(found["value"].as_f64().unwrap() > 0.0, "{name}");
        assert_eq!(found["format"], "bf16", "{name}");
        assert!(found["unit"].is_string() && found["size"].is_u64(), "{name}");
        assert!(found["share"].is_null() || found["share"].is_f64(), "{name}");
        // median and quartiles of several readings, but of what is read once
        let [low, high] = [0, 1].map(|i| found["quartiles"][i].as_f64().unwrap());
        let (value, readings) = (found["value"].as_f64().unwrap(), found["readings"].as_u64().unwrap());
        assert!(low <= value && value <= high, "{found}");
        // what takes long is read once
        assert!(readings == 1 || name != "load", "{found}");
        assert!(readings > 1 || !name.starts_with("decode"), "{found}");
    }
    // the limits that shares refer to, for each format
    let limits = report["limits"].as_array().unwrap();
    assert_eq!(limits.len(), 1);
    assert_eq!(
        (&limits[0]["format"], &limits[0]["read_gb_s"]),
        (&"bf16".into(), &report["machine"]["read_gb_s"])
    );
    let peak_is =
        |part: &str| report[part].as_array().unwrap().iter().any(|found| found["name"] == "peak_rss");
    assert_ne!(peak_is("results"), peak_is("left_out"), "told where it is not known");
}

#[test]
fn a_bench_decodes_at_the_depths_that_are_asked_for() {
    let fixture = Fixture::new();
    let bench = ["bench", "--quick", "--json", "--threads", "1", "--model", tiny().to_str().unwrap()]
        .map(str::to_owned);
    let with =
        |depth: &str| fixture.run(&[&bench.each_ref().map(String::as_str)[..], &["--depth", depth]].concat());
    // within the prompts of every bench, past them, and not in their order
    let report = with("5000,100").json();
    let results = report["results"].as_array().unwrap().iter();
    let depths = |name: &str| -> Vec<_> {
        results.clone().filter(|result| result["name"] == name).map(|result| &result["size"]).collect()
    };
    assert_eq!(depths("decode"), [0, 512, 5000, 100]);
    assert_eq!(depths("decode_16"), [0, 5000, 100]);
    let refusal = with("131072").refusal(5);
    assert!(refusal.contains("131084") && refusal.contains("hint: lower --depth"), "{refusal}");
    assert!(with("0").refusal(2).contains("--depth"));
    // before gigabytes of random weights are made, and the machine's limits measured and told
    let refusal = fixture.run(&["bench", "--threads", "1", "--depth", "131072"]).refusal(5);
    assert!(refusal.contains("131084") && refusal.contains("hint: lower --depth"), "{refusal}");
}

#[test]
fn a_bench_of_a_card_tells_of_the_processor_too() {
    let fixture = Fixture::new();
    if fixture.run(&["info", "--json"]).json()["cards"].as_array().unwrap().is_empty() {
        let hint = "install a driver of graphics cards, as Mesa's for Vulkan";
        phi3v_kernels::testing::skip("a bench of a card", hint);
        return;
    }
    let words = ["bench", "--quick", "--json", "--device", "gpu:0", "--threads", "1", "--model"];
    let report = fixture.run(&[&words[..], &[tiny().to_str().unwrap()]].concat()).json();
    let machine = &report["machine"];
    assert!(machine["threads"] == 1 && machine["cpu_level"].is_string(), "{machine}");
    assert!(machine["card"]["name"].is_string() && machine["int8_gops"].is_null(), "{machine}");
    assert!(report["results"].as_array().unwrap().iter().all(|result| result["share"].is_null()));
}

#[test]
fn eval_compares_formats() {
    let fixture = Fixture::new();
    let mut command = fixture.command(&[
        "eval",
        tiny().to_str().unwrap(),
        "--prompt",
        "What is this?",
        "--prompt",
        "Why?",
        "--image",
        "small.png",
        "--reference",
        "f32",
        "--quant",
        "none,q8,q4",
        "--kv",
        "f32,q8",
        "--max-new-tokens",
        "6",
        "--json",
    ]);
    let report = Run::of(command.env("PHI3V_CACHE", fixture.path("cache")).output().unwrap()).json();
    assert_eq!((&report["samples"], &report["reference"]), (&2.into(), &"f32".into()));
    let candidates = report["candidates"].as_array().unwrap();
    let kl = |quant: &str, kv: &str| {
        let found = candidates.iter().find(|c| c["quant"] == quant && c["kv"] == kv).unwrap();
        assert_eq!(found["positions"], 12);
        found["kl_mean"].as_f64().unwrap()
    };
    assert_eq!(candidates.len(), 6);
    assert!(kl("bf16", "f32") < kl("q8", "f32") && kl("q8", "f32") < kl("q4", "f32"));
    assert!(kl("q8", "q8") < kl("q4", "q8"));
}

#[test]
fn an_eval_makes_its_forms_before_its_answers() {
    let fixture = Fixture::new();
    // no folder can be made in a file
    std::fs::write(fixture.path("cache"), "a file").unwrap();
    let mut command = fixture.command(&[
        "eval",
        tiny().to_str().unwrap(),
        "--prompt",
        "Why?",
        "--quant",
        "none,q8",
        "--max-new-tokens",
        "2",
    ]);
    let told = Run::of(command.env("PHI3V_CACHE", fixture.path("cache")).output().unwrap());
    let refusal = told.refusal(1);
    assert!(refusal.contains("cannot write") && !refusal.contains("reference: question"), "{refusal}");
}

#[test]
fn refusals_say_what_to_do() {
    let fixture = Fixture::new();
    stdout(fixture.run(&["quantize", tiny().to_str().unwrap(), "--out", "once.safetensors"]));
    let again = fixture.run(&["quantize", "once.safetensors", "--to", "q4"]);
    assert_eq!(again.code, Some(2), "as ask --quant q4 has it");
    assert!(again.stderr.contains("is quantized already"), "{}", again.stderr);
    assert!(again.stderr.contains("hint: give the original checkpoint"), "{}", again.stderr);
    std::fs::write(fixture.path("foreign.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let foreign = fixture.run(&["ask", "--model", "foreign.safetensors", "small.png", "What?"]);
    assert!(foreign.stderr.contains("without the model's configuration"), "{}", foreign.stderr);
}
