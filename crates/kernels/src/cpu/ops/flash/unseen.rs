//! Non-finite values in rows that do not see them.
//!
//! Several rows are multiplied together with the values of all keys that the last row sees; rows that see fewer keys
//! have weights of zero for the others. Zero times infinity or NaN is NaN. Non-finite values are therefore removed
//! from the panels before the product, and their contributions are added afterwards to the rows that see them.

use crate::KV_BLOCK_TOKENS;
use std::ops::Range;

/// The exponent with all bits set: infinity or NaN.
const EXPONENT: u32 = 0x7f80_0000;

/// The half of a word that holds the second value of a pair.
const SECOND: u32 = 0xffff_0000;

/// The layout of values in panels, `[64 / group tokens, dim, group]`, and of weights in a row, `[tokens / group,
/// group]`.
#[derive(Clone, Copy)]
pub(super) struct ValueShape {
    pub(super) dim: usize,
    /// Values in a word of the panels: 1 (f32) or 2 (bf16).
    pub(super) group: usize,
    /// Weights in a word.
    pub(super) weight_group: usize,
}

/// Copies of panels of values, with only finite values.
pub(super) struct FinitePanels {
    shape: ValueShape,
    panels: Vec<Vec<u32>>,
    taken: Vec<Taken>,
}

/// A value that was removed.
struct Taken {
    /// Counted from the first of the panels.
    token: usize,
    column: usize,
    value: f32,
}

impl ValueShape {
    /// Returns the rows of words that hold the tokens `tokens` in panel `panel`, including tokens that share words
    /// with them.
    fn rows(self, panel: usize, tokens: &Range<usize>) -> Range<usize> {
        let within = |token: usize| token.saturating_sub(panel * KV_BLOCK_TOKENS).min(KV_BLOCK_TOKENS);
        within(tokens.start) / self.group..within(tokens.end).div_ceil(self.group)
    }

    fn are_finite(self, words: &[u32]) -> bool {
        let (low, pairs) = (EXPONENT >> 16, self.group == 2);
        let is_broken = |word: u32| (word & EXPONENT == EXPONENT) | (pairs & (word & low == low));
        !words.iter().fold(false, |any, &word| any | is_broken(word))
    }
}

/// Returns the mask of value number `i` in a word of `group` values.
fn mask(group: usize, i: usize) -> u32 {
    match (group, i) {
        (1, _) => u32::MAX,
        (_, 0) => !SECOND,
        _ => SECOND,
    }
}

/// Returns value number `i` of a word of `group` values.
fn value(word: u32, group: usize, i: usize) -> f32 {
    let mask = mask(group, i);
    let bits = word & mask;
    f32::from_bits(if mask == !SECOND { bits << 16 } else { bits })
}

impl FinitePanels {
    /// Returns `panels` without the non-finite values of `tokens`, counted from the first token of the first panel;
    /// `None` if all values are finite.
    pub(super) fn of(panels: &[&[u32]], tokens: &Range<usize>, shape: ValueShape) -> Option<Self> {
        let ValueShape { dim, group, .. } = shape;
        let part = |i: usize| shape.rows(i, tokens).start * dim..shape.rows(i, tokens).end * dim;
        if panels.iter().enumerate().all(|(i, panel)| shape.are_finite(&panel[part(i)])) {
            return None;
        }
        let mut found =
            Self { shape, panels: panels.iter().map(|panel| panel.to_vec()).collect(), taken: Vec::new() };
        for (panel, words) in found.panels.iter_mut().enumerate() {
            for at in part(panel) {
                for i in 0..group {
                    let value = value(words[at], group, i);
                    if !value.is_finite() {
                        let token = panel * KV_BLOCK_TOKENS + at / dim * group + i;
                        found.taken.push(Taken { token, column: at % dim, value });
                        words[at] &= !mask(group, i);
                    }
                }
            }
        }
        Some(found)
    }

    /// Returns the panels.
    pub(super) fn panels(&self) -> Vec<&[u32]> {
        self.panels.iter().map(Vec::as_slice).collect()
    }

    /// Adds the contributions of the removed values to the sums, `[dim]`, of a row that sees the first `seen` tokens.
    pub(super) fn add_taken(&self, seen: usize, weights: &[u32], sums: &mut [f32]) {
        for &Taken { token, column, value } in self.taken.iter().filter(|taken| taken.token < seen) {
            let group = self.shape.weight_group;
            sums[column] += self::value(weights[token / group], group, token % group) * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn only_what_is_not_finite_is_taken_out_and_added_to_rows_that_see_it() {
        for group in [1, 2] {
            let shape = ValueShape { dim: 16, group, weight_group: 1 };
            let mut values = vec![1.0f32; 2 * KV_BLOCK_TOKENS * 16];
            (values[70 * 16 + 3], values[71 * 16 + 9]) = (f32::INFINITY, f32::NAN);
            // `[tokens / group, dim, group]`
            let word = |(row, column): (usize, usize)| match group {
                1 => values[row * 16 + column].to_bits(),
                _ => [1, 0].into_iter().fold(0, |word, i| {
                    word << 16 | u32::from(bf16::from_f32(values[(2 * row + i) * 16 + column]).to_bits())
                }),
            };
            let places =
                (0..2 * KV_BLOCK_TOKENS / group).flat_map(|row| (0..16).map(move |column| (row, column)));
            let words: Vec<u32> = places.map(word).collect();
            let (first, second) = words.split_at(words.len() / 2);
            let panels = [first, second];
            assert!(FinitePanels::of(&panels, &(0..70), shape).is_none());
            assert!(FinitePanels::of(&panels, &(72..128), shape).is_none());
            let finite = FinitePanels::of(&panels, &(60..90), shape).unwrap();
            let taken: Vec<_> = finite.taken.iter().map(|taken| (taken.token, taken.column)).collect();
            assert_eq!(taken, [(70, 3), (71, 9)]);
            assert!(finite.panels().iter().all(|panel| shape.are_finite(panel)));
            let changed = |(a, b): (&&[u32], &&[u32])| a.iter().zip(*b).filter(|(a, b)| a != b).count();
            assert_eq!(panels.iter().zip(&finite.panels()).map(changed).sum::<usize>(), 2);
            for (seen, infinite, broken) in [(70, false, false), (71, true, false), (72, true, true)] {
                for (weight_group, word) in [(1, 0.5f32.to_bits()), (2, 0x3f00_3f00)] {
                    let (mut sums, shape) = ([0.0; 16], ValueShape { weight_group, ..shape });
                    let finite = FinitePanels::of(&panels, &(60..90), shape).unwrap();
                    finite.add_taken(seen, &vec![word; 128 / weight_group], &mut sums);
                    assert_eq!((sums[3] == f32::INFINITY, sums[9].is_nan()), (infinite, broken), "{seen}");
                }
            }
        }
    }
}
