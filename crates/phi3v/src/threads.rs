//! Work that is shared by threads started only for it.

use std::sync::{Mutex, PoisonError};

/// Calls `work` on up to `threads` threads, including the caller's. If the system cannot start all of them, the threads that
/// exist do everything: `work` must take items until none are left.
pub(crate) fn together(threads: usize, work: impl Fn() + Sync) {
    let work = &work;
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

/// Runs `work` for each of `items`, on up to `threads` threads.
pub(crate) fn for_each<T: Send>(
    threads: usize,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) + Sync,
) {
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    together(threads, || {
        while let Some(item) = next() {
            work(item);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn each_item_is_worked_on_once_however_many_threads_there_are() {
        for threads in [0, 1, 3, 8] {
            let counts = [(); 20].map(|()| AtomicUsize::new(0));
            for_each(threads, counts.iter(), |count| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} threads");
        }
    }
}
