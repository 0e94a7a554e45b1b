//! A form of items that can be compared before they are complete. It does not depend on the spelling of a value, and
//! includes the existing part of an unfinished item as far as that part is certain.

use super::super::decimal::Decimal;

/// The bytes of numbers.
const OF_NUMBERS: &[u8] = b"0123456789+-.eE";

/// The comparable form of an item. Equal values with their members in the same order have the same outline. The outline of
/// a prefix of an item is a prefix of the item's outline.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    /// Strings without their escapes. Numbers as their digits, without zeros at both ends, and the position of the point.
    pub bytes: Vec<u8>,
    /// Whether the text ends within an escape, which is not in the outline yet.
    pub is_cut: bool,
}

/// Returns whether an escape is the first half of a surrogate pair, as JSON writes characters beyond U+FFFF.
fn begins_a_pair(escape: &[u8]) -> bool {
    matches!(escape.get(2..4), Some([b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B']))
}

impl Outline {
    /// Returns the outline of an item, up to a little more than `longest` bytes.
    pub(super) fn of(item: &[u8], is_whole: bool, longest: usize) -> Self {
        let mut outline = Self::default();
        let mut rest = item;
        while let Some(&first) = rest.first()
            && outline.bytes.len() <= longest
        {
            let length = match first {
                b'"' => outline.add_string(rest),
                b'-' | b'0'..=b'9' => outline.add_number(rest, is_whole),
                b' ' | b'\t' | b'\r' | b'\n' => 1,
                sign => {
                    outline.bytes.push(sign);
                    1
                }
            };
            rest = &rest[length..];
        }
        outline
    }

    /// Appends the string that a text begins with; returns its length in the text.
    fn add_string(&mut self, text: &[u8]) -> usize {
        self.bytes.push(b'"');
        let mut at = 1;
        while let Some(&byte) = text.get(at) {
            let length = match (byte, text.get(at + 1)) {
                (b'\\', Some(b'u')) if begins_a_pair(&text[at..]) => 12,
                (b'\\', Some(b'u')) => 6,
                (b'\\', _) => 2,
                _ => 1,
            };
            let Some(letter) = text.get(at..at + length) else {
                self.is_cut = true;
                break;
            };
            at += length;
            if length == 1 {
                self.bytes.push(byte);
            } else {
                let quoted = [b"\"".as_slice(), letter, b"\""].concat();
                let plain = serde_json::from_slice(&quoted).map(String::into_bytes);
                self.bytes.extend(plain.unwrap_or_else(|_| letter.to_vec()));
            }
            if byte == b'"' {
                return at;
            }
        }
        text.len()
    }

    /// Appends the number that a text begins with; returns its length in the text. The sign is left out, since -0 is 0.
    fn add_number(&mut self, text: &[u8], is_whole: bool) -> usize {
        let end = text.iter().position(|byte| !OF_NUMBERS.contains(byte));
        let length = end.unwrap_or(text.len());
        let number = std::str::from_utf8(&text[..length]).unwrap_or_default();
        let size = number.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = size.chars().filter(char::is_ascii_digit).collect();
        self.bytes.extend(digits.trim_matches('0').bytes());
        if let Some(value) = Decimal::parse(number).filter(|_| is_whole || end.is_some()) {
            let zeros = value.fraction.len() - value.fraction.trim_start_matches('0').len();
            let point = if value.whole.is_empty() { -(zeros as i64) } else { value.whole.len() as i64 };
            self.bytes.extend(format!("e{point}").bytes());
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Vec<u8> {
        Outline::of(text.as_bytes(), true, usize::MAX).bytes
    }

    #[test]
    fn values_show_alike_however_they_are_spelled_and_begin_with_what_they_begin_with() {
        let values: &[&[&str]] = &[
            &["1", "1.0", "10e-1", "0.1E1", "1.00"],
            &["10", "1e1", "10.0"],
            &["0.05", "5e-2", "0.050"],
            &["0", "0.0", "-0", "0e5"],
            &["12"],
            &["true"],
            &[r#""a\nb""#, r#""a\u000ab""#, r#""a\u000Ab""#],
            &[r#""\"""#, r#""\u0022""#],
            &[r#""\u00e9""#, "\"\u{e9}\""],
            &[r#""\ud83d\ude00""#, r#""\uD83D\uDE00""#, "\"\u{1f600}\""],
            &[r#"{"a":[1,"\t"],"b":0.5}"#, r#"{"a":[1.0,"\u0009"],"b":0.50}"#],
            &["[]"],
            &["[[]]"],
        ];
        for (index, spellings) in values.iter().enumerate() {
            let expected = whole(spellings[0]);
            for spelling in *spellings {
                assert_eq!(whole(spelling), expected, "{spelling}");
                for end in 0..spelling.len() {
                    let begun = Outline::of(&spelling.as_bytes()[..end], false, usize::MAX);
                    assert!(expected.starts_with(&begun.bytes), "{spelling} {end}");
                }
            }
            for (other, spellings) in values.iter().enumerate() {
                assert_eq!(whole(spellings[0]) == expected, other == index, "{spellings:?}");
            }
        }
    }

    #[test]
    fn an_escape_shows_when_it_is_there() {
        for (text, bytes, is_cut) in [
            ("\"a", "\"a", false),
            ("\"a\\", "\"a", true),
            ("\"a\\u00", "\"a", true),
            ("\"a\\u0041", "\"aA", false),
            ("\"a\\\\", "\"a\\", false),
            ("[\"a\",1", "[\"a\",1", false),
        ] {
            let outline = Outline::of(text.as_bytes(), false, usize::MAX);
            assert_eq!(outline, Outline { bytes: bytes.as_bytes().to_vec(), is_cut }, "{text}");
        }
    }

    #[test]
    fn no_more_is_read_than_is_asked_for() {
        let long = format!("[{}", "[],".repeat(1_000));
        assert!(Outline::of(long.as_bytes(), false, 10).bytes.len() <= 12);
    }
}
