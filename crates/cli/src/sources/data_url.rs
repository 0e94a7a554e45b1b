//! Decodes `data:image/png;base64,...` to bytes by the rules of browsers (WHATWG's Fetch, "data: URLs"). The media
//! type is ignored: a picture's format is detected from its content.

use super::error::{DataUrlFault, SourceError};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;

/// Clients differ in whether they pad, and in the unused bits of the last character.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn decode(url: &str, bytes_max: usize) -> Result<Vec<u8>, SourceError> {
    let url = without_breaks(url);
    // the fragment after # is not part of the data
    let url = url.split_once('#').map_or(&*url, |(url, _)| url);
    let Some((head, data)) = url.split_once(',') else {
        return Err(SourceError::DataUrl(DataUrlFault::NoComma));
    };
    let data = unescaped(data.as_bytes());
    if !is_base64(head) {
        // a picture always contains bytes that need escapes
        return match data {
            Cow::Borrowed(_) => Err(SourceError::DataUrl(DataUrlFault::NotBase64)),
            Cow::Owned(data) if data.len() > bytes_max => Err(SourceError::TooLarge { limit: bytes_max }),
            Cow::Owned(data) => Ok(data),
        };
    }
    let data = without_blanks(data);
    // 4 characters encode 3 bytes
    if data.len() / 4 * 3 > bytes_max.saturating_add(2) {
        return Err(SourceError::TooLarge { limit: bytes_max });
    }
    BASE64.decode(&data).map_err(|_| SourceError::DataUrl(DataUrlFault::InvalidBase64))
}

/// Removes tabs and line breaks, which are not part of a URL (WHATWG's URL, "basic URL parser").
fn without_breaks(url: &str) -> Cow<'_, str> {
    if url.contains(['\t', '\n', '\r']) {
        Cow::Owned(url.replace(['\t', '\n', '\r'], ""))
    } else {
        Cow::Borrowed(url)
    }
}

/// Whether the part of a URL before the comma ends with `;base64`, allowing blanks around the word.
fn is_base64(head: &str) -> bool {
    let head = head.trim_ascii_end();
    let Some((at, word)) = head.len().checked_sub(6).and_then(|at| Some((at, head.get(at..)?))) else {
        return false;
    };
    word.eq_ignore_ascii_case("base64") && head[..at].trim_end_matches(' ').ends_with(';')
}

/// Decodes escapes such as `%2B` in `data`. The result is owned if there were any.
fn unescaped(data: &[u8]) -> Cow<'_, [u8]> {
    let digit = |at: usize| data.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let (mut bytes, mut at, mut escapes) = (Vec::new(), 0, false);
    if !data.contains(&b'%') {
        return Cow::Borrowed(data);
    }
    while let Some(&byte) = data.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                (at, escapes) = (at + 3, true);
            }
            _ => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    if escapes { Cow::Owned(bytes) } else { Cow::Borrowed(data) }
}

/// Removes white space, since some clients break the lines.
fn without_blanks(data: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if !data.iter().any(u8::is_ascii_whitespace) {
        return data;
    }
    let mut data = data.into_owned();
    data.retain(|byte| !byte.is_ascii_whitespace());
    Cow::Owned(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_read_is_read() {
        for url in [
            "data:image/png;base64,AAEC/w==",
            "data:;base64,AAEC/w",
            "data:text/html;x=y;BASE64,AAEC/w==",
            "data:image/png; base64,AAEC/w==",
            "data:image/png;   Base64 \t,AAEC/w==",
            "data:base64;base64,AAEC/w==",
            "data:image/png;\tbase64,AAEC/w==",
            "data:image/png;\r\nba\nse64,AAEC/w%3\nD=",
            "data:image/png,%00\t%01\n%0\r2%ff",
            "data:;base64,AAEC\r\n /w==\n",
            "data:image/png;base64,AAEC%2Fw%3D%3D",
            "data:image/png;base64,AAEC%2fw%3d%3d",
            "data:image/png;base64,%41AEC%0A/w==",
            "data:image/png;base64,AAEC/x==",
            "data:image/png;base64,AAEC/w==#a,b",
            "data:image/png,%00%01%02%ff",
            "data:,%00%01%02%FF#x",
        ] {
            assert_eq!(decode(url, 4).unwrap(), [0, 1, 2, 255], "{url}");
        }
        assert_eq!(decode("data:;base64,", 4).unwrap(), b"");
        assert_eq!(decode("data:,%25%2541%4", 9).unwrap(), b"%%41%4");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, fault) in [
            ("data:image/png", SourceError::DataUrl(DataUrlFault::NoComma)),
            ("data:image/png,abc", SourceError::DataUrl(DataUrlFault::NotBase64)),
            ("data:image/png,%zz", SourceError::DataUrl(DataUrlFault::NotBase64)),
            ("data:image/pngbase64,AAEC", SourceError::DataUrl(DataUrlFault::NotBase64)),
            ("data:image/png;base64x,AAEC", SourceError::DataUrl(DataUrlFault::NotBase64)),
            ("data:image/png;base64,a*c", SourceError::DataUrl(DataUrlFault::InvalidBase64)),
            ("data:image/png;base64,AAEC/w=%3", SourceError::DataUrl(DataUrlFault::InvalidBase64)),
            ("data:image/png;base64,AAECA", SourceError::DataUrl(DataUrlFault::InvalidBase64)),
            ("data:image/png;base64,AAECAAECAAECAAEC", SourceError::TooLarge { limit: 4 }),
            ("data:image/png,%00%01%02%03%04", SourceError::TooLarge { limit: 4 }),
        ] {
            assert_eq!(decode(url, 4), Err(fault), "{url}");
        }
    }
}
