//! `data:image/png;base64,...` to bytes. The media type is ignored: a picture's format shows in its content.

use super::too_large;
use crate::server::openai::errors::ApiError;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn decode(url: &str, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
    let Some((head, data)) = url.split_once(',') else {
        return Err(invalid("the data URL has no comma"));
    };
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err(invalid("the data URL is not in base64"));
    }
    // some clients break the lines
    let data: Cow<'_, str> = if data.bytes().any(|byte| byte.is_ascii_whitespace()) {
        data.split_ascii_whitespace().collect::<String>().into()
    } else {
        data.into()
    };
    // 4 characters for 3 bytes
    if data.len() / 4 * 3 > bytes_max.saturating_add(2) {
        return Err(too_large(bytes_max));
    }
    BASE64.decode(data.as_bytes()).map_err(|_| invalid("the data URL is not valid base64"))
}

fn invalid(message: &str) -> ApiError {
    ApiError::bad_request("image_url_invalid", message).hint("write it as data:image/png;base64,iVBORw0K...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_and_without_padding() {
        for url in
            ["data:image/png;base64,AAEC/w==", "data:;base64,AAEC/w", "data:text/html;x=y;BASE64,AAEC/w=="]
        {
            assert_eq!(decode(url, 4).unwrap(), [0, 1, 2, 255]);
        }
        assert_eq!(decode("data:;base64,", 4).unwrap(), b"");
        assert_eq!(decode("data:;base64,AAEC\r\n /w==\n", 4).unwrap(), [0, 1, 2, 255]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, code) in [
            ("data:image/png", "image_url_invalid"),
            ("data:image/png,abc", "image_url_invalid"),
            ("data:image/png;base64,a*c", "image_url_invalid"),
            ("data:image/png;base64,AAECAAECAAECAAEC", "image_too_large"),
        ] {
            assert_eq!(decode(url, 4).unwrap_err().code, code, "{url}");
        }
    }
}
