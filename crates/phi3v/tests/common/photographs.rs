//! Photographs of phones beside what a well-known decoder reads from them.

use super::repository;
use phi3v::image::{ImageLimits, RgbImage};
use std::path::PathBuf;

/// Enough for all of them.
pub const LIMITS: ImageLimits =
    ImageLimits { bytes_max: 1 << 20, pixels_max: 1 << 20, side_max: 4096, frames_max: 100 };

/// Those of a format, by the ending of their names.
pub struct Photographs(pub &'static str);

impl Photographs {
    fn folder(&self) -> PathBuf {
        repository().join("testdata").join(self.0)
    }

    /// A file.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder().join(name)).unwrap()
    }

    /// The names of all files without their ending, of which there are so many at least.
    pub fn names(&self, least: usize) -> Vec<String> {
        let paths = std::fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path());
        let is_one = |path: &PathBuf| path.extension().is_some_and(|extension| extension == self.0);
        let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<String> = paths.filter(is_one).map(name).collect();
        names.sort();
        assert!(names.len() >= least, "{names:?}");
        names
    }

    /// A file with bytes changed that occur once.
    pub fn changed(&self, name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes(name);
        let found = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[found..found + to.len()].copy_from_slice(to);
        bytes
    }
}

/// The largest difference of a value.
pub fn largest(ours: &RgbImage, theirs: &RgbImage) -> u8 {
    assert_eq!((ours.width, ours.height), (theirs.width, theirs.height));
    ours.pixels.iter().zip(&theirs.pixels).map(|(ours, theirs)| ours.abs_diff(*theirs)).max().unwrap()
}
