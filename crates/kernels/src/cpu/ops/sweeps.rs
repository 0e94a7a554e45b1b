//! How the rows of a packed product are cut: each task multiplies the panels of some columns with the rows of one
//! sweep.
//!
//! Results do not depend on the cut: each row is computed independently of the others.

/// Tasks per thread with which the last ones hardly matter: with one task more than threads can share evenly, an
/// eighth is lost.
const TASKS_ENOUGH: usize = 8;

/// Minimum number of chunks of a sweep that is cut only to feed the threads. Unpacking a q4 panel takes about a fifth
/// of the time of a chunk, so with this minimum it is 5 % of the work.
const CHUNKS_MIN: usize = 4;

/// A product of many rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweeps {
    /// Rows of the input.
    pub(super) rows: usize,
    /// Rows whose input stays in cache while the panels pass; a multiple of `chunk_rows`.
    pub(super) cached_rows: usize,
    /// Rows that a task computes at a time.
    pub(super) chunk_rows: usize,
    /// Tasks per sweep.
    pub(super) tasks: usize,
}

impl Sweeps {
    /// Returns the rows of each sweep: as many as the cache allows, or few enough to keep `threads` threads busy.
    pub(super) fn rows_for(&self, threads: usize) -> usize {
        let Self { rows, cached_rows, chunk_rows, tasks } = *self;
        let fewest = rows.div_ceil(cached_rows);
        if tasks * fewest >= TASKS_ENOUGH * threads {
            return cached_rows;
        }
        let most = (rows / (CHUNKS_MIN * chunk_rows)).max(fewest);
        // in twentieths of a row: what the busiest thread computes, plus a fifth of a chunk for each of its panels,
        // plus a quarter of a task for threads that fall behind
        let cost = |sweep: &usize| {
            let of_busiest = (tasks * rows.div_ceil(*sweep)).div_ceil(threads);
            of_busiest * (20 * sweep + 4 * chunk_rows) + 5 * sweep
        };
        let cuts = (fewest..=most).map(|sweeps| rows.div_ceil(sweeps).next_multiple_of(chunk_rows));
        cuts.min_by_key(cost).map_or(cached_rows, |sweep| sweep.min(cached_rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the products of the real model, two tiles and 1,024 rows of a prompt at a time: q, k, v and out_proj,
    /// fc1, fc2; then qkv_proj, o_proj, gate_up_proj and down_proj. The number of cached rows follows from the
    /// columns, 1,024 to 8,192.
    fn products(chunk_rows: usize) -> [Sweeps; 7] {
        let of = |rows, bytes: usize, tasks| {
            let cached_rows = ((4 << 20) / bytes).next_multiple_of(chunk_rows);
            Sweeps { rows, cached_rows, chunk_rows, tasks }
        };
        [
            of(1154, 1280, 16),
            of(1154, 1280, 32),
            of(1154, 5120, 16),
            of(1024, 3840, 144),
            of(1024, 3840, 48),
            of(1024, 3840, 64),
            of(1024, 10_240, 48),
        ]
    }

    fn tasks(product: Sweeps, threads: usize) -> usize {
        product.tasks * product.rows.div_ceil(product.rows_for(threads))
    }

    /// Returns the fraction of the time that threads are busy if each takes the next task when it is free.
    fn share(product: Sweeps, threads: usize) -> f64 {
        let sweep = product.rows_for(threads);
        let mut busy = vec![0; threads];
        for first in (0..product.rows).step_by(sweep) {
            for _ in 0..product.tasks {
                let free = busy.iter_mut().min().unwrap();
                *free += sweep.min(product.rows - first);
            }
        }
        (product.rows * product.tasks) as f64 / (threads * busy.iter().max().unwrap()) as f64
    }

    #[test]
    fn few_threads_sweep_all_that_the_cache_holds() {
        for chunk_rows in [18, 36, 64] {
            for product in products(chunk_rows) {
                for threads in [1, 2] {
                    assert_eq!(product.rows_for(threads), product.cached_rows, "{product:?}");
                }
            }
        }
    }

    #[test]
    fn tasks_feed_all_threads() {
        let counts = |threads: usize| products(18).map(|product| tasks(product, threads));
        assert_eq!(counts(2), [16, 32, 32, 144, 48, 64, 144]);
        assert_eq!(counts(8), [80, 160, 80, 144, 144, 64, 144]);
        assert_eq!(counts(24), [96, 192, 96, 432, 144, 192, 144]);
        assert_eq!(counts(48), [96, 192, 96, 432, 144, 192, 144]);
        assert_eq!(counts(96), [176, 192, 176, 864, 576, 768, 576]);
        for product in products(18) {
            for threads in 1..=96 {
                let share = share(product, threads);
                assert!(share > 0.8, "{product:?} on {threads} threads: {share}");
            }
        }
    }

    #[test]
    fn sweeps_are_whole_chunks_that_the_cache_holds() {
        for (rows, cached_rows, tasks) in [(19, 18, 1), (100, 3276, 1), (577, 36, 3), (5000, 414, 7)] {
            for threads in [1, 2, 3, 64, 1024] {
                let sweep = Sweeps { rows, cached_rows, chunk_rows: 18, tasks }.rows_for(threads);
                assert!(sweep > 0 && sweep <= cached_rows && sweep.is_multiple_of(18), "{rows}: {sweep}");
            }
        }
    }
}
