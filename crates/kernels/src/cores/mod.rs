//! How many threads a pool has unless told otherwise: one per physical core, the small ones of a mixed processor left
//! out. Loops end when their slowest task does, and a core at a third of the others' speed holds up all of them.

#[cfg(any(test, target_os = "macos"))]
mod apple;
#[cfg(not(any(target_os = "macos", windows)))]
mod linux;
#[cfg(any(test, windows))]
mod windows;

/// One thread per core that computes best and that this process may use.
pub(crate) fn default_threads() -> usize {
    // a container may be allowed the time of fewer processors than it sees
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores().map_or(allowed, |cores| cores.min(allowed)).max(1)
}

/// Bytes that the largest caches hold, all of them together; `None` where the system does not tell.
pub(crate) fn cache_bytes() -> Option<usize> {
    #[cfg(not(any(target_os = "macos", windows)))]
    return linux::cache_bytes(std::path::Path::new("/sys/devices/system/cpu"));
    #[cfg(any(target_os = "macos", windows))]
    return None;
}

/// Cores worth a thread; `None` where the system does not tell.
#[cfg(not(any(target_os = "macos", windows)))]
fn cores() -> Option<usize> {
    let path = std::path::Path::new;
    linux::cores(path("/sys/devices"), path("/proc/thread-self/status"))
}

/// Cores worth a thread; `None` where the system does not tell.
#[cfg(windows)]
fn cores() -> Option<usize> {
    windows::cores(&windows::told()?, windows::allowed())
}

/// Cores worth a thread; `None` where the system does not tell.
#[cfg(target_os = "macos")]
fn cores() -> Option<usize> {
    apple::cores(apple::levels()).or_else(|| apple::number(c"hw.physicalcpu"))
}
