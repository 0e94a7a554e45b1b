//! Sidecar files: an answer written beside its picture as text, JSON, or XMP, from which photo tools read the alt text.

use super::error::BatchError;
use super::journal::write_error;
use super::row::Row;
use crate::paths::folded;
use phi3v::files::{Existing, NewFile};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The format of a sidecar file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The answer as plain text, and nothing else.
    Txt,
    /// An object with the answer, the question and the model's name.
    Json,
    /// A description of the picture in Adobe's format.
    Xmp,
}

impl Form {
    /// The file name extension of this format.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Json => "json",
            Self::Xmp => "xmp",
        }
    }

    /// The file's contents for a row; `None` if the row has no answer.
    #[must_use]
    pub fn contents(self, row: &Row, prompt: &str) -> Option<String> {
        let answer = row.answer()?;
        Some(match self {
            Self::Txt => format!("{}\n", answer.trim_end()),
            Self::Json => {
                let (model, reason) = (row.response.body.get("model"), row.finish_reason());
                let told = json!({"custom_id": row.custom_id, "prompt": prompt, "answer": as_json(answer),
                    "model": model, "finish_reason": reason});
                format!("{told:#}\n")
            }
            Self::Xmp => xmp(answer.trim()),
        })
    }
}

/// Converts an answer that has a form to its JSON value.
fn as_json(answer: &str) -> Value {
    let object =
        serde_json::from_str(answer).ok().filter(|value: &Value| value.is_object() || value.is_array());
    object.unwrap_or_else(|| answer.into())
}

/// The paths of the pictures' sidecars: beside each picture, with its extension replaced. If two pictures differ only in
/// their extension, or the path would be another picture's full-name sidecar, the full name is kept: `a.jpg.txt`, `a.png.txt`.
#[must_use]
pub fn places(pictures: &[PathBuf], form: Form) -> Vec<PathBuf> {
    let short = |path: &PathBuf| path.with_extension(form.ending());
    let long = |path: &PathBuf| {
        let mut name = OsString::from(path);
        name.push(".");
        name.push(form.ending());
        PathBuf::from(name)
    };
    let mut count: HashMap<PathBuf, usize> = HashMap::new();
    for path in pictures {
        let (short, long) = (folded(short(path)), folded(long(path)));
        if long != short {
            *count.entry(long).or_default() += 1;
        }
        *count.entry(short).or_default() += 1;
    }
    let place = |path: &PathBuf| {
        // a picture with the sidecar's name would be overwritten
        if count[&folded(short(path))] == 1 && folded(short(path)) != folded(path) {
            return short(path);
        }
        long(path)
    };
    pictures.iter().map(place).collect()
}

/// Writes a sidecar atomically.
///
/// # Errors
/// The file cannot be written, or it exists and must be kept.
pub fn write(path: &Path, contents: &str, existing: Existing) -> Result<(), BatchError> {
    let mut file = NewFile::create(path, existing).map_err(write_error)?;
    file.write(contents.as_bytes()).map_err(write_error)?;
    file.finish().map_err(write_error)
}

/// An XMP packet with the text as the picture's description and alt text (IPTC's `AltTextAccessibility`).
fn xmp(text: &str) -> String {
    let text = escaped(text);
    let mut packet = String::from("<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n");
    packet += "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n \
               <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n  \
               <rdf:Description rdf:about=\"\"\n    \
               xmlns:dc=\"http://purl.org/dc/elements/1.1/\"\n    \
               xmlns:Iptc4xmpCore=\"http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/\">\n";
    for name in ["dc:description", "Iptc4xmpCore:AltTextAccessibility"] {
        let _ = writeln!(
            packet,
            "   <{name}><rdf:Alt><rdf:li xml:lang=\"x-default\">{text}</rdf:li></rdf:Alt></{name}>"
        );
    }
    packet + "  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"w\"?>\n"
}

/// Escapes text between tags. Characters that XML cannot represent become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '\r' => out += "&#13;",
            '\t' | '\n' => out.push(letter),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::row::RowResponse;
    use super::*;

    fn row(answer: &str) -> Row {
        let body =
            json!({"model": "demo", "choices": [{"message": {"content": answer}, "finish_reason": "stop"}]});
        let response = RowResponse { status_code: 200, request_id: "r".to_owned(), body };
        Row { id: "i".to_owned(), custom_id: "a.png".to_owned(), response, error: None, warning: None }
    }

    #[test]
    fn sidecars_stand_beside_their_pictures_under_names_of_their_own() {
        let paths: Vec<PathBuf> =
            ["a.jpg", "b.jpg", "b.png", "x/a.png", "plain", "c.txt"].map(PathBuf::from).into();
        let expected =
            ["a.txt", "b.jpg.txt", "b.png.txt", "x/a.txt", "plain.txt", "c.txt.txt"].map(PathBuf::from);
        assert_eq!(places(&paths, Form::Txt), expected);
        // a short name that equals another's full one
        let paths: Vec<PathBuf> = ["a.jpg", "a.png", "a.jpg.gif"].map(PathBuf::from).into();
        assert_eq!(places(&paths, Form::Txt), ["a.jpg.txt", "a.png.txt", "a.jpg.gif.txt"].map(PathBuf::from));
        // names that some systems consider equal
        let paths: Vec<PathBuf> = ["D.jpg", "d.png"].map(PathBuf::from).into();
        let folds = cfg!(any(target_os = "macos", windows));
        let expected = if folds { ["D.jpg.txt", "d.png.txt"] } else { ["D.txt", "d.txt"] };
        assert_eq!(places(&paths, Form::Txt), expected.map(PathBuf::from));
    }

    #[test]
    fn what_they_hold() {
        assert_eq!(Form::Txt.contents(&row("A cat.\n"), "What?").unwrap(), "A cat.\n");
        let told: Value =
            serde_json::from_str(&Form::Json.contents(&row("A cat."), "What?").unwrap()).unwrap();
        let expected = json!({"custom_id": "a.png", "prompt": "What?", "answer": "A cat.", "model": "demo",
            "finish_reason": "stop"});
        assert_eq!(told, expected);
        let told: Value =
            serde_json::from_str(&Form::Json.contents(&row("{\"n\": 1}"), "x").unwrap()).unwrap();
        assert_eq!(told["answer"], json!({"n": 1}));
        let failed = Row {
            error: Some(super::super::row::RowError { code: "c".into(), message: "m".into() }),
            ..row("x")
        };
        assert_eq!(Form::Txt.contents(&failed, "x"), None);
    }

    #[test]
    fn what_exiftool_reads_of_an_xmp_file_is_the_answer() {
        let answer = "Tom & Jerry <\"cats\"> ]]> d'\u{e9}t\u{e9} \u{1f408}";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.xmp");
        write(&path, &Form::Xmp.contents(&row(answer), "x").unwrap(), Existing::Keep).unwrap();
        let refused = write(&path, "x", Existing::Keep);
        assert!(matches!(refused, Err(BatchError::Exists { .. })));
        let exiftool = std::process::Command::new("exiftool").arg("-json").arg(&path).output();
        let Some(output) = exiftool.ok().filter(|output| output.status.success()) else {
            phi3v_kernels::testing::skip("XMP is read again by exiftool", "install libimage-exiftool-perl");
            return;
        };
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&told[0]["Description"], &told[0]["AltTextAccessibility"]),
            (&answer.into(), &answer.into())
        );
        assert!(told[0].get("Warning").is_none(), "{told}");
    }

    #[test]
    fn no_answer_breaks_the_packet() {
        let text = escaped("a\u{0}b\u{1b}c\u{ffff}d\re\nf");
        assert_eq!(text, "a\u{fffd}b\u{fffd}c\u{fffd}d&#13;e\nf");
    }
}
