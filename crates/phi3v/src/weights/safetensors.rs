//! One safetensors file: eight bytes of header length, a JSON header, then the tensors' bytes without gaps.
//!
//! The header is parsed here and not by the format's own crate, because an error must name the tensor and repeated names
//! must be detected. Nothing here trusts the file: the header's length is bounded before it is parsed. The returned
//! tensors lie within the file, do not overlap, and are exactly as long as their shapes and dtypes require.

use super::WeightsError;
use phi3v_kernels::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

/// Longest header that is read: that of the 592 tensors has about 100 KiB.
pub(super) const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Maximum dimensions of a tensor; the checkpoint has up to 4.
const RANK_MAX: usize = 8;

/// A parsed file. Tensors are in the order of the header.
pub(super) struct SafetensorsFile {
    pub(super) tensors: Vec<Entry>,
    /// The header's `__metadata__`.
    pub(super) metadata: HashMap<String, String>,
}

/// One tensor as the file describes it.
pub(super) struct Entry {
    pub(super) name: String,
    /// The format's name of the element type, such as `BF16`.
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Bytes,
}

/// A tensor's description in the header.
#[derive(Deserialize)]
struct Description {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header, with names in their order.
#[derive(Default)]
struct Header {
    tensors: Vec<(String, Description)>,
    metadata: HashMap<String, String>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("{name} is there twice")));
                    }
                    if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Reads the header of `bytes` and checks it against the file's length. `file` is the file's name for errors.
pub(super) fn parse(file: &str, bytes: &Bytes) -> Result<SafetensorsFile, WeightsError> {
    let (header, data) = split(file, bytes)?;
    let header: Header = serde_json::from_slice(&header)
        .map_err(|source| WeightsError::Header { file: file.to_owned(), source })?;
    check_layout(file, &header, data.len())?;
    let mut tensors = Vec::with_capacity(header.tensors.len());
    for (name, description) in header.tensors {
        tensors.push(entry(file, name, description, &data)?);
    }
    Ok(SafetensorsFile { tensors, metadata: header.metadata })
}

/// Splits a file into header and data.
fn split(file: &str, bytes: &Bytes) -> Result<(Bytes, Bytes), WeightsError> {
    let file_bytes = bytes.len() as u64;
    let truncated = |needed| WeightsError::Truncated { file: file.to_owned(), bytes: file_bytes, needed };
    let length = bytes.first_chunk::<8>().ok_or_else(|| truncated(8))?;
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > HEADER_BYTES_MAX {
        let (file, limit) = (file.to_owned(), HEADER_BYTES_MAX);
        return Err(WeightsError::HeaderSize { file, bytes: header_bytes, limit });
    }
    let data_start = 8 + header_bytes;
    if data_start > file_bytes {
        return Err(truncated(data_start));
    }
    // at most file_bytes, which is a usize
    let data_start = data_start as usize;
    Ok((bytes.slice(8..data_start), bytes.slice(data_start..bytes.len())))
}

/// Checks that the tensors fill `data_bytes` without gaps or overlaps.
fn check_layout(file: &str, header: &Header, data_bytes: usize) -> Result<(), WeightsError> {
    let mut spans: Vec<(Range<u64>, &str)> = header
        .tensors
        .iter()
        .map(|(name, description)| {
            let [start, end] = description.data_offsets;
            (start..end, name.as_str())
        })
        .collect();
    spans.sort_by_key(|(span, _)| (span.start, span.end));
    let mut filled = 0;
    let mut previous = "";
    for (span, name) in &spans {
        if span.start < filled {
            let (file, first, second) = (file.to_owned(), previous.to_owned(), (*name).to_owned());
            return Err(WeightsError::Overlap { file, first, second });
        }
        if span.start > filled || span.end < span.start {
            return Err(WeightsError::Offsets { file: file.to_owned(), name: (*name).to_owned() });
        }
        if span.end > data_bytes as u64 {
            let (file, name) = (file.to_owned(), (*name).to_owned());
            return Err(WeightsError::TruncatedTensor {
                file,
                name,
                end: span.end,
                bytes: data_bytes as u64,
            });
        }
        (filled, previous) = (span.end, name);
    }
    if filled < data_bytes as u64 {
        let bytes = data_bytes as u64 - filled;
        return Err(WeightsError::TrailingBytes { file: file.to_owned(), bytes });
    }
    Ok(())
}

/// Checks one tensor's length against its shape. The caller has checked that its offsets lie within `data`.
fn entry(file: &str, name: String, description: Description, data: &Bytes) -> Result<Entry, WeightsError> {
    let [start, end] = description.data_offsets;
    let found = end - start;
    let expected = expected_bytes(&description.dtype, &description.shape);
    if expected != Some(found) {
        let (file, dtype, mut shape) = (file.to_owned(), description.dtype, description.shape);
        // enough to show that there are too many
        shape.truncate(RANK_MAX + 1);
        return Err(WeightsError::TensorBytes { file, name, dtype, shape, found });
    }
    Ok(Entry {
        name,
        dtype: description.dtype,
        // each dimension is at most the number of bytes, unless another is zero: then the tensor is empty
        shape: description.shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect(),
        bytes: data.slice(start as usize..end as usize),
    })
}

/// Returns the bytes of a tensor; `None` for an unknown dtype, too many dimensions or an overflow.
fn expected_bytes(dtype: &str, shape: &[u64]) -> Option<u64> {
    let value_bytes = match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => 1,
        "U16" | "I16" | "F16" | "BF16" => 2,
        "U32" | "I32" | "F32" => 4,
        "U64" | "I64" | "F64" => 8,
        _ => return None,
    };
    if shape.len() > RANK_MAX {
        return None;
    }
    shape.iter().try_fold(value_bytes, |bytes: u64, &dim| bytes.checked_mul(dim))
}
