//! The results of measuring a model.

/// What a figure measures, which determines the unit of its value and the meaning of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Tokens of a prompt per second; the size is the prompt's length.
    Prefill,
    /// Tokens of an answer per second; the size is the number of tokens before it.
    Decode,
    /// Total tokens per second of 16 answers that decode together; the size is the number of tokens before each, held by each
    /// separately.
    Decode16,
    /// Milliseconds of the vision tower and projector; the size is the number of tiles.
    Vision,
    /// Seconds from the decoded picture to the first token; the size is the prompt's length.
    FirstToken,
    /// Seconds to the first token of another question about the same picture; the size is the number of its tokens.
    NextQuestion,
    /// Seconds from the weights' file, or from weights in memory, to a loaded model.
    Load,
    /// Peak memory of the process in GB, excluding decoding after made-up tokens.
    PeakRss,
}

impl Name {
    /// The name in reports, which is stable across versions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Decode16 => "decode_16",
            Self::Vision => "vision",
            Self::FirstToken => "first_token",
            Self::NextQuestion => "next_question",
            Self::Load => "load",
            Self::PeakRss => "peak_rss",
        }
    }

    /// The unit of the values in reports: tokens per second, time or memory.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Prefill | Self::Decode | Self::Decode16 => "tok/s",
            Self::Vision => "ms",
            Self::FirstToken | Self::NextQuestion | Self::Load => "s",
            Self::PeakRss => "GB",
        }
    }
}

/// Seconds of the readings of one figure, in ascending order, at least one.
#[derive(Clone, Debug)]
pub(super) struct Readings(Vec<f64>);

impl Readings {
    pub(super) fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    pub(super) fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// The figure computed by `value` from seconds; `seconds_at_limit` is the time at the machine's limits.
    pub(super) fn figure(
        &self,
        name: Name,
        size: usize,
        value: impl Fn(f64) -> f64,
        seconds_at_limit: Option<f64>,
    ) -> Figure {
        let quarter = self.0.len() / 4;
        let [a, b] = [self.0[quarter], self.0[self.0.len() - 1 - quarter]].map(&value);
        Figure {
            name,
            size,
            value: value(self.median()),
            quartiles: [a.min(b), a.max(b)],
            readings: self.0.len(),
            share: seconds_at_limit.map(|seconds| seconds / self.median()),
        }
    }
}

/// A measured figure: what it measures, its size, its value, and its share of the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What the figure measures, including its unit.
    pub name: Name,
    /// Tokens, depth or tiles.
    pub size: usize,
    /// The median of the readings, in the unit of [`Name::unit`].
    pub value: f64,
    /// The quartiles of the readings; of up to three, the lowest and highest.
    pub quartiles: [f64; 2],
    /// The number of readings.
    pub readings: usize,
    /// The share of the measured limit, if there is one.
    pub share: Option<f64>,
}

impl Figure {
    /// A figure with one reading and no limit.
    pub(super) fn single(name: Name, value: f64) -> Self {
        Self { name, size: 0, value, quartiles: [value; 2], readings: 1, share: None }
    }
}

/// A figure that was not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What it would have measured.
    pub name: Name,
    /// Its size: tokens or pictures, as in [`Figure`].
    pub size: usize,
    /// Why it was not measured.
    pub reason: Reason,
}

/// Why a figure was not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The keys and values of earlier tokens need more memory than allowed.
    Memory {
        /// The bytes they need.
        needed_bytes: u64,
        /// The bytes they may use, if known.
        limit_bytes: Option<u64>,
    },
    /// The system does not report it.
    NotTold,
}

/// A result, reported as soon as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    /// A figure was measured.
    Figure(Figure),
    /// A figure was not measured.
    LeftOut(LeftOut),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_with_the_quartiles_of_its_readings() {
        let rate = |seconds: f64| 60.0 / seconds;
        let of = |seconds: &[f64]| Readings::new(seconds.to_vec()).figure(Name::Prefill, 60, rate, Some(1.0));
        let three = of(&[3.0, 2.0, 4.0]);
        assert_eq!((three.value, three.quartiles, three.readings), (20.0, [15.0, 30.0], 3));
        assert_eq!(three.share, Some(1.0 / 3.0));
        let one = of(&[2.0]);
        assert_eq!((one.value, one.quartiles, one.readings), (30.0, [30.0, 30.0], 1));
        let twelve: Vec<f64> = (1..=12).map(f64::from).collect();
        assert_eq!(of(&twelve).quartiles, [60.0 / 9.0, 60.0 / 4.0]);
    }
}
