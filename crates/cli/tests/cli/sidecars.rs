//! `phi3v batch --sidecar`: each file is written once, by whoever has its picture, and what refuses one stops no other.

use super::batch::{PROMPT, SHORT, answer, batch, fixture, many, rows};
use std::path::Path;

const TXT: [&str; 2] = ["--sidecar", "txt"];
#[cfg(unix)]
const JSON: [&str; 2] = ["--sidecar", "json"];

#[test]
fn parts_write_the_files_of_their_own_pictures() {
    let fixture = fixture(12);
    let part = |number: &str, more: &[&str]| {
        let shard = format!("{number}/2");
        fixture.run(&many(&[&["--shard", &shard, "-o", number][..], &TXT, more].concat())).answer();
        rows(&fixture.path(number))
    };
    let (first, second) = (part("1", &[]), part("2", &[]));
    assert_eq!(part("1", &[]), first, "it goes on when the other has begun");
    for (id, row) in first.iter().chain(&second) {
        let path = fixture.path("many").join(id).with_extension("txt");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", answer(row).trim_end()));
        std::fs::write(path, "better").unwrap();
    }
    part("1", &["--force"]);
    for id in first.keys() {
        let path = fixture.path("many").join(id).with_extension("txt");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "better", "{id} was done");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_written_is_told_and_stops_nothing() {
    let fixture = fixture(4);
    // whose sidecar has a name that is one letter too long; that of the next is as long as may be
    for (letter, letters) in [("n", 251), ("m", 250)] {
        let long = format!("{}.png", letter.repeat(letters));
        std::fs::copy(fixture.path("small.png"), fixture.path("many").join(&long)).unwrap();
    }
    let first = fixture.run(&many(&JSON));
    let told = "1 file beside pictures could not be written, the first: cannot write many/nnn";
    for run in [first, fixture.run(&many(&JSON))] {
        assert!(run.code == Some(1) && run.stderr.contains(told), "{}", run.stderr);
        assert!(run.stderr.contains("hint: give the pictures shorter names"), "{}", run.stderr);
        assert_eq!(super::batch::lines(&fixture.path("results.jsonl")), 6);
    }
    for number in 0..4 {
        let folder = if number % 3 == 0 { "many/below" } else { "many" };
        assert!(fixture.path(&format!("{folder}/{number:03}.json")).exists());
    }
    assert!(fixture.path(&format!("many/{}.json", "m".repeat(250))).exists());
    std::fs::remove_file(fixture.path(&format!("many/{}.png", "n".repeat(251)))).unwrap();
    fixture.run(&many(&JSON)).answer();
}

#[test]
fn one_file_for_two_pictures_is_refused() {
    let fixture = fixture(2);
    let words = batch(&["-"], &[&PROMPT[..], &SHORT, &TXT].concat());
    for names in ["many/001.png\n./many/001.png\n", "many/001.png\nmany/below/../001.png\n"] {
        let refused = fixture.run_with_input(&words, names.as_bytes()).refusal(2);
        assert!(refused.contains("001.txt twice, for many/001.png and for "), "{refused}");
        assert!(refused.contains("hint: name each picture once"), "{refused}");
    }
    std::fs::copy(fixture.path("small.png"), fixture.path("many/001.txt")).unwrap();
    let names = "many/001.png\n./many/001.txt\n";
    let refused = fixture.run_with_input(&words, names.as_bytes()).refusal(2);
    assert!(refused.contains("--sidecar would write over a file that is asked about"), "{refused}");
    assert!(!fixture.path("results.jsonl").exists());
}

/// Cuts the last row off, as a loss of power does.
fn lose_a_row(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let (kept, lost) = text.trim_end().rsplit_once('\n').unwrap();
    std::fs::write(path, format!("{kept}\n")).unwrap();
    let row: serde_json::Value = serde_json::from_str(lost).unwrap();
    row["custom_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_row_that_was_lost_is_asked_again_beside_its_file() {
    let fixture = fixture(4);
    fixture.run(&many(&TXT)).answer();
    let path = fixture.path("results.jsonl");
    let whole = rows(&path);
    lose_a_row(&path);
    fixture.run(&many(&TXT)).answer();
    assert_eq!(rows(&path), whole);
    // which may have been changed meanwhile
    let sidecar = fixture.path("many").join(lose_a_row(&path)).with_extension("txt");
    std::fs::write(&sidecar, "better").unwrap();
    let told = fixture.run(&[&["batch"], &many(&TXT)[2..]].concat());
    let name = sidecar.strip_prefix(fixture.path("")).unwrap();
    let note = format!(
        "{} was there before and is left as it is: to have the answer there, delete it and run the same command again\n",
        name.display()
    );
    let (stderr, note) = (told.stderr.replace('\\', "/"), note.replace('\\', "/"));
    assert!(told.code == Some(0) && stderr.contains(&note), "{stderr}");
    assert_eq!((rows(&path), std::fs::read_to_string(&sidecar).unwrap()), (whole, "better".to_owned()));
    std::fs::remove_file(&sidecar).unwrap();
    fixture.run(&many(&TXT)).answer();
    assert_ne!(std::fs::read_to_string(&sidecar).unwrap(), "better");
    // as the hint of a damaged line says, with the row in the middle
    let text = std::fs::read_to_string(&path).unwrap();
    let without: Vec<&str> =
        text.lines().enumerate().filter(|(number, _)| *number != 2).map(|(_, line)| line).collect();
    std::fs::write(&path, without.join("\n") + "\n").unwrap();
    fixture.run(&many(&TXT)).answer();
    assert_eq!(rows(&path).len(), 4);
}
