//! Work that is shared by threads which are there for it alone.

use std::sync::{Mutex, PoisonError};

/// Calls `work` on up to `threads` threads, the caller's among them. Where the system has no more of them, those that there are do
/// it all: `work` takes what is left to do, until nothing is.
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

/// Does `work` for each of `items`, on up to `threads` threads.
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
