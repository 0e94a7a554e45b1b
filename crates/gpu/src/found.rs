//! The results of a card's self-test, and the file that stores them.

use crate::compiler::Compiler;
use crate::kernel::{Kernel, all};
use crate::{Adapter, ManyRowsTimes};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The results of a card's self-test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first operation with a wrong result. The card, or its matrix units, are then not used.
    pub(crate) wrong: Option<String>,
    /// The first operation whose rows have different bits in one kernel than in another, though all are correct.
    pub(crate) bits_differ: Option<String>,
    /// The times for many rows, on a card whose matrix units compute correctly.
    pub(crate) times: Option<ManyRowsTimes>,
}

impl Found {
    /// Returns a line for each finding, and the word `right` if all results are.
    fn text(&self) -> String {
        let Self { wrong, bits_differ, times } = self;
        let mut lines = vec![wrong.as_ref().map_or("right".to_owned(), |what| format!("wrong {what}"))];
        lines.extend(bits_differ.iter().map(|what| format!("differ {what}")));
        let nanos = |time: Duration| time.as_nanos();
        lines.extend(times.map(|times| format!("times {} {}", nanos(times.dot4), nanos(times.units))));
        lines.join("\n")
    }

    /// Parses the output of [`text`](Self::text), and nothing else.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let wrong = match lines.next()? {
            "right" => None,
            line => Some(line.strip_prefix("wrong ")?.to_owned()),
        };
        let mut found = Self { wrong, ..Self::default() };
        for line in lines {
            match line.split_once(' ')? {
                ("differ", what) => found.bits_differ = Some(what.to_owned()),
                ("times", times) => {
                    let (dot4, units) = times.split_once(' ')?;
                    let [dot4, units] =
                        [dot4, units].map(|nanos| nanos.parse().ok().map(Duration::from_nanos));
                    found.times = Some(ManyRowsTimes { dot4: dot4?, units: units? });
                }
                _ => return None,
            }
        }
        Some(found)
    }

    /// Returns whether the result is complete, for a card with matrix units or without.
    pub(crate) fn is_whole(&self, units: bool) -> bool {
        self.wrong.is_some() || self.times.is_some() == units
    }

    /// Reads the stored result, if it exists and is undamaged.
    pub(crate) fn kept(path: &Path) -> Option<Self> {
        Self::parse(&String::from_utf8(crate::kept::read(path)?).ok()?)
    }

    /// Stores the result for the next start. If the file cannot be written, the next start tests the kernels again.
    pub(crate) fn keep(&self, path: &Path) {
        let _ = crate::kept::write(path, self.text().as_bytes());
    }
}

/// Returns the path of the file for a card: with matrix units or without, its driver, its compiler, and this program's
/// version and kernels.
pub(crate) fn path(folder: &Path, card: &Adapter, units: bool) -> PathBuf {
    let kernels = all(card.matrix_units.filter(|_| units).as_slice());
    let kernels = kernels_sum(&kernels, card.compiler.as_ref());
    let units = if units { "units" } else { "dot4" };
    let version = env!("CARGO_PKG_VERSION");
    let words = [&card.name, &card.driver, &card.api, version, units, &kernels].join(" ");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    folder.join(words.chars().map(plain).collect::<String>() + ".self-test")
}

/// Returns a sum that distinguishes the kernels from those of another build of the same version, and from another
/// compiler's output.
fn kernels_sum(kernels: &[Kernel], compiler: Option<&Compiler>) -> String {
    let mut texts: String = kernels.iter().map(|kernel| kernel.source()).collect();
    texts.extend(compiler.map(Compiler::key));
    format!("{:016x}", u64::from_le_bytes(crate::kept::sum(texts.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kernels_and_those_by_another_compiler_are_tried_anew() {
        let sum_of = |kernels: &[Kernel]| kernels_sum(kernels, None);
        let sum = sum_of(&all(&[]));
        assert_eq!((sum_of(&all(&[])), sum.len()), (sum.clone(), 16));
        let [first, second] = [8, 16].map(|tile| crate::MatrixUnits { tile, lanes: 32, vectors: true });
        let by_fxc = kernels_sum(&all(&[]), Some(&Compiler::Fxc));
        let (path, modified) = ("C:\\dxcompiler.dll".to_owned(), None);
        let by_dxc = |bytes| {
            let compiler = Compiler::Dxc { path: path.clone(), bytes, modified };
            kernels_sum(&all(&[]), Some(&compiler))
        };
        let others = [sum_of(&all(&[first])), sum_of(&all(&[second])), sum_of(&[Kernel::Norm])];
        let sums: Vec<_> = others.into_iter().chain([sum, by_fxc, by_dxc(1), by_dxc(2)]).collect();
        assert!(sums.iter().enumerate().all(|(i, sum)| !sums[..i].contains(sum)), "{sums:?}");
    }

    #[test]
    fn what_was_found_is_read_as_it_was_written() {
        let what = |words: &str| Some(words.to_owned());
        for found in [
            Found::default(),
            Found { wrong: what("a norm"), ..Found::default() },
            Found { bits_differ: what("a Q8 product of 1 row and of 20 rows"), ..Found::default() },
            Found {
                times: Some(ManyRowsTimes {
                    dot4: Duration::from_micros(3),
                    units: Duration::from_nanos(17),
                }),
                bits_differ: what("a norm"),
                wrong: None,
            },
        ] {
            assert_eq!(Found::parse(&found.text()), Some(found));
        }
        for text in
            ["", "a norm", "right\nsomething else", "right\ndiffer", "right\ntimes 3", "right\ntimes 3 x"]
        {
            assert_eq!(Found::parse(text), None, "{text}");
        }
    }
}
