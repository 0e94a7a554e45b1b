//! The default number of threads of a pool: one per physical core, without the small cores of a mixed processor. A
//! loop ends when its slowest task does, and a core at a third of the others' speed delays all of them.

#[cfg(any(test, target_os = "macos"))]
mod apple;
#[cfg(not(any(target_os = "macos", windows)))]
mod linux;
#[cfg(any(test, windows))]
mod windows;

/// Returns one thread per core that is not small and that this process may use.
pub(crate) fn default_threads() -> usize {
    // a container may be allowed the time of fewer processors than it sees
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores().map_or(allowed, |cores| cores.min(allowed)).max(1)
}

/// Returns the bytes of all the largest caches together; `None` if the system does not report them.
pub(crate) fn cache_bytes() -> Option<usize> {
    #[cfg(not(any(target_os = "macos", windows)))]
    return linux::cache_bytes(std::path::Path::new("/sys/devices/system/cpu"));
    #[cfg(any(target_os = "macos", windows))]
    return None;
}

/// Returns the number of cores worth a thread; `None` if the system does not report it.
#[cfg(not(any(target_os = "macos", windows)))]
fn cores() -> Option<usize> {
    let path = std::path::Path::new;
    linux::cores(path("/sys/devices"), path("/proc/thread-self/status"))
}

/// Returns the number of cores worth a thread; `None` if the system does not report it.
#[cfg(windows)]
fn cores() -> Option<usize> {
    windows::cores(&windows::told()?, windows::allowed())
}

/// Returns the number of cores worth a thread; `None` if the system does not report it.
#[cfg(target_os = "macos")]
fn cores() -> Option<usize> {
    apple::cores(apple::levels()).or_else(|| apple::number(c"hw.physicalcpu"))
}
