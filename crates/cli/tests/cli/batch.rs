//! `phi3v batch`: nothing is lost, nothing comes twice, and what is answered depends on the job alone.

use super::{Fixture, Run, absence, signals};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

pub(super) const PROMPT: [&str; 2] = ["--prompt", "What?"];
/// Short answers about one tile.
pub(super) const SHORT: [&str; 4] = ["--max-new-tokens", "4", "--detail", "low"];

/// A folder `many` with so many small pictures, some in a folder below it.
pub(super) fn fixture(pictures: u32) -> Fixture {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path("many/below")).unwrap();
    for number in 0..pictures {
        let folder = if number % 3 == 0 { "many/below" } else { "many" };
        fixture.write_png(&format!("{folder}/{number:03}.png"), 20 + number % 40, 15 + number % 7);
    }
    fixture
}

pub(super) fn batch<'a>(words: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&["batch", "-q"], words, more].concat()
}

/// The command of most tests.
pub(super) fn many<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&batch(&["many"], &PROMPT)[..], &SHORT, more].concat()
}

/// Rows of a file of results by name; its header is the first line.
pub(super) fn rows(path: &Path) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "the last line is torn");
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(lines.next().unwrap()["phi3v_batch"], 1);
    let mut rows = BTreeMap::new();
    for mut row in lines {
        let id = row["custom_id"].as_str().unwrap().to_owned();
        // when the job was first started is no part of an answer
        if let Some(body) = row["response"]["body"].as_object_mut() {
            body.remove("created");
        }
        assert!(rows.insert(id.clone(), row).is_none(), "{id} comes twice");
    }
    rows
}

pub(super) fn answer(row: &Value) -> &str {
    row["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap()
}

/// Rows that were written so far, whatever state the file is in.
pub(super) fn lines(path: &Path) -> usize {
    std::fs::read(path)
        .map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1))
}

#[test]
fn a_row_has_openai_s_form_and_the_answer_of_ask() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path("in/deep")).unwrap();
    for (from, to) in [("small.png", "in/deep/a b.png"), ("wide.png", "in/wide.png")] {
        std::fs::copy(fixture.path(from), fixture.path(to)).unwrap();
    }
    std::fs::write(fixture.path("in/notes.txt"), "no picture").unwrap();
    let flags = ["--max-new-tokens", "6", "--system", "Be brief."];
    let told = fixture.run(&batch(&["in", "--out", "out.jsonl"], &[&PROMPT[..], &flags].concat()));
    assert_eq!(told.answer(), "");
    let rows = rows(&fixture.path("out.jsonl"));
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["deep/a b.png", "wide.png"]);
    for (id, row) in &rows {
        let asked =
            fixture.run(&[&["ask", "-j"], &flags[..], &[&format!("in/{id}"), "What?"]].concat()).json();
        assert_eq!(answer(row), asked["answer"].as_str().unwrap());
        assert_eq!((&row["error"], &row["response"]["status_code"]), (&Value::Null, &json!(200)));
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["id", "custom_id", "response", "error"]);
        let body = &row["response"]["body"];
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(body["usage"]["completion_tokens"], asked["usage"]["completion_tokens"]);
        assert_eq!(body["choices"][0]["finish_reason"], asked["finish_reason"]);
        assert!(row["id"].as_str().unwrap().starts_with("batch_req_"));
        assert!(row["response"]["request_id"].as_str().unwrap().starts_with("req_"));
    }
}

#[test]
fn the_same_command_goes_on_and_another_is_refused() {
    let fixture = fixture(7);
    fixture.run(&many(&["--limit", "3"])).answer();
    let first = std::fs::read(fixture.path("results.jsonl")).unwrap();
    assert_eq!(lines(&fixture.path("results.jsonl")), 3);
    fixture.run(&many(&["--width", "2", "--threads", "1"])).answer();
    let whole = std::fs::read(fixture.path("results.jsonl")).unwrap();
    assert!(whole.starts_with(&first) && rows(&fixture.path("results.jsonl")).len() == 7);
    let again = Run::of(fixture.command(&[&["batch"], &many(&[])[2..]].concat()).output().unwrap());
    assert_eq!(
        (again.code, again.stderr.as_str()),
        (Some(0), "nothing is left to do: 7 answers there already\n")
    );
    for (more, told) in [
        (&["--temperature", "0.5"][..], "its temperature is 0.0, and now it is 0.5"),
        (&["--dtype", "f32"], "its dtype is \"bf16\", and now it is \"f32\""),
        (&["--system", "x"], "its system is not set, and now it is \"x\""),
        (&["--model", "demo"], "its model is \"tiny\", and now it is \"demo\""),
        (&["--quant", "q8"], "the files of the model, or --quant, have changed since then"),
    ] {
        let refused = fixture.run(&many(more)).refusal(2);
        assert!(refused.contains("results.jsonl holds the results of another job: "), "{refused}");
        assert!(
            refused.contains(told) && refused.contains("hint: give another file with --out"),
            "{refused}"
        );
    }
    // a picture that has come meanwhile
    fixture.write_png("many/new.png", 30, 30);
    fixture.run(&many(&[])).answer();
    assert!(rows(&fixture.path("results.jsonl")).contains_key("new.png"));
    let mut notes = std::fs::read(fixture.path("small.png")).unwrap();
    notes.truncate(100);
    std::fs::write(fixture.path("results.jsonl"), &notes).unwrap();
    let refused = fixture.run(&many(&[])).refusal(2);
    assert!(refused.contains("results.jsonl exists already and was not begun by phi3v batch"), "{refused}");
    assert_eq!(std::fs::read(fixture.path("results.jsonl")).unwrap(), notes);
}

fn start(fixture: &Fixture, words: &[&str]) -> Child {
    let mut command = fixture.command(words);
    signals::hear(&mut command);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Random enough, and the same in every run of the test.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn killed_many_times_it_loses_nothing_and_answers_the_same() {
    // each width, with one thread and with two, both while rows are written and at any time
    const KILLS: usize = 24;
    const PICTURES: usize = 150;
    let fixture = fixture(PICTURES as u32);
    let whole = many(&["--out", "whole.jsonl", "--width", "1", "--threads", "1"]);
    let begun = Instant::now();
    fixture.run(&whole).answer();
    let time = begun.elapsed();
    let path = fixture.path("killed.jsonl");
    let (mut state, mut kills, mut seen) = (1, 0, 0);
    while kills < KILLS {
        let width = ["1", "3", "16"][kills % 3];
        let threads = ["1", "2"][kills / 2 % 2];
        let words =
            many(&["--out", "killed.jsonl", "--width", width, "--threads", threads, "--sidecar", "txt"]);
        let mut child = start(&fixture, &words);
        if kills % 2 == 0 {
            // while rows are written
            let wanted = seen + 1 + next(&mut state) as usize % 6;
            while lines(&path) < wanted.min(PICTURES) && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        } else {
            std::thread::sleep(time.mul_f64(next(&mut state) as f64 / f64::from(1u32 << 31) / 40.0));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let now = lines(&path);
        assert!(now >= seen, "{seen} rows became {now}");
        seen = now;
    }
    assert!((KILLS / 2..PICTURES).contains(&seen), "{seen} rows after {KILLS} kills");
    fixture.run(&many(&["--out", "killed.jsonl", "--sidecar", "txt"])).answer();
    let (whole, killed) = (rows(&fixture.path("whole.jsonl")), rows(&path));
    assert_eq!(killed.len(), PICTURES);
    assert_eq!(killed, whole, "to the letter, but for the date of the job");
    for (id, row) in &killed {
        let sidecar = std::fs::read_to_string(fixture.path("many").join(id).with_extension("txt")).unwrap();
        assert_eq!(sidecar, format!("{}\n", answer(row).trim_end()));
    }
}

#[test]
fn sigterm_ends_it_in_order() {
    if !signals::can_be_sent() {
        return;
    }
    let fixture = fixture(120);
    let mut child = start(&fixture, &many(&["--width", "4"]));
    let path = fixture.path("results.jsonl");
    while lines(&path) < 5 {
        assert!(child.try_wait().unwrap().is_none(), "it has ended early");
        std::thread::sleep(Duration::from_millis(2));
    }
    signals::terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let before = rows(&path);
    assert!((5..120).contains(&before.len()), "{}", before.len());
    fixture.run(&many(&[])).answer();
    let after = rows(&path);
    assert!(after.len() == 120 && before.iter().all(|(id, row)| after[id] == *row));
}

#[test]
fn what_fails_is_a_row_with_an_error_and_can_be_tried_again() {
    let fixture = fixture(4);
    std::fs::write(fixture.path("many/damaged.png"), b"\x89PNG\r\n\x1a\nand no more").unwrap();
    std::fs::write(fixture.path("many/photo.heic"), b"\0\0\0\x0cJXL \r\n\x87\n").unwrap();
    let told = fixture.run(&many(&[]));
    assert_eq!(told.code, Some(6), "{}", told.stderr);
    let error = told.stderr.split_once("error: 2 of 6 answers failed, the first: ").unwrap().1;
    let (first, hint) = error.split_once("\nhint: ").unwrap();
    let named = ["damaged.png: ", "photo.heic: "].iter().any(|name| first.contains(name));
    assert!(named && hint.contains("--retry-errors"), "{}", told.stderr);
    let path = fixture.path("results.jsonl");
    let first = rows(&path);
    for (id, code) in [("damaged.png", "image_invalid"), ("photo.heic", "image_format_unsupported")] {
        let row = &first[id];
        assert_eq!((&row["error"]["code"], &row["response"]["status_code"]), (&json!(code), &json!(400)));
        assert_eq!(row["response"]["body"]["error"]["message"], row["error"]["message"]);
    }
    assert_eq!(fixture.run(&many(&[])).code, Some(6), "nothing is left to do, and two have still failed");
    assert_eq!(rows(&path), first);
    std::fs::copy(fixture.path("small.png"), fixture.path("many/damaged.png")).unwrap();
    let told = fixture.run(&many(&["--retry-errors"]));
    assert_eq!(told.code, Some(6));
    let second = rows(&path);
    // of the one that is left, what its row says
    let hint = second["photo.heic"]["response"]["body"]["error"]["hint"].as_str().unwrap();
    let hint = format!("\nhint: {hint}; then --retry-errors tries it again\n");
    assert!(told.stderr.ends_with(&hint), "{hint}{}", told.stderr);
    assert_eq!((second.len(), &second["damaged.png"]["error"]), (6, &Value::Null));
    std::fs::remove_file(fixture.path("many/photo.heic")).unwrap();
    let told = fixture.run(&many(&["--retry-errors"]));
    assert_eq!(told.code, Some(6));
    assert_eq!(rows(&path), second, "what is not asked about keeps its row");
    assert!(!told.stderr.contains("--retry-errors"), "{}", told.stderr);
    assert!(told.stderr.contains("hint: its file is not among the inputs any more"), "{}", told.stderr);
    assert!(told.stderr.contains("take its line out of results.jsonl"), "{}", told.stderr);
    // as it was told
    let text = std::fs::read_to_string(&path).unwrap();
    let others: String = text.split_inclusive('\n').filter(|line| !line.contains("photo.heic")).collect();
    std::fs::write(&path, others).unwrap();
    fixture.run(&many(&[])).answer();
    // of a list, which names what has vanished
    let listed = ["batch", "-q", "-", "--prompt", "What?", "--max-new-tokens", "2", "-o", "listed.jsonl"];
    let told = fixture.run_with_input(&listed, b"small.png\nvanished.png\n");
    assert_eq!(told.code, Some(6), "{}", told.stderr);
    let rows = rows(&fixture.path("listed.jsonl"));
    let told = rows["vanished.png"]["error"]["message"].as_str().unwrap();
    assert!(told.starts_with("cannot read vanished.png: ") && !told.ends_with('.'), "{told}");
    assert_eq!(rows["small.png"]["error"], Value::Null);
}

#[test]
fn only_what_is_asked_about_again_loses_its_error() {
    let fixture = fixture(1);
    for name in ["one.png", "two.png"] {
        std::fs::write(fixture.path(name), b"\x89PNG\r\n\x1a\nand no more").unwrap();
    }
    let run = |inputs: &[&str], more: &[&str]| {
        let told = fixture.run(&batch(inputs, &[&PROMPT[..], &SHORT, more].concat()));
        assert_eq!(told.code, Some(6), "{}", told.stderr);
        rows(&fixture.path("results.jsonl"))
    };
    let all = ["small.png", "one.png", "two.png"];
    let before = run(&all, &[]);
    assert_eq!(run(&["one.png"], &["--retry-errors"]), before, "two.png is not an input");
    assert_eq!(run(&all, &["--retry-errors", "--limit", "1"]), before, "nor is it among the first");
    std::fs::copy(fixture.path("small.png"), fixture.path("one.png")).unwrap();
    let after = run(&["one.png", "small.png"], &["--retry-errors"]);
    assert_eq!((&after["one.png"]["error"], &after["two.png"]), (&Value::Null, &before["two.png"]));
}

#[test]
fn what_cannot_be_written_is_refused_before_a_model_is_looked_for() {
    let fixture = fixture(2);
    std::fs::write(fixture.path("mine.csv"), "mine").unwrap();
    std::fs::write(fixture.path("many/001.txt"), "mine").unwrap();
    let model = ["--model", "no-such-model"];
    for (more, code, told) in [
        (&["-o", "nowhere/out"][..], 1, "cannot write nowhere"),
        (&["-o", "many"], 1, "cannot write many: "),
        (&["--csv", "mine.csv"], 2, "mine.csv exists already"),
        (&["--csv", "nowhere/t.csv"], 1, "cannot write nowhere"),
        (&["--sidecar", "txt"], 2, "001.txt exists already"),
        (&[], 4, "no-such-model"),
    ] {
        let refused = fixture.run(&many(&[more, &model].concat())).refusal(code);
        assert!(refused.contains(told), "{more:?}: {refused}");
        assert!(!fixture.path("results.jsonl").exists(), "{more:?}");
    }
}

#[cfg(unix)]
#[test]
fn results_that_would_go_to_a_link_to_nothing_are_refused_with_a_hint() {
    let fixture = fixture(1);
    std::os::unix::fs::symlink("nowhere/x", fixture.path("link.jsonl")).unwrap();
    // before a model is looked for
    let refused = fixture.run(&many(&["-o", "link.jsonl", "--model", "no-such-model"])).refusal(1);
    assert!(refused.contains("cannot write link.jsonl: it is a link and not a file\n"), "{refused}");
    assert!(refused.contains("hint: give the path of another file"), "{refused}");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_once_or_refused() {
    let fixture = fixture(1);
    let requests = [line("one", &[], &json!({})), line("two", &[], &json!({}))].join("\n");
    for (name, out) in [("/dev/stdin", "a"), ("/dev/fd/0", "b"), ("-", "c")] {
        let told = fixture.run_with_input(&batch(&[name, "-o", out], &[]), requests.as_bytes());
        told.answer();
        assert_eq!(rows(&fixture.path(out)), rows(&fixture.path("a")));
    }
    let picture = std::fs::read(fixture.path("small.png")).unwrap();
    for inputs in [&["/dev/stdin"][..], &["small.png", "/dev/stdin"]] {
        for input in [&picture[..], b"small.png\n"] {
            let words = batch(inputs, &[&PROMPT[..], &["-o", "d"]].concat());
            let refused = fixture.run_with_input(&words, input).refusal(2);
            let told = "/dev/stdin is a pipe, and its pictures or names cannot be read twice\nhint: give a list of names on stdin as -";
            assert!(refused.contains(told) && !fixture.path("d").exists(), "{refused}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    let fixture = fixture(60);
    let whole = many(&["--out", "whole.jsonl"]);
    fixture.run(&whole).answer();
    let program = env!("CARGO_BIN_EXE_phi3v");
    std::fs::create_dir(fixture.path("disk")).unwrap();
    // a disk of 24 KiB, which becomes larger when the program has ended
    let words = many(&["--out", "disk/out.jsonl"]).join("' '");
    let script = format!(
        "mount -t tmpfs -o size=24k none disk || exit 77
         '{program}' '{words}'; first=$?; cp disk/out.jsonl cut.jsonl; mount -o remount,size=1m disk
         '{program}' '{words}'; second=$?; cp disk/out.jsonl out.jsonl; echo $first $second"
    );
    let mut command = fixture.command(&[""; 0]);
    let mut unshared = std::process::Command::new("unshare");
    unshared.args(["-rm", "sh", "-c", &script]).current_dir(fixture.dir.path()).stdin(Stdio::null());
    unshared.envs(command.env("LC_ALL", "C").get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Some(told) = unshared.output().ok().map(Run::of).filter(|run| run.code == Some(0)) else {
        phi3v_kernels::testing::skip("a full disk needs unshare and tmpfs", "run it where users may mount");
        return;
    };
    assert_eq!(told.stdout, "1 0\n", "{}", told.stderr);
    let error = "error: cannot write disk/out.jsonl: the disk is full, or the user's share of it: ";
    assert!(told.stderr.contains(error), "{}", told.stderr);
    assert!(told.stderr.contains("hint: free some space and run the same command again"), "{}", told.stderr);
    let (whole, cut) = (rows(&fixture.path("whole.jsonl")), rows(&fixture.path("cut.jsonl")));
    assert!((5..60).contains(&cut.len()) && cut.iter().all(|(id, row)| whole[id] == *row));
    assert_eq!(rows(&fixture.path("out.jsonl")), whole);
}

#[test]
fn parts_have_every_picture_once() {
    let fixture = fixture(20);
    fixture.run(&many(&["-o", "whole", "--csv", "whole.csv"])).answer();
    let (mut parts, mut joined) = (BTreeMap::new(), Vec::new());
    for part in 1..=3 {
        fixture.run(&many(&["-o", &format!("{part}"), "--shard", &format!("{part}/3")])).answer();
        let path = fixture.path(&part.to_string());
        let text = std::fs::read_to_string(&path).unwrap();
        // the first with its header, the others without
        joined.extend(text.lines().skip(usize::from(part > 1)).map(str::to_owned));
        let rows = rows(&path);
        assert!(rows.len() < 20);
        rows.into_iter().for_each(|(id, row)| assert!(parts.insert(id, row).is_none()));
    }
    assert_eq!(parts, rows(&fixture.path("whole")));
    // put together they are the job, of which the same command without a part makes one table
    std::fs::write(fixture.path("all"), joined.join("\n") + "\n").unwrap();
    fixture.run(&many(&["-o", "all", "--csv", "all.csv"])).answer();
    let text = |name| std::fs::read_to_string(fixture.path(name)).unwrap();
    assert_eq!(text("all.csv"), text("whole.csv"));
    assert_eq!(text("all").lines().count(), 21);
}

#[test]
fn several_questions_follow_their_schemas_and_go_to_a_table() {
    let fixture = fixture(3);
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"], "additionalProperties": false});
    std::fs::write(fixture.path("schema.json"), schema.to_string()).unwrap();
    let questions =
        json!([{"prompt": "How many?"}, {"name": "yes", "prompt": "Is it?", "schema": {"const": "yes"}}]);
    std::fs::write(fixture.path("questions.json"), questions.to_string()).unwrap();
    let ask = [
        "--questions",
        "questions.json",
        "--schema",
        "schema.json",
        "--max-new-tokens",
        "40",
        "--csv",
        "t.csv",
    ];
    fixture.run(&batch(&["many"], &ask)).answer();
    let rows = rows(&fixture.path("results.jsonl"));
    assert_eq!(rows.len(), 6);
    let mut expected = "custom_id,question,answer,finish_reason,error,n\r\n".to_owned();
    for (id, row) in &rows {
        let (answer, stands) = (answer(row), if id.ends_with("#yes") { "Is it?" } else { "How many?" });
        let value: Value = serde_json::from_str(answer).unwrap();
        let n = if stands == "Is it?" {
            assert_eq!(value, "yes");
            String::new()
        } else {
            value["n"].as_u64().filter(|n| *n < 10).unwrap().to_string()
        };
        let answer = answer.replace('"', "\"\"");
        expected += &format!("{id},{stands},\"{answer}\",stop,,{n}\r\n");
    }
    assert_eq!(std::fs::read_to_string(fixture.path("t.csv")).unwrap(), expected);
    fixture.run(&batch(&["many"], &ask)).answer();
    let foreign = [&batch(&["many", "-o", "other"], &PROMPT)[..], &SHORT, &["--csv", "t.csv"]].concat();
    let refused = fixture.run(&foreign).refusal(2);
    assert!(refused.contains("t.csv exists already") && !fixture.path("other").exists(), "{refused}");
    fixture.run(&[&foreign[..], &["--force"]].concat()).answer();
}

#[test]
fn what_stands_beside_a_picture_is_not_replaced_unasked() {
    let fixture = fixture(3);
    std::fs::write(fixture.path("many/001.xmp"), "mine").unwrap();
    let refused = fixture.run(&many(&["--sidecar", "xmp"])).refusal(2);
    let told = format!("{} exists already\nhint: move it away", Path::new("many").join("001.xmp").display());
    assert!(refused.contains(&told), "{refused}");
    assert!(!fixture.path("results.jsonl").exists(), "nothing was begun");
    fixture.run(&many(&["--sidecar", "xmp", "--force"])).answer();
    let told = std::fs::read_to_string(fixture.path("many/001.xmp")).unwrap();
    assert!(told.contains("AltTextAccessibility"), "{told}");
    std::fs::remove_file(fixture.path("many/002.xmp")).unwrap();
    fixture.run(&many(&["--sidecar", "xmp"])).answer();
    assert!(fixture.path("many/002.xmp").exists(), "made again from the results");
}

#[test]
fn no_file_is_written_over_another() {
    let fixture = fixture(3);
    let picture = std::fs::read(fixture.path("many/001.png")).unwrap();
    for (more, told) in [
        (&["--csv", "results.jsonl"][..], "--out and --csv name one file, results.jsonl"),
        (&["--csv", "many/../t.csv", "-o", "t.csv"], "--out and --csv name one file, many/../t.csv"),
        (&["--csv", "many/001.png", "--force"], "--csv names a file that is asked about, many/001.png"),
        (&["-o", "many/001.png"], "many/001.png exists already and was not begun by phi3v batch"),
        (&["--sidecar", "json", "-o", "many/001.json"], "--sidecar and --out name one file, many/001.json"),
    ] {
        let refused = fixture.run(&many(more)).refusal(2).replace(std::path::MAIN_SEPARATOR, "/");
        assert!(refused.contains(told), "{refused}");
    }
    // what flags name to be read, and the model
    fixture.copy_model();
    std::fs::write(fixture.path("q.txt"), "What?\nWho?\n").unwrap();
    std::fs::write(fixture.path("s.json"), "{\"type\": \"object\"}").unwrap();
    for (more, told) in [
        (
            &["--questions", "q.txt", "--csv", "many/../q.txt"][..],
            "--csv names the file of --questions, many/../q.txt",
        ),
        (
            &["--prompt", "x", "--schema", "s.json", "--csv", "s.json"],
            "--csv names the file of --schema, s.json",
        ),
        (
            &["--prompt", "x", "--model", ".", "--csv", "config.json"],
            "--csv names a part of the model, config.json",
        ),
    ] {
        let refused = fixture.run(&batch(&["many", "--force"], more)).refusal(2);
        assert!(refused.replace(std::path::MAIN_SEPARATOR, "/").contains(told), "{refused}");
    }
    std::fs::copy(fixture.path("many/001.png"), fixture.path("s.png")).unwrap();
    let words = ["s.png", "--prompt", "x", "--schema", "s.json", "--sidecar", "json", "--force"];
    let refused = fixture.run(&batch(&words, &[])).refusal(2);
    assert!(refused.contains("--sidecar would write over the file of --schema, s.json"), "{refused}");
    // whose sidecar would have the name of a picture
    std::fs::copy(fixture.path("many/001.png"), fixture.path("many/001.jpg")).unwrap();
    std::fs::copy(fixture.path("many/001.png"), fixture.path("many/001.png.txt")).unwrap();
    let refused = fixture.run(&many(&["--sidecar", "txt", "--force"])).refusal(2);
    assert!(refused.contains("--sidecar would write over a file that is asked about, many"), "{refused}");
    assert!(!fixture.path("results.jsonl").exists() && !fixture.path("t.csv").exists());
    assert_eq!(std::fs::read(fixture.path("many/001.png.txt")).unwrap(), picture);

    // a table of the job is written anew, and one of somebody else is not, in a later run either
    fixture.run(&many(&["--csv", "t.csv", "--limit", "1"])).answer();
    std::fs::write(fixture.path("notes.csv"), "my notes\n").unwrap();
    let refused = fixture.run(&many(&["--csv", "notes.csv"])).refusal(2);
    assert!(refused.contains("notes.csv exists already"), "{refused}");
    assert_eq!(std::fs::read_to_string(fixture.path("notes.csv")).unwrap(), "my notes\n");
    fixture.run(&many(&["--csv", "t.csv"])).answer();
    assert_eq!(std::fs::read_to_string(fixture.path("t.csv")).unwrap().lines().count(), 6);
    fixture.run(&many(&["--csv", "notes.csv", "--force"])).answer();

    // another name of the results: by itself where case is folded, and elsewhere by a link
    let results = std::fs::read(fixture.path("results.jsonl")).unwrap();
    if !fixture.path("RESULTS.jsonl").exists() {
        std::fs::hard_link(fixture.path("results.jsonl"), fixture.path("RESULTS.jsonl")).unwrap();
    }
    let refused = fixture.run(&many(&["--csv", "RESULTS.jsonl", "--force"])).refusal(2);
    assert!(refused.contains("--out and --csv name one file, RESULTS.jsonl"), "{refused}");
    assert_eq!(std::fs::read(fixture.path("results.jsonl")).unwrap(), results);
}

#[cfg(unix)]
#[test]
fn a_terminal_is_told_no_control_characters_of_names() {
    let fixture = fixture(2);
    std::fs::write(fixture.path("many/\u{1b}]0;x\u{7}.png"), "no picture").unwrap();
    std::fs::write(fixture.path("many/\u{1b}c.jpg"), b"\x89PNG\r\n\x1a\nand no more").unwrap();
    let words = [&["batch", "many", "--prompt", "What?"][..], &SHORT, &["--sidecar", "txt"]].concat();
    let told = fixture.run(&words);
    assert_eq!(told.code, Some(6), "{}", told.stderr);
    assert!(
        told.stderr.contains("1 file passed over: many/\u{fffd}]0;x\u{fffd}.png is called"),
        "{}",
        told.stderr
    );
    assert!(
        told.stderr.contains("many/\u{fffd}c.jpg: ") && !told.stderr.contains('\u{1b}'),
        "{}",
        told.stderr
    );
}

#[cfg(unix)]
#[test]
fn results_behind_a_link_stay_there_when_errors_are_tried_again() {
    let fixture = fixture(2);
    std::fs::write(fixture.path("many/damaged.png"), b"\x89PNG\r\n\x1a\nand no more").unwrap();
    std::fs::create_dir(fixture.path("kept")).unwrap();
    std::fs::write(fixture.path("kept/rows"), "").unwrap();
    std::os::unix::fs::symlink("kept/rows", fixture.path("link")).unwrap();
    assert_eq!(fixture.run(&many(&["-o", "link"])).code, Some(6));
    std::fs::copy(fixture.path("small.png"), fixture.path("many/damaged.png")).unwrap();
    fixture.run(&many(&["-o", "link", "--retry-errors"])).answer();
    assert!(std::fs::symlink_metadata(fixture.path("link")).unwrap().is_symlink());
    assert_eq!(rows(&fixture.path("kept/rows")).len(), 3);
}

/// A line of OpenAI's form about pictures.
fn line(id: &str, urls: &[String], more: &Value) -> String {
    let picture = |url: &String| json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}});
    let mut content = vec![json!({"type": "text", "text": "What?"})];
    content.extend(urls.iter().map(picture));
    let mut body = json!({"messages": [{"role": "user", "content": content}], "max_tokens": 5});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}).to_string()
}

#[test]
fn requests_come_as_json_lines() {
    let fixture = fixture(2);
    let url = |path: PathBuf| url::Url::from_file_path(path.canonicalize().unwrap()).unwrap().to_string();
    let file = |name: &str| url(fixture.path("many").join(name));
    let none = json!({});
    let lines = [
        line("text", &[], &none),
        line("one", &[file("001.png")], &none),
        line(
            "two",
            &[file("001.png"), file("below/000.png")],
            &json!({"n": 2, "seed": 3, "temperature": 0.7}),
        ),
        line("drawn", &[], &json!({"temperature": 1.5})),
        line("scored", &[], &json!({"logprobs": true, "top_logprobs": 1})),
        line("elsewhere", &[url(fixture.path("small.png"))], &none),
        line("host", &["https://example.org/a.png".to_owned()], &none),
        line("model", &[], &json!({"model": "gpt-4o"})),
        line("stream", &[], &json!({"stream": true})),
        line("wrong", &[], &json!({"max_tokens": 0})),
    ];
    std::fs::write(fixture.path("requests.jsonl"), lines.join("\n")).unwrap();
    let ask = |out: &str, more: &[&str]| {
        let told = fixture.run(&batch(&["requests.jsonl", "--allow-image-dir", "many", "-o", out], more));
        assert_eq!(told.code, Some(6), "{}", told.stderr);
        rows(&fixture.path(out))
    };
    let told = ask("out", &[]);
    assert_eq!(ask("again", &["--width", "1", "--threads", "1"]), told, "also what is drawn");
    let codes = told.iter().map(|(id, row)| (id.as_str(), row["error"]["code"].as_str()));
    let expected = [
        ("drawn", None),
        ("elsewhere", Some("image_source_not_allowed")),
        ("host", Some("image_source_not_allowed")),
        ("model", None),
        ("one", None),
        ("scored", None),
        ("stream", Some("invalid_value")),
        ("text", None),
        ("two", None),
        ("wrong", Some("invalid_value")),
    ];
    assert_eq!(codes.collect::<Vec<_>>(), expected);
    assert_eq!(told["model"]["response"]["body"]["model"], "tiny", "which answered it");
    assert_eq!(told["two"]["response"]["body"]["choices"].as_array().unwrap().len(), 2);
    let scored = &told["scored"]["response"]["body"]["choices"][0]["logprobs"]["content"];
    assert_eq!(scored.as_array().unwrap().len(), 5);
    for token in scored.as_array().unwrap() {
        let logprob = token["logprob"].as_f64().unwrap();
        assert_eq!(logprob.to_string(), (logprob as f32).to_string(), "no digits that it does not have");
    }
    let path = fixture.path("many/001.png");
    let asked = ["ask", "-j", "--detail", "low", "--max-new-tokens", "5", path.to_str().unwrap(), "What?"];
    assert_eq!(answer(&told["one"]), fixture.run(&asked).json()["answer"].as_str().unwrap());
    // lines on stdin are the same job; other lines are another
    let from_stdin = batch(&["-", "--allow-image-dir", "many", "-o", "out"], &[]);
    assert_eq!(fixture.run_with_input(&from_stdin, lines.join("\n").as_bytes()).code, Some(6));
    let refused = fixture.run_with_input(&from_stdin, lines[..2].join("\n").as_bytes()).refusal(2);
    assert!(
        refused.contains("out holds the results of another job: the requests have changed since then"),
        "{refused}"
    );
}

#[test]
fn what_rows_advise_asks_no_server() {
    let fixture = Fixture::new();
    let lines = [
        line("small", &[], &json!({"max_tokens": 0})),
        line("large", &[], &json!({"max_tokens": 1_000_000})),
        line("longer", &[], &json!({"max_tokens": 8000})),
        line("host", &["https://example.org/a.png".to_owned()], &json!({})),
        line("seed", &[], &json!({"seed": "x"})),
        line("stream", &[], &json!({"stream": true})),
        line("unknown", &[], &json!({"plan": "x"})),
        json!({"custom_id": "empty", "body": {}}).to_string(),
    ];
    std::fs::write(fixture.path("requests.jsonl"), lines.join("\n")).unwrap();
    let told = fixture.run(&batch(&["requests.jsonl"], &["--context", "1000"]));
    assert!(told.stderr.contains("error: 8 of 8 answers failed"), "{}", told.stderr);
    for (id, row) in rows(&fixture.path("results.jsonl")) {
        let hint = row["response"]["body"]["error"]["hint"].as_str().unwrap();
        assert!(
            !["server", "openapi", "--max-tokens"].iter().any(|word| hint.contains(word)),
            "{id}: {hint}"
        );
    }
    // each by the word that its user has for it
    let hint = |out: &str, id: &str| {
        let row = &rows(&fixture.path(out))[id];
        row["response"]["body"]["error"]["hint"].as_str().unwrap().to_owned()
    };
    let told = hint("results.jsonl", "longer");
    assert!(told.contains(", lower max_tokens, or give a larger --context"), "{told}");
    let flags = ["--max-new-tokens", "900", "--context", "1000", "--out", "picture.jsonl"];
    let run = fixture.run(&[&["batch", "wide.png", "--prompt", "What?"], &flags[..]].concat());
    assert_eq!(run.code, Some(6), "{}", run.stderr);
    let told = hint("picture.jsonl", "wide.png");
    assert!(told.contains(", lower --max-new-tokens, or give a larger --context"), "{told}");
}

#[test]
fn batch_files_of_openai_s_guide_work_as_they_are() {
    let fixture = Fixture::new();
    let line = |number: usize, system: &str| {
        json!({"custom_id": format!("request-{number}"), "method": "POST", "url": "/v1/chat/completions", "body": {
            "model": "gpt-4o-mini", "max_tokens": 1000,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": "Hello world!"}]}})
        .to_string()
    };
    let lines = [line(1, "You are a helpful assistant."), line(2, "You are an unhelpful assistant.")];
    std::fs::write(fixture.path("requests.jsonl"), lines.join("\n")).unwrap();
    fixture.run(&batch(&["requests.jsonl"], &[])).answer();
    let rows = rows(&fixture.path("results.jsonl"));
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["request-1", "request-2"]);
    assert!(rows.values().all(|row| row["error"].is_null() && row["response"]["body"]["model"] == "tiny"));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let fixture = fixture(1);
    std::fs::create_dir(fixture.path("empty")).unwrap();
    std::fs::write(fixture.path("lines"), line("a", &[], &json!({}))).unwrap();
    std::fs::write(fixture.path("half"), "{\"custom_id\": 1}").unwrap();
    std::fs::write(fixture.path("two"), "Who?\nWhat?\n").unwrap();
    std::fs::write(fixture.path("bad.json"), "{\"type\": ").unwrap();
    std::fs::write(fixture.path("forms"), r#"{"prompt": "x"}{"prompt": "y", "choices": ["a", "a"]}"#)
        .unwrap();
    let device = if cfg!(windows) {
        ("many --prompt x --out NUL", 1, "cannot write NUL: its name is one that Windows keeps for a device")
    } else {
        ("many --prompt x --out /dev/null", 1, "cannot write /dev/null: it is a device and not a file")
    };
    for (words, code, told) in [
        ("many", 2, "nothing is asked about the pictures\nhint: add --prompt"),
        ("many --prompt x --questions two", 2, "cannot be used with"),
        ("nope --prompt x", 3, &format!("cannot read nope: {}\nhint: check the path", absence("nope"))),
        ("empty --prompt x", 3, "there is no picture in empty\n"),
        ("nope*.png --prompt x", 3, "there is no picture in nope*.png\n"),
        ("lines --prompt x", 2, "--prompt says nothing about requests that come as JSON lines"),
        ("lines --pages 1", 2, "--pages says nothing about requests that come as JSON lines"),
        ("lines --max-new-tokens 9", 2, "--max-new-tokens says nothing about requests"),
        ("lines --stop x", 2, "--stop says nothing about requests"),
        ("lines --temperature 1", 2, "--temperature says nothing about requests"),
        ("lines --top-p 0.5", 2, "--top-p says nothing about requests"),
        ("lines --repetition-penalty 2", 2, "--repetition-penalty says nothing about requests"),
        ("lines --seed 0", 2, "--seed says nothing about requests"),
        ("lines many --prompt x", 2, "lines has requests as JSON lines, which come alone"),
        ("half", 2, "line 1 of half is no request: "),
        ("many --questions two --sidecar txt", 2, "--sidecar takes one answer for each picture"),
        ("many --questions nope", 2, "cannot read nope: "),
        (
            "many --questions forms",
            2,
            "the questions in forms cannot be used: question 2: the list of choices cannot be used",
        ),
        ("many --prompt x --schema bad.json", 2, "the schema in bad.json is not valid JSON"),
        ("many --prompt x --shard 3/2", 2, "as 1/4"),
        ("many --prompt x --width 17", 2, "17 is not in 1..=16"),
        ("many --prompt x --allow-image-dir many", 2, "--allow-image-dir is for requests"),
        device,
    ] {
        let words: Vec<&str> = ["batch"].into_iter().chain(words.split(' ')).collect();
        let refused = fixture.run(&words).refusal(code);
        assert!(refused.contains(told), "{words:?}: {refused}");
        assert!(!fixture.path("results.jsonl").exists(), "{words:?}");
    }
    if !cfg!(feature = "parquet") {
        let refused = fixture.run(&many(&["--parquet", "x.parquet"])).refusal(2);
        assert!(refused.contains("or one built with --features parquet"), "{refused}");
    }
}

/// The guide's examples, on the demo model, in a folder that has the pictures of examples/ in one called `photos`.
#[cfg(unix)]
#[test]
fn the_guide_s_examples_work() {
    let fixture = Fixture::new();
    assert!(fixture.run_guide("batch.md").len() >= 4);
    let titles = rows(&fixture.path("results.jsonl"));
    assert_eq!(answer(&titles["text.png"]), "Fresh Bread\nOpen Daily\nWelcome");
    let table = std::fs::read_to_string(fixture.path("photos.csv")).unwrap();
    assert!(table.starts_with("custom_id,answer,finish_reason,error\r\n"), "{table}");
}

/// What the front page says about many pictures, as a stranger would try it.
#[cfg(unix)]
#[test]
fn the_front_page_s_example_works() {
    let readme = super::repository_text("README.md");
    let section = readme.split("\n## Many pictures\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let fixture = Fixture::new();
    fixture.copy_examples("examples");
    assert_eq!(fixture.run_examples(section, &[]).len(), 1);
    assert_eq!(rows(&fixture.path("results.jsonl")).len(), 8);
    assert!(std::fs::read_to_string(fixture.path("results.csv")).unwrap().contains("Fresh Bread"));
    assert_eq!(fixture.run_examples(section, &[]).len(), 1, "the same command goes on");
}

#[test]
fn pages_that_no_input_has_are_told() {
    let fixture = fixture(2);
    let pages = super::repository().join("testdata/documents/pages.tif");
    let told = |out: &str, input: &str, chosen: &str| {
        let words = ["batch", "many", input, "--pages", chosen, "--out", out];
        fixture.run(&[&words, &PROMPT[..], &SHORT].concat()).stderr
    };
    let note = "no input has pages, so that --pages chooses nothing";
    let none_has = told("none.jsonl", "small.png", "2-");
    assert!(none_has.contains(note), "{none_has}");
    for (out, input, chosen) in
        [("one.jsonl", pages.to_str().unwrap(), "2-"), ("first.jsonl", "small.png", "1")]
    {
        let told = told(out, input, chosen);
        assert!(!told.contains(note) && told.contains("answers in"), "{told}");
    }
}
