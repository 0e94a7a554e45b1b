//! The columns that a task of a packed product computes.

use crate::Epilogue;
use crate::quant::{GROUP, PANEL};
use std::ops::Range;

/// Columns of one panel that a task needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) panel: usize,
    /// Columns within the panel.
    pub(super) columns: Range<usize>,
}

/// Returns the panels that contain the weight rows `rows`.
fn parts_of(rows: &Range<usize>) -> impl Iterator<Item = Part> {
    let Range { start, end } = *rows;
    (start / PANEL..end.div_ceil(PANEL)).map(move |panel| {
        let first = panel * PANEL;
        Part { panel, columns: start.max(first) - first..end.min(first + PANEL) - first }
    })
}

/// Maximum number of columns that a task computes: a group, if they are quantized.
pub(super) const WIDTH_MAX: usize = GROUP;
/// Maximum number of panels that a task needs: two for gate, and three for up if `n/2` is not a multiple of 64.
pub(super) const PARTS_MAX: usize = 2 * WIDTH_MAX / PANEL + 1;

/// What one task computes: up to 64 or 128 columns of `out`, from the panels of those columns, or of their gate and
/// up rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) out: Range<usize>,
    pub(super) parts: [Part; PARTS_MAX],
    pub(super) count: usize,
}

impl Columns {
    /// Returns the columns of task `task` of a product with `n` weight rows, cut into tasks of `width` columns.
    pub(super) fn new(n: usize, epilogue: Epilogue, width: usize, task: usize) -> Self {
        let cols = epilogue.out_cols(n);
        let out = task * width..cols.min((task + 1) * width);
        let ups = if epilogue.is_gated() { cols + out.start..cols + out.end } else { 0..0 };
        let (mut parts, mut count) = (<[Part; PARTS_MAX]>::default(), 0);
        for part in parts_of(&out).chain(parts_of(&ups)) {
            parts[count] = part;
            count += 1;
        }
        Self { out, parts, count }
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts[..self.count]
    }

    /// Returns the range of the columns in row `row` of an output of `cols` columns.
    pub(super) fn of_row(&self, row: usize, cols: usize) -> Range<usize> {
        row * cols + self.out.start..row * cols + self.out.end
    }

    /// Returns whether the parts' columns are contiguous in `[parts * 64]` sums, as they are in the output.
    pub(super) fn are_gapless(&self) -> bool {
        let (last, first) = self.parts().split_last().expect("a task has a part");
        last.columns.start == 0 && first.iter().all(|part| part.columns == (0..PANEL))
    }

    /// Copies the task's columns from a row of sums, `[parts * 64]`.
    pub(super) fn join<'a>(&self, sums: &[f32], out: &'a mut [f32; 2 * WIDTH_MAX]) -> &'a [f32] {
        let mut width = 0;
        for (part, sums) in self.parts().iter().zip(sums.chunks_exact(PANEL)) {
            let values = &sums[part.columns.clone()];
            out[width..width + values.len()].copy_from_slice(values);
            width += values.len();
        }
        &out[..width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_cover_every_weight_row_once() {
        use Epilogue::{SiluMul, Store};
        for (n, epilogue) in [
            (64, Store),
            (100, Store),
            (1, Store),
            (128, SiluMul),
            (16_384, SiluMul),
            (500, SiluMul),
            (2, SiluMul),
        ] {
            let cols = epilogue.out_cols(n);
            for width in [PANEL, GROUP] {
                let (mut rows, mut outs) = (vec![0; n], vec![0; cols]);
                for columns in (0..cols.div_ceil(width)).map(|task| Columns::new(n, epilogue, width, task)) {
                    for part in columns.parts() {
                        part.columns.clone().for_each(|c| rows[part.panel * PANEL + c] += 1);
                    }
                    columns.out.for_each(|c| outs[c] += 1);
                }
                assert!(rows.iter().chain(&outs).all(|&times| times == 1), "{n} {epilogue:?} {width}");
            }
        }
    }

    #[test]
    fn gates_come_before_their_ups() {
        let columns = Columns::new(200, Epilogue::SiluMul, PANEL, 0);
        let part = |panel, columns| Part { panel, columns };
        assert_eq!(columns.parts(), [part(0, 0..64), part(1, 36..64), part(2, 0..36)]);
        let columns = Columns::new(512, Epilogue::SiluMul, GROUP, 1);
        assert_eq!(columns.parts(), [2, 3, 6, 7].map(|panel| part(panel, 0..64)));
    }
}
