//! Keeps this process' memory to itself: no core file, no debugger of the same user, and a word about locked keys.

use sepal_database::locked_memory;

/// Called by `sepal serve` before any key is read. What the system refuses is logged, not fatal: a server that protects
/// a little less is better than none.
pub fn keep_memory_private() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit reads the struct it is given; prctl with these arguments takes no pointer.
    let (limited, hidden) = unsafe {
        (libc::setrlimit(libc::RLIMIT_CORE, &raw const none), libc::prctl(libc::PR_SET_DUMPABLE, 0))
    };
    if limited != 0 || hidden != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "the process may leave a core file, or be looked into by others of its user");
    }
}

/// Called when the server is up, with all keys that it begins with in memory.
pub fn warn_of_unlocked_keys() {
    let memory = locked_memory();
    if memory.unlocked > 0 {
        tracing::warn!(
            pages = memory.pages,
            unlocked = memory.unlocked,
            "keys may reach the swap: raise the limit of locked memory (`ulimit -l`, LimitMEMLOCK= of systemd)"
        );
    }
}
