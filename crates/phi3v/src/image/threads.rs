//! Splits rows of pixels over the cores. Every row is computed independently, so results do not depend on the split.

use crate::threads::for_each;
use std::num::NonZero;

/// Below this number of output bytes, a thread costs more than it saves (a thread starts in about 20 us, a byte takes
/// about 1 ns).
const BYTES_PER_THREAD: usize = 256 << 10;
/// Preprocessing is short compared with the model: more threads than this do not pay off.
const THREADS_MAX: usize = 8;

/// Calls `work(first_row, rows)` on bands of whole rows that cover `out`, on several threads if that is faster.
///
/// `out` is `[rows, row_bytes]`.
pub(super) fn for_each_band<T: Send>(out: &mut [T], row_len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let rows = out.len() / row_len;
    let threads = threads_for(std::mem::size_of_val(out)).min(rows.max(1));
    if threads == 1 {
        return work(0, out);
    }
    let band_rows = rows.div_ceil(threads);
    let bands = out.chunks_mut(band_rows * row_len).enumerate();
    for_each(threads, bands, |(i, band)| work(i * band_rows, band));
}

fn threads_for(bytes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    (bytes / BYTES_PER_THREAD).clamp(1, cores.min(THREADS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_every_row_once() {
        for rows in [1, 2, 7, 1000] {
            let row_len = 3 * 401;
            let mut out = vec![0_u8; rows * row_len];
            for_each_band(&mut out, row_len, |first, band| {
                for (i, row) in band.chunks_exact_mut(row_len).enumerate() {
                    row.iter_mut().for_each(|v| *v += 1 + ((first + i) % 100) as u8);
                }
            });
            for (i, row) in out.chunks_exact(row_len).enumerate() {
                assert!(row.iter().all(|v| *v == 1 + (i % 100) as u8));
            }
        }
    }
}
