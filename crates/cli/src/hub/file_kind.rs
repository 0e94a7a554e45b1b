//! Detects what a file is that was given as a model, by its first bytes: people mistake many kinds of files for models.

use phi3v::weights::shards;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes needed to detect a file's kind; a tar archive's signature comes last.
const HEAD_BYTES: u64 = 512;

/// The kind of a file given as a model, detected by its first bytes and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// Tensors, or a whole model made by `phi3v quantize`.
    Safetensors,
    /// One file of a checkpoint that has several, or its configuration.
    Part,
    /// A model in the format of llama.cpp.
    Gguf,
    /// A pickle, or a ZIP archive with one.
    PyTorch,
    /// Another framework's weights, by name.
    Weights(&'static str),
    /// A picture, by format.
    Picture(&'static str),
    /// A packed folder, by format.
    Archive(&'static str),
    /// A Git LFS pointer in place of a large file.
    LfsPointer,
    /// A web page in place of a download.
    WebPage,
    /// Any other document, by name.
    Document(&'static str),
    /// Readable text.
    Text,
    /// An empty file.
    Empty,
    /// A pipe, a socket or a device.
    NotRegular,
    /// Anything else.
    Unknown,
}

/// Signatures at the beginning of files.
const MAGIC: [(&[u8], FileKind); 26] = [
    (b"GGUF", FileKind::Gguf),
    (b"lmgg", FileKind::Weights("an old GGML file")),
    (b"tjgg", FileKind::Weights("an old GGML file")),
    (b"\x89HDF\r\n\x1a\n", FileKind::Weights("an HDF5 file")),
    (b"\x93NUMPY", FileKind::Weights("a NumPy file")),
    (b"\x80\x02", FileKind::PyTorch),
    (b"\x80\x04", FileKind::PyTorch),
    (b"\x89PNG\r\n\x1a\n", FileKind::Picture("PNG")),
    (b"\xff\xd8\xff", FileKind::Picture("JPEG")),
    (b"GIF8", FileKind::Picture("GIF")),
    (b"BM", FileKind::Picture("BMP")),
    (b"II*\0", FileKind::Picture("TIFF")),
    (b"MM\0*", FileKind::Picture("TIFF")),
    (b"\0\0\x01\0", FileKind::Picture("ICO")),
    (b"\xff\x0a", FileKind::Picture("JPEG XL")),
    (b"\0\0\0\x0cJXL ", FileKind::Picture("JPEG XL")),
    (b"\x1f\x8b", FileKind::Archive("gzip")),
    (b"\x28\xb5\x2f\xfd", FileKind::Archive("zstd")),
    (b"\xfd7zXZ\0", FileKind::Archive("xz")),
    (b"7z\xbc\xaf\x27\x1c", FileKind::Archive("7z")),
    (b"BZh", FileKind::Archive("bzip2")),
    (b"%PDF", FileKind::Document("a PDF document")),
    (b"\x7fELF", FileKind::Document("a program")),
    (b"MZ", FileKind::Document("a program")),
    (b"version https://git-lfs.github.com/spec", FileKind::LfsPointer),
    (b"\x1aE\xdf\xa3", FileKind::Document("a video")),
];

impl FileKind {
    /// Examines the file at `path`; a pipe is not opened.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        if !std::fs::metadata(path)?.is_file() {
            return Ok(Self::NotRegular);
        }
        let mut head = Vec::new();
        File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self::of_head(&name, &head))
    }

    /// The kind of a file named `name` that begins with `head`.
    fn of_head(name: &str, head: &[u8]) -> Self {
        let brand = |at: usize, brand: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(brand));
        match head {
            [] => Self::Empty,
            _ if is_safetensors(head) => {
                if is_shard(name) {
                    Self::Part
                } else {
                    Self::Safetensors
                }
            }
            [b'{', ..] if is_configuration(name) => Self::Part,
            _ if brand(0, b"RIFF") && brand(8, b"WEBP") => Self::Picture("WebP"),
            _ if brand(4, b"ftyp") => media(head),
            _ if brand(257, b"ustar") => Self::Archive("tar"),
            _ if brand(0, b"PK\x03\x04") => zip(head),
            _ => match MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
                Some((_, kind)) => *kind,
                None => text(name, head),
            },
        }
    }

    /// Why the file cannot be run, worded to follow [`Self::words`]: some kinds are models.
    #[must_use]
    pub fn verdict(self) -> &'static str {
        match self {
            Self::Gguf | Self::PyTorch | Self::Weights(_) => "which phi3v does not read",
            _ => "and no model",
        }
    }

    /// The kind in words, with an article, as part of a sentence: `a PNG picture`.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Safetensors => "a safetensors file".to_owned(),
            Self::Part => "one file of a checkpoint, which has several".to_owned(),
            Self::Gguf => "a GGUF file".to_owned(),
            Self::PyTorch => "a PyTorch file".to_owned(),
            Self::Weights(name) | Self::Document(name) => name.to_owned(),
            Self::Picture(format) => format!("a {format} picture"),
            Self::Archive(format) => format!("a packed file ({format})"),
            Self::LfsPointer => "a Git LFS pointer, in place of a file that was not fetched".to_owned(),
            Self::WebPage => "a web page".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Empty => "an empty file".to_owned(),
            Self::NotRegular => "neither a file nor a folder".to_owned(),
            Self::Unknown => "no file of a model that phi3v knows".to_owned(),
        }
    }
}

/// Whether the name is like `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    name.starts_with("model-") && name.contains("-of-")
}

/// Whether the name is that of a JSON file that accompanies the weights.
fn is_configuration(name: &str) -> bool {
    let names = ["config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json"];
    names.contains(&name) || name == shards::INDEX_FILE
}

/// Whether `head` is a header's length, followed by a JSON header.
fn is_safetensors(head: &[u8]) -> bool {
    let Some((length, header)) = head.split_first_chunk::<8>() else { return false };
    (2..1 << 32).contains(&u64::from_le_bytes(*length)) && header.starts_with(b"{")
}

/// The kind of an ISO media file: a phone's picture, or a video.
fn media(head: &[u8]) -> FileKind {
    match head.get(8..12).unwrap_or_default() {
        b"heic" | b"heix" | b"mif1" | b"msf1" | b"hevc" => FileKind::Picture("HEIC"),
        b"avif" | b"avis" => FileKind::Picture("AVIF"),
        _ => FileKind::Document("a video"),
    }
}

/// The kind of a ZIP archive; PyTorch's archives begin with the pickle.
fn zip(head: &[u8]) -> FileKind {
    let has = |name: &[u8]| head.windows(name.len()).any(|part| part == name);
    if has(b"data.pkl") {
        FileKind::PyTorch
    } else if has(b".npy") {
        FileKind::Weights("a NumPy file")
    } else {
        FileKind::Archive("ZIP")
    }
}

/// The kind of a text file, if it is one.
fn text(name: &str, head: &[u8]) -> FileKind {
    if name.ends_with(".onnx") {
        return FileKind::Weights("an ONNX file");
    }
    // the head may end within a character
    let whole = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return FileKind::Unknown,
    };
    if whole.contains(|letter: char| letter.is_control() && !letter.is_whitespace()) {
        return FileKind::Unknown;
    }
    let start = whole.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        return FileKind::WebPage;
    }
    if start.starts_with("<svg") || start.contains("<svg ") {
        FileKind::Picture("SVG")
    } else {
        FileKind::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        let mut tar = vec![0; 300];
        tar[257..262].copy_from_slice(b"ustar");
        for (name, head, kind) in [
            ("phi-3.5-vision.gguf", &b"GGUF\x03\0\0\0"[..], FileKind::Gguf),
            ("renamed.safetensors", b"GGUF\x03\0\0\0", FileKind::Gguf),
            ("q8.bin", b"\x02\0\0\0\0\0\0\0{}", FileKind::Safetensors),
            ("model-00001-of-00002.safetensors", b"\x02\0\0\0\0\0\0\0{}", FileKind::Part),
            ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", FileKind::Safetensors),
            ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", FileKind::LfsPointer),
            ("config.json", b"{}", FileKind::Part),
            ("pytorch_model.bin", b"\x80\x02}q", FileKind::PyTorch),
            ("model.pt", b"PK\x03\x04....archive/data.pkl", FileKind::PyTorch),
            ("a.zip", b"PK\x03\x04....a/b.txt", FileKind::Archive("ZIP")),
            ("a.tar", &tar, FileKind::Archive("tar")),
            ("a.heic", b"\0\0\0\x18ftypheic", FileKind::Picture("HEIC")),
            ("a.mp4", b"\0\0\0\x18ftypisom", FileKind::Document("a video")),
            ("a.webp", b"RIFF\0\0\0\0WEBP", FileKind::Picture("WebP")),
            ("a.html", b"\xef\xbb\xbf<!DOCTYPE HTML><p>", FileKind::WebPage),
            ("model", b"version https://git-lfs.github.com/spec/v1\n", FileKind::LfsPointer),
            ("notes.txt", "über\nalles".as_bytes(), FileKind::Text),
            ("cut.txt", &"aé".as_bytes()[..2], FileKind::Text),
            ("noise", b"\xff\xfe\xfd\0", FileKind::Unknown),
            ("nothing", b"", FileKind::Empty),
        ] {
            assert_eq!(FileKind::of_head(name, head), kind, "{name}");
        }
    }

    #[test]
    fn a_kind_is_a_part_of_a_sentence() {
        assert_eq!(FileKind::Picture("PNG").words(), "a PNG picture");
    }
}
