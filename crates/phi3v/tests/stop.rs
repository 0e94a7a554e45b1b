//! Stop strings: the answer is cut exactly before them, however the text arrives.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

use phi3v::sampler::SamplerError;
use phi3v::stop::StopStrings;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// Text shown and the stop string, for text given in pieces.
fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
    let mut stop = StopStrings::new(stops).unwrap();
    let mut shown = String::new();
    for piece in pieces {
        let output = stop.push(piece);
        shown += &output.text;
        if output.stopped_by.is_some() {
            assert_eq!(stop.push("more").text, "", "nothing comes after a stop");
            assert_eq!(stop.finish(), "");
            return (shown, output.stopped_by);
        }
    }
    (shown + &stop.finish(), None)
}

/// The definition: the earliest end of a stop string, and the longest one that ends there.
fn by_definition(stops: &[&str], text: &str) -> (String, Option<usize>) {
    for end in 1..=text.len() {
        let complete = |i: &usize| text.as_bytes()[..end].ends_with(stops[*i].as_bytes());
        let longest = (0..stops.len()).filter(complete).max_by_key(|&i| (stops[i].len(), usize::MAX - i));
        if let Some(i) = longest {
            return (text[..end - stops[i].len()].to_owned(), Some(i));
        }
    }
    (text.to_owned(), None)
}

#[test]
fn text_is_cut_before_the_stop_string() {
    assert_eq!(run(&["STOP"], &["one ST", "OP two"]), ("one ".to_owned(), Some(0)));
    assert_eq!(run(&["STOP"], &["one ST", "ART"]), ("one START".to_owned(), None));
    assert_eq!(run(&["STOP"], &["one STO"]), ("one STO".to_owned(), None));
    assert_eq!(run(&["\n\n"], &["a\n", "b\n", "\nc"]), ("a\nb".to_owned(), Some(0)));
    assert_eq!(run(&["b", "abc"], &["xab", "c"]), ("xa".to_owned(), Some(0)), "the first to be complete");
    assert_eq!(run(&["b", "ab"], &["xab"]), ("x".to_owned(), Some(1)), "of two complete ones the longer");
    assert_eq!(run(&["\u{1f600}"], &["a\u{1f601}", "\u{1f600}"]), ("a\u{1f601}".to_owned(), Some(0)));
    assert_eq!(run(&[], &["a", "b"]), ("ab".to_owned(), None));
    assert_eq!(run(&["a"], &["", "a"]), (String::new(), Some(0)));
}

#[test]
fn what_may_begin_a_stop_string_is_held_back() {
    let mut stop = StopStrings::new(&["ababc"]).unwrap();
    assert_eq!(stop.push("xab").text, "x");
    assert_eq!(stop.push("ab").text, "");
    assert_eq!(stop.push("ab").text, "ab", "the held text slides on");
    assert_eq!(stop.push("d").text, "ababd");
    assert_eq!(stop.finish(), "");
}

#[test]
fn the_result_does_not_depend_on_the_pieces() {
    let mut random = Pcg64::seed_from_u64(1);
    let mut below = |n: usize| (random.next_u64() % n as u64) as usize;
    let alphabet = ['a', 'b', '\u{e9}', '\u{e8}'];
    for _ in 0..5000 {
        let mut word =
            |longest: usize| (0..1 + below(longest)).map(|_| alphabet[below(4)]).collect::<String>();
        let stops = [word(4), word(4), word(6)];
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let pieces: Vec<String> = (0..6).map(|_| word(4)).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        assert_eq!(run(&stops, &pieces), by_definition(&stops, &pieces.concat()), "{stops:?} {pieces:?}");
    }
}

#[test]
fn useless_stop_strings_are_refused() {
    let error = StopStrings::new(&["a", ""]).unwrap_err();
    assert_eq!(error.to_string(), "the length of stop string 2 in bytes is 0, it must be from 1 to 1024");
    let error = StopStrings::new(&["a".repeat(1025)]).unwrap_err();
    assert!(matches!(error, SamplerError::StopString { value: 1025, .. }));
    let error = StopStrings::new(&["a"; 65]).unwrap_err();
    assert_eq!(error.to_string(), "the number of stop strings is 65, it must be at most 64");
    assert!(StopStrings::new(&["a"; 64]).is_ok());
}
