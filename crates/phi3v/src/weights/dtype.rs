//! Formats by the names that safetensors files give them.

use phi3v_kernels::Format;

/// The dense formats. A match computes the length, so that a new format does not compile until it is considered here.
const DENSE: [Format; dense_count(Format::F32)] = [Format::F32, Format::F16, Format::Bf16];

const fn dense_count(any: Format) -> usize {
    match any {
        Format::F32 | Format::F16 | Format::Bf16 | Format::Q8 | Format::Q4 => 3,
    }
}

/// Returns the `dtype` of a tensor in `format`; packed panels are bytes.
pub(super) fn dtype(format: Format) -> &'static str {
    match format {
        Format::F32 => "F32",
        Format::F16 => "F16",
        Format::Bf16 => "BF16",
        Format::Q8 | Format::Q4 => "U8",
    }
}

/// Returns the dense format that a file calls `name`, if there is one.
pub(super) fn dense(name: &str) -> Option<Format> {
    DENSE.into_iter().find(|&format| dtype(format) == name)
}
