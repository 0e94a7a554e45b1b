//! What the self-test found of a card, and the file that keeps it.

use crate::compiler::Compiler;
use crate::kernel::{Kernel, all};
use crate::{Adapter, ManyRowsTimes};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the kernels of a card did when they were tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first operation whose result is wrong, for which the card is not used, or not by its matrix units.
    pub(crate) wrong: Option<String>,
    /// The first operation whose rows have other bits by one kernel than by another, though all are right.
    pub(crate) bits_differ: Option<String>,
    /// What many rows take, on a card whose matrix units compute rightly.
    pub(crate) times: Option<ManyRowsTimes>,
}

impl Found {
    /// A line for each thing that was found, and the word `right` where all results are.
    fn text(&self) -> String {
        let Self { wrong, bits_differ, times } = self;
        let mut lines = vec![wrong.as_ref().map_or("right".to_owned(), |what| format!("wrong {what}"))];
        lines.extend(bits_differ.iter().map(|what| format!("differ {what}")));
        let nanos = |time: Duration| time.as_nanos();
        lines.extend(times.map(|times| format!("times {} {}", nanos(times.dot4), nanos(times.units))));
        lines.join("\n")
    }

    /// What [`text`](Self::text) made, and nothing else.
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

    /// Whether it has everything that is found of a card with matrix units, or of one without.
    pub(crate) fn is_whole(&self, units: bool) -> bool {
        self.wrong.is_some() || self.times.is_some() == units
    }

    /// What was kept, if it is there and undamaged.
    pub(crate) fn kept(path: &Path) -> Option<Self> {
        Self::parse(&String::from_utf8(crate::kept::read(path)?).ok()?)
    }

    /// Keeps it for the next start, which tries the kernels again where the file could not be written.
    pub(crate) fn keep(&self, path: &Path) {
        let _ = crate::kept::write(path, self.text().as_bytes());
    }
}

/// The file for a card, with matrix units or without, its driver and this program's version and kernels, and what compiles them.
pub(crate) fn path(folder: &Path, card: &Adapter, units: bool) -> PathBuf {
    let kernels = all(card.matrix_units.filter(|_| units).as_slice());
    let kernels = kernels_sum(&kernels, card.compiler.as_ref());
    let units = if units { "units" } else { "dot4" };
    let version = env!("CARGO_PKG_VERSION");
    let words = [&card.name, &card.driver, &card.api, version, units, &kernels].join(" ");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    folder.join(words.chars().map(plain).collect::<String>() + ".self-test")
}

/// By which kernels are told from those of another build of the same version, and from what another compiler makes of them.
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
